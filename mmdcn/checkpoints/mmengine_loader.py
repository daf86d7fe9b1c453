"""MMEngine's loading of checkpoints, by path and by URL, without running code from them.

MMEngine's own loader turns to an unrestricted unpickler where a file holds more than it expects,
and ``init_detector``, ``init_model``, runners and ``init_cfg`` all go through it. :func:`protect`
puts :func:`mmdcn.checkpoints.load_checkpoint_file` in its place.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier
from mmengine.runner import checkpoint as mmengine_checkpoint

from mmdcn.checkpoints.files import CheckpointError, load_checkpoint_file

# PyTorch's own switch for people who trust all their files.
UNRESTRICTED = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


def load_from_local(filename: str | Path, map_location: Any = None) -> dict:
    """MMEngine's loader of paths, by :func:`mmdcn.checkpoints.load_checkpoint_file`.

    Raises:
        CheckpointError: The file is missing, not whole or not safe, or holds no state dict.
    """
    content = load_checkpoint_file(filename, map_location)
    weights = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(key, str) for key in weights):
        raise CheckpointError(f"checkpoint {filename}: it holds no state dict")
    if not isinstance(content.get("meta", {}), dict):
        raise CheckpointError(f"checkpoint {filename}: its 'meta' is not a dict")
    return content


def load_from_http(
    filename: str,
    map_location: Any = None,
    model_dir: str | None = None,
    progress: bool | None = None,
) -> dict:
    """MMEngine's loader of URLs: one process of a machine downloads, and all load the file.

    Args:
        filename: ``http(s)`` URL.
        map_location: As in :func:`torch.load`.
        model_dir: Folder for the file, by default ``checkpoints`` in :func:`torch.hub.get_dir`.
        progress: Whether to draw a progress bar, by default on a terminal.

    Raises:
        CheckpointError: It cannot be downloaded, or as in :func:`load_from_local`.
    """
    folder = Path(model_dir or Path(torch.hub.get_dir(), "checkpoints"))
    path = folder / os.path.basename(urlparse(filename).path)
    try:
        if os.environ.get("LOCAL_RANK", "0") == "0" and not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            progress = os.isatty(2) if progress is None else progress
            torch.hub.download_url_to_file(filename, str(path), progress=progress)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"checkpoint {filename}: it cannot be downloaded: {error}; with the file at hand, name "
            "it instead, for instance with --cfg-options load_from=FILE"
        ) from error
    finally:
        barrier()
    return load_from_local(path, map_location)


def protect() -> None:
    """Make MMEngine load checkpoints safely in this process.

    Loading by other means, :func:`torch.load` for instance, stays as it is.
    """
    register = mmengine_checkpoint.CheckpointLoader.register_scheme
    register(prefixes="", loader=load_from_local, force=True)
    register(prefixes=("http://", "https://"), loader=load_from_http, force=True)
    # what `torchvision://`, `open-mmlab://` and `mmcls://` call
    mmengine_checkpoint.load_from_http = load_from_http


if os.environ.get(UNRESTRICTED, "0") not in ("1", "y", "yes", "true"):
    protect()
