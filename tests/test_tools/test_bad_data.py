"""Data sets with faults through the tools: one line and an exit code, or a run that is right."""

import json
import random
import shutil
from importlib import import_module

import pytest
from PIL import Image

pytest.importorskip("mmdet")
pytestmark = pytest.mark.slow

CONFIG = "tiny_mask_rcnn.py"
ONE_EPOCH = ["--cfg-options", "train_cfg.max_epochs=1", "train_cfg.val_interval=1"]


@pytest.fixture
def own(workspace, shapes):
    """A workspace with a data set of its own."""
    folder = workspace / "data" / "deformed_shapes"
    folder.unlink()
    shutil.copytree(shapes, folder)
    return workspace


def annotations(workspace, split):
    return workspace / "data" / "deformed_shapes" / "annotations" / f"instances_{split}.json"


def change(workspace, split, function):
    file = annotations(workspace, split)
    content = json.loads(file.read_text())
    function(content)
    file.write_text(json.dumps(content))


def fails(workspace, message, *options):
    log = workspace.run("train", CONFIG, *(options or ONE_EPOCH), fails=True)
    last = log.splitlines()[-1]
    assert last.startswith("error: ") and message in last and "Traceback" not in log
    return log


def test_order_of_categories(own):
    # Predictions are the same, so their AP is, whatever the files say about order and ids.
    options = [*ONE_EPOCH, "test_evaluator.classwise=True"]
    own.run("train", CONFIG, *options, "--work-dir=one")

    def reorder(content):
        content["categories"].reverse()
        for number, annotation in enumerate(content["annotations"]):
            annotation["id"] = number
            if not annotation["iscrowd"]:
                del annotation["iscrowd"]

    for split in ("train", "val"):
        change(own, split, reorder)
    own.run("train", CONFIG, *options, "--work-dir=two")
    for key in ("loss", "coco/bbox_mAP", "coco/segm_mAP"):
        assert own.scalars("one", key) == own.scalars("two", key) != {}


def test_head_with_another_number_of_classes(own):
    fails(
        own,
        "model.roi_head.bbox_head.num_classes is 80, but train_dataloader.dataset has 3 classes: "
        "star, crescent, fish",
        *ONE_EPOCH,
        "model.roi_head.bbox_head.num_classes=80",
    )


def test_image_that_breaks_during_a_run(own):
    # beyond what is looked at before the run, in a process of the data loader
    folder = own / "data" / "deformed_shapes" / "train"
    (folder / "000007.jpg").write_bytes((folder / "000007.jpg").read_bytes()[:500])
    fails(own, "000007.jpg: it cannot be read", *ONE_EPOCH, "train_dataloader.num_workers=1")


def test_turned_image(own):
    image = own / "data" / "deformed_shapes" / "train" / "000007.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (96, 64)).save(image, exif=exif)

    def resize(content):
        content["images"][6].update(width=96, height=64)

    change(own, "train", resize)
    fails(own, "000007.jpg has 64x96 pixels, its annotation 96x64; it is turned on loading")


@pytest.mark.long
def test_changed_files(own):
    fuzz = import_module("test_coco_fuzz")
    file = annotations(own, "train")
    content = json.loads(file.read_text())
    refused = 0
    for seed in range(8):
        file.write_bytes(fuzz.change(random.Random(seed), content))
        log = own.run("train", CONFIG, *ONE_EPOCH, f"--work-dir={seed}", fails=None)
        if "coco/bbox_mAP" not in log:
            refused += 1
            assert log.splitlines()[-1].startswith("error: train_dataloader"), (seed, log[-2000:])
            assert "Traceback" not in log
    assert 0 < refused < 8
