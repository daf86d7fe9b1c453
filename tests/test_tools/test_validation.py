"""Data sets that cannot be used are refused by name, and what is skipped is counted."""

import json
import logging

import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image

from mmdcn.datasets.checks import DatasetError, check_datasets

pytest.importorskip("mmdet")
pytest.importorskip("mmseg")

LOGGER = logging.getLogger("test_validation")


@pytest.fixture
def coco(tmp_path):
    """A folder with two images of 20 x 10 pixels and three annotations, as (folder, content)."""
    (tmp_path / "train").mkdir()
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (20, 10)).save(tmp_path / "train" / name)
    images = [
        dict(id=1, file_name="a.jpg", width=20, height=10),
        dict(id=2, file_name="b.jpg", width=20, height=10),
    ]
    polygon = [[1, 1, 5, 1, 5, 5]]
    annotations = [
        dict(
            id=number,
            image_id=1 + number % 2,
            category_id=7,
            bbox=[1, 1, 5, 5],
            area=12.5,
            segmentation=polygon,
            iscrowd=0,
        )
        for number in (11, 12, 13)
    ]
    return tmp_path, dict(
        images=images,
        annotations=annotations,
        categories=[dict(id=7, name="cat"), dict(id=8, name="dog")],
    )


def coco_config(folder, **dataset):
    dataset = dict(
        type="CocoDataset",
        data_root=str(folder),
        metainfo=dict(classes=("cat", "dog")),
        ann_file="train.json",
        data_prefix=dict(img="train/"),
        pipeline=[dict(type="LoadAnnotations", with_bbox=True, with_mask=True)],
        **dataset,
    )
    return Config(dict(default_scope="mmdet", train_dataloader=dict(dataset=dataset)))


def check(cfg, loaders=("train",)):
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        check_datasets(cfg, loaders, LOGGER)


def check_content(coco):
    folder, content = coco
    (folder / "train.json").write_text(json.dumps(content))
    check(coco_config(folder))


def lines(caplog):
    return [record.getMessage() for record in caplog.records]


def test_good_coco_file_is_counted(coco, caplog):
    caplog.set_level(logging.INFO)
    check_content(coco)
    (line,) = lines(caplog)
    assert "train_dataloader.dataset.ann_file" in line
    assert line.endswith("2 images, 3 annotations, 3 of them used")


def test_wrong_data_root(coco):
    cfg = coco_config("nowhere/coco")
    message = r"train_dataloader\.dataset\.data_root: there is no folder 'nowhere/coco' in /"
    with pytest.raises(DatasetError, match=message):
        check(cfg)


def test_missing_annotation_file(coco):
    with pytest.raises(DatasetError, match=r"dataset\.ann_file: there is no file .*train\.json"):
        check(coco_config(coco[0]))


def test_wrong_image_folder(coco):
    folder, content = coco
    (folder / "train.json").write_text(json.dumps(content))
    (folder / "train").rename(folder / "other")
    with pytest.raises(DatasetError, match=r"data_prefix\.img: there is no folder .*train"):
        check(coco_config(folder))


