"""Whether the weights of a checkpoint are those of a model, asked while they are loaded.

MMEngine loads what has the right name and shape and warns of the rest, so a checkpoint of another
model gives random predictions. Here they are an error, unless the run is to train them further.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from mmengine.logging import print_log
from mmengine.runner import checkpoint as mmengine_checkpoint
from torch import Tensor, nn

from mmdcn.checkpoints import CheckpointError, described, rename_old_offset_keys
from mmdcn.engine.wrappers import unwrapped

_load_state_dict = mmengine_checkpoint.load_state_dict

# Parts that add outputs or losses and leave the other outputs as they are: a model may do without.
OPTIONAL_PARTS = ("auxiliary_head", "mask_head", "mask_iou_head", "data_preprocessor")
COUNTER = "num_batches_tracked"  # which old files lack, and which nothing but a log would show
SIZES = re.compile(
    r"size mismatch for (\S+): copying a param with shape torch\.Size\((\[.*?\])\) .*?"
    r"torch\.Size\((\[.*?\])\)"
)


@dataclass
class Purpose:
    """What the weights of a file are loaded for."""

    checkpoint: str
    whole: bool  # all weights of the model are needed, and no others are expected


_purpose: Purpose | None = None


@contextmanager
def loading(checkpoint: str | None, whole: bool) -> Iterator[None]:
    """Judge the weights that are loaded into a model inside of the block.

    Args:
        checkpoint: Name of the file, for messages; None if there is none to load.
        whole: Whether the file must hold all weights of the model and no others. If not, to train
            them further, it must hold some, and the others are counted in a warning.

    Raises:
        CheckpointError: The weights are not those of the model.
    """
    global _purpose
    previous, _purpose = _purpose, Purpose(str(checkpoint), whole)
    try:
        yield
    finally:
        _purpose = previous


def load_state_dict(module: nn.Module, state_dict: Mapping[str, Tensor], *args, **kwargs) -> None:
    """MMEngine's function, which also takes the offset keys of early MMDetection checkpoints.

    Inside of :func:`loading`, weights that are not those of the model raise CheckpointError.
    """
    model = unwrapped(module)
    own = model.state_dict()
    state_dict = rename_old_offset_keys(state_dict, own)
    if _purpose is None:
        _load_state_dict(module, state_dict, *args, **kwargs)
        return
    _require_tensors(state_dict)
    found, sizes = [], {}
    # Modules rename keys of older versions while they load, so their own account is asked for.
    handle = model.register_load_state_dict_post_hook(lambda _, keys: found.append(keys))
    try:
        model.load_state_dict(state_dict, strict=False)
    except RuntimeError as error:
        sizes = {
            key: f"{key} ({a} in the file, {b} here)" for key, a, b in SIZES.findall(str(error))
        }
        if not sizes:
            raise
    finally:
        handle.remove()
    judge(own, found[0].missing_keys, found[0].unexpected_keys, sizes)


def judge(
    own: Collection[str],
    missing: Collection[str],
    unexpected: Collection[str],
    sizes: Mapping[str, str],
) -> None:
    """Say how the keys of a file differ from those of a model, for the purpose of :func:`loading`.

    Args:
        own: Keys of the model.
        missing: Keys of the model that the file lacks.
        unexpected: Keys of the file that the model lacks.
        sizes: Description of the shapes by key, where these differ.

    Raises:
        CheckpointError: The weights are not those of the model.
    """
    if _purpose is None:
        return
    missing = [key for key in missing if not key.endswith(COUNTER)]
    unexpected = [key for key in unexpected if not _is_optional(key, own)]
    problem = described(
        {"keys missing": missing, "unexpected keys": unexpected, "other shapes": [*sizes.values()]}
    )
    total = sum(not key.endswith(COUNTER) for key in own)
    fitting = total - len(missing) - len(sizes)
    counts = f"{fitting} of {total} weights of the model are in the file"
    if problem and _purpose.whole or fitting <= 0 < total:
        raise CheckpointError(
            f"checkpoint {_purpose.checkpoint}: it is of another model than the config: {counts}; "
            f"{problem or 'no keys'}"
        )
    if problem:
        text = f"checkpoint {_purpose.checkpoint}: {counts}, the others start anew; {problem}"
        print_log(text, logger="current", level=logging.WARNING)


def _is_optional(key: str, own: Collection[str]) -> bool:
    if key.endswith(COUNTER) or (key.startswith("ema_") and "." not in key):
        return True  # MMDetection 2.x keeps averages like that
    parts = [part for part in key.split(".") if part in OPTIONAL_PARTS]
    return any(not any(part in other.split(".") for other in own) for part in parts)


def _require_tensors(state_dict: Mapping[str, Tensor]) -> None:
    for key, value in state_dict.items():
        if not isinstance(value, Tensor) and not key.endswith("_extra_state"):
            raise CheckpointError(
                f"checkpoint {_purpose.checkpoint}: expected tensors only, got "
                f"{type(value).__name__} under {key!r}"
            )


@contextmanager
def explaining(checkpoint: str | None) -> Iterator[None]:
    """Turn what a damaged or foreign training state raises into one line.

    Raises:
        CheckpointError: Loading raised something else, except for a lack of memory.
    """
    try:
        yield
    except (CheckpointError, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or ["no further detail"]
        raise CheckpointError(
            f"checkpoint {checkpoint}: its state does not fit this run: "
            f"{type(error).__name__}: {lines[0]}"
        ) from error
