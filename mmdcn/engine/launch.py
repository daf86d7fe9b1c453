"""What the command-line tools share: arguments, config, processes, error messages."""

import argparse
import copy
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml
from mmengine.config import Config, DictAction
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.registry import MODELS, RUNNERS, DefaultScope
from mmengine.runner import Runner
from torch import nn

from mmdcn.checkpoints import CheckpointError
from mmdcn.datasets.checks import check_datasets, prepare_datasets
from mmdcn.datasets.errors import DatasetError, LoadingError
from mmdcn.engine import checkpoint, console, fitting, processes, work_dir, yaml_configs
from mmdcn.engine.errors import UsageError
from mmdcn.engine.resuming import ResumeCheckHook

LAUNCHERS = ("none", "pytorch", "slurm", "mpi")

# Here and not in `run_tool`, as a process that does not begin as a copy of a tool's imports this.
processes.end_children_with_parent()


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add OpenMMLab's arguments that training and testing have in common."""
    parser.add_argument(
        "--work-dir", help="folder for logs and checkpoints (default: work_dirs/<config name>)"
    )
    add_config_options(parser)
    parser.add_argument(
        "--launcher",
        choices=LAUNCHERS,
        default="none",
        help="how the processes were started; pytorch means torchrun",
    )
    # torch.distributed.launch passes it; torchrun and the others set LOCAL_RANK.
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``, for :func:`read_config`."""
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        metavar="KEY=VALUE",
        help="override config values, e.g. model.backbone.depth=101 or data.keys=[a,b]",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``."""
    parser.add_argument(
        "--device",
        default="cuda:0" if torch.cuda.is_available() else "cpu",
        help="default: the first CUDA device, otherwise the CPU",
    )


def add_shape(parser: argparse.ArgumentParser) -> None:
    """Add ``--shape`` of an image."""
    parser.add_argument(
        "--shape",
        type=int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        default=(800, 1280),
        help="size of the image (default: 800 1280)",
    )


def require_file(name: str, path: str) -> None:
    """Check that the file of an argument exists.

    Raises:
        UsageError: It does not.
    """
    if not Path(path).is_file():
        raise UsageError(f"{name} {path}: there is no such file")


def read_image(path: str) -> np.ndarray:
    """Read an image file.

    Returns:
        ``(H, W, 3)``, uint8, BGR.

    Raises:
        UsageError: There is none, or it cannot be read.
    """
    require_file("image", path)
    image = cv2.imread(path)
    if image is None:
        raise UsageError(f"image {path}: it cannot be read as an image")
    return image


def read_config(file: str, options: dict | None = None) -> Config:
    """Read a config and override values of it.

    Args:
        file: Path of the config.
        options: Values by key, ``--cfg-options``.

    Raises:
        UsageError: The file does not exist, a module of its ``custom_imports`` is missing, or it is
            a YAML file and not plain data.
    """
    if Path(file).is_dir():
        inside = Path(file) / "config.py"
        hint = f"; did you mean {inside}?" if inside.is_file() else ""
        raise UsageError(f"config {file}: it is a folder{hint}")
    require_file("config", file)
    try:
        cfg = Config.fromfile(file)
    except ImportError as error:
        # MMEngine wraps the reason twice.
        reason = error.__cause__ or error
        reason = reason.__context__ or reason
        raise UsageError(f"config {file}: {reason}") from error
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"config {file}: YAML of plain values was expected: {reason}") from error
    if options:
        cfg.merge_from_dict(options)
    return cfg


def load_config(args: argparse.Namespace) -> Config:
    """Read ``args.config`` and apply the common arguments.

    Raises:
        UsageError: The config cannot be read, see :func:`read_config`.
    """
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    cfg = read_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif not cfg.get("work_dir"):
        cfg.work_dir = str(Path("work_dirs", Path(args.config).stem))
    return cfg


def scope_of(cfg: Config, classifiers: bool = True) -> str:
    """``mmdet``, ``mmseg`` or ``mmpretrain``, from ``default_scope``.

    Args:
        cfg: Complete config.
        classifiers: Whether the last one will do.

    Raises:
        UsageError: It is none of them.
    """
    scope = cfg.get("default_scope")
    scopes = ("mmdet", "mmseg") + ("mmpretrain",) * classifiers
    if scope not in scopes:
        raise UsageError(
            f"default_scope: expected {' or '.join(scopes)}, whose configs this tool takes, "
            f"got {scope!r}"
        )
    return scope


def build_model(cfg: Config, device: str = "cpu") -> nn.Module:
    """The model of a config on a device, ``meta`` for instance; no weights are loaded.

    Raises:
        UsageError: Its ``default_scope`` is not ours, see :func:`scope_of`.
    """
    with DefaultScope.overwrite_default_scope(scope_of(cfg)), torch.device(device):
        return MODELS.build(cfg.model)


