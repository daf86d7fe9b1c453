# README.md says how to make the file that the training starts from.
_base_ = "./dino-4scale_internimage-h_20k_objects365-to-coco.py"

model = dict(
    type="mmdcn.CBDINO",
    backbone=dict(type="mmdcn.CBInternImage"),
    bbox_head=dict(type="mmdcn.CBDINOHead"),
)

load_from = "checkpoints/dino-4scale_cb-internimage-h_objects365.pth"
