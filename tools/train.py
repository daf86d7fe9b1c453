"""Train a model with a config of MMDetection, MMSegmentation or MMPretrain."""

import mmdcn._openmp  # noqa: F401, I001 (before torch)

import argparse

import torch
from mmengine.config import Config
from mmengine.logging import print_log

from mmdcn.engine import cpu_group, launch, processes, resuming, work_dir


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="config file")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="continue from this checkpoint; without a value, from the last whole one in the "
        "work folder",
    )
    parser.add_argument(
        "--amp",
        action="store_true",
        help="automatic mixed precision: float16 on CUDA devices, bfloat16 on the CPU",
    )
    parser.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="scale the learning rate to the total batch size (auto_scale_lr of the config)",
    )
    parser.add_argument(
        "--cpu-processes",
        type=int,
        metavar="N",
        help="where there is no CUDA device: train in N processes, each with its part of a batch. "
        "Batch normalisation then sees these parts",
    )
    launch.add_common_arguments(parser)
    return parser.parse_args()


def enable_amp(cfg: Config) -> None:
    if cfg.optim_wrapper.get("type", "OptimWrapper") not in ("OptimWrapper", "AmpOptimWrapper"):
        raise launch.UsageError(
            f"--amp: optim_wrapper.type must be OptimWrapper, got {cfg.optim_wrapper.type}"
        )
    if not torch.cuda.is_available():
        cfg.optim_wrapper.type = "mmdcn.BFloat16OptimWrapper"
        return
    cfg.optim_wrapper.type = "AmpOptimWrapper"
    cfg.optim_wrapper.setdefault("loss_scale", "dynamic")


def enable_auto_scale_lr(cfg: Config) -> None:
    if "base_batch_size" not in cfg.get("auto_scale_lr", {}):
        raise launch.UsageError("--auto-scale-lr: the config has no auto_scale_lr.base_batch_size")
    cfg.auto_scale_lr.enable = True


def set_resume(cfg: Config, resume: str | None) -> None:
    if resume not in (None, "auto"):
        cfg.resume, cfg.load_from = True, resume
    elif resume == "auto" or cfg.get("resume") and not cfg.get("load_from"):
        found = resuming.find_resumable(cfg.work_dir)
        if found is None:
            print_log(f"{cfg.work_dir} has no whole checkpoint to resume from: starting anew")
            cfg.resume = False
        else:
            cfg.resume, cfg.load_from = True, str(found)


def main() -> None:
    args = parse_args()
    cfg = launch.load_config(args)
    launch.scope_of(cfg)
    if args.amp:
        enable_amp(cfg)
    if args.auto_scale_lr:
        enable_auto_scale_lr(cfg)
    if processes.is_main_process():
        work_dir.claim(cfg.work_dir)
    processes.stop_message = lambda: resuming.how_to_go_on(cfg.work_dir)
    set_resume(cfg, args.resume)
    hook = cfg.get("default_hooks", {}).get("checkpoint")
    if hook and hook.get("type") == "CheckpointHook":
        hook.type = "mmdcn.AtomicCheckpointHook"
    loaders = ("train", "val") if cfg.get("val_dataloader") else ("train",)
    if args.cpu_processes is None or torch.cuda.is_available():
        launch.build_runner(cfg, loaders).train()
        return
    cpu_group.share_batches(cfg, args.cpu_processes)
    with cpu_group.running(args.cpu_processes):
        launch.build_runner(cfg, loaders).train()


if __name__ == "__main__":
    launch.run_tool(main)
