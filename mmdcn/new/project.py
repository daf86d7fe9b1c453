"""What a new project's config consists of, and writing it."""

import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from yapf.yapflib.yapf_api import FormatCode

from mmdcn import __version__
from mmdcn.checkpoints import open_replacing
from mmdcn.new.recipes import Recipe

# A training has at least so many iterations, or a small data set would hardly be learnt.
MIN_ITERATIONS = 1500
STYLE = dict(
    based_on_style="facebook",
    column_limit=88,
    each_dict_entry_on_separate_line=True,
    split_before_first_argument=True,
)


@dataclass
class Machine:
    """What the training will run on."""

    gpus: int
    cores: int

    @staticmethod
    def here() -> "Machine":
        """The machine of this process."""
        return Machine(torch.cuda.device_count(), len(os.sched_getaffinity(0)))

    @property
    def workers(self) -> int:
        """Processes that load images, for each GPU."""
        return max(1, min(4, self.cores // max(self.gpus, 1) - 1))

    def describe(self) -> str:
        """In words."""
        return f"{self.gpus} GPUs" if self.gpus > 1 else "one GPU" if self.gpus else "a CPU"


class Name(str):
    """A variable of the config, in the place of its value."""


@dataclass
class Choice:
    """Settings that differ from the recipe, and what to tell about them."""

    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Tell the user something."""
        self.notes.append(text)


def choose_rate(choice: Choice, recipe: Recipe, machine: Machine, batch_size: int) -> None:
    """Scale the learning rate linearly with the number of images in a step."""
    cfg = recipe.cfg
    base = cfg.get("auto_scale_lr", {}).get("base_batch_size")
    base = base or cfg.train_dataloader.batch_size
    total = batch_size * max(machine.gpus, 1)
    rate = cfg.optim_wrapper.optimizer.lr * total / base
    rate = float(f"{rate:.3g}")
    choice.settings["optim_wrapper"] = dict(optimizer=dict(lr=rate))
    choice.settings["auto_scale_lr"] = dict(base_batch_size=total)
    choice.note(
        f"{batch_size} images at once on {machine.describe()}, {total} in a step; learning rate "
        f"{rate:g} (the recipe has {cfg.optim_wrapper.optimizer.lr:g} for {base})"
    )


def choose_start(choice: Choice, recipe: Recipe) -> None:
    """Start from a published checkpoint of the whole model, if there is one."""
    weights = recipe.published()
    if weights:
        choice.settings["load_from"] = weights
        choice.settings.setdefault("model", {}).setdefault("backbone", {})["init_cfg"] = None
        choice.note(f"starts from {weights}; the layers of other classes start anew")
    elif classifier := recipe.classifier():
        text = f"starts from the classifier {classifier}"
        if recipe.needs_conversion():
            text += "; the published model has to be converted before, see the recipe's README"
        choice.note(text)
    else:
        choice.note("starts from scratch")


def repetitions(images: int, batch_size: int, epochs: int) -> int:
    """How often to repeat a data set in an epoch so that a training is long enough."""
    return max(1, math.ceil(MIN_ITERATIONS * batch_size / (epochs * images)))


def scaled_schedule(schedulers: list[dict], old: int, new: int) -> list[dict]:
    """The same course of the learning rate in another number of iterations.

    A warm-up, which the recipes count in iterations, is only cut to a tenth of the training.
    """
    found = []
    for scheduler in schedulers:
        limit = new if scheduler.get("end", old) >= old else new // 10
        lengths = {key: scheduler[key] for key in ("begin", "end", "T_max") if key in scheduler}
        found.append({**scheduler, **{key: min(value, limit) for key, value in lengths.items()}})
    return found


def write(path: Path, recipe: Recipe, choice: Choice) -> None:
    """Write the config; a file that is there already is kept until this one is whole."""
    text = (
        f"# Made by mmdcn {__version__}. Everything that is not here is as in the recipe.\n"
        f'_base_ = "{recipe.base}"\n\n'
    )
    for name, value in choice.settings.items():
        text += f"{name} = {_code(value)}\n"
    text, _ = FormatCode(text, style_config=STYLE)
    with open_replacing(path) as file:
        file.write(text.encode())


def _code(value: Any) -> str:
    if isinstance(value, dict):
        return f"dict({', '.join(f'{key}={_code(item)}' for key, item in value.items())})"
    if isinstance(value, list):
        return f"[{', '.join(map(_code, value))}]"
    if isinstance(value, tuple):
        return f"({', '.join(map(_code, value))}{',' * (len(value) == 1)})"
    if isinstance(value, Name):
        return str(value)
    return json.dumps(value) if isinstance(value, str) else repr(value)