def test_missing_evaluator_file(coco):
    cfg = coco_config(coco[0])
    cfg.val_dataloader = cfg.train_dataloader
    cfg.val_evaluator = dict(type="CocoMetric", ann_file="nowhere.json")
    message = r"val_evaluator\.ann_file: there is no file 'nowhere\.json'"
    with pytest.raises(DatasetError, match=message):
        check(cfg, ("val",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [', "not a whole JSON file: .*line 1"),
        ("", "not a whole JSON file"),
        ("[1]", "holds a list"),
        ('{"images": []}', "there is no list 'categories'"),
        ('{"images": {}, "categories": [], "annotations": []}', "there is no list 'images'"),
    ],
)
def test_file_that_is_not_coco(coco, text, message):
    (coco[0] / "train.json").write_text(text)
    with pytest.raises(DatasetError, match=r"train_dataloader\.dataset\.ann_file.*" + message):
        check(coco_config(coco[0]))


def test_missing_image(coco):
    coco[1]["images"][1]["file_name"] = "c.jpg"
    with pytest.raises(DatasetError, match=r"1 of its 2 images are not in .*train.*: c\.jpg"):
        check_content(coco)


def test_images_in_subfolders(coco):
    folder, content = coco
    (folder / "train" / "sub").mkdir()
    (folder / "train" / "b.jpg").rename(folder / "train" / "sub" / "b.jpg")
    with pytest.raises(DatasetError, match="1 of its 2 images"):
        check_content(coco)
    content["images"][1]["file_name"] = "sub/b.jpg"
    check_content(coco)


@pytest.mark.parametrize("annotations", [[], None])
def test_no_annotations(coco, annotations):
    if annotations is None:
        del coco[1]["annotations"]
        message = "there is no list 'annotations'"
    else:
        coco[1]["annotations"] = annotations
        message = "has no annotations"
    with pytest.raises(DatasetError, match=message):
        check_content(coco)


def test_files_without_annotations_can_be_tested_on(coco):
    folder, content = coco
    del content["annotations"]
    (folder / "train.json").write_text(json.dumps(content))
    cfg = coco_config(folder)
    cfg.test_dataloader = cfg.train_dataloader
    cfg.test_evaluator = dict(type="CocoMetric", format_only=True)
    check(cfg, ("test",))


SKIPPED = [
    (dict(bbox=[30, 1, 5, 5]), "box lies outside of the image"),
    (dict(bbox=[1, -6, 5, 5]), "box lies outside of the image"),
    (dict(bbox=[1, 1, 0.5, 5]), "smaller than a pixel"),
    (dict(area=0), "area is not positive"),
    (dict(category_id=9), "category_id is not among the categories"),
    (dict(image_id=5), "image_id is not among the images"),
    (dict(ignore=1), "marked with 'ignore'"),
]


@pytest.mark.parametrize(("change", "reason"), SKIPPED)
def test_skipped_annotations_are_counted(coco, caplog, change, reason):
    coco[1]["annotations"][0].update(change)
    coco[1]["annotations"][2].update(change)
    caplog.set_level(logging.INFO)
    check_content(coco)
    warning, summary = lines(caplog)
    assert "2 annotations skipped" in warning and reason in warning and "(ids 11, 13)" in warning
    assert summary.endswith("1 of them used")
    for annotation in coco[1]["annotations"]:
        annotation.update(change)
    with pytest.raises(DatasetError, match="none of its 3 annotations is usable"):
        check_content(coco)


@pytest.mark.parametrize(("change", "reason"), SKIPPED)
def test_mmdet_skips_what_is_counted(coco, change, reason):
    # The oracle of the counts: the data set class itself.
    from mmdet.datasets import CocoDataset

    folder, content = coco
    content["annotations"][0].update(change)
    (folder / "train.json").write_text(json.dumps(content))
    cfg = coco_config(folder).train_dataloader.dataset
    cfg.pop("type")
    dataset = CocoDataset(**dict(cfg, pipeline=[]))
    used = sum(len(dataset.get_data_info(i)["instances"]) for i in range(len(dataset)))
    assert used == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(bbox=[1, 2, 3]), r"annotations\[1\] \(id 12\): bbox must be four finite numbers"),
        (dict(bbox=[1, 2, 3, float("nan")]), "bbox must be four finite numbers"),
        (dict(bbox=None), "bbox must be four finite numbers"),
        (dict(segmentation=[]), r"annotations\[1\] \(id 12\) has no segmentation"),
    ],
)
def test_bad_annotation_is_named(coco, change, message):
    coco[1]["annotations"][1].update(change)
    with pytest.raises(DatasetError, match=message):
        check_content(coco)


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ("images", "id"),
        ("images", "file_name"),
        ("images", "height"),
        ("categories", "name"),
        ("annotations", "area"),
        ("annotations", "bbox"),
        ("annotations", "image_id"),
    ],
)
def test_missing_key_is_named(coco, part, key):
    del coco[1][part][1][key]
    with pytest.raises(DatasetError, match=rf"{part}\[1\].* has no '{key}'"):
        check_content(coco)


