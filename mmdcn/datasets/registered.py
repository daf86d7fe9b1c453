"""What configs can name, as far as the installed toolboxes allow."""

from importlib import import_module
from importlib.util import find_spec

for toolbox, module in (("mmcv", "image_loading"), ("mmseg", "loading"), ("mmdet", "coco")):
    if find_spec(toolbox):
        import_module(f"mmdcn.datasets.{module}")
