"""Projects that ``python -m mmdcn.new`` makes: their configs are built, checked and trained."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

pytest.importorskip("mmdet")
pytest.importorskip("mmseg")

from mmdcn.datasets.heads import check_heads  # noqa: E402
from mmdcn.engine.errors import UsageError  # noqa: E402
from mmdcn.new import __main__ as new  # noqa: E402
from mmdcn.new import recipes  # noqa: E402
from mmdcn.new.project import repetitions, scaled_schedule  # noqa: E402

CLASSES = ("red", "green", "blue", "grey")


@pytest.fixture
def coco(shapes, tmp_path, monkeypatch):
    """Twelve images with categories of other names and ids, in the current directory."""
    monkeypatch.chdir(tmp_path)
    for part in ("train", "val"):
        shutil.copytree(shapes / part, tmp_path / part)
        content = json.loads((shapes / "annotations" / f"instances_{part}.json").read_text())
        content["categories"] = [dict(id=30 - i, name=f"kind {i}") for i in (1, 2, 3)]
        for annotation in content["annotations"]:
            annotation["category_id"] = 30 - annotation["category_id"]
        (tmp_path / f"{part}.json").write_text(json.dumps(content))
    return ["--coco", "train.json", "val.json", "train", "val"]


@pytest.fixture
def masks(tmp_path, monkeypatch):
    """Folders of a few images and label maps, whose values a test chooses."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)

    def make(values, suffix=".png", size=(48, 64)):
        folders = []
        for part in ("train", "val"):
            for kind in ("images", "masks"):
                folder = tmp_path / part / kind
                folder.mkdir(parents=True, exist_ok=True)
                folders.append(str(folder.relative_to(tmp_path)))
            for i in range(3):
                mask = rng.choice(np.array(values, np.uint8), size)
                mask.flat[: len(values)] = values
                assert cv2.imwrite(f"{folders[-2]}/{i}.jpg", np.full((*size, 3), 80, np.uint8))
                assert cv2.imwrite(f"{folders[-1]}/{i}{suffix}", mask)
        return ["--masks", *folders]

    return make


def make(*args):
    new.main([*args])
    return Config.fromfile(Path(args[0]) / "config.py")


def build(cfg):
    scope = cfg.default_scope
    with DefaultScope.overwrite_default_scope(scope), torch.device("meta"):
        return MODELS.build(cfg.model)


# ------------------------------------------------------------------------------- finding a recipe


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mask-rcnn_internimage-t", "internimage/mask-rcnn_internimage-t_fpn_1x_coco.py"),
        ("mask-rcnn_internimage-t_fpn_3x", "internimage/mask-rcnn_internimage-t_fpn_3x_coco.py"),
        (
            "upernet_flash-internimage-s",
            "flash_internimage/upernet_flash-internimage-s_160k_ade20k-512x512.py",
        ),
        ("demo/r-fcn_r50_demo", "demo/r-fcn_r50_demo.py"),
    ],
)
def test_a_recipe_is_found_by_the_beginning_of_its_name(name, expected):
    assert recipes.find(name).name == expected


@pytest.mark.parametrize("name", ["mask-rcnn", "resnet", ""])
def test_what_is_no_recipe_or_several(name):
    with pytest.raises(UsageError) as error:
        recipes.find(name)
    assert "mask-rcnn_r50-dconv-c3-c5_fpn_1x_coco" in str(error.value)
    assert ("no such recipe" in str(error.value)) == (name == "resnet")


# -------------------------------------------------------------------------------- other classes


SOME = [name for name in recipes.names() if not name.startswith("demo/")][::6]


@pytest.mark.slow
@pytest.mark.parametrize("name", SOME)
def test_all_heads_get_the_classes(name):
    recipe = recipes.find(name)
    cfg = recipe.cfg
    cfg.merge_from_dict(dict(model=recipes.with_classes(cfg.model, len(CLASSES))))
    model = build(cfg)
    check_heads(model, CLASSES, "data")
    for module in model.modules():
        weight = getattr(module, "class_weight", None)
        if isinstance(weight, list) and len(weight) > 2:
            assert len(weight) == len(CLASSES) + 1 and weight[-1] == 0.1


# ------------------------------------------------------------------------------------- detection


