# MMSegmentation's file of this name, found by its module: `mmseg::` asks for a distribution called
# mmsegmentation, which not every build of it is.
_base_ = __import__("mmseg").__path__[0] + "/.mim/configs/_base_/models/upernet_r50.py"
