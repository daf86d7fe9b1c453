"""Draw what an ONNX file of tools/deployment/export_onnx.py predicts for an image.

It needs OpenCV, and ONNX Runtime or OpenVINO; PyTorch and OpenMMLab need not be there.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

Run = Callable[[np.ndarray], dict[str, np.ndarray]]


class DemoError(Exception):
    """What ends the tool with one line."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("image", help="image file")
    parser.add_argument("model", help="ONNX file")
    parser.add_argument("--backend", choices=("onnxruntime", "openvino"), default="onnxruntime")
    parser.add_argument("--out-file", default="prediction.png", help="picture to write")
    parser.add_argument("--score-thr", type=float, default=0.3, help="lowest score that is drawn")
    parser.add_argument("--opacity", type=float, default=0.5, help="of masks and segments")
    parser.add_argument("--threads", type=int, default=0, help="0 leaves it to the backend")
    return parser.parse_args()


def with_onnxruntime(file: str, threads: int) -> tuple[Run, dict]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(image: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(None, {"input": image}), strict=True))

    return run, session.get_modelmeta().custom_metadata_map


def with_openvino(file: str, threads: int) -> tuple[Run, dict]:
    import openvino

    model = openvino.Core().read_model(file)
    # The default on newer processors is bfloat16.
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        config["INFERENCE_NUM_THREADS"] = threads
    compiled = openvino.Core().compile_model(model, "CPU", config)

    def run(image: np.ndarray) -> dict[str, np.ndarray]:
        found = compiled(image)
        return {output.get_any_name(): found[output] for output in compiled.outputs}

    info = model.get_rt_info()
    about = info["framework"].value if "framework" in info else {}
    return run, {key: getattr(value, "value", value) for key, value in dict(about).items()}


def prepare(image: np.ndarray, about: dict) -> tuple[np.ndarray, np.ndarray]:
    """The input of the model, and the image at its size."""
    height, width = about["shape"]
    image = cv2.resize(image, (width, height))
    pixels = image.astype(np.float32)
    if not about["normalize"]:
        pixels = pixels[..., ::-1] if about["to_rgb"] else pixels
        pixels = (pixels - np.float32(about["mean"])) / np.float32(about["std"])
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]), image


def colour_of(index: int, about: dict) -> tuple[int, int, int]:
    palette = about.get("palette")
    if palette and index < len(palette):
        return tuple(palette[index][::-1])
    hue = np.uint8([[[index * 67 % 180, 200, 255]]])
    return tuple(cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0].tolist())


def name_of(index: int, about: dict) -> str:
    classes = about["classes"]
    return classes[index] if index < len(classes) else str(index)


def draw_detections(image: np.ndarray, found: dict, about: dict, args: argparse.Namespace) -> str:
    """Boxes, masks and labels, in place."""
    shown = np.flatnonzero(found["dets"][:, 4] >= args.score_thr)
    for row in shown[::-1]:
        x1, y1, x2, y2 = (int(round(value)) for value in found["dets"][row, :4].tolist())
        label = int(found["labels"][row])
        colour = colour_of(label, about)
        if "masks" in found and x2 > x1 and y2 > y1:
            mask = cv2.resize(found["masks"][row], (x2 - x1, y2 - y1)) >= 0.5
            part = image[max(y1, 0) : y2, max(x1, 0) : x2]
            mask = mask[max(-y1, 0) :, max(-x1, 0) :][: part.shape[0], : part.shape[1]]
            part[mask] = (1 - args.opacity) * part[mask] + args.opacity * np.array(colour)
        cv2.rectangle(image, (x1, y1), (x2, y2), colour, 1)
        text = f"{name_of(label, about)} {found['dets'][row, 4]:.2f}"
        cv2.putText(image, text, (x1 + 2, y1 + 10), cv2.FONT_HERSHEY_SIMPLEX, 0.35, colour, 1)
    return f"{len(shown)} objects with a score of at least {args.score_thr:g}"


def draw_segments(image: np.ndarray, found: dict, about: dict, args: argparse.Namespace) -> str:
    """The class of each pixel, in place."""
    labels = found["output"][0]
    if labels.ndim == 3:  # scores
        labels = labels.argmax(axis=0)
    indices = np.unique(labels).tolist()
    for index in indices:
        where = labels == index
        colour = np.array(colour_of(index, about))
        image[where] = (1 - args.opacity) * image[where] + args.opacity * colour
    return "classes " + ", ".join(name_of(index, about) for index in indices)


def draw_class(image: np.ndarray, found: dict, about: dict, args: argparse.Namespace) -> str:
    """The best class, in place."""
    scores = found["output"][0]
    text = f"{name_of(int(scores.argmax()), about)} {scores.max():.2f}"
    cv2.putText(image, text, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 255, 0), 1)
    return text


DRAW = dict(detection=draw_detections, segmentation=draw_segments, classification=draw_class)


def main() -> None:
    args = parse_args()
    for name in ("image", "model"):
        if not Path(getattr(args, name)).is_file():
            raise DemoError(f"{name} {getattr(args, name)}: there is no such file")
    image = cv2.imread(args.image)
    if image is None:
        raise DemoError(f"image {args.image}: it cannot be read as an image")
    load = dict(onnxruntime=with_onnxruntime, openvino=with_openvino)[args.backend]
    try:
        run, properties = load(args.model, args.threads)
    except ImportError as error:
        raise DemoError(f"--backend {args.backend}: {error}; pip install {args.backend}") from error
    except RuntimeError as error:
        hint = "; export it with --standard-ops" if "DeformConv" in str(error) else ""
        reason = str(error).strip().splitlines()[-1]
        raise DemoError(
            f"model {args.model}: {args.backend} cannot read it{hint}: {reason}"
        ) from error
    about = {key: json.loads(properties[key]) for key in properties if key in KNOWN}
    if about.get("task") not in DRAW or "shape" not in about:
        raise DemoError(
            f"model {args.model}: it was not written by tools/deployment/export_onnx.py"
        )
    pixels, image = prepare(image, about)
    said = DRAW[about["task"]](image, run(pixels), about, args)
    if not cv2.imwrite(args.out_file, image):
        raise DemoError(f"--out-file {args.out_file}: it cannot be written")
    print(f"{said}: {args.out_file}")


KNOWN = ("task", "classes", "palette", "normalize", "to_rgb", "mean", "std", "shape", "dynamic")

if __name__ == "__main__":
    try:
        main()
    except DemoError as error:
        sys.exit(f"error: {error}")
