"""The class list alone decides what a label means, for training and for evaluation."""

import json
from importlib import import_module

import pytest
from mmengine.registry import DATASETS

from mmdcn.datasets.errors import DatasetError

pytest.importorskip("mmdet")
runs = import_module("coco_runs")


@pytest.fixture
def animals(coco):
    """Three classes, each with objects of its own, in a.jpg cat and dog, in b.jpg fish."""
    content = coco.content
    content["categories"] = [
        dict(id=number, name=name) for number, name in ((7, "cat"), (8, "dog"), (9, "fish"))
    ]
    for annotation, category, image in zip(
        content["annotations"], (7, 8, 9), (1, 1, 2), strict=True
    ):
        annotation.update(category_id=category, image_id=image)
    content["annotations"][1].update(bbox=[10, 1, 5, 5], segmentation=[[10, 1, 15, 1, 15, 6]])
    for loader in ("train", "val"):
        coco.cfg[f"{loader}_dataloader"].dataset.metainfo = dict(classes=("cat", "dog", "fish"))
    return coco


EXPECTED = {"a.jpg": ["cat", "dog"], "b.jpg": ["fish"]}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("classes", [("cat", "dog", "fish"), ("fish", "cat", "dog")])
def test_order_means_nothing(animals, order, classes):
    animals.content["categories"] = [animals.content["categories"][place] for place in order]
    for loader in ("train", "val"):
        animals.cfg[f"{loader}_dataloader"].dataset.metainfo = dict(classes=classes)
    animals.check("train", "val")
    assert runs.labels(runs.build(animals)) == EXPECTED
    scores = runs.evaluate_perfect(animals)
    assert scores["coco/bbox_mAP"] == scores["coco/segm_mAP"] == 1
    assert runs.evaluate_perfect(animals, lambda label: 2 - label)["coco/bbox_mAP"] < 0.5


def test_training_and_validation_files_of_different_order(animals):
    animals.check("train", "val")
    before = runs.labels(runs.build(animals, "val"))
    animals.content["categories"].reverse()
    animals.write()
    assert runs.labels(runs.build(animals)) == before == EXPECTED


def test_missing_category_shifts_no_label(animals, lines):
    del animals.content["categories"][1], animals.content["annotations"][1]
    animals.check("train", "val")
    assert "no category for the classes dog" in lines()[0]
    assert runs.labels(runs.build(animals)) == {"a.jpg": ["cat"], "b.jpg": ["fish"]}
    assert runs.evaluate_perfect(animals)["coco/bbox_mAP"] == 1


def test_table_of_classes_has_the_right_names(animals):
    # of the dog nothing is found
    animals.content["categories"].reverse()
    for loader in ("train", "val"):
        dataset = animals.cfg[f"{loader}_dataloader"].dataset
        dataset.metainfo = dict(classes=("fish", "dog", "cat"))
    animals.cfg.val_evaluator.classwise = True
    animals.check("train", "val")
    scores = runs.evaluate_perfect(animals, lambda label: 0 if label == 1 else label)
    assert scores["coco/dog_precision"] == 0 and scores["coco/cat_precision"] == 1


def test_result_files_have_the_ids_of_the_file(animals):
    animals.content["categories"].reverse()
    animals.cfg.val_evaluator.outfile_prefix = str(animals.path / "out")
    animals.check("val")
    runs.evaluate_perfect(animals)
    results = json.loads((animals.path / "out.bbox.json").read_text())
    assert sorted((r["image_id"], r["category_id"]) for r in results) == [(1, 7), (1, 8), (2, 9)]


@pytest.mark.parametrize("key", ["id", "iscrowd"])
def test_ids_from_zero_and_missing_iscrowd(animals, key):
    for number, annotation in enumerate(animals.content["annotations"]):
        annotation["id"] = number
        if key == "iscrowd":
            del annotation["iscrowd"]
    animals.check("train", "val")
    assert runs.evaluate_perfect(animals)["coco/bbox_mAP"] == 1
    animals.cfg.val_evaluator.type = "mmdet.CocoMetric"  # MMDetection's own
    if key == "id":
        assert runs.evaluate_perfect(animals)["coco/bbox_mAP"] < 1
    else:
        with pytest.raises(KeyError, match="iscrowd"):
            runs.evaluate_perfect(animals)


