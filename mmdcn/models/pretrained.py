"""Loading of official backbone checkpoints, with an account of every key."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import urlparse

from mmengine.dist import barrier, get_local_rank
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.hub import load_state_dict_from_url

from mmdcn.engine.checkpoint import CheckpointError, load_checkpoint_file

SHOWN_KEYS = 5


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
        entries: Names under which a file may hold the state dict, the first one found is used.
        may_be_missing: Last components of keys that the file may lack, ``"gamma1"`` for instance.
        may_be_unexpected: First components of keys that the file may have in addition.

    Raises:
        CheckpointError: The file is not whole or not safe, or has other keys or shapes.
    """
    state_dict = _backbone_part(find_state_dict(_load(checkpoint), checkpoint, entries))
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


def misfit(
    own: Mapping[str, Tensor],
    state_dict: Mapping[str, Tensor],
    may_be_missing: Sequence[str] = (),
    may_be_unexpected: Sequence[str] = (),
) -> str:
    """In which keys and shapes a state dict differs from a model's `own`; empty if it fits.

    Args:
        may_be_missing, may_be_unexpected: As in :func:`load_backbone_weights`.
    """
    missing = [key for key in own if key not in state_dict]
    unexpected = [key for key in state_dict if key not in own]
    differences = {
        "keys missing": [key for key in missing if key.split(".")[-1] not in may_be_missing],
        "unexpected keys": [k for k in unexpected if k.split(".")[0] not in may_be_unexpected],
        "other shapes": [
            f"{key} ({tuple(state_dict[key].shape)} in the file, {tuple(own[key].shape)} here)"
            for key in own
            if key in state_dict and state_dict[key].shape != own[key].shape
        ],
    }
    return "; ".join(f"{kind}: {shown(keys)}" for kind, keys in differences.items() if keys)


def _load(checkpoint: str) -> object:
    if urlparse(checkpoint).scheme not in ("http", "https"):
        return load_checkpoint_file(checkpoint, map_location="cpu")
    if get_local_rank() != 0:  # one process of a machine downloads, the others find the file
        barrier()
    try:
        content = load_state_dict_from_url(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(f"checkpoint {checkpoint} could not be loaded: {error}") from error
    finally:
        if get_local_rank() == 0:
            barrier()
    return content


def find_state_dict(content: object, checkpoint: str, entries: Iterable[str]) -> dict[str, Tensor]:
    """The state dict in what a checkpoint file holds, without a leading ``module.`` of its keys.

    Args:
        content: What the file holds.
        checkpoint: Its name, for error messages.
        entries: As in :func:`load_backbone_weights`.

    Raises:
        CheckpointError: There is none, or it holds something else than tensors.
    """
    if isinstance(content, dict):
        content = next((content[entry] for entry in entries if entry in content), content)
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"checkpoint {checkpoint}: it holds no state dict")
    for key, value in content.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"checkpoint {checkpoint}: expected tensors only, got {type(value).__name__} "
                f"under {key!r}"
            )
    return {key.removeprefix("module."): value for key, value in content.items()}


def _backbone_part(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    prefix = "backbone."
    if any(key.startswith(prefix) for key in state_dict):  # the others are necks and heads
        return {k.removeprefix(prefix): v for k, v in state_dict.items() if k.startswith(prefix)}
    return state_dict


def shown(keys: Sequence[str]) -> str:
    """The first of some keys, as text."""
    more = f" and {len(keys) - SHOWN_KEYS} more" if len(keys) > SHOWN_KEYS else ""
    return (", ".join(keys[:SHOWN_KEYS]) or "none") + more
