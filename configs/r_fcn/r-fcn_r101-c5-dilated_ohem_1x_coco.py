_base_ = "./r-fcn_r50-c5-dilated_ohem_1x_coco.py"

model = dict(
    backbone=dict(
        depth=101,
        init_cfg=dict(checkpoint="https://download.pytorch.org/models/resnet101-63fe2227.pth"),
    )
)