@pytest.mark.parametrize("polygon", [[1, 1, 5, 5], [1, 1, 5, 1, 5, 5, 1], [1, 1], []])
def test_polygons_that_are_none(animals, lines, polygon):
    # pycocotools takes two points for a box, and fails on others
    animals.content["annotations"][0]["segmentation"].insert(0, polygon)
    animals.check("train", "val")
    assert "used without a polygon of fewer than three points" in lines()[0]
    scores = runs.evaluate_perfect(animals)
    assert scores["coco/bbox_mAP"] == scores["coco/segm_mAP"] == 1
    # without any polygon there is a box, and a mask that nobody can find
    animals.content["annotations"][0]["segmentation"] = [polygon]
    animals.check("train", "val")
    scores = runs.evaluate_perfect(animals)
    assert scores["coco/bbox_mAP"] == 1 and scores["coco/segm_mAP"] < 0.9


def test_evaluation_without_a_file(animals):
    del animals.cfg.val_evaluator["ann_file"]
    animals.check("val")
    assert runs.evaluate_perfect(animals)["coco/bbox_mAP"] == 1


def test_what_the_check_passed_over_is_not_read(animals):
    animals.write()
    file = animals.path / "train.json"
    digits = ', "other": ' + "1" * 5000 + "}"  # Python's json refuses such a number
    text = file.read_text()
    file.write_text(text[: text.rindex("}")] + digits)
    with pytest.raises(ValueError, match="digits"):
        runs.build(animals)
    animals.dataset.type = "mmdcn.CocoDataset"
    assert runs.labels(runs.build(animals)) == EXPECTED


@pytest.fixture
def own_classes(animals):
    """A user's own data set class and metric, derived from MMDetection's."""
    from mmdet.datasets import CocoDataset
    from mmdet.evaluation import CocoMetric
    from mmengine.registry import METRICS

    @DATASETS.register_module(force=True)
    class TestDataset(CocoDataset):
        METAINFO = dict(classes=("cat", "dog", "fish"))

    @METRICS.register_module(force=True)
    class TestMetric(CocoMetric):
        pass

    yield animals
    DATASETS.module_dict.pop("TestDataset")
    METRICS.module_dict.pop("TestMetric")


def test_derived_classes_need_the_order_of_the_file(own_classes):
    own_classes.dataset.type = "TestDataset"
    own_classes.check()
    own_classes.content["categories"].reverse()
    message = r"categories are \(fish, dog, cat\) and the classes of the config are \(cat, dog, f"
    with pytest.raises(DatasetError, match=message):
        own_classes.check()
    del own_classes.content["categories"][1]
    with pytest.raises(DatasetError, match=r"categories are \(fish, cat\)"):
        own_classes.check()


def test_derived_metrics_are_taken_for_mmdets(own_classes):
    own_classes.cfg.val_evaluator.type = "TestMetric"
    own_classes.check("val")
    own_classes.content["annotations"][1]["id"] = 0
    del own_classes.content["annotations"][2]["iscrowd"]
    message = r"annotation id 0 .*\[1\] \(id 0\)\); there is no `iscrowd`.*\[2\] \(id 13\)"
    with pytest.raises(DatasetError, match=message):
        own_classes.check("val")
    own_classes.content["annotations"][1]["id"] = 1
    own_classes.content["annotations"][2]["iscrowd"] = 0
    own_classes.content["annotations"][1]["segmentation"].append([1, 1, 2, 2])
    with pytest.raises(DatasetError, match=r"COCO's evaluation fails on it .*\[1\] \(id 1\)"):
        own_classes.check("val")
    own_classes.content["categories"].reverse()
    with pytest.raises(DatasetError, match=r"categories are \(fish, dog, cat\)"):
        own_classes.check("val")


def test_repeated_names_are_refused_without_the_tools_too(animals):
    animals.content["categories"][1]["name"] = "cat"
    animals.write()
    animals.dataset.type = "mmdcn.CocoDataset"
    with pytest.raises(DatasetError, match="two categories have one name"):
        runs.build(animals)
