"""Going on with a run: which checkpoint to take, and whether one is enough to go on from."""

import logging
import os
import re
import zipfile
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.logging import print_log

from mmdcn.checkpoints import CheckpointError, load_checkpoint_file

# What a run needs in addition to the weights.
STATE = ("meta", "message_hub", "optimizer")


def why_not_resumable(content: object, needed: tuple[str, ...] = STATE) -> str:
    """What a checkpoint lacks to resume a run from it; empty if nothing.

    Args:
        content: What the file holds.
        needed: Names of the states that it must have.
    """
    if not isinstance(content, dict) or "state_dict" not in content:
        return "it is not one of a training run"
    if missing := [name for name in needed if name not in content]:
        return f"it has no {', '.join(missing)}, so it holds weights alone; use load_from for these"
    for name in ("meta", "message_hub", "optimizer"):
        if not isinstance(content[name], dict):
            return f"{name}: a dict was expected, got {type(content[name]).__name__}"
    for name in ("epoch", "iter"):
        value = content["meta"].get(name)
        if not isinstance(value, int) or value < 0:
            return f"meta.{name}: the number of those that are done was expected, got {value!r}"
    return ""


class ResumeCheckHook(Hook):
    """Says in one line why a run cannot be resumed from a checkpoint.

    Raises:
        CheckpointError: The checkpoint lacks what a run needs.
    """

    priority = "HIGHEST"

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        if not runner._resume:
            return
        schedulers = getattr(runner, "param_schedulers", None)
        needed = (*STATE, "param_schedulers") if schedulers else STATE
        if problem := why_not_resumable(checkpoint, needed):
            raise CheckpointError(
                f"checkpoint {runner._load_from}: a run cannot be resumed from it: {problem}"
            )
        # The runner would run this text, a Python program, to look for a setting of old times.
        checkpoint["meta"].pop("config", None)


def find_resumable(work_dir: str | Path) -> Path | None:
    """The latest whole training checkpoint of a work folder.

    Files that are not whole are named in a warning and passed over.

    Args:
        work_dir: Folder with the ``epoch_*.pth`` or ``iter_*.pth`` files of a training run.

    Returns:
        Path of the checkpoint to resume from; None if there is none.
    """
    for path in _candidates(Path(work_dir)):
        try:
            # With mmap the tensors stay on disk.
            checkpoint = load_checkpoint_file(path, "cpu", mmap=zipfile.is_zipfile(path))
        except CheckpointError as error:
            print_log(f"Passed over for resuming: {error}", logger="current", level=logging.WARNING)
            continue
        if not (problem := why_not_resumable(checkpoint)):
            return path
        print_log(
            f"Passed over for resuming: checkpoint {path}: {problem}",
            logger="current",
            level=logging.WARNING,
        )
    return None


def how_to_go_on(work_dir: str | Path) -> str:
    """What to tell who has stopped a training run."""
    if _candidates(Path(work_dir)):
        return f"stopped: go on from the last checkpoint in {work_dir} with --resume"
    return f"stopped: there is no checkpoint in {work_dir} yet, so a run can only start anew"


def _candidates(work_dir: Path) -> list[Path]:
    """Training checkpoints of a folder, the one to try first at the front."""
    steps = {}
    for path in work_dir.glob("*.pth"):
        match = re.fullmatch(r"(?:epoch|iter)_(\d+)", path.stem)
        if match and path.is_file():
            steps[path] = int(match[1])
    # A kill can strike after a checkpoint was written and before its name is written here.
    note = work_dir / "last_checkpoint"
    named = os.fsdecode(note.read_bytes()).strip() if note.is_file() else ""
    last = work_dir / Path(named).name

    def rank(path: Path) -> tuple:
        written = path.stat().st_mtime
        further = last not in steps or (
            steps[path] > steps[last] and written >= last.stat().st_mtime
        )
        return further, path == last, written

    return sorted(steps, key=rank, reverse=True)
