"""Data sets that cannot be used are refused by name, and what is skipped is counted."""

import subprocess
import sys
import textwrap

import pytest
from mmengine.config import Config
from PIL import Image

from mmdcn.datasets.errors import DatasetError

pytest.importorskip("mmdet")
pytest.importorskip("mmseg")


def test_good_coco_file_is_counted(coco, lines):
    coco.check()
    (line,) = lines()
    assert "train_dataloader.dataset.ann_file" in line
    assert line.endswith("2 images, 3 annotations, 3 of them used")


def test_wrong_data_root(coco):
    coco.dataset.data_root = "nowhere/coco"
    message = r"train_dataloader\.dataset\.data_root: there is no folder 'nowhere/coco' in /"
    with pytest.raises(DatasetError, match=message):
        coco.check()


def test_missing_annotation_file(coco, check):
    with pytest.raises(DatasetError, match=r"dataset\.ann_file: there is no file .*train\.json"):
        check(coco.cfg)


def test_wrong_image_folder(coco):
    (coco.path / "train").rename(coco.path / "other")
    with pytest.raises(DatasetError, match=r"data_prefix\.img: there is no folder .*train"):
        coco.check()


def test_missing_evaluator_file(coco):
    coco.cfg.val_evaluator.ann_file = "nowhere.json"
    message = r"val_evaluator\.ann_file: there is no file 'nowhere\.json'"
    with pytest.raises(DatasetError, match=message):
        coco.check("val")


def test_evaluator_with_another_file(coco, lines):
    coco.write()
    other = coco.path / "other.json"
    (coco.path / "train.json").rename(other)
    coco.cfg.val_evaluator.ann_file = str(other)
    coco.check("val")
    assert "val_evaluator.ann_file" in lines()[-1]
    coco.content["images"][0]["id"] = 5
    coco.content["annotations"][1]["image_id"] = 5
    message = r"val_evaluator\.ann_file .*other.json': it lacks 1 images of .*train.json' \(ids 5\)"
    with pytest.raises(DatasetError, match=message):
        coco.check("val")


def test_no_annotations(coco):
    coco.content["annotations"] = []
    with pytest.raises(DatasetError, match="has no annotations"):
        coco.check()
    del coco.content["annotations"]
    with pytest.raises(DatasetError, match="there is no list 'annotations'"):
        coco.check()
    coco.cfg.val_evaluator.format_only = True
    coco.check("val")


SKIPPED = [
    (dict(bbox=[30, 1, 5, 5]), "box lies outside of the image"),
    (dict(bbox=[1, -6, 5, 5]), "box lies outside of the image"),
    (dict(bbox=[1, 1, 0.5, 5]), "smaller than a pixel"),
    (dict(area=0), "area is not positive"),
    (dict(category_id=9), "category_id is not among the categories"),
    (dict(image_id=5), "image_id is not among the images"),
    (dict(ignore=1), "marked with 'ignore'"),
    (dict(segmentation=[[1, 1, 5, 5]]), "fewer than three points"),
    (dict(segmentation=[[1, 1, 5, 1, 5, 5, 2]]), "odd number of values"),
    (dict(segmentation=[[]]), "fewer than three points"),
]


@pytest.mark.parametrize(("change", "reason"), SKIPPED)
def test_skipped_annotations_are_counted(coco, lines, change, reason):
    coco.content["annotations"][0].update(change)
    coco.content["annotations"][2].update(change)
    coco.check()
    warning, summary = lines()
    assert "2 annotations skipped" in warning and reason in warning and "(ids 11, 13)" in warning
    assert summary.endswith("1 of them used")
    for annotation in coco.content["annotations"]:
        annotation.update(change)
    with pytest.raises(DatasetError, match="none of its 3 annotations is usable: .*" + reason):
        coco.check()


