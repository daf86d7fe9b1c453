"""Evaluate a checkpoint with a config of MMDetection, MMSegmentation or MMPretrain."""

import mmdcn._openmp  # noqa: F401, I001 (before torch)

import argparse
from copy import deepcopy
from pathlib import Path

from mmengine.config import Config
from mmengine.evaluator import DumpResults

from mmdcn.engine import launch


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="config file")
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument(
        "--out",
        help="where the predictions go: a .pkl file, of mmseg a folder of label maps",
    )
    parser.add_argument("--show", action="store_true", help="show the predictions in a window")
    parser.add_argument("--show-dir", help="folder for pictures of the predictions")
    parser.add_argument("--wait-time", type=float, default=2, help="seconds per shown picture")
    parser.add_argument("--tta", action="store_true", help="test-time augmentation")
    launch.add_common_arguments(parser)
    return parser.parse_args()


def enable_pictures(cfg: Config, scope: str, args: argparse.Namespace) -> None:
    hook = cfg.get("default_hooks", {}).get("visualization")
    if hook is None:
        raise launch.UsageError("--show, --show-dir: the config has no default_hooks.visualization")
    hook.draw = True
    if args.show:
        hook.show, hook.wait_time = True, args.wait_time
    if args.show_dir:
        folder = str(Path(args.show_dir).absolute())
        if scope == "mmdet":
            hook.test_out_dir = folder
        elif scope == "mmpretrain":
            hook.out_dir = folder
        else:
            cfg.visualizer.save_dir = folder


def enable_tta(cfg: Config, scope: str) -> None:
    if scope == "mmdet":
        cfg.setdefault(
            "tta_model",
            dict(
                type="DetTTAModel",
                tta_cfg=dict(nms=dict(type="nms", iou_threshold=0.5), max_per_img=100),
            ),
        )
        if "tta_pipeline" not in cfg:
            cfg.tta_pipeline = flip_pipeline(cfg.test_dataloader.dataset)
    for key in ("tta_model", "tta_pipeline"):
        if key not in cfg:
            raise launch.UsageError(f"--tta: the config has no {key}")
    cfg.model = dict(cfg.tta_model, module=cfg.model)
    leaf_dataset(cfg.test_dataloader.dataset).pipeline = cfg.tta_pipeline


def leaf_dataset(dataset: dict) -> dict:
    while "dataset" in dataset:
        dataset = dataset["dataset"]
    return dataset


def flip_pipeline(dataset: dict) -> list:
    """The test pipeline of a detector, run on the image and on its mirror image."""
    *transforms, pack = deepcopy(leaf_dataset(dataset).pipeline)
    meta = ["img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "flip"]
    pack.meta_keys = (*meta, "flip_direction")
    flips = [dict(type="RandomFlip", prob=1.0), dict(type="RandomFlip", prob=0.0)]
    return [*transforms, dict(type="TestTimeAug", transforms=[flips, [pack]])]


def set_label_map_folder(cfg: Config, folder: str) -> None:
    evaluators = cfg.test_evaluator
    for evaluator in evaluators if isinstance(evaluators, list) else [evaluators]:
        evaluator.update(output_dir=folder, keep_results=True)


def main() -> None:
    args = parse_args()
    cfg = launch.load_config(args)
    scope = launch.scope_of(cfg)
    cfg.load_from, cfg.resume = args.checkpoint, False
    if args.show or args.show_dir:
        enable_pictures(cfg, scope, args)
    if args.tta:
        enable_tta(cfg, scope)
    if args.out and scope == "mmseg":
        set_label_map_folder(cfg, args.out)
    elif args.out and not args.out.endswith((".pkl", ".pickle")):
        raise launch.UsageError(f"--out: a .pkl or .pickle file was expected, got {args.out}")

    runner = launch.build_runner(cfg, ("test",))
    if args.out and scope == "mmpretrain":
        runner.test_evaluator.metrics.append(DumpResults(out_file_path=args.out))
    elif args.out and scope == "mmdet":
        from mmdet.evaluation import DumpDetResults  # segmentors do without MMDetection

        runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=args.out))
    runner.test()


if __name__ == "__main__":
    launch.run_tool(main)
