_base_ = "./upernet_internimage.py"

model = dict(backbone=dict(type="mmdcn.FlashInternImage"))