def test_detection(coco, capsys):
    cfg = make("pets", "--from", "cascade-mask-rcnn_internimage-l_fpn_1x_coco", *coco)
    told = capsys.readouterr().out
    classes = ("kind 3", "kind 2", "kind 1")  # by id
    assert cfg.classes == classes and "3 classes: kind 3, kind 2, kind 1" in told
    check_heads(build(cfg), classes, "data")
    train = cfg.train_dataloader.dataset
    assert train.type == "RepeatDataset"
    iterations = 12 * train.times * 24 / 2
    assert 1500 <= iterations < 1500 + 12 * 24 / 2
    for dataset in (train.dataset, cfg.val_dataloader.dataset, cfg.test_dataloader.dataset):
        assert os.path.isfile(dataset.ann_file) and os.path.isabs(dataset.ann_file)
        assert os.path.isdir(dataset.data_prefix.img) and dataset.metainfo.classes == classes
        # images of 96 x 96 pixels are enlarged to twice the size, not to 1333 x 800
        (resize,) = [step for step in dataset.pipeline if step.type == "Resize"]
        assert resize.scale == (320, 192)
    assert cfg.val_evaluator.ann_file == cfg.val_dataloader.dataset.ann_file
    # the recipe: 1e-4 for 16 images
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(1e-4 * 2 / 16)
    assert cfg.load_from.endswith("cascade_internimage_l_fpn_1x_coco.pth")
    assert cfg.model.backbone.init_cfg is None
    for text in ("1.25e-05 (the recipe has 0.0001 for 16)", "320 x 192", cfg.load_from):
        assert text in told


def test_what_a_converter_is_needed_for_is_not_loaded(coco, capsys):
    cfg = make("pets", "--from", "dino-4scale_internimage-t", *coco)
    assert cfg.get("load_from") is None and cfg.model.backbone.init_cfg.checkpoint
    assert "has to be converted" in capsys.readouterr().out


def spoil(change):
    def apply(path):
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return apply