def test_repeated_image_id(coco):
    coco[1]["images"][1]["id"] = 1
    with pytest.raises(DatasetError, match="image ids occur more than once: 1"):
        check_content(coco)


def test_classes_of_the_config(coco, caplog):
    folder, content = coco
    (folder / "train.json").write_text(json.dumps(content))
    cfg = coco_config(folder)
    cfg.train_dataloader.dataset.metainfo = dict(classes=("cow", "horse"))
    message = r"none of the classes \(cow, horse\) is among its categories \(cat, dog\)"
    with pytest.raises(DatasetError, match=message):
        check(cfg)
    cfg.train_dataloader.dataset.metainfo = dict(classes=("cat", "cow"))
    content["annotations"][0]["category_id"] = 8
    (folder / "train.json").write_text(json.dumps(content))
    check(cfg)
    missing, skipped = lines(caplog)
    assert "no category for the classes cow" in missing
    assert "1 annotations skipped: their category is not among the classes" in skipped


def test_wrapped_data_sets_are_named(coco):
    folder, content = coco
    (folder / "train.json").write_text(json.dumps(content))
    good, bad = (coco_config(folder).train_dataloader.dataset for _ in range(2))
    bad.ann_file = "nowhere.json"
    wrapped = dict(
        type="RepeatDataset", times=2, dataset=dict(type="ConcatDataset", datasets=[good, bad])
    )
    cfg = Config(dict(default_scope="mmdet", train_dataloader=dict(dataset=wrapped)))
    message = r"train_dataloader\.dataset\.dataset\.datasets\[1\]\.ann_file: .*nowhere\.json"
    with pytest.raises(DatasetError, match=message):
        check(cfg)


@pytest.fixture
def ade(tmp_path):
    for folder, suffix in (("images", ".jpg"), ("annotations", ".png")):
        (tmp_path / folder / "training" / "sub").mkdir(parents=True)
        for name in ("a", "b", "sub/c"):
            Image.new("L", (20, 10)).save(tmp_path / folder / "training" / (name + suffix))
    return tmp_path


def ade_config(folder, **dataset):
    prefix = dict(img_path="images/training", seg_map_path="annotations/training")
    dataset = dict(type="ADE20KDataset", data_root=str(folder), data_prefix=prefix, **dataset)
    return Config(dict(default_scope="mmseg", train_dataloader=dict(dataset=dataset)))


def test_good_segmentation_set_is_counted(ade, caplog):
    caplog.set_level(logging.INFO)
    check(ade_config(ade))
    assert "3 images" in lines(caplog)[0]


def test_segmentation_set_with_wrong_root():
    with pytest.raises(DatasetError, match=r"dataset\.data_root: there is no folder 'nowhere'"):
        check(ade_config("nowhere"))


def test_images_without_label_maps(ade):
    (ade / "annotations" / "training" / "sub" / "c.png").unlink()
    message = r"seg_map_path .*: 1 of 3 images have no label map: sub/c\.png"
    with pytest.raises(DatasetError, match=message):
        check(ade_config(ade))


def test_segmentation_set_without_images(ade):
    with pytest.raises(DatasetError, match=r"there is no image \*\.tif in .*training"):
        check(ade_config(ade, img_suffix=".tif"))


def test_arguments_that_the_class_refuses(ade):
    cfg = ade_config(ade, metainfo=dict(classes=("wall", "unicorn")))
    message = r"train_dataloader\.dataset: ADE20KDataset refuses its arguments: .*unicorn"
    with pytest.raises(DatasetError, match=message):
        check(cfg)


def test_segmentation_set_with_a_list_of_images(ade):
    (ade / "list.txt").write_text("a\nsub/c\n")
    check(ade_config(ade, ann_file="list.txt"))
    (ade / "list.txt").write_text("a\nd\n")
    with pytest.raises(DatasetError, match=r"ann_file .*: 1 of its 2 images .*: d\.jpg"):
        check(ade_config(ade, ann_file="list.txt"))
    with pytest.raises(DatasetError, match=r"ann_file: there is no file .*other\.txt"):
        check(ade_config(ade, ann_file="other.txt"))
