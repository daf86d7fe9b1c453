"""State dicts: where a file keeps them, and whether their keys are those of a model."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence

from torch import Tensor

from mmdcn.checkpoints.files import CheckpointError

SHOWN_KEYS = 5


def find_state_dict(content: object, checkpoint: str, entries: Iterable[str]) -> dict[str, Tensor]:
    """The state dict in what a checkpoint file holds, without a leading ``module.`` of its keys.

    Args:
        content: What the file holds.
        checkpoint: Its name, for error messages.
        entries: Names under which a file may hold the state dict, the first one found is used;
            without any of them, the file is a state dict.

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


def misfit(
    own: Mapping[str, Tensor],
    state_dict: Mapping[str, Tensor],
    may_be_missing: Sequence[str] = (),
    may_be_unexpected: Sequence[str] = (),
) -> str:
    """In which keys and shapes a state dict differs from a model's `own`; empty if it fits.

    Args:
        own: State dict of the model.
        state_dict: The one to compare with it.
        may_be_missing: Last components of keys that it may lack, ``"gamma1"`` for instance.
        may_be_unexpected: First components of keys that it may have in addition.
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
    return described(differences)


def described(differences: Mapping[str, Sequence[str]]) -> str:
    """The first keys of every kind of difference, as text; empty if there is none."""
    return "; ".join(f"{kind}: {shown(keys)}" for kind, keys in differences.items() if keys)


def shown(keys: Sequence[str]) -> str:
    """The first of some keys, as text."""
    more = f" and {len(keys) - SHOWN_KEYS} more" if len(keys) > SHOWN_KEYS else ""
    return (", ".join(keys[:SHOWN_KEYS]) or "none") + more


def rename_old_offset_keys(
    state_dict: Mapping[str, Tensor], own: Collection[str]
) -> OrderedDict[str, Tensor]:
    """Give the offset convolutions of an early checkpoint of MMDetection the keys of today.

    Early MMDetection keeps the convolution that predicts the offsets of ``conv2`` beside it, as
    ``conv2_offset``; here, as in MMCV, it is a part of it, ``conv2.conv_offset``. So::

        model.load_state_dict(rename_old_offset_keys(weights, model.state_dict()))

    Args:
        state_dict: Of an early or any other checkpoint; it is not changed.
        own: Keys of the model, or its state dict. Only a key that the model has under its new name,
            and not under its old one, is renamed.

    Returns:
        A state dict with the same values in the same order.
    """
    today = {}
    for new in own:
        name, is_offset, leaf = new.rpartition(".conv_offset.")
        old = f"{name}_offset.{leaf}"
        if is_offset and new not in state_dict and old not in own:
            today[old] = new
    renamed = OrderedDict((today.get(key, key), value) for key, value in state_dict.items())
    if hasattr(state_dict, "_metadata"):  # the versions of the modules, as PyTorch saves them
        renamed._metadata = state_dict._metadata
    return renamed
