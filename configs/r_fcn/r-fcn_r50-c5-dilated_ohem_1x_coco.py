_base_ = "./r-fcn_r50-c5-dilated_1x_coco.py"

custom_imports = dict(
    imports=["mmdcn.models.heads.r_fcn", "mmdcn.models.task_modules"], allow_failed_imports=False
)

# the 128 regions of an image that have the largest loss
model = dict(
    train_cfg=dict(rcnn=dict(sampler=dict(_delete_=True, type="mmdcn.OHEMSampler", num=128)))
)
