"""Checkpoint files: written whole, loaded without running code, compared with a model by key.

Nothing but torch is needed here; the files of MMEngine's runner also need MMEngine.
"""

from mmdcn.checkpoints.files import CheckpointError, load_checkpoint_file, open_replacing
from mmdcn.checkpoints.keys import (
    described,
    find_state_dict,
    misfit,
    rename_old_offset_keys,
    shown,
)

__all__ = [
    "CheckpointError",
    "described",
    "find_state_dict",
    "load_checkpoint_file",
    "misfit",
    "open_replacing",
    "rename_old_offset_keys",
    "shown",
]
