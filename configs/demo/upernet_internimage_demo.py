_base_ = "./upernet_r50_demo.py"

custom_imports = dict(imports=["mmdcn.models"], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type="mmdcn.InternImage",
        channels=32,
        depths=(2, 2, 6, 2),
        groups=(2, 4, 8, 16),
        layer_scale=1.0,
        drop_path_rate=0.1,
    ),
    decode_head=dict(in_channels=[32, 64, 128, 256]),
    auxiliary_head=dict(in_channels=128),
)
