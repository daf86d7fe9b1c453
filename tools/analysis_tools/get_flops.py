"""Count the parameters and floating-point operations of a model."""

import argparse

from mmdcn.analysis.flops import BOXES, MASKS, count_flops
from mmdcn.engine import launch


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="config file of MMDetection or MMSegmentation")
    launch.add_shape(parser)
    parser.add_argument(
        "--device",
        default="meta",
        help="meta (default) computes nothing; models with deformable attention need cpu or cuda",
    )
    launch.add_config_options(parser)
    return parser.parse_args()


def table(rows: list[tuple[str, float, float]]) -> str:
    lines = ["| Part | Parameters (M) | Multiply-adds (G) |", "|:--|--:|--:|"]
    lines += [f"| {name} | {size / 1e6:.2f} | {cost / 2e9:.2f} |" for name, size, cost in rows]
    return "\n".join(lines)


def main() -> None:
    args = parse_args()
    if min(args.shape) < 1:
        raise launch.UsageError(f"--shape: expected two positive numbers, got {args.shape}")
    cfg = launch.read_config(args.config, args.cfg_options)
    try:
        model = launch.build_model(cfg, args.device)
        counts = count_flops(model, *args.shape)
    except (RuntimeError, NotImplementedError) as error:
        if args.device != "meta":
            raise
        raise launch.UsageError(
            f"the model cannot be counted without computing ({error}); use --device cpu"
        ) from error

    def size(name: str) -> int:
        return sum(p.numel() for key, p in model.named_parameters() if key.startswith(name))

    places = dict(bbox_head="roi_head.bbox_head", mask_head="roi_head.mask_head", other="-")
    rows = [
        (name, size(f"{places.get(name, name)}."), operations)
        for name, operations in counts.items()
    ]
    print(table([*rows, ("total", size(""), sum(counts.values()))]))
    print(f"Image: {args.shape[0]}x{args.shape[1]}. A multiply-add is two operations.")
    if "bbox_head" in counts and hasattr(model, "roi_head"):
        print(f"Two-stage detector: with {BOXES} boxes and {MASKS} masks per image.")


if __name__ == "__main__":
    launch.run_tool(main)