@pytest.mark.parametrize(("change", "reason"), SKIPPED)
def test_mmdet_skips_what_is_counted(coco, change, reason):
    # The oracle of the counts: MMDetection itself.
    from mmdet.datasets import CocoDataset
    from mmdet.datasets.transforms import LoadAnnotations

    coco.content["annotations"][0].update(change)
    coco.write()
    cfg = coco.dataset.to_dict()
    cfg.pop("type")
    dataset = CocoDataset(**dict(cfg, pipeline=[]))
    load = LoadAnnotations(with_mask=True)
    used = 0
    for index in range(len(dataset)):
        results = load(dict(dataset.get_data_info(index), ori_shape=(10, 20)))
        used += int((~results["gt_ignore_flags"]).sum())
    assert used == 2


def test_polygons_that_are_left_out_are_counted(coco, lines):
    coco.content["annotations"][1]["segmentation"].append([1, 1, 2, 2])
    coco.check()
    assert "1 annotations used without a polygon of fewer than three points" in lines()[0]
    assert lines()[1].endswith("3 of them used")


def test_run_lengths_where_polygons_are_needed(coco, lines):
    coco.content["annotations"][1]["segmentation"] = dict(size=[10, 20], counts=[150, 50])
    coco.check()
    assert lines()[0].endswith("3 of them used")
    coco.dataset.pipeline[1].poly2mask = False
    coco.check()
    assert "1 annotations skipped: LoadAnnotations(poly2mask=False)" in lines()[1]


def test_crowds_are_not_used(coco, lines):
    coco.content["annotations"][1]["iscrowd"] = 1
    coco.check()
    assert lines()[0].endswith("3 annotations, 1 crowd regions, 2 of them used")
    for annotation in coco.content["annotations"]:
        annotation["iscrowd"] = 1
    message = "none of its 3 annotations is usable: 3 are crowd regions"
    with pytest.raises(DatasetError, match=message):
        coco.check()


def test_filter_that_leaves_nothing(coco):
    coco.dataset.filter_cfg = dict(filter_empty_gt=True, min_size=10)
    coco.check()
    coco.dataset.filter_cfg.min_size = 11
    with pytest.raises(DatasetError, match="filter_cfg .*11.* leaves no image"):
        coco.check()


def test_corners_in_place_of_sizes(coco):
    for annotation in coco.content["annotations"]:
        annotation["bbox"] = [8, 4, 14, 9]
    message = "look like corners .* 3 of 3 reach outside"
    with pytest.raises(DatasetError, match=message):
        coco.check()
    coco.content["annotations"][1]["bbox"] = [8, 4, 12, 6]
    coco.content["annotations"][2]["bbox"] = [8, 4, 2, 6]  # no corners
    coco.check()


def test_classes_of_the_config(coco, lines):
    coco.dataset.metainfo = dict(classes=("cow", "horse"))
    message = r"none of the classes \(cow, horse\) is among its categories \(cat, dog\)"
    with pytest.raises(DatasetError, match=message):
        coco.check()
    coco.dataset.metainfo = dict(classes=("cat", "cow"))
    coco.content["annotations"][0]["category_id"] = 8
    coco.check()
    missing, skipped, _ = lines()
    assert "no category for the classes cow" in missing
    assert "1 annotations skipped: their category is not among the classes" in skipped


def test_classes_of_two_loaders(coco):
    coco.cfg.val_dataloader.dataset.metainfo = dict(classes=("dog", "cat"))
    message = (
        r"classes of val_dataloader\.dataset are \(dog, cat\), "
        r"those of train_dataloader\.dataset \(cat, dog\)"
    )
    with pytest.raises(DatasetError, match=message):
        coco.check("train", "val")


def test_wrapped_data_sets_are_named(coco, check):
    coco.write()
    good, bad = (dict(coco.dataset.to_dict()) for _ in range(2))
    bad["ann_file"] = "nowhere.json"
    wrapped = dict(
        type="RepeatDataset", times=2, dataset=dict(type="ConcatDataset", datasets=[good, bad])
    )
    cfg = Config(dict(default_scope="mmdet", train_dataloader=dict(dataset=wrapped)))
    message = r"train_dataloader\.dataset\.dataset\.datasets\[1\]\.ann_file: .*nowhere\.json"
    with pytest.raises(DatasetError, match=message):
        check(cfg)


