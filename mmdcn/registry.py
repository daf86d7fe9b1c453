"""Registries of mmdcn: children of MMEngine's root registries with the scope ``mmdcn``.

A config of any OpenMMLab project reaches them by prefix, e.g. ``type='mmdcn.DCNv2'``: MMEngine
imports this module when it meets the prefix, and ``locations`` on the first look-up in a registry.

So this import is also what makes MMEngine load checkpoints safely, see
:mod:`mmdcn.checkpoints.mmengine_loader`, and find mmdcn's configs, see :mod:`mmdcn.base_configs`.
"""

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import STRATEGIES as MMENGINE_STRATEGIES
from mmengine.registry import TASK_UTILS as MMENGINE_TASK_UTILS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

from mmdcn import base_configs
from mmdcn.checkpoints import mmengine_loader  # noqa: F401 (for its effect)

base_configs.install()

# Layers and backbones.
MODELS = Registry("model", parent=MMENGINE_MODELS, scope="mmdcn", locations=["mmdcn.models"])
# What a detector's training is made of: samplers.
TASK_UTILS = Registry(
    "task util",
    parent=MMENGINE_TASK_UTILS,
    scope="mmdcn",
    locations=["mmdcn.models.task_modules"],
)
# Hooks of the training loop.
HOOKS = Registry("hook", parent=MMENGINE_HOOKS, scope="mmdcn", locations=["mmdcn.engine"])
# What happens around an optimizer's step, e.g. mixed precision.
OPTIM_WRAPPERS = Registry(
    "optim_wrapper", parent=MMENGINE_OPTIM_WRAPPERS, scope="mmdcn", locations=["mmdcn.engine"]
)
# How parameters are grouped for the optimizer, e.g. layer-wise learning rates.
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    "optimizer wrapper constructor",
    parent=MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS,
    scope="mmdcn",
    locations=["mmdcn.engine"],
)
# How a model is spread over devices.
STRATEGIES = Registry(
    "strategy", parent=MMENGINE_STRATEGIES, scope="mmdcn", locations=["mmdcn.engine.sharding"]
)
# Data sets, the steps of their pipelines, and what is measured on them.
DATASETS = Registry(
    "dataset", parent=MMENGINE_DATASETS, scope="mmdcn", locations=["mmdcn.datasets.registered"]
)
TRANSFORMS = Registry(
    "transform", parent=MMENGINE_TRANSFORMS, scope="mmdcn", locations=["mmdcn.datasets.registered"]
)
METRICS = Registry(
    "metric", parent=MMENGINE_METRICS, scope="mmdcn", locations=["mmdcn.datasets.registered"]
)
