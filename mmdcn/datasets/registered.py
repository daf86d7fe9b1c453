"""What configs can name, as far as the installed toolboxes allow."""

from importlib import import_module
from importlib.util import find_spec

MODULES = dict(mmcv=("image_loading", "image_folder"), mmseg=("loading",), mmdet=("coco",))

for toolbox, modules in MODULES.items():
    if find_spec(toolbox):
        for module in modules:
            import_module(f"mmdcn.datasets.{module}")
