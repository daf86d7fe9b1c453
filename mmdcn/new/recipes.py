"""The recipes that a new project can start from."""

from dataclasses import dataclass
from pathlib import Path

import yaml
from mmengine.config import Config, ConfigDict

from mmdcn.base_configs import PREFIX, find_config, known_configs
from mmdcn.engine.errors import UsageError

# Recipes for ordinary use come before those with a longer training.
PREFERRED = ("_1x_", "_160k_")


@dataclass
class Recipe:
    """A config of mmdcn."""

    name: str  # below the folder of configs
    cfg: Config

    @property
    def base(self) -> str:
        """What `_base_` of another config calls it."""
        return PREFIX + self.name

    def published(self) -> str | None:
        """Address of a checkpoint that its model loads unchanged."""
        path = find_config(self.name)
        metafile = path.parent / "metafile.yml"
        if not metafile.is_file() or self.needs_conversion():
            return None
        models = yaml.safe_load(metafile.read_text(encoding="utf-8"))["Models"]
        return next((m.get("Weights") for m in models if m["Name"] == path.stem), None)

    def classifier(self) -> str | None:
        """Address of the classifier that its backbone starts from."""
        start = self.cfg.model.backbone.get("init_cfg") or {}
        return start.get("checkpoint") or self.cfg.model.get("pretrained")

    def needs_conversion(self) -> bool:
        """Whether the published checkpoint has other keys."""
        head = self.cfg.model.get("decode_head") or {}
        return "DINO" in self.cfg.model.type or "Mask2Former" in str(head.get("type"))


def names() -> list[str]:
    """The configs of detectors and segmentors, below the folder of configs."""
    classifiers = ("_in1k", "_singles")
    return [name for name in known_configs() if not any(part in name for part in classifiers)]


def find(name: str) -> Recipe:
    """The recipe that a user means.

    Args:
        name: Its name, or the beginning of it; a training of the usual length is preferred.

    Raises:
        UsageError: There is none, or there are several.
    """
    known = names()
    name = name.removesuffix(".py")
    exact = [k for k in known if name in (k.removesuffix(".py"), Path(k).stem)]
    found = exact or [k for k in known if Path(k).stem.startswith(name)]
    if len(found) > 1:
        found = [k for k in found if any(p in k for p in PREFERRED)] or found
    if len(found) != 1:
        listed = found or known
        raise UsageError(
            f"--from {name}: {'which of these' if found else 'no such recipe; there are'}:\n  "
            + "\n  ".join(sorted(Path(k).stem for k in listed))
        )
    return Recipe(found[0], Config.fromfile(find_config(found[0])))


def with_classes(model: ConfigDict, count: int) -> dict:
    """What has to be set in a model so that its heads have that many classes.

    A list of heads has to be replaced as a whole. Weights of classes, the last of which belongs to
    "no object", follow.
    """
    return _with_classes(model, count, inside_head=False) or {}


def _with_classes(part, count: int, inside_head: bool):
    if isinstance(part, list | tuple):
        items = [_with_classes(item, count, inside_head) for item in part]
        if not any(items):
            return None
        return [_merged(item, change) for item, change in zip(part, items, strict=True)]
    if not isinstance(part, dict):
        return None
    found = {}
    old = part.get("num_classes")
    for key, value in part.items():
        if key == "num_classes" and inside_head:
            found[key] = count
        elif key in ("rpn_head", "semantic_head", "train_cfg", "test_cfg", "backbone", "neck"):
            continue
        elif isinstance(old, int) and isinstance(value, dict):
            weights = value.get("class_weight")
            if isinstance(weights, list | tuple) and len(weights) == old + 1:
                found[key] = dict(class_weight=[weights[0]] * count + [weights[-1]])
        else:
            change = _with_classes(value, count, inside_head or key.endswith("head"))
            if change:
                found[key] = change
    return found or None


def _merged(item, change):
    if not change:
        return item
    return {**item, **{k: _merged(item.get(k), v) if isinstance(v, dict) else v
                       for k, v in change.items()}}  # fmt: skip