def test_what_is_put_in_place(coco):
    coco.check("train", "val")
    assert coco.dataset.type == "mmdcn.CocoDataset"
    assert [step.type for step in coco.dataset.pipeline] == [
        "mmdcn.LoadImageFromFile",
        "LoadAnnotations",
    ]
    assert coco.cfg.val_evaluator.type == "mmdcn.CocoMetric"


@pytest.mark.parametrize(
    ("blocked", "name"),
    [("mmseg", "TRANSFORMS.get('LoadImageFromFile')"), ("mmdet", "DATASETS.get('CocoDataset')")],
)
def test_one_toolbox_is_enough(blocked, name):
    code = f"""
        import sys
        sys.modules[{blocked!r}] = None  # makes an import fail
        from mmdcn.registry import DATASETS, TRANSFORMS
        TRANSFORMS.import_from_location()
        assert ({name} is None) == ({blocked!r} == "mmdet")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr.decode()


def test_remote_data_is_left_alone(coco, check):
    remote = dict(backend="local")
    coco.dataset.backend_args = remote
    coco.cfg.val_evaluator.backend_args = remote
    coco.cfg.val_dataloader.dataset.pipeline[0].backend_args = remote
    before = coco.cfg.to_dict()
    coco.check("train", "val")
    after = coco.cfg.to_dict()
    assert after["train_dataloader"] == before["train_dataloader"]
    assert after["val_evaluator"] == before["val_evaluator"]
    assert after["val_dataloader"]["dataset"]["pipeline"][0]["type"] == "LoadImageFromFile"


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


def test_good_segmentation_set_is_counted(ade, check, lines):
    check(ade_config(ade))
    assert "3 images" in lines()[0]


def test_segmentation_set_with_wrong_root(check):
    with pytest.raises(DatasetError, match=r"dataset\.data_root: there is no folder 'nowhere'"):
        check(ade_config("nowhere"))


def test_images_without_label_maps(ade, check):
    (ade / "annotations" / "training" / "sub" / "c.png").unlink()
    message = r"seg_map_path: 1 of its 3 label maps are not in .*training': sub/c\.png"
    with pytest.raises(DatasetError, match=message):
        check(ade_config(ade))


def test_segmentation_set_without_images(ade, check):
    with pytest.raises(DatasetError, match=r"there is no image \*\.tif in .*training"):
        check(ade_config(ade, img_suffix=".tif"))


def test_arguments_that_the_class_refuses(ade, check):
    cfg = ade_config(ade, metainfo=dict(classes=("wall", "unicorn")))
    message = r"train_dataloader\.dataset: ADE20KDataset refuses its arguments: .*unicorn"
    with pytest.raises(DatasetError, match=message):
        check(cfg)


def test_segmentation_set_with_a_list_of_images(ade, check):
    (ade / "list.txt").write_text("a\nsub/c\n")
    check(ade_config(ade, ann_file="list.txt"))
    (ade / "list.txt").write_text("a\nd\n")
    with pytest.raises(DatasetError, match=r"ann_file .*: 1 of its 2 images .*: d\.jpg"):
        check(ade_config(ade, ann_file="list.txt"))
    (ade / "list.txt").write_text("a\n../../images/training/a\n../../../x\n")
    with pytest.raises(DatasetError, match=r"1 of its 3 images lead out of .*training'"):
        check(ade_config(ade, ann_file="list.txt"))
    (ade / "list.txt").write_bytes(b"\xff\n")
    with pytest.raises(DatasetError, match=r"ann_file .*list\.txt': .*can't decode"):
        check(ade_config(ade, ann_file="list.txt"))
    with pytest.raises(DatasetError, match=r"ann_file: there is no file .*other\.txt"):
        check(ade_config(ade, ann_file="other.txt"))
