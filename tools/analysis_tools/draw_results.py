"""Draw some images of the test set with their annotations on the left and the predictions on the
right, all on one sheet."""

import argparse
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import load_checkpoint
from torch import nn

from mmdcn.datasets.checks import prepare_datasets
from mmdcn.engine import fitting, launch

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

COLUMNS = 2  # pairs of pictures beside each other
PICTURE = 2.4  # inches
SAME_PLACE = 0.6  # boxes that overlap by this much show one object; the best is drawn


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="config file of MMDetection or MMSegmentation")
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument("--out-file", default="results.png", help="picture to write")
    parser.add_argument("--count", type=int, default=8, help="number of images")
    parser.add_argument(
        "--score-thr", type=float, default=0.3, help="lowest score of the objects that are drawn"
    )
    launch.add_device(parser)
    launch.add_config_options(parser)
    return parser.parse_args()


def load_model(cfg: Config, args: argparse.Namespace) -> nn.Module:
    model = launch.build_model(cfg)
    with fitting.loading(args.checkpoint, whole=True):
        load_checkpoint(model, args.checkpoint, map_location="cpu")
    return model.to(args.device).eval()


def colours(dataset) -> np.ndarray:
    """A colour for each class, ``(classes, 3)`` from 0 to 1.

    Of a few classes each gets one that differs much from the others, if the config chooses none.
    """
    count = len(dataset.metainfo["classes"])
    chosen = dataset.metainfo.get("palette")
    if chosen and len(chosen) == count:
        return np.array(chosen) / 255
    return plt.get_cmap("tab10")(np.arange(count) % 10)[:, :3]


def blend(image: np.ndarray, mask: np.ndarray, colour: np.ndarray, opacity: float = 0.5) -> None:
    """Tint an image ``(H, W, 3)``, from 0 to 1, where a mask ``(H, W)`` is set."""
    image[mask] = (1 - opacity) * image[mask] + opacity * colour


def draw_objects(axes, image: np.ndarray, objects, dataset, scores=None) -> None:
    """Boxes, masks and names of ``InstanceData`` on an image."""
    palette, names = colours(dataset), dataset.metainfo["classes"]
    boxes = getattr(objects.bboxes, "tensor", objects.bboxes).cpu().numpy()
    labels = objects.labels.cpu().numpy()
    if "masks" in objects:
        masks = getattr(objects.masks, "masks", objects.masks)
        for mask, label in zip(np.asarray(masks, dtype=bool), labels, strict=True):
            blend(image, mask, palette[label])
    axes.imshow(image)
    for i, ((x1, y1, x2, y2), label) in enumerate(zip(boxes, labels, strict=True)):
        colour = palette[label]
        axes.add_patch(plt.Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=colour, lw=1.2))
        text = names[label] if scores is None else f"{names[label]} {scores[i]:.2f}"
        inside = y1 < 0.05 * len(image)  # there is no room above the box
        axes.text(
            max(x1, 0), max(y1, 0), text, size=6, color="white", va="top" if inside else "bottom",
            clip_on=True, bbox=dict(facecolor=colour, edgecolor="none", pad=0.6),
        )  # fmt: skip


def best_objects(objects, lowest: float):
    """Those with a good score, one in each place."""
    objects = objects[objects.scores >= lowest]
    objects = objects[objects.scores.argsort(descending=True)]
    kept: list[int] = []
    for i in range(len(objects)):
        if all(overlap(objects.bboxes[i], objects.bboxes[k]) < SAME_PLACE for k in kept):
            kept.append(i)
    return objects[torch.tensor(kept, dtype=torch.long, device=objects.scores.device)]


def overlap(a: torch.Tensor, b: torch.Tensor) -> float:
    """Intersection over union of two boxes ``(4,)``."""
    sides = (torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2])).clamp(min=0)
    area = sides.prod()
    union = (a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - area
    return float(area / union.clamp(min=1e-6))


def draw_labels(axes, image: np.ndarray, labels: np.ndarray, dataset) -> None:
    """A label map ``(H, W)`` over an image, whose own colours would change those of the labels."""
    image = image.mean(2, keepdims=True).repeat(3, 2)
    for label, colour in enumerate(colours(dataset)):
        blend(image, labels == label, colour, 0.6)
    axes.imshow(image)


def draw_sheet(cfg: Config, args: argparse.Namespace) -> int:
    """Write the sheet and tell how many images are on it."""
    with DefaultScope.overwrite_default_scope(launch.scope_of(cfg, classifiers=False)):
        prepare_datasets(cfg, ("test",))
        dataset = DATASETS.build(dict(cfg.test_dataloader.dataset))
        model = load_model(cfg, args)
        count = min(args.count, len(dataset))
        chosen = np.linspace(0, len(dataset) - 1, count).round().astype(int)
        rows = -(-count // COLUMNS)
        size = (2 * COLUMNS * PICTURE, rows * PICTURE + 0.5)
        figure, grid = plt.subplots(
            rows, 2 * COLUMNS, figsize=size, squeeze=False, layout="constrained"
        )
        for axes in grid.flat:
            axes.axis("off")
        for column in range(2 * COLUMNS):
            grid[0, column].set_title(("annotated", "predicted")[column % 2], size=8)
        for axes, index in zip(grid.reshape(-1, 2), chosen, strict=False):
            data = dataset[int(index)]
            with torch.no_grad():
                (result,) = model.test_step(pseudo_collate([data]))
            image = cv2.imread(data["data_samples"].img_path)[..., ::-1] / 255
            if "pred_instances" in result:
                draw_objects(axes[0], image.copy(), data["data_samples"].gt_instances, dataset)
                found = best_objects(result.pred_instances.cpu(), args.score_thr)
                draw_objects(axes[1], image, found, dataset, found.scores.tolist())
            else:
                truth = data["data_samples"].gt_sem_seg.data[0].numpy()
                draw_labels(axes[0], image.copy(), truth, dataset)
                draw_labels(axes[1], image, result.pred_sem_seg.data[0].cpu().numpy(), dataset)
    names = zip(dataset.metainfo["classes"], colours(dataset), strict=True)
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour, label=name) for name, colour in names]
    figure.legend(handles=handles[:12], loc="outside lower center", ncols=6, fontsize=8)
    Path(args.out_file).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out_file, dpi=150)
    return count


def main() -> None:
    args = parse_args()
    if args.count < 1:
        raise launch.UsageError(f"--count: a positive integer was expected, got {args.count}")
    cfg = launch.read_config(args.config, args.cfg_options)
    launch.require_file("checkpoint", args.checkpoint)
    print(f"{draw_sheet(cfg, args)} images: {args.out_file}")


if __name__ == "__main__":
    launch.run_tool(main)
