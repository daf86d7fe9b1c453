"""ADE20K's folders and labels through the tools, and label maps that do not fit."""

import cv2
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("mmseg")
pytestmark = pytest.mark.slow

CONFIG = "tiny_ade20k.py"
SETS = {"training": ("train", 4), "validation": ("val", 3)}
COLORS = {0: (0, 0, 0), 1: (200, 30, 30), 2: (30, 200, 30), 150: (30, 30, 200)}


@pytest.fixture
def ade(workspace):
    """ADE20K as it is unpacked: label 0 counts for nothing, 1 to 150 are the classes."""
    rng = np.random.default_rng(0)
    for folder, (prefix, count) in SETS.items():
        paths = [
            workspace / "data" / "ade" / "ADEChallengeData2016" / kind / folder
            for kind in ("images", "annotations")
        ]
        for path in paths:
            path.mkdir(parents=True)
        for number in range(1, count + 1):
            # four areas side by side, one per label
            widths = rng.integers(12, 24, 4)
            labels = np.repeat(np.array([*COLORS], np.uint8), widths)[None]
            labels = np.repeat(labels, 50 + number, axis=0)
            image = np.array([*COLORS.values()], np.uint8)[np.searchsorted([*COLORS], labels)]
            noise = rng.integers(0, 40, image.shape, dtype=np.uint8)
            name = f"ADE_{prefix}_{number:08d}"
            Image.fromarray(image + noise).save(paths[0] / f"{name}.jpg")
            Image.fromarray(labels).save(paths[1] / f"{name}.png")
    return workspace


def file(workspace, kind, name):
    return workspace / "data" / "ade" / "ADEChallengeData2016" / kind / name


def counted_miou(labels, predictions):
    """Mean over the classes that occur in either of intersection through union, pixel by pixel."""
    intersection, union = np.zeros(151), np.zeros(151)
    for label, predicted in zip(labels, predictions, strict=True):
        for a, b in zip(label.flat, predicted.flat, strict=True):
            if a != 0:
                intersection[a] += a == b
                union[a] += 1
                union[b] += a != b
    occurs = union > 0
    return (intersection[occurs] / union[occurs]).mean(), int(occurs.sum())


def test_ade20k_trains_and_is_evaluated(ade):
    log = ade.run("train", CONFIG, "--work-dir=run")
    assert "4 images in" in log and "3 images in" in log and "Iter(train) [6/6]" in log
    log = ade.run("test", CONFIG, "run/iter_6.pth", "--out=maps", "--work-dir=test")
    names = [f"ADE_val_{number:08d}.png" for number in (1, 2, 3)]
    assert sorted(path.name for path in (ade / "maps").iterdir()) == names
    # Label maps are written with ADE20K's labels.
    predicted = [cv2.imread(str(ade / "maps" / name), cv2.IMREAD_UNCHANGED) for name in names]
    labels = [np.array(Image.open(file(ade, "annotations/validation", name))) for name in names]
    assert [p.shape for p in predicted] == [label.shape for label in labels]
    assert all(1 <= p.min() and p.max() <= 150 for p in predicted)
    miou, classes = counted_miou(labels, predicted)
    assert 0 < miou < 1 and classes >= 3  # else the comparison says nothing
    assert f"mIoU: {100 * miou:.2f}" in log
    # several scales and their mirror images, in the sizes of the label maps again
    log = ade.run("test", CONFIG, "run/iter_6.pth", "--tta", "--out=tta", "--work-dir=test")
    predicted = [cv2.imread(str(ade / "tta" / name), cv2.IMREAD_UNCHANGED) for name in names]
    miou, _ = counted_miou(labels, predicted)
    assert f"mIoU: {100 * miou:.2f}" in log


def write_label(path, value):
    labels = np.array(Image.open(path))
    labels[3:5, 10] = value
    Image.fromarray(labels).save(path)


def turn(path):
    Image.fromarray(np.array(Image.open(path)).T).save(path)


MISTAKES = {
    "label out of range": (
        "annotations/training/ADE_train_00000003.png",
        lambda path: write_label(path, 151),
        "label map {}: label 151 in 2 pixels; the 150 classes have the labels 1 to 150",
    ),
    "other size": (
        "annotations/validation/ADE_val_00000002.png",
        turn,
        "label map {} 52x",
    ),
    "not a label map": (
        "annotations/training/ADE_train_00000001.png",
        lambda path: Image.new("RGB", Image.open(path).size).save(path),
        "label map {}: one byte per pixel was expected, the image has mode 'RGB'",
    ),
    "not an image": (
        "annotations/training/ADE_train_00000004.png",
        lambda path: path.write_bytes(b"x"),
        "label map {}: it cannot be read: cannot identify image file",
    ),
    "no annotation": (
        "annotations/validation/ADE_val_00000003.png",
        lambda path: path.unlink(),
        "1 of its 3 label maps are not in 'data/ade/ADEChallengeData2016/annotations/validation': "
        "ADE_val_00000003.png",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_label_map_at_fault_is_named(ade, mistake):
    name, damage, message = MISTAKES[mistake]
    damage(file(ade, "", name))
    path = f"data/ade/ADEChallengeData2016/{name}"
    # in a process of the data loader, as in a real run
    options = [f"{loader}_dataloader.num_workers=1" for loader in ("train", "val")]
    log = ade.run(
        "train", CONFIG, "--cfg-options", "train_cfg.val_interval=1", *options, fails=True
    )
    assert message.format(path) in log.splitlines()[-1]
    assert log.splitlines()[-1].startswith("error: ") and "Traceback" not in log


def test_each_process_names_the_file_at_fault(ade):
    # Its header is whole, so that it is found on loading only. Without shuffling the second process
    # has the images 2 and 4.
    damaged = file(ade, "images/training", "ADE_train_00000002.jpg")
    damaged.write_bytes(damaged.read_bytes()[:-20])
    options = ["train_dataloader.sampler.shuffle=False", "train_dataloader.batch_size=2"]
    # synchronised batch normalisation needs GPUs
    options += [f"model.{head}_head.norm_cfg.type=BN" for head in ("decode", "auxiliary")]
    log = ade.run("train", CONFIG, "--cfg-options", *options, processes=2, fails=True)
    assert "error: image" in log and "ADE_train_00000002.jpg: it cannot be read" in log
