"""Changed files either are refused in one line, or load and evaluate as they say."""

import copy
import json
import random
from importlib import import_module

import numpy as np
import pytest
from mmengine.config import Config

from mmdcn.datasets.errors import DatasetError

pytest.importorskip("mmdet")
runs = import_module("coco_runs")
mask_utils = pytest.importorskip("pycocotools.mask")

VALUES = [
    None, True, 0, 1, -1, 2, 7, 10, 0.5, 20.0, 1e9, -1e9, 1e30, 1 << 31, 1 << 63, 1 << 80, "", "7",
    "x", "a.jpg", "../a.jpg", "/etc/hostname", "\ud800", "Z6", [], [1], [[]], [[1, 1, 5, 5]], {},
    [1, 1, 5, 5], [5, 5, 19, 9], [[1, 1, 5, 1, 5, 5]], [[[1, 1], [5, 1], [5, 5]]], float("nan"),
    {"size": [10, 20], "counts": [100, 100]}, {"size": [1 << 31, 1 << 31], "counts": "0"},
    {"size": [10, 20], "counts": "oo"},
]  # fmt: skip
TEXTS = ["1" * 5000, "[" * 5000, "-", "1e999", "NaN", "}", '"\\ud800"', '"']


def content():
    """All kinds of masks: a polygon, two polygons, run lengths as numbers and text, a crowd."""
    mask = np.zeros((10, 20), np.uint8, order="F")
    mask[2:7, 3:9] = 1
    segmentations = [
        [[1, 1, 6, 1, 6, 6, 1, 6]],
        [[1, 1, 6, 1, 6, 6], [2, 2, 6, 6, 2, 6]],
        dict(size=[10, 20], counts=[11, 5, 5, 5, 174]),
        dict(size=[10, 20], counts=mask_utils.encode(mask)["counts"].decode()),
        dict(size=[10, 20], counts=[100, 100]),
    ]
    return dict(
        info={},
        images=[
            dict(id=number, file_name=f"{name}.jpg", width=20, height=10)
            for number, name in ((1, "a"), (2, "b"))
        ],
        annotations=[
            dict(
                id=1 + number,
                image_id=1 + number % 2,
                category_id=7 + number % 2,
                bbox=[1, 1, 5, 5],
                area=12.5,
                iscrowd=int(number == 4),
                segmentation=segmentation,
            )
            for number, segmentation in enumerate(segmentations)
        ],
        categories=[dict(id=7, name="cat"), dict(id=8, name="dog")],
    )


def walk(rng, item):
    """The container of a value and its key; all keys of a container are as likely."""
    while True:
        key = rng.choice(list(item) if isinstance(item, dict) else range(len(item)))
        if not (isinstance(item[key], dict | list) and item[key]) or rng.random() < 0.1:
            return item, key
        item = item[key]


def change(rng, found=None):
    """A file with one or two changes of its values, keys, lists or bytes."""
    found = copy.deepcopy(found) if found else content()
    for _ in range(rng.choice((1, 1, 2))):
        parent, key = walk(rng, found)
        match rng.choice(("value", "value", "value", "key", "delete", "repeat", "shuffle")):
            case "value":
                parent[key] = copy.deepcopy(rng.choice(VALUES))
            case "key" if isinstance(parent, dict):
                parent[key + "x"] = parent.pop(key)
            case "delete":
                del parent[key]
            case "repeat" if isinstance(parent, list):
                parent.append(copy.deepcopy(parent[key]))
            case "shuffle" if isinstance(parent[key], list):
                rng.shuffle(parent[key])
    text = json.dumps(found)
    kind = rng.randrange(20)
    place = rng.randrange(len(text))
    if kind == 0:
        text = text[:place]
    elif kind == 1:
        text = text[:place] + rng.choice(TEXTS) + text[place + rng.randrange(3) :]
    data = text.encode()
    if kind == 2:
        data = data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]
    return data


def try_file(coco, cfg, data, check):
    """Check, load and evaluate a file; says whether it was accepted."""
    (coco.path / "train.json").write_bytes(data)
    coco.cfg = Config(cfg.to_dict())
    try:
        check(coco.cfg, ("train", "val"))
    except DatasetError as error:
        assert "train.json" in str(error) and "\n" not in str(error)
        return False
    found = json.loads(data.decode(errors="replace"))
    names = {category["id"]: category["name"] for category in found["categories"]}
    files = {image["id"]: image["file_name"] for image in found["images"]}
    written = [
        (files.get(item["image_id"]), names.get(item["category_id"]))
        for item in found["annotations"]
    ]
    dataset = runs.build(coco)
    used = 0
    for file, labels in runs.labels(dataset).items():
        assert all((file, label) in written for label in labels)
        used += len(labels)
    assert used
    for index in range(len(dataset)):
        masks = dataset[index]["gt_masks"].masks
        assert masks.any() or not len(masks)
    scores = runs.evaluate_perfect(coco)
    # All that is evaluated and not left out is found.
    if len(written) == used:
        assert scores["coco/bbox_mAP"] == 1
    return True


def run(coco, check, seeds):
    cfg = coco.cfg
    accepted = 0
    for seed in seeds:
        data = change(random.Random(seed))
        try:
            accepted += try_file(coco, cfg, data, check)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {data[:3000]!r}") from error
    assert 0.1 * len(seeds) < accepted < 0.9 * len(seeds)  # both happen


def test_unchanged_file(coco, check):
    assert try_file(coco, coco.cfg, json.dumps(content()).encode(), check)


def test_changed_files(coco, check):
    run(coco, check, range(60))


@pytest.mark.slow
@pytest.mark.long
def test_many_changed_files(coco, check):
    run(coco, check, range(60, 1000))
