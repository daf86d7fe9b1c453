_base_ = "./dino-4scale_internimage-h_20k_objects365-to-coco.py"

model = dict(
    type="mmdcn.CBDINO",
    backbone=dict(type="mmdcn.CBInternImage"),
    bbox_head=dict(type="mmdcn.CBDINOHead"),
)
