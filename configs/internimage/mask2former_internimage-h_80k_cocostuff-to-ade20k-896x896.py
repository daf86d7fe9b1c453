# Fine-tunes on ADE20K a Mask2Former that was trained on COCO-Stuff. README.md says how to make the
# file that it starts from.
_base_ = [
    "../_base_/models/mask2former_internimage.py",
    "../_base_/datasets/ade20k_896x896.py",
    "../_base_/schedules/ade20k_adamw_160k.py",
]

width = 1024
attention = dict(embed_dims=width, num_heads=32)
ffn = dict(embed_dims=width, feedforward_channels=4096)
position = dict(num_feats=width // 2)
model = dict(
    data_preprocessor=dict(size=(896, 896)),
    backbone=dict(arch="huge", drop_path_rate=0.5, init_cfg=None),
    decode_head=dict(
        in_channels=[320, 640, 1280, 2560],
        feat_channels=width,
        out_channels=width,
        pixel_decoder=dict(
            encoder=dict(layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=ffn)),
            positional_encoding=position,
        ),
        positional_encoding=position,
        transformer_decoder=dict(
            layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=ffn)
        ),
    ),
)

load_from = "checkpoints/mask2former_internimage-h_80k_cocostuff164k-896x896.pth"

train_dataloader = dict(batch_size=1)
tta_pipeline = _base_.tta_pipeline
tta_pipeline[1].transforms[0] = [
    dict(type="Resize", scale=(4 * short, short), keep_ratio=True)
    for short in (768, 832, 896, 960, 1024)
]
optim_wrapper = dict(
    optimizer=dict(lr=1e-5),
    paramwise_cfg=dict(layer_decay_rate=0.95),
    clip_grad=dict(max_norm=0.1),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type="PolyLR", eta_min=0, power=1.0, by_epoch=False, begin=0, end=80000),
]
train_cfg = dict(max_iters=80000, val_interval=2000)
