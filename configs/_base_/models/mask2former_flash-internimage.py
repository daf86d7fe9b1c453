_base_ = "./mask2former_internimage.py"

model = dict(backbone=dict(type="mmdcn.FlashInternImage"))
