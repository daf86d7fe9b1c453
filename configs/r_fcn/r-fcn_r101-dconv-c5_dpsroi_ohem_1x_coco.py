# The model of the paper's experiments: only conv5 is deformable, in four groups.
_base_ = "./r-fcn_r101-dconv-c3-c5_dpsroi_ohem_1x_coco.py"

model = dict(backbone=dict(dcn=dict(deform_groups=4), stage_with_dcn=(False, False, False, True)))
