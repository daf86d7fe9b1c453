"""Measure the latency of a model: from an image in memory to predictions in memory."""

import argparse
import statistics
import time

import torch
from mmengine.model import BaseModel
from mmengine.runner import load_checkpoint

from mmdcn.engine import launch


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="config file of MMDetection or MMSegmentation")
    parser.add_argument(
        "--checkpoint", help="weights; without, untrained ones, which find other numbers of objects"
    )
    launch.add_shape(parser)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--warmup", type=int, default=3, help="passes that do not count")
    parser.add_argument("--repeat", type=int, default=10, help="passes that count")
    launch.add_device(parser)
    parser.add_argument("--threads", type=int, help="threads on the CPU (default: PyTorch's)")
    parser.add_argument(
        "--amp", choices=("bfloat16", "float16"), help="autocast to this type (default: none)"
    )
    parser.add_argument("--backbone-only", action="store_true", help="run nothing but the backbone")
    launch.add_config_options(parser)
    return parser.parse_args()


def make_batch(scope: str, args: argparse.Namespace) -> dict:
    """Images of noise, with the information that a test pipeline adds."""
    height, width = args.shape
    generator = torch.Generator().manual_seed(0)
    shape = (args.batch_size, 3, height, width)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    if scope == "mmdet":  # the others may be missing
        from mmdet.structures import DetDataSample as Sample
    elif scope == "mmpretrain":
        from mmpretrain.structures import DataSample as Sample
    else:
        from mmseg.structures import SegDataSample as Sample
    size = (height, width)
    meta = dict(img_shape=size, ori_shape=size, pad_shape=size, scale_factor=(1.0, 1.0))
    samples = [Sample(metainfo=meta) for _ in images]
    return dict(inputs=list(images), data_samples=samples)


def measure(model: BaseModel, batch: dict, args: argparse.Namespace) -> list[float]:
    """Seconds of every pass that counts."""
    on_gpu = torch.device(args.device).type == "cuda"
    kind = dict(enabled=args.amp is not None, dtype=getattr(torch, args.amp or "bfloat16"))
    times = []
    with torch.no_grad(), torch.autocast(torch.device(args.device).type, **kind):
        for _ in range(args.warmup + args.repeat):
            start = time.perf_counter()
            data = model.data_preprocessor(batch, False)
            if args.backbone_only:
                model.backbone(data["inputs"])
            else:
                model(**data, mode="predict")
            if on_gpu:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
    return times[args.warmup :]


def main() -> None:
    args = parse_args()
    if args.checkpoint:
        launch.require_file("checkpoint", args.checkpoint)
    if min(*args.shape, args.batch_size, args.repeat) < 1 or args.warmup < 0:
        raise launch.UsageError("--shape, --batch-size, --repeat: expected positive numbers")
    cfg = launch.read_config(args.config, args.cfg_options)
    if args.threads:
        torch.set_num_threads(args.threads)
    model = launch.build_model(cfg)
    if args.checkpoint:
        load_checkpoint(model, args.checkpoint, map_location="cpu")
    model.to(args.device).eval()
    times = measure(model, make_batch(launch.scope_of(cfg), args), args)
    median = statistics.median(times)
    place = args.device if args.device != "cpu" else f"cpu, {torch.get_num_threads()} threads"
    height, width = args.shape
    what = "backbone" if args.backbone_only else "model"
    print(
        f"{what}, {args.batch_size} x {height}x{width}, {args.amp or 'float32'}, {place}: "
        f"median {median * 1e3:.1f} ms (fastest {min(times) * 1e3:.1f}, slowest "
        f"{max(times) * 1e3:.1f}, {len(times)} passes), {args.batch_size / median:.2f} images/s"
    )


if __name__ == "__main__":
    launch.run_tool(main)
