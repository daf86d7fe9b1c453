"""Draw a model's predictions for one image into a picture file."""

import argparse
from pathlib import Path

import mmcv
import torch
from mmengine.config import Config
from mmengine.structures import PixelData

from mmdcn.engine import fitting, launch


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", help="image file")
    parser.add_argument("config", help="config file of MMDetection or MMSegmentation")
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument(
        "--out-file", help="picture to write (default: work_dirs/image_demo/<image name>)"
    )
    launch.add_device(parser)
    parser.add_argument(
        "--score-thr", type=float, default=0.3, help="lowest score of the boxes that are drawn"
    )
    parser.add_argument(
        "--zoom", type=int, default=1, help="enlarge the picture (not the model's input) this often"
    )
    parser.add_argument("--opacity", type=float, default=0.5, help="of the segments (mmseg)")
    launch.add_config_options(parser)
    return parser.parse_args()


def enlarge(maps: torch.Tensor, zoom: int) -> torch.Tensor:
    """Repeat every pixel of ``(N, H, W)`` maps ``zoom`` times in both directions."""
    return maps.repeat_interleave(zoom, dim=1).repeat_interleave(zoom, dim=2)


def draw_detections(cfg: Config, image, args: argparse.Namespace, out_file: str) -> str:
    # segmentors do without MMDetection
    from mmdet.apis import inference_detector, init_detector
    from mmdet.registry import VISUALIZERS

    with fitting.loading(args.checkpoint, whole=True):
        model = init_detector(cfg, args.checkpoint, device=args.device)
    result = inference_detector(model, image)
    objects = result.pred_instances
    objects.bboxes *= args.zoom
    if "masks" in objects:
        objects.masks = enlarge(objects.masks, args.zoom)
    visualizer = VISUALIZERS.build(dict(cfg.visualizer, vis_backends=None))
    visualizer.dataset_meta = model.dataset_meta
    visualizer.add_datasample(
        "image_demo",
        mmcv.bgr2rgb(mmcv.imrescale(image, args.zoom)),
        data_sample=result,
        draw_gt=False,
        pred_score_thr=args.score_thr,
        out_file=out_file,
    )
    shown = int((objects.scores >= args.score_thr).sum())
    return f"{shown} objects with a score of at least {args.score_thr:g}"


def draw_segments(cfg: Config, image, args: argparse.Namespace, out_file: str) -> str:
    # detectors do without MMSegmentation
    from mmseg.apis import inference_model, init_model, show_result_pyplot

    if "test_pipeline" not in cfg:
        cfg.test_pipeline = cfg.test_dataloader.dataset.pipeline
    with fitting.loading(args.checkpoint, whole=True):
        model = init_model(cfg, args.checkpoint, device=args.device)
    result = inference_model(model, image)
    segments = PixelData(data=enlarge(result.pred_sem_seg.data, args.zoom))
    result.pred_sem_seg = segments
    show_result_pyplot(
        model,
        mmcv.bgr2rgb(mmcv.imrescale(image, args.zoom)),
        result,
        opacity=args.opacity,
        draw_gt=False,
        show=False,
        out_file=out_file,
    )
    found = segments.data.unique().tolist()
    return "classes " + ", ".join(model.dataset_meta["classes"][index] for index in found)


def main() -> None:
    args = parse_args()
    if args.zoom < 1:
        raise launch.UsageError(f"--zoom: a positive integer was expected, got {args.zoom}")
    image = launch.read_image(args.image)
    cfg = launch.read_config(args.config, args.cfg_options)
    out_file = Path(args.out_file or Path("work_dirs", "image_demo", Path(args.image).name))
    out_file.parent.mkdir(parents=True, exist_ok=True)
    draw = {"mmdet": draw_detections, "mmseg": draw_segments}[
        launch.scope_of(cfg, classifiers=False)
    ]
    print(f"{draw(cfg, image, args, str(out_file))}: {out_file}")


if __name__ == "__main__":
    launch.run_tool(main)
