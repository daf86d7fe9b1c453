"""Loading of official backbone checkpoints, with an account of every key."""

import logging
from collections.abc import Sequence
from urllib.parse import urlparse

from mmengine.logging import print_log
from torch import Tensor, nn

from mmdcn.checkpoints import (
    CheckpointError,
    find_state_dict,
    load_checkpoint_file,
    misfit,
    shown,
)
from mmdcn.checkpoints.mmengine_loader import load_from_http


def load_backbone_weights(
    model: nn.Module,
    checkpoint: str,
    entries: Sequence[str],
    may_be_missing: Sequence[str] = (),
    may_be_unexpected: Sequence[str] = (),
) -> None:
    """Load the weights of a backbone from an official checkpoint file.

    All keys and shapes are compared first: `model` is changed only if they fit.

    Args:
        model: The backbone.
        checkpoint: Path or ``http(s)`` URL. The file holds a state dict, of the backbone alone or
            of a model around it whose keys have ``backbone.`` in front, under one of `entries`
            or at the top. A leading ``module.`` of all keys is dropped.
        entries: As in :func:`mmdcn.checkpoints.find_state_dict`.
        may_be_missing, may_be_unexpected: As in :func:`mmdcn.checkpoints.misfit`.

    Raises:
        CheckpointError: The file is not whole or not safe, or has other keys or shapes.
    """
    is_url = urlparse(checkpoint).scheme in ("http", "https")
    content = (load_from_http if is_url else load_checkpoint_file)(checkpoint, map_location="cpu")
    state_dict = _backbone_part(find_state_dict(content, checkpoint, entries))
    own = model.state_dict()
    unexpected = [key for key in state_dict if key not in own]
    missing = [key for key in own if key not in state_dict]
    if difference := misfit(own, state_dict, may_be_missing, may_be_unexpected):
        raise CheckpointError(
            f"checkpoint {checkpoint} does not fit {type(model).__name__}: {difference}"
        )
    model.load_state_dict({k: v for k, v in state_dict.items() if k in own}, strict=False)
    print_log(
        f"{type(model).__name__}: loaded {len(own) - len(missing)} tensors from {checkpoint}; "
        f"keeps its initial values for {len(missing)} ({shown(missing)}); "
        f"left out {len(unexpected)} of the file ({shown(unexpected)})",
        logger="current",
        level=logging.INFO,
    )


def _backbone_part(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    prefix = "backbone."
    if any(key.startswith(prefix) for key in state_dict):  # the others are necks and heads
        return {k.removeprefix(prefix): v for k, v in state_dict.items() if k.startswith(prefix)}
    return state_dict
