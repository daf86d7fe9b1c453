# Each GPU holds a share of the parameters, gradients and optimizer states.
_base_ = "./dino-4scale_internimage-h_20k_objects365-to-coco.py"

runner_type = "FlexibleRunner"
# "full": checkpoints are single files, which other configs load, too
strategy = dict(type="mmdcn.FSDPStrategy", state_dict_cfg="full")
# with save_best this runner writes a checkpoint again after the validation, one iteration too far
default_hooks = dict(checkpoint=dict(save_best=None))
