"""Draw how R-FCN or Deformable R-FCN scores an object: the bins of a proposal on the image, the
score maps that they are pooled from, and their votes."""

import argparse
from pathlib import Path

import matplotlib
import torch
from mmdet.apis import init_detector
from mmengine.dataset import Compose
from torch import Tensor

from mmdcn.checkpoints import open_replacing
from mmdcn.engine import fitting, launch
from mmdcn.models.heads.r_fcn import RFCNRoIHead
from mmdcn.ops import DeformPSRoIPool, PSRoIPool
from mmdcn.ops.reference.deform_ps_roi_pool import bin_corners
from mmdcn.ops.reference.rois import round_half_away

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.patches import Rectangle  # noqa: E402


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", help="image file")
    parser.add_argument("config", help="config file of an R-FCN")
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument(
        "--out-file", help="picture to write (default: work_dirs/draw_r_fcn/<image name>.png)"
    )
    parser.add_argument(
        "--objects", type=int, default=2, help="draw this many of the image's best detections"
    )
    launch.add_device(parser)
    launch.add_config_options(parser)
    return parser.parse_args()


def bin_boxes(layer: PSRoIPool | DeformPSRoIPool, roi: Tensor, offset: Tensor | None) -> Tensor:
    """Where the bins of a RoI lie, by the rules of its pooling.

    Args:
        layer: the pooling.
        roi: ``(5,)``, batch index and corners in pixels.
        offset: ``(2, k, k)``, shifts in x and y in units of ``trans_std``, or None.

    Returns:
        ``(k, k, 4)`` boxes (x1, y1, x2, y2) in pixels, from the outer edge of the first pixel on.
    """
    k = layer.output_size[0]
    if isinstance(layer, DeformPSRoIPool):
        start, size, _ = bin_corners(
            roi[None, 1:],
            torch.ones(1, dtype=torch.bool),
            None if offset is None else offset[None],
            1,
            layer.output_size,
            layer.part_size,
            layer.spatial_scale,
            layer.trans_std,
        )
        boxes = torch.cat([start, start + size[:, None, None, None]], -1)[0, 0]
        return (boxes + 0.5) / layer.spatial_scale
    step = torch.arange(k, dtype=roi.dtype)
    # whole pixels of the map
    corners = round_half_away(roi[1:] * layer.spatial_scale)
    size = (corners[2:] - corners[:2]).clamp(min=1)
    x1, y1 = (corners[i] + (step * size[i] / k).floor() for i in (0, 1))
    x2, y2 = (corners[i] + ((step + 1) * size[i] / k).ceil() for i in (0, 1))
    parts = [x1.expand(k, k), y1[:, None].expand(k, k), x2.expand(k, k), y2[:, None].expand(k, k)]
    return torch.stack(parts, -1) / layer.spatial_scale


def best_proposals(model, image: str, count: int) -> tuple[Tensor, list[dict]]:
    """The image as the model sees it, ``(H, W, 3)`` in RGB, and how each of the detections with
    the highest scores came about."""
    cfg = model.cfg
    data = Compose(cfg.test_dataloader.dataset.pipeline)(dict(img_path=image, img_id=0))
    batch = model.data_preprocessor(
        dict(inputs=[data["inputs"]], data_samples=[data["data_samples"]]), False
    )
    x = model.extract_feat(batch["inputs"])
    samples = batch["data_samples"]
    (proposals,) = model.rpn_head.predict(x, samples, rescale=False)
    roi_head = model.roi_head
    head = roi_head.bbox_head
    maps = head.maps(x[roi_head.level])
    rois = torch.cat([proposals.bboxes.new_zeros(len(proposals), 1), proposals.bboxes], 1)
    probabilities = head(maps, rois)[0].softmax(1)
    (objects,) = roi_head.predict(x, [proposals], samples, rescale=False)
    chosen, class_maps = [], maps[: len(maps) // 2]
    values, *part_maps = class_maps
    layer = head.fc_cls.roi_layer
    objects = objects[:count]
    for box, score, label in zip(objects.bboxes, objects.scores, objects.labels, strict=True):
        index = (probabilities[:, label] - score).abs().argmin()  # the proposal it comes from
        roi, offset = rois[index : index + 1], None
        if part_maps:
            offset = layer.parts(part_maps, roi)[0].unflatten(1, (-1, 2))[0, label]
        k = layer.output_size[0]
        chosen.append(
            dict(
                roi=roi[0].cpu(),
                detection=box.cpu(),
                name=model.dataset_meta["classes"][label],
                score=float(score),
                maps=values[0].unflatten(0, (-1, k, k))[label].cpu(),
                votes=head.fc_cls.bins(class_maps, roi)[0, label].cpu(),
                bins=bin_boxes(layer, roi[0].cpu(), None if offset is None else offset.cpu()),
                stride=1 / layer.spatial_scale,
            )
        )
    return data["inputs"].flip(0).permute(1, 2, 0), chosen


def rectangle(box: Tensor, **style) -> Rectangle:
    x1, y1, x2, y2 = box.tolist()
    return Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, **style)


