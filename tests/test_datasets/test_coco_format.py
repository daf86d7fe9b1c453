"""Each part of a file that is not in COCO's format is named with its path, and all are counted."""

import json
import re

import pytest

from mmdcn.datasets.errors import DatasetError

pytest.importorskip("mmdet")


def fails(coco, message, *loaders):
    with pytest.raises(DatasetError, match=message) as caught:
        coco.check(*loaders)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [', "it is not a whole JSON file"),
        ("", "it is not a whole JSON file"),
        ("[1]", "expected `object`, got `array`"),
        ('{"images": []}', "there is no `categories`"),
        ('{"images": {}, "categories": []}', "images: expected `array`, got `object`"),
        ('{"images": [], "categories": [], "annotations": [NaN]}', ".*JSON has no NaN"),
        ('{"images": [], "other": ' + "[" * 100_000, "it is nested too deeply"),
        ('{"images": [], "categories": [], "annotations": []}', "it has no images"),
        ("\ufeff{}", "it is not a whole JSON file"),
    ],
)
def test_file_that_is_not_coco(coco, check, text, message):
    (coco.path / "train.json").write_text(text)
    start = r"^train_dataloader\.dataset\.ann_file '.*train\.json': "
    with pytest.raises(DatasetError, match=start + message):
        check(coco.cfg)


ANNOTATION = r"\(1 times: annotations\[1\] \(id 12\)\)"
VALUES = [
    ("annotations", dict(bbox=[1, 2, 3]), "annotations: bbox: expected `array` of length 4"),
    ("annotations", dict(bbox=None), "annotations: bbox: expected `array`, got `null`"),
    ("annotations", dict(bbox=[1, 2, 3, "4"]), r"bbox\[\.\.\.\]: expected `float`, got `str`"),
    ("annotations", dict(bbox=[1, 2, 1e30, 3]), "bbox: coordinates beyond 10 times the size"),
    ("annotations", dict(area="12"), "annotations: area: expected `float`, got `str`"),
    ("annotations", dict(area=None), "annotations: area: expected `float`, got `null`"),
    ("annotations", dict(category_id=[7]), "category_id: expected `int`, got `array`"),
    ("annotations", dict(image_id=[1]), r"image_id: expected `int \| str`, got `array`"),
    ("annotations", dict(image_id=1 << 70), "image_id: expected `int` <= 9223372036854775807"),
    ("annotations", dict(iscrowd="0"), r"iscrowd: expected `.*`, got `str`"),
    ("annotations", dict(segmentation=[]), "no segmentation, which the pipeline or evaluator"),
    ("annotations", dict(segmentation="x"), "segmentation: expected `.*`, got `str`"),
    ("annotations", dict(segmentation=[1, 2, 3, 4, 5, 6]), "expected `array`, got `int`"),
    (
        "annotations",
        dict(segmentation=[[[1, 1], [5, 1], [5, 5]]]),
        "expected `float`, got `array`",
    ),
    ("annotations", dict(segmentation=[[1, 1, 1e9, 1, 5, 5]]), "segmentation: coordinates beyond"),
    ("annotations", dict(segmentation=[[1, 1, -1e30, 1, 5, 5]]), "segmentation: coordinates beyo"),
    (
        "annotations",
        dict(segmentation=dict(size=[1 << 31, 1 << 31], counts="0")),
        "segmentation: its size is not that of the image",
    ),
    (
        "annotations",
        dict(segmentation=dict(size=[20, 10], counts=[200])),
        "segmentation: its size is not that of the image",
    ),
    (
        "annotations",
        dict(segmentation=dict(size=[10, 20], counts=[199])),
        "segmentation: the counts do not add up to the image",
    ),
    (
        "annotations",
        dict(segmentation=dict(size=[10, 20], counts=[201, -1])),
        r"segmentation\.counts\[\.\.\.\]: expected `int` >= 0",
    ),
    (
        "annotations",
        dict(segmentation=dict(size=[10, 20], counts="\x7f\x7f")),
        "compressed run lengths are not valid",
    ),
    (
        "annotations",
        dict(segmentation=dict(counts="Z6")),
        "segmentation: there is no `size`",
    ),
    ("images", dict(file_name=5), "images: file_name: expected `str`, got `int`"),
    ("images", dict(file_name=None), "images: file_name: expected `str`, got `null`"),
    ("images", dict(file_name=""), "images: file_name: expected `str` of length >= 1"),
    ("images", dict(width=0), "images: width: expected `float` >= 1"),
    ("images", dict(width=20.5), "width and height must be whole numbers"),
    ("images", dict(width=50_000, height=50_000), "images: they have more than 1073741824 pixels"),
    ("images", dict(id=None), r"images: id: expected `int \| str`, got `null`"),
    ("categories", dict(name=None), "categories: name: expected `str`, got `null`"),
    ("categories", dict(id="8"), "categories: id: expected `int`, got `str`"),
]


