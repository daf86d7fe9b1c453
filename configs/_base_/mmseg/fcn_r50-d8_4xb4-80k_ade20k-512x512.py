# MMSegmentation's file of this name, found by its module: `mmseg::` asks for a distribution called
# mmsegmentation, which not every build of it is.
_base_ = __import__("mmseg").__path__[0] + "/.mim/configs/fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py"
