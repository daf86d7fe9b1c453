"""What stands around a model in a run."""

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside of wrappers for several processes, test-time augmentation, or both."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model