@pytest.mark.parametrize(("part", "change", "message"), VALUES)
def test_value_is_named(coco, part, change, message):
    place = coco.content[part][1]
    number = change.get("id", place["id"])
    place.update(change)
    fails(coco, rf"{message}.* \(1 times: {part}\[1\] \(id {number}\)\)$")


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ("images", "id"),
        ("images", "file_name"),
        ("images", "height"),
        ("categories", "name"),
        ("annotations", "id"),
        ("annotations", "area"),
        ("annotations", "bbox"),
        ("annotations", "image_id"),
    ],
)
def test_missing_key_is_named(coco, part, key):
    number = coco.content[part][1]["id"]
    del coco.content[part][1][key]
    name = "" if key == "id" else rf" \(id {number}\)"
    fails(coco, rf"{part}: there is no `{key}` \(1 times: {part}\[1\]{name}\)$")


def test_number_of_5000_digits(coco, check):
    # json.load refuses it with a traceback, wherever it stands
    coco.write()
    file = coco.path / "train.json"
    text = file.read_text()
    file.write_text(text.replace('"area": 12.5', '"area": ' + "1" * 5000, 1))
    with pytest.raises(DatasetError, match="area: number out of range"):
        check(coco.cfg)
    file.write_text(text.replace('"area"', '"other": ' + "1" * 5000 + ', "area"', 1))
    check(coco.cfg)


def test_all_faults_are_in_one_message(coco):
    for annotation in coco.content["annotations"]:
        annotation["area"] = None
    coco.content["annotations"] *= 2
    coco.content["annotations"][1] = 5
    coco.content["images"].append(dict(id=1, file_name="a.jpg", width=20, height=10))
    coco.content["categories"].append(dict(id=8, name="cow"))
    fails(
        coco,
        r"image ids occur more than once \(1 times: 1\); category ids occur more than once "
        r"\(1 times: 8\)$",
    )
    del coco.content["images"][2], coco.content["categories"][2]
    fails(
        coco,
        r"annotations: area: expected `float`, got `null` \(5 times: annotations\[0\] \(id 11\), "
        r"annotations\[2\] \(id 13\), annotations\[3\] \(id 11\), \.\.\.\); "
        r"annotations: expected `object`, got `int` \(1 times: annotations\[1\]\)$",
    )


def test_repeated_ids(coco):
    coco.content["annotations"][1]["id"] = 11
    fails(coco, r"annotation ids occur more than once \(1 times: 11\)")
    coco.content["categories"][1]["name"] = "cat"
    fails(coco, r"category names occur more than once \(1 times: cat\)")


def test_image_ids_of_two_types(coco):
    coco.content["images"][1]["id"] = "2"
    fails(coco, "image ids are numbers and texts")


def test_masks_are_checked_where_they_are_used(coco):
    for annotation in coco.content["annotations"]:
        annotation["segmentation"] = "none"
    coco.dataset.pipeline[1].with_mask = False
    coco.cfg.val_dataloader.dataset.pipeline[1].with_mask = False
    coco.cfg.val_evaluator.metric = "bbox"
    coco.check("train", "val")
    coco.cfg.val_evaluator.metric = ["segm"]
    fails(coco, "segmentation: expected", "val")


def test_sizes_may_be_written_as_fractions(coco):
    coco.write()
    file = coco.path / "train.json"
    text = re.sub('"width": 20', '"width": 20.0', file.read_text())
    coco.content = json.loads(text)
    coco.check("train", "val")