MISTAKES = {
    "no file": (lambda p: p.unlink(), "val.json: there is no such file"),
    "other classes": (
        spoil(lambda c: c["categories"].pop()),
        "it has no category for kind 3, as the other file has",
    ),
    "image": (
        spoil(lambda c: c["images"][0].update(file_name="none.jpg")),
        "1 of its 9 images are not in",
    ),
    "no COCO": (lambda p: p.write_text("[]"), "val.json"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_in_detection_are_one_line(name, coco, tmp_path):
    change, message = MISTAKES[name]
    change(tmp_path / "val.json")
    with pytest.raises(SystemExit) as error:
        make("pets", "--from", "mask-rcnn_internimage-t", *coco)
    assert message in str(error.value) and str(error.value).startswith("error: ")
    assert not Path("pets").exists()


def test_a_config_is_not_overwritten(coco):
    make("pets", "--from", "r-fcn_r50_demo", *coco)
    before = Path("pets/config.py").read_text()
    with pytest.raises(SystemExit, match="config.py exists"):
        make("pets", "--from", "r-fcn_r50-c5-dilated_1x", *coco)
    assert Path("pets/config.py").read_text() == before


def test_a_recipe_for_another_task(coco, masks):
    with pytest.raises(SystemExit, match="is for semantic segmentation; take --masks"):
        make("pets", "--from", "upernet_internimage-t", *coco)
    with pytest.raises(SystemExit, match="is for detection; take --coco"):
        make("pets", "--from", "r-fcn_r50_demo", *masks([0, 1]))


# ---------------------------------------------------------------------------------- segmentation


def test_segmentation(masks, capsys):
    folders = masks([0, 1, 2, 3, 255])
    cfg = make("parts", "--from", "mask2former_flash-internimage-t", *folders,
               "--classes", *CLASSES)  # fmt: skip
    told = capsys.readouterr().out
    assert not Path("parts/label_maps").exists()  # 255 is ignored, as usual
    check_heads(build(cfg), CLASSES, "data")
    assert cfg.model.data_preprocessor.size == cfg.crop_size == (64, 64)
    assert cfg.scale == (64, 48)
    for dataset in (cfg.train_dataloader.dataset, cfg.test_dataloader.dataset):
        assert os.path.isdir(dataset.data_prefix.img_path)
        assert (dataset.img_suffix, dataset.seg_map_suffix) == (".jpg", ".png")
        assert dataset.metainfo.classes == CLASSES and not dataset.reduce_zero_label
    assert cfg.train_cfg.max_iters == cfg.param_scheduler[-1].end == 1500
    assert cfg.param_scheduler[0].end == 150
    assert "1500 iterations (the recipe has 160000)" in told
    assert "pixels with 255 in the label maps are ignored" in told


@pytest.mark.parametrize(
    ("values", "classes"),
    [([0, 255], None), ([0, 1, 255], CLASSES[:3]), ([10, 90, 200], CLASSES[:3])],
    ids=["binary", "255 has a name", "grey"],
)
def test_values_that_are_no_labels_are_converted(masks, values, classes, capsys):
    folders = masks(values)
    options = ["--classes", *classes] if classes else []
    cfg = make("parts", "--from", "upernet_internimage-t", *folders, *options)
    assert cfg.classes == (classes or ("background", "foreground"))
    for dataset, folder in (
        (cfg.train_dataloader.dataset, folders[2]),
        (cfg.val_dataloader.dataset, folders[4]),
    ):
        for path in sorted(Path(folder).iterdir()):
            before = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            after = cv2.imread(
                f"{dataset.data_prefix.seg_map_path}/{path.name}", cv2.IMREAD_UNCHANGED
            )
            expected = sum(label * (before == value) for label, value in enumerate(values))
            np.testing.assert_array_equal(after, expected)
    assert f"{values[-1]} to {len(values) - 1}" in capsys.readouterr().out


def rename(folder, old, new_name):
    return lambda: Path(folder, old).rename(Path(folder, new_name))


SEGMENTATION_MISTAKES = {
    "a name too few": ([0, 1, 2], ["a", "b"], None, "2 names, but the label maps have the"),
    "no names": ([0, 1, 2], None, None, "give a name for each value in the label maps"),
    "a lonely image": (
        [0, 1], ["a", "b"], rename("val/images", "1.jpg", "7.jpg"), "in one folder only: 1, 7",
    ),
    "the background has no name": ([0, 255], ["road"], None, "as in 'background road'"),
    "JPEG": (list(range(130)), ["a", "b"], None, "JPEG has changed them"),
    "two suffixes": ([0, 1], ["a", "b"], rename("val/images", "1.jpg", "1.png"), "with one suffix"),
    "no folder": ([0, 1], ["a", "b"], lambda: shutil.rmtree("val/masks"), "no such folder"),
    "colours": (
        [0, 1],
        ["a", "b"],
        lambda: cv2.imwrite("val/masks/0.png", np.arange(12, dtype=np.uint8).reshape(2, 2, 3)),
        "expected one channel of 8 bits",
    ),
    "no image": (
        [0, 1], ["a", "b"], lambda: Path("val/masks/0.png").write_text("x"), "cannot be read",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SEGMENTATION_MISTAKES)
def test_mistakes_in_segmentation_are_one_line(name, masks):
    values, classes, change, message = SEGMENTATION_MISTAKES[name]
    folders = masks(values)
    if change:
        change()
    options = ["--classes", *classes] if classes else []
    with pytest.raises(SystemExit) as error:
        make("parts", "--from", "upernet_internimage-t", *folders, *options)
    assert message in str(error.value) and str(error.value).startswith("error: ")
    assert not Path("parts").exists()


def test_names_beside_annotations_that_have_names_are_refused():
    options = ["--coco", "train.json", "val.json", "images", "--classes", "cat"]
    with pytest.raises(SystemExit, match="--classes: with --coco the names come from the categ"):
        make("mine", "--from", "mask-rcnn_internimage-t", *options)


# ------------------------------------------------------------------------------------- lengths


@pytest.mark.parametrize(
    ("images", "batch", "epochs", "expected"), [(12, 2, 12, 21), (10**5, 2, 12, 1), (250, 2, 12, 1)]
)
def test_repetitions(images, batch, epochs, expected):
    assert repetitions(images, batch, epochs) == expected
    assert expected == 1 or expected * images * epochs / batch >= 1500


def test_schedules_are_shortened():
    warm_up = dict(type="LinearLR", begin=0, end=1500)
    poly = dict(type="PolyLR", begin=0, end=160000)
    cosine = dict(type="CosineAnnealingLR", begin=100, end=160000, T_max=159900)
    assert scaled_schedule([warm_up, poly, cosine], 160000, 3000) == [
        dict(warm_up, end=300),
        dict(poly, end=3000),
        dict(cosine, end=3000, T_max=3000),
    ]
    assert scaled_schedule([warm_up, poly], 160000, 160000) == [warm_up, poly]


# ------------------------------------------------------------------------------------- training


def train(*options):
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parents[2] / "tools" / "train.py"),
         "mine/config.py", "--work-dir", "run", "--cfg-options", *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


@pytest.mark.slow
def test_a_detector_trains(coco):
    make("mine", "--from", "mask-rcnn_r50-mdconv-c3-c5_fpn_demo", *coco)
    log = train("train_cfg.max_epochs=1", "train_cfg.val_interval=1",
                "train_dataloader.dataset.times=1")  # fmt: skip
    assert "coco/segm_mAP" in log and Path("run/epoch_1.pth").is_file()


@pytest.mark.slow
def test_a_segmentor_trains(masks):
    make("mine", "--from", "upernet_r50-mdconv-c3-c5_demo", *masks([0, 255]))
    log = train("train_cfg.max_iters=2", "train_cfg.val_interval=2")
    assert "mIoU" in log and "foreground" in log and Path("run/iter_2.pth").is_file()
