"""Is an exported model as good? AP or mIoU of a network in PyTorch and of its ONNX file.

    python -m benchmarks.deployed CONFIG CHECKPOINT

exports the model, and runs both on the validation images of the data set of the demos, which are
not resized. AP is COCO's, of boxes and, with a mask head, of masks.
"""

import argparse
import contextlib
import io
import json
import tempfile
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import torch
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdcn.deployment import building, files
from mmdcn.engine import launch


def images(root: Path):
    """Number, pixels ``(1, 3, H, W)`` and label map of each validation image."""
    for file in sorted((root / "val").glob("*.jpg")):
        image = torch.from_numpy(cv2.imread(str(file))).permute(2, 0, 1)[None].float()
        labels = cv2.imread(str(root / "annotations/validation" / f"{file.stem}.png"), 0)
        yield int(file.stem), image, labels


def coco_results(number: int, outputs: list[np.ndarray], size: tuple[int, int]) -> list[dict]:
    """Detections in COCO's form; categories count from 1."""
    dets, labels, *masks = outputs
    found = []
    for row in np.flatnonzero(dets[:, 4] > 0):
        x1, y1, x2, y2, score = dets[row].astype(float)
        one = dict(
            image_id=number,
            category_id=int(labels[row]) + 1,
            bbox=[x1, y1, x2 - x1, y2 - y1],
            score=score,
        )
        if masks:
            pasted = paste(masks[0][row], (x1, y1, x2, y2), size)
            one["segmentation"] = mask_utils.encode(np.asfortranarray(pasted, dtype=np.uint8))
        found.append(one)
    return found


def paste(mask: np.ndarray, box: tuple, size: tuple[int, int]) -> np.ndarray:
    """The pixels whose middle the mask of a box covers, as MMDetection pastes it."""
    x1, y1, x2, y2 = box
    y = (np.arange(size[0]) + 0.5 - y1) / max(y2 - y1, 1e-6) * mask.shape[0] - 0.5
    x = (np.arange(size[1]) + 0.5 - x1) / max(x2 - x1, 1e-6) * mask.shape[1] - 0.5
    maps = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
    return cv2.remap(mask, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT) >= 0.5


def average_precision(root: Path, results: list[dict]) -> dict[str, float]:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(root / "annotations" / "instances_val.json"))
        scores = {}
        for kind in ("bbox", "segm"):
            if kind == "segm" and "segmentation" not in results[0]:
                continue
            found = truth.loadRes([dict(result) for result in results])
            evaluation = COCOeval(truth, found, kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            scores[f"{kind} AP"] = float(evaluation.stats[0])
    return scores


def mean_iou(pairs: list[tuple[np.ndarray, np.ndarray]], classes: int) -> dict[str, float]:
    """Of predicted and annotated maps; the label 0 of a map is ignored, 1 is the first class."""
    confusion = np.zeros((classes, classes), np.int64)
    for found, truth in pairs:
        known = truth > 0
        cells = (truth[known].astype(np.int64) - 1) * classes + found[known]
        confusion += np.bincount(cells, minlength=classes**2).reshape(classes, classes)
    common = confusion.diagonal()
    return {"mIoU": float((common / (confusion.sum(0) + confusion.sum(1) - common)).mean())}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config")
    parser.add_argument("checkpoint")
    parser.add_argument("--data", type=Path, default=Path("data/deformed_shapes"))
    parser.add_argument("--standard-ops", action="store_true")
    args = parser.parse_args()
    cfg = launch.read_config(args.config)
    network, about = building.build(cfg, args.checkpoint, normalize=True)
    data = list(images(args.data))
    model = files.to_onnx(network, data[0][1], standard_ops=args.standard_ops)
    with tempfile.TemporaryDirectory() as folder:
        files.save(model, Path(folder, "model.onnx"), {})
        session = onnxruntime.InferenceSession(
            str(Path(folder, "model.onnx")), providers=["CPUExecutionProvider"]
        )

    def in_torch(image: torch.Tensor) -> list[np.ndarray]:
        with torch.no_grad():
            outputs = network(image)
        return [o.numpy() for o in (outputs if isinstance(outputs, tuple) else (outputs,))]

    runs = {
        "PyTorch": in_torch,
        "ONNX Runtime": lambda image: session.run(None, {"input": image.numpy()}),
    }
    for name, run in runs.items():
        outputs = [(number, run(image), labels) for number, image, labels in data]
        if about["task"] == "detection":
            results = [
                one for number, out, labels in outputs
                for one in coco_results(number, out, labels.shape)
            ]  # fmt: skip
            scores = average_precision(args.data, results)
        else:
            pairs = [(out[0][0], labels) for _, out, labels in outputs]
            scores = mean_iou(pairs, len(about["classes"]))
        print(json.dumps(dict(config=Path(args.config).stem, runtime=name, **scores)), flush=True)


if __name__ == "__main__":
    main()
