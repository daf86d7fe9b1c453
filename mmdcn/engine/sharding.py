"""Training of models that one device cannot hold: parameters, gradients and states in shards."""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from mmengine._strategy import FSDPStrategy as MMEngineFSDPStrategy
from mmengine.optim import BaseOptimWrapper
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel

from mmdcn.checkpoints import rename_old_offset_keys
from mmdcn.engine.fitting import judge
from mmdcn.engine.optimizers.layer_decay import note_dimensions
from mmdcn.registry import STRATEGIES


def is_unit(module: nn.Module, recurse: bool, nonwrapped_numel: int) -> bool:
    """FSDP's ``auto_wrap_policy``: the parameters of a block are gathered together.

    A class says with ``is_sharding_unit = True`` that its modules are such blocks.
    """
    return recurse or getattr(module, "is_sharding_unit", False)


def clip_sharded_norm(
    params: list[nn.Parameter], max_norm: float, norm_type: float = 2.0
) -> Tensor:
    """:func:`torch.nn.utils.clip_grad_norm_` for parameters whose other shards are elsewhere.

    Args:
        params: What this process holds of the parameters, with gradients.
        max_norm, norm_type: As there.

    Returns:
        Norm of the whole gradient.
    """
    norm = torch.nn.utils.get_total_norm([p.grad for p in params], norm_type)
    if math.isinf(norm_type):
        dist.all_reduce(norm, dist.ReduceOp.MAX)
    else:
        norm = norm.pow(norm_type)
        dist.all_reduce(norm)
        norm = norm.pow(1 / norm_type)
    torch.nn.utils.clip_grads_with_norm_(params, max_norm, norm)
    return norm


@STRATEGIES.register_module()
class FSDPStrategy(MMEngineFSDPStrategy):
    """MMEngine's strategy for FullyShardedDataParallel, with what the recipes here need.

    It also runs on CPUs and resumes with current PyTorch, treats a block of an InternImage as a
    unit and the rest of the model as another, clips by the norm of the whole gradient and not of a
    process's shards, and lets optimizer constructors know which parameters are vectors.

    Arguments are those of :class:`mmengine._strategy.FSDPStrategy`. `model_wrapper` may add some of
    :class:`torch.distributed.fsdp.FullyShardedDataParallel`, ``mixed_precision`` for instance.
    """

    def _wrap_model(self, model: nn.Module) -> nn.Module:
        note_dimensions(model)
        wrapper = dict(type="MMFullyShardedDataParallel", auto_wrap_policy=is_unit)
        if not torch.cuda.is_available():
            wrapper["device_id"] = torch.device("cpu")
            # PyTorch frees what it has gathered before it copies it to the CPU, and copies nothing
            # if it is there already.
            for config in (self.state_dict_config, self.optim_state_dict_config):
                config.offload_to_cpu = False
        self.model_wrapper = wrapper | dict(self.model_wrapper or {})
        return super()._wrap_model(model)

    def load_model_state_dict(self, state_dict: dict, **kwargs) -> None:
        own = dict.fromkeys(self.id_to_name.values())  # parameters before they were flattened
        state_dict = rename_old_offset_keys(state_dict, own)
        names = [name for name, _ in self.model.named_buffers()]
        buffers = {name.replace("_fsdp_wrapped_module.", "") for name in names}
        missing = [key for key in own if key not in state_dict]
        unexpected = [key for key in state_dict if key not in own and key not in buffers]
        judge(own, missing, unexpected, {})
        super().load_model_state_dict(state_dict, **kwargs)

    def build_optim_wrapper(
        self, optim_wrapper: BaseOptimWrapper | dict, model: nn.Module | None = None
    ) -> BaseOptimWrapper:
        built = super().build_optim_wrapper(optim_wrapper, model)
        if getattr(built, "clip_func", None) is torch.nn.utils.clip_grad_norm_:
            built.clip_func = clip_sharded_norm
        return built

    def optim_state_dict(self) -> dict:
        state = FullyShardedDataParallel.optim_state_dict(self.model, self.optim_wrapper.optimizer)
        # the learning rate that the log shows
        state["base_param_settings"] = self.optim_wrapper.base_param_settings
        return state

    def load_optim_state_dict(self, state_dict: dict) -> None:
        base_param_settings = state_dict.pop("base_param_settings", None)
        state = FullyShardedDataParallel.optim_state_dict_to_load(
            self.model, self.optim_wrapper.optimizer, state_dict
        )
        self.optim_wrapper.load_state_dict(state | dict(base_param_settings=base_param_settings))
