"""The network of a config and a checkpoint."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import load_checkpoint
from torch import nn

from mmdcn.deployment.networks import Classifier, Network, Segmentor
from mmdcn.engine import fitting, launch


def build(
    cfg: Config, checkpoint: str, normalize: bool = False, logits: bool = False
) -> tuple[Network, dict]:
    """A network to export, and what to tell about it.

    Args:
        cfg: Config of the model.
        checkpoint: Its weights.
        normalize, logits: As in :class:`Network` and :class:`Segmentor`.

    Returns:
        The network, in evaluation mode, and a dict: ``task``, ``classes``, ``palette`` if there is
        one, ``normalize``, and if it is false ``mean``, ``std`` and ``to_rgb``.

    Raises:
        UsageError: The model is of a kind that cannot be exported.
        CheckpointError: The checkpoint does not fit.
    """
    scope = launch.scope_of(cfg)
    launch.require_file("checkpoint", checkpoint)
    if scope == "mmpretrain":
        model = launch.build_model(cfg)
        with fitting.loading(checkpoint, whole=True):
            content = load_checkpoint(model, checkpoint, map_location="cpu")
        meta = (content.get("meta") or {}).get("dataset_meta", {})
    else:
        model, _ = launch.load_model_of(cfg, checkpoint)
        meta = model.dataset_meta
    model.eval()
    with DefaultScope.overwrite_default_scope(scope):
        network = _network(model, scope, normalize, logits).eval()
    about = dict(
        task={"mmdet": "detection", "mmseg": "segmentation"}.get(scope, "classification"),
        classes=list(meta.get("classes") or meta.get("CLASSES") or ()),
        normalize=normalize,
        config=Path(cfg.filename).name if cfg.filename else "",
    )
    if meta.get("palette") not in (None, "random"):
        about["palette"] = [list(map(int, colour)) for colour in meta["palette"]]
    if not normalize:
        about |= network.normalisation()
    return network, about


def _network(model: nn.Module, scope: str, normalize: bool, logits: bool) -> Network:
    if scope == "mmseg":
        return Segmentor(model, normalize, logits)
    if scope == "mmpretrain":
        return Classifier(model, normalize)
    from mmdcn.deployment.detectors import network_of  # the others do without MMDetection

    return network_of(model, normalize)
