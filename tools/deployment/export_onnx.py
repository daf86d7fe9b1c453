"""Write a detector, segmentor or classifier as an ONNX file, and check the file.

Input ``input``: one image ``(1, 3, H, W)``, resized already. Outputs: of a detector ``dets``
``(m, 5)``, boxes with scores, ``labels`` ``(m,)``, and with a mask head ``masks`` ``(m, h, w)``,
the probability inside each box; rows beyond what was found have the score 0. Of a segmentor
``output``, a label for each pixel; of a classifier ``output``, a probability for each class. The
file also says its classes and what has to be done to an image, which
tools/deployment/image_demo_onnx.py reads.
"""

import argparse
import time

import cv2
import numpy as np
import torch
from torch.nn import functional

from mmdcn.engine import launch


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="config of MMDetection, MMSegmentation or MMPretrain")
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument("--out", required=True, help="file to write, such as model.onnx")
    launch.add_shape(parser)
    parser.add_argument(
        "--dynamic",
        action="store_true",
        help="other sizes of the image may come later, and with segmentors and classifiers several",
    )
    parser.add_argument("--opset", type=int, default=20, help="of ONNX, 19 to 22 (default: 20)")
    parser.add_argument(
        "--standard-ops",
        action="store_true",
        help="no DeformConv, for runtimes that lack it, such as OpenVINO",
    )
    parser.add_argument(
        "--normalize",
        action="store_true",
        help="the image comes as OpenCV reads it, BGR from 0 to 255, and is normalised inside",
    )
    parser.add_argument(
        "--logits", action="store_true", help="a segmentor returns the scores of all classes"
    )
    parser.add_argument("--image", help="for the check (default: noise)")
    launch.add_config_options(parser)
    return parser.parse_args()


def example(args: argparse.Namespace) -> torch.Tensor:
    """An image of the shape, ``(1, 3, H, W)``, as OpenCV reads it."""
    height, width = args.shape
    if args.image:
        image = cv2.resize(launch.read_image(args.image), (width, height))
    else:
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return torch.from_numpy(image).permute(2, 0, 1)[None].float()


def difference(ours: np.ndarray, theirs: torch.Tensor) -> str:
    """How far ONNX Runtime's output is from PyTorch's."""
    theirs = theirs.numpy()
    if ours.shape != theirs.shape:
        raise RuntimeError(f"shape {ours.shape}, and in PyTorch {theirs.shape}")
    if ours.dtype.kind == "i":
        return f"{(ours != theirs).mean():.3%} of {ours.size} values differ"
    return (
        f"largest difference {abs(ours - theirs).max():.2g} of values up to {abs(theirs).max():.3g}"
    )


def check(session, network: torch.nn.Module, image: torch.Tensor) -> None:
    """Run both on an image, and print how far they are apart.

    Raises:
        UsageError: One of them fails.
    """
    try:
        with torch.no_grad():
            expected = network(image)
        found = session.run(None, {"input": image.numpy()})
    except Exception as error:  # each has its own kinds
        reason = str(error).strip().splitlines()[0]
        raise launch.UsageError(f"the file is written, but does not run: {reason}") from error
    outputs = expected if isinstance(expected, tuple) else (expected,)
    for name, ours, theirs in zip(network.outputs, found, outputs, strict=True):
        print(f"  {name} {tuple(ours.shape)}: {difference(ours, theirs)}")


def main() -> None:
    args = parse_args()
    if not 19 <= args.opset <= 22:
        raise launch.UsageError(f"--opset: expected 19 to 22, got {args.opset}")
    if min(args.shape) < 1:
        raise launch.UsageError(f"--shape: expected two positive numbers, got {args.shape}")
    try:
        import onnxruntime

        from mmdcn.deployment import building, files
    except ImportError as error:
        raise launch.UsageError(
            f'{error.name} is missing; first: pip install "mmdcn[onnx]", or ".[onnx]" in a clone'
        ) from error
    cfg = launch.read_config(args.config, args.cfg_options)
    network, about = building.build(cfg, args.checkpoint, args.normalize, args.logits)
    image = example(args)
    if not args.normalize:
        inside = network.normalisation()
        image = image.flip(1) if inside["to_rgb"] else image
        mean, std = (torch.tensor(inside[k]).reshape(1, 3, 1, 1) for k in ("mean", "std"))
        image = (image - mean) / std
    print(f"Exporting {type(network.model).__name__} at {args.shape[0]}x{args.shape[1]} (minutes)")
    begin = time.perf_counter()
    batch = about["task"] != "detection"
    dynamic = [0] * batch * args.dynamic + [2, 3] * args.dynamic
    given = image.expand(2, -1, -1, -1) if 0 in dynamic else image
    model = files.to_onnx(network, given, dynamic, args.opset, args.standard_ops)
    files.save(model, args.out, about | dict(shape=list(args.shape), dynamic=args.dynamic))
    print(f"{args.out}: {len(model.graph.node)} nodes, {time.perf_counter() - begin:.0f} s")
    session = onnxruntime.InferenceSession(args.out, providers=["CPUExecutionProvider"])
    print(f"ONNX Runtime against PyTorch, on {args.image or 'noise'}:")
    check(session, network, image)
    if args.dynamic:
        size = [length + 64 for length in args.shape]
        print(f"and at {size[0]}x{size[1]}:")
        check(session, network, functional.interpolate(image, size=size, mode="bilinear"))


if __name__ == "__main__":
    launch.run_tool(main)