def load_model(
    config: str, checkpoint: str, device: str = "cpu", options: dict | None = None
) -> tuple[nn.Module, str]:
    """A trained detector or segmentor.

    Args:
        config: Path of its config.
        checkpoint: Path of its checkpoint, which has to fit.
        device: Where it runs.
        options: ``--cfg-options``.

    Returns:
        The model, with its config in ``model.cfg``, and its scope, see :func:`scope_of`.

    Raises:
        UsageError: A file is missing, or the config is not usable.
        CheckpointError: The checkpoint is not one of this model.
    """
    return load_model_of(read_config(config, options), checkpoint, device)


def load_model_of(cfg: Config, checkpoint: str, device: str = "cpu") -> tuple[nn.Module, str]:
    """As :func:`load_model`, of a config that has been read."""
    require_file("checkpoint", checkpoint)
    scope = scope_of(cfg, classifiers=False)
    with fitting.loading(checkpoint, whole=True):
        if scope == "mmdet":
            from mmdet.apis import init_detector as init  # the others do without MMDetection
        else:
            from mmseg.apis import init_model as init
        return init(cfg, checkpoint, device=device), scope


def build_runner(cfg: Config, loaders: tuple[str, ...]) -> Runner:
    """Build the runner of a config and check the data sets that it will read, and the heads.

    Args:
        cfg: Complete config.
        loaders: Which of ``train``, ``val`` and ``test`` will be used.

    Raises:
        UsageError: The launcher does not work on this machine, or the work folder cannot be made.
        DatasetError: A data set is not usable.
    """
    work_dir.prepare(cfg.work_dir)
    if cfg.launcher != "none" and not torch.cuda.is_available():
        _distribute_on_cpu(cfg)
    with DefaultScope.overwrite_default_scope(scope_of(cfg)):
        prepare_datasets(cfg, loaders)
    if cfg.get("optim_wrapper"):
        # MMEngine's own, for which mmdcn's layers have no offsets, is the default.
        cfg.optim_wrapper.setdefault("constructor", "mmdcn.OptimWrapperConstructor")
    runner = RUNNERS.build(cfg) if "runner_type" in cfg else Runner.from_cfg(cfg)
    # The main process looks at the files, and all processes learn what it found.
    problem: list[str | None] = [None]
    if is_main_process():
        model = runner.model
        if not isinstance(model, nn.Module):  # a runner that builds it later
            model = build_model(copy.deepcopy(cfg), "meta")
        try:
            check_datasets(cfg, loaders, runner.logger, model)
        except DatasetError as error:
            problem = [str(error)]
    broadcast_object_list(problem)
    if problem[0] is not None:
        raise DatasetError(problem[0])
    runner.logger.info(f"The whole log is in {console.log_file(runner.logger)}")
    judge_checkpoint(runner, whole="train" not in loaders or runner._resume)
    return runner


def judge_checkpoint(runner: Runner, whole: bool) -> None:
    """Make the runner's checkpoint raise CheckpointError where it does not fit."""
    load, file = runner.load_or_resume, runner._load_from

    def load_or_resume() -> None:
        with fitting.explaining(file), fitting.loading(file, whole):
            load()

    runner.load_or_resume = load_or_resume
    runner.register_hook(ResumeCheckHook())


def _distribute_on_cpu(cfg: Config) -> None:
    """Join the process group and wrap the model without GPUs, which MMEngine takes for granted."""
    if cfg.launcher != "pytorch":
        raise UsageError(
            f"--launcher {cfg.launcher} needs CUDA devices, and there are none here; several "
            "processes on CPUs are started with torchrun and --launcher pytorch"
        )
    missing = [name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR") if name not in os.environ]
    if missing:
        raise UsageError(f"--launcher pytorch: {', '.join(missing)} not set; start with torchrun")
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    defaults = dict(
        type="MMDistributedDataParallel",
        device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=cfg.get("find_unused_parameters", False),
    )
    cfg.model_wrapper_cfg = defaults | cfg.get("model_wrapper_cfg", {})


def run_tool(tool: Callable[[], None]) -> None:
    """Run a tool with safe checkpoints; its known errors and Ctrl-C end it with one line."""
    checkpoint.install()
    yaml_configs.install()
    console.install()
    processes.stop_on_signals()
    # The log tells of a full disk in a traceback for each line; what else is written tells it, too.
    logging.raiseExceptions = False
    try:
        tool()
    except (CheckpointError, DatasetError, UsageError, OSError) as error:
        # All processes see the same, except for what one of them meets while it loads its images.
        everywhere = isinstance(error, (LoadingError, OSError))
        if not processes.is_stopping() and (everywhere or processes.is_main_process()):
            print(f"error: {_one_line(error)}", file=sys.stderr, flush=True)
        processes.leave(1)
    except SystemExit as error:
        processes.leave(error.code or 0)
    except BaseException:
        # A worker that is told to end with this process also raises something here.
        if processes.is_stopping():
            processes.leave(1)
        raise
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    # A data loader's process puts its traceback in front.
    return str(error).rpartition(f"{type(error).__name__}: ")[2].strip()
