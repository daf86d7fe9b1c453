# Mask2Former on InternImage for ADE20K. The configs add the size of the backbone, the channels of
# its features and the size of the crops.
custom_imports = dict(imports=["mmdcn.models.heads.mask2former"], allow_failed_imports=False)

num_classes = 150
width = 256
attention = dict(embed_dims=width, num_heads=8)
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
    ),
    backbone=dict(type="mmdcn.InternImage", init_cfg=dict(type="Pretrained")),
    decode_head=dict(
        type="mmdcn.Mask2FormerHead",
        strides=[4, 8, 16, 32],
        feat_channels=width,
        out_channels=width,
        num_classes=num_classes,
        num_queries=200,
        pixel_decoder=dict(
            type="mmdet.MSDeformAttnPixelDecoder",
            num_outs=3,
            encoder=dict(
                num_layers=6,
                layer_cfg=dict(
                    self_attn_cfg=dict(
                        num_levels=3, num_points=4, im2col_step=64, dropout=0.0, **attention
                    ),
                    ffn_cfg=dict(embed_dims=width, feedforward_channels=2048, ffn_drop=0.0),
                ),
            ),
            positional_encoding=dict(num_feats=width // 2, normalize=True),
        ),
        positional_encoding=dict(num_feats=width // 2, normalize=True),
        transformer_decoder=dict(
            return_intermediate=True,
            num_layers=9,
            layer_cfg=dict(
                self_attn_cfg=dict(attention),
                cross_attn_cfg=dict(attention),
                ffn_cfg=dict(embed_dims=width, feedforward_channels=2048, ffn_drop=0.0),
            ),
            init_cfg=None,
        ),
        loss_cls=dict(
            type="mmdet.CrossEntropyLoss",
            loss_weight=2.0,
            class_weight=[1.0] * num_classes + [0.1],
        ),
        loss_mask=dict(type="mmdet.CrossEntropyLoss", use_sigmoid=True, loss_weight=5.0),
        loss_dice=dict(type="mmdet.DiceLoss", naive_dice=True, eps=1.0, loss_weight=5.0),
        train_cfg=dict(
            num_points=12544,
            oversample_ratio=3.0,
            importance_sample_ratio=0.75,
            assigner=dict(
                type="mmdet.HungarianAssigner",
                match_costs=[
                    dict(type="mmdet.ClassificationCost", weight=2.0),
                    dict(type="mmdet.CrossEntropyLossCost", weight=5.0, use_sigmoid=True),
                    dict(type="mmdet.DiceCost", weight=5.0, pred_act=True, eps=1.0),
                ],
            ),
            sampler=dict(type="mmdet.MaskPseudoSampler"),
        ),
    ),
    test_cfg=dict(mode="whole"),
)