def show_values(panel, values: Tensor, **options) -> None:
    """Negative values in blue and positive ones in red, on a scale of their own."""
    limit = float(values.nan_to_num().abs().max()) or 1.0
    shown = panel.imshow(values.numpy(), cmap="coolwarm", vmin=-limit, vmax=limit, **options)
    plt.colorbar(shown, ax=panel, fraction=0.046)


def draw_object(axes, image: Tensor, found: dict) -> None:
    height, width = image.shape[:2]
    on_image, on_maps, votes = axes
    on_image.imshow(image.numpy(), extent=(0, width, height, 0))
    for box in found["bins"].flatten(0, 1):
        on_image.add_patch(rectangle(box, color="red", linewidth=0.8))
    on_image.add_patch(rectangle(found["roi"][1:], color="yellow", linewidth=2))
    on_image.add_patch(rectangle(found["detection"], color="lime", linewidth=2, linestyle="--"))
    on_image.set_title("proposal (yellow), its bins (red), detection (dashed)", fontsize=9)

    # One tile for each bin's map, with a gap of one pixel, over the image that it belongs to.
    maps, stride = found["maps"], found["stride"]
    k = len(maps)
    rows, columns = maps.shape[2] + 1, maps.shape[3] + 1
    tiles = torch.full((k * rows, k * columns), float("nan"))
    for i in range(k):
        for j in range(k):
            tiles[i * rows : (i + 1) * rows - 1, j * columns : (j + 1) * columns - 1] = maps[i, j]
    show_values(on_maps, tiles, extent=(0, k * columns, k * rows, 0))
    for i in range(k):
        for j in range(k):
            shift = torch.tensor([j * columns, i * rows] * 2)
            tile = Rectangle(shift[:2].tolist(), columns - 1, rows - 1, transform=on_maps.transData)
            for box, style in (
                (found["roi"][1:], dict(color="gold", linewidth=0.6)),
                (found["bins"][i, j], dict(color="black", linewidth=0.8)),
            ):
                outline = on_maps.add_patch(rectangle(box / stride + shift, **style))
                outline.set_clip_path(tile)  # what lies beyond a map is not on the next one
    on_maps.set_title(f"{k}x{k} score maps of '{found['name']}', bin on its map", fontsize=9)

    show_values(votes, found["votes"])
    votes.set_title(
        f"votes, mean {float(found['votes'].mean()):.2f}\n{found['name']} {found['score']:.2f}",
        fontsize=9,
    )
    for panel in axes:
        panel.set_xticks([])
        panel.set_yticks([])


def main() -> None:
    args = parse_args()
    for name in ("image", "checkpoint"):
        launch.require_file(name, getattr(args, name))
    if args.objects < 1:
        raise launch.UsageError(f"--objects: expected a positive number, got {args.objects}")
    cfg = launch.read_config(args.config, args.cfg_options)
    launch.read_image(args.image)  # the pipeline reads it again
    with fitting.loading(args.checkpoint, whole=True):
        model = init_detector(cfg, args.checkpoint, device=args.device)
    if not isinstance(getattr(model, "roi_head", None), RFCNRoIHead):
        raise launch.UsageError(f"config {args.config}: expected an R-FCN (mmdcn.RFCNRoIHead)")
    with torch.no_grad():
        image, found = best_proposals(model, args.image, args.objects)
    if not found:
        raise launch.UsageError(f"image {args.image}: the model detects nothing in it")
    figure, axes = plt.subplots(
        len(found),
        3,
        figsize=(15, 5.5 * len(found)),
        width_ratios=(5, 6, 3.5),
        squeeze=False,
        layout="constrained",
    )
    for row, item in zip(axes, found, strict=True):
        draw_object(row, image, item)
    out_file = Path(
        args.out_file or Path("work_dirs", "draw_r_fcn", f"{Path(args.image).stem}.png")
    )
    with open_replacing(out_file) as file:
        figure.savefig(file, format=out_file.suffix.removeprefix(".") or None, dpi=110)
    print(f"{len(found)} objects: {out_file}")


if __name__ == "__main__":
    launch.run_tool(main)
