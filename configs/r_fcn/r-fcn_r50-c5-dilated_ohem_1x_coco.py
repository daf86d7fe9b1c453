_base_ = "./r-fcn_r50-c5-dilated_1x_coco.py"

# the 128 proposals of an image that have the largest loss
model = dict(train_cfg=dict(rcnn=dict(sampler=dict(type="OHEMSampler"))))
