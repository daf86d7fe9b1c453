"""tools/dataset_converters/deformed_shapes.py: contents, determinism, safety of its output."""

import hashlib
import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2")
mask_utils = pytest.importorskip("pycocotools.mask")
from pycocotools.coco import COCO  # noqa: E402

SCRIPT = Path(__file__).parents[2] / "tools/dataset_converters/deformed_shapes.py"
SMALL = dict(train=36, val=6, size=64, seed=3)
SPLITS = {"train": "training", "val": "validation"}


def _load():
    sys.path.insert(0, str(SCRIPT.parent))  # as Python does for a script
    spec = importlib.util.spec_from_file_location("deformed_shapes", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


shapes = _load()
annotations = sys.modules["deformed_shapes_annotations"]
scenes = sys.modules["deformed_shapes_scenes"]
outlines = sys.modules["deformed_shapes_outlines"]


def _run(out, **options):
    args = [f"--{name}={value}" for name, value in options.items()]
    return subprocess.run(
        [sys.executable, SCRIPT, f"--out={out}", *args], capture_output=True, text=True
    )


def _hashes(root):
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "shapes"
    result = _run(out, workers=2, **SMALL)
    assert result.returncode == 0, result.stderr
    return out


@pytest.fixture(scope="module", params=list(SPLITS))
def split(request, root):
    return request.param, COCO(str(root / f"annotations/instances_{request.param}.json"))


def test_same_seed_gives_same_bytes_for_any_worker_count(root, tmp_path):
    result = _run(tmp_path / "again", workers=1, **SMALL)
    assert result.returncode == 0, result.stderr
    assert _hashes(tmp_path / "again") == _hashes(root)


def test_image_depends_on_seed_split_and_index_only():
    arguments = dict(seed=3, split="train", size=64, shapes=shapes.SETS["shapes"])
    first = shapes.draw_files(5, **arguments)
    shapes.draw_files(7, **arguments)
    assert shapes.draw_files(5, **arguments) == first
    for changed in (dict(seed=4), dict(split="val")):
        assert shapes.draw_files(5, **(arguments | changed))[0] != first[0]
    assert shapes.draw_files(6, **arguments)[0] != first[0]


def test_number_of_images_does_not_change_the_pictures(root, tmp_path):
    result = _run(tmp_path / "fewer", workers=1, **(SMALL | dict(train=4, val=3)))
    assert result.returncode == 0, result.stderr
    for name in ("train/000004.jpg", "annotations/validation/000003.png"):
        assert (tmp_path / "fewer" / name).read_bytes() == (root / name).read_bytes()


def test_coco_json_has_the_official_fields(root):
    data = json.loads((root / "annotations/instances_train.json").read_text())
    assert set(data) == {"info", "licenses", "images", "annotations", "categories"}
    assert len(data["images"]) == SMALL["train"]
    assert [c["name"] for c in data["categories"]] == list(shapes.SETS["shapes"].classes)
    ids = list(range(1, len(shapes.SETS["shapes"].classes) + 1))
    assert len(ids) >= 3 and [c["id"] for c in data["categories"]] == ids
    assert sorted({a["category_id"] for a in data["annotations"]}) == ids
    ids = [a["id"] for a in data["annotations"]]
    assert ids == list(range(1, len(ids) + 1))
    for a in data["annotations"]:
        assert set(a) == {
            'id', 'image_id', 'category_id', 'segmentation', 'area', 'bbox', 'iscrowd',
        }  # fmt: skip


def test_boxes_and_areas_agree_with_rasterised_segmentations(split):
    _, coco = split
    assert coco.anns
    for a in coco.anns.values():
        mask = coco.annToMask(a).astype(bool)
        yy, xx = np.nonzero(mask)
        x, y = xx.min(), yy.min()
        assert a["area"] == mask.sum() > 0
        assert a["bbox"] == [x, y, xx.max() + 1 - x, yy.max() + 1 - y]
        assert isinstance(a["segmentation"], dict if a["iscrowd"] else list)


def test_masks_show_visible_parts_only(split):
    _, coco = split
    for image_id in coco.imgs:
        masks = [coco.annToMask(a) for a in coco.imgToAnns[image_id]]
        assert not masks or np.sum(masks, axis=0).max() == 1


def test_semantic_masks_agree_with_instance_masks(root, split):
    name, coco = split
    for image_id, image in coco.imgs.items():
        stem = Path(image["file_name"]).stem
        path = root / "annotations" / SPLITS[name] / f"{stem}.png"
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        expected = np.ones((image["height"], image["width"]), np.uint8)
        for a in coco.imgToAnns[image_id]:
            expected[coco.annToMask(a) > 0] = 0 if a["iscrowd"] else a["category_id"] + 1
        assert labels.dtype == np.uint8 and np.array_equal(labels, expected)
        assert labels.shape == (SMALL["size"], SMALL["size"])
        jpeg = (root / name / f"{stem}.jpg").read_bytes()
        assert (root / "images" / SPLITS[name] / f"{stem}.jpg").read_bytes() == jpeg
        assert cv2.imread(str(root / name / f"{stem}.jpg")).shape[:2] == labels.shape


def test_each_split_has_a_crowd_and_an_image_without_objects(split):
    _, coco = split
    crowds = [a for a in coco.anns.values() if a["iscrowd"]]
    assert crowds and any(not coco.imgToAnns[i] for i in coco.imgs)
    for a in crowds:  # uncompressed run lengths, column by column, starting with background
        height, width = a["segmentation"]["size"]
        counts = a["segmentation"]["counts"]
        assert sum(counts) == height * width and sum(counts[1::2]) == a["area"]


def test_objects_overlap():
    """Some objects are partly hidden: their masks touch those of the objects in front."""
    touching = 0
    for index in range(3, 20):
        rng = np.random.default_rng(index)
        scene = scenes.draw_scene(rng, 96, "ordinary", shapes.SETS["shapes"])
        for (alpha, _), mask in zip(scene.alphas, scene.masks, strict=True):
            touching += bool(((alpha >= 0.5) & ~mask).any())
    assert touching >= 3


@pytest.mark.parametrize("seed", range(5))
def test_polygons_along_pixel_borders_rasterise_exactly(seed):
    ndimage = pytest.importorskip("scipy.ndimage")
    # Many pixels that touch at corners only.
    mask = ndimage.binary_fill_holes(np.random.default_rng(seed).random((17, 23)) < 0.45)
    assert not annotations.has_holes(mask)
    polygons = annotations.mask_to_polygons(mask)
    rle = mask_utils.merge(mask_utils.frPyObjects(polygons, *mask.shape))
    assert np.array_equal(mask_utils.decode(rle), mask)


def test_has_holes():
    ring = np.ones((5, 5), bool)
    assert not annotations.has_holes(ring)
    ring[2, 2] = False
    assert annotations.has_holes(ring)


def test_second_run_does_nothing(root):
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    result = _run(root, **SMALL)
    assert result.returncode == 0 and "there already" in result.stdout
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_foreign_folder_is_never_touched(tmp_path, overwrite):
    (tmp_path / "manifest.json").write_text('{"generator": "something else"}')
    (tmp_path / "precious.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="not written by this script"):
        shapes.generate(tmp_path, train=3, val=3, size=48, seed=0, overwrite=overwrite)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["manifest.json", "precious.txt"]


def test_other_parameters_need_overwrite(tmp_path):
    out = tmp_path / "shapes"
    out.mkdir()  # an empty folder is fine
    small = dict(train=3, val=3, size=48)
    assert shapes.generate(out, **small, seed=0)
    before = _hashes(out)
    with pytest.raises(FileExistsError, match="--overwrite"):
        shapes.generate(out, **small, seed=1)
    assert _hashes(out) == before
    assert shapes.generate(out, **small, seed=1, overwrite=True)
    assert _hashes(out) != before
    assert [p.name for p in tmp_path.iterdir()] == ["shapes"]  # no temporary folder is left


TINY = dict(train=3, val=3, size=48)


def _add(out):
    (out / "notes.txt").write_text("precious")


def _add_in_a_subfolder(out):
    (out / "train" / "mine.jpg").write_text("precious")


def _change(out):
    (out / "val" / "000002.jpg").write_text("precious")


def _link(out):
    (out.parent / "elsewhere").mkdir()
    (out.parent / "elsewhere" / "000001.jpg").write_text("precious")
    for file in (out / "train").iterdir():
        file.unlink()
    (out / "train").rmdir()
    (out / "train").symlink_to(out.parent / "elsewhere")


def _forge(out):
    _add(out)
    manifest = json.loads((out / "manifest.json").read_text())
    (out.parent / "precious.txt").write_text("precious")
    for name in ("notes.txt", "../precious.txt"):
        manifest["files"][name] = hashlib.sha256(b"precious").hexdigest()
    (out / "manifest.json").write_text(json.dumps(manifest))


def _old_manifest(out):
    manifest = json.loads((out / "manifest.json").read_text())
    del manifest["files"]
    (out / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("touch", "name"),
    [
        (_add, "1 files .* changed since: notes.txt;"),
        (_add_in_a_subfolder, "1 files .* since: train/mine.jpg;"),
        (_change, "2 files .* since: images/validation/000002.jpg, val/000002.jpg;"),
        (_link, "1 files .* since: train;"),
        (_forge, "1 files .* since: notes.txt;"),
        (_old_manifest, "20 files .* since: annotations/"),
    ],
)
def test_overwrite_deletes_only_what_was_written(tmp_path, touch, name):
    out = tmp_path / "shapes"
    shapes.generate(out, **TINY, seed=0)
    touch(out)
    before = _hashes(tmp_path)
    with pytest.raises(FileExistsError, match=f"holds {name}"):
        shapes.generate(out, **TINY, seed=1, overwrite=True)
    assert _hashes(tmp_path) == before


def test_overwrite_does_not_follow_a_link(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    shapes.generate(real, **TINY, seed=0)
    link.symlink_to(real)
    assert not shapes.generate(link, **TINY, seed=0)  # complete
    before = _hashes(real)
    for target in (real, tmp_path / "nowhere"):
        link.unlink()
        link.symlink_to(target)
        with pytest.raises(FileExistsError, match="is a symbolic link"):
            shapes.generate(link, **TINY, seed=1, overwrite=True)
    assert _hashes(real) == before and link.is_symlink()


def test_killed_run_is_cleared_up(tmp_path):
    out = tmp_path / "shapes"
    command = [sys.executable, SCRIPT, f"--out={out}", "--train=500", "--workers=2"]
    partial = tmp_path / ".shapes.partial"
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while not list(partial.glob("new/train/*.jpg")):
            assert process.poll() is None
            time.sleep(0.05)
        with pytest.raises(FileExistsError, match="another process is writing"):
            shapes.generate(out, **TINY, seed=0)
        process.kill()
    assert partial.exists() and not out.exists()
    (partial / "new" / "mine.txt").write_text("precious")
    with pytest.raises(FileExistsError, match=r"new/mine\.txt"):
        shapes.generate(out, **TINY, seed=0)
    (partial / "new" / "mine.txt").unlink()
    shapes.generate(out, **TINY, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["shapes"]
    # killed between the folder's appearance and the end of the old one
    (partial / "old" / "train").mkdir(parents=True)
    (partial / "old" / "train" / "000001.jpg").write_bytes(b"")
    (partial / "old" / "manifest.json").write_bytes(b"")
    assert not shapes.generate(out, **TINY, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["shapes"]


def test_incomplete_folder_is_not_taken_for_complete(tmp_path):
    out = tmp_path / "shapes"
    small = dict(train=3, val=3, size=48, seed=0)
    shapes.generate(out, **small)
    (out / "val/000002.jpg").unlink()
    with pytest.raises(FileExistsError, match="lacks files"):
        shapes.generate(out, **small)


def test_interrupted_run_leaves_no_folder(tmp_path, monkeypatch):
    def fail(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(shapes, "write_scenes", fail)
    with pytest.raises(KeyboardInterrupt):
        shapes.generate(tmp_path / "shapes", train=3, val=3, size=48, seed=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name, value", [("train", 2), ("val", 0), ("size", 8), ("seed", -1)])
def test_bad_arguments(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"{name} must be at least .*, got {value}"):
        shapes.generate(tmp_path / "x", **(dict(train=3, val=3, size=48, seed=0) | {name: value}))


@pytest.fixture(scope="module")
def structures(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "structures"
    assert shapes.generate(out, "structures", train=40, val=5, size=96)
    return out


def test_structures_have_coco_and_ade20k_labels(structures):
    coco = COCO(str(structures / "annotations/instances_train.json"))
    classes = ["hook", "fork", "cross", "ring"]
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == classes
    for image_id, image in coco.imgs.items():
        path = structures / "annotations/training" / f"{Path(image['file_name']).stem}.png"
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        expected = np.ones(labels.shape, np.uint8)
        for a in coco.imgToAnns[image_id]:
            expected[coco.annToMask(a) > 0] = 0 if a["iscrowd"] else a["category_id"] + 1
        assert np.array_equal(labels, expected)
    manifest = json.loads((structures / "manifest.json").read_text())
    assert manifest["parameters"]["set"] == "structures"
    assert not shapes.generate(structures, "structures", train=40, val=5, size=96)
    with pytest.raises(FileExistsError, match="other parameters"):
        shapes.generate(structures, train=40, val=5, size=96)


@pytest.mark.parametrize("name, limbs", [("hook", 2), ("fork", 3), ("cross", 4)])
def test_limbs_grow_from_one_joint_and_do_not_merge(name, limbs):
    """Around the joint, a circle crosses each limb once: the class can be told."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        parts = [part * 60 + 100 for part in outlines.SHAPES[name](rng, 1.0)]
        mask = scenes.coverage(parts, 200) > 0.5
        angle = np.linspace(0, 2 * np.pi, 720, endpoint=False)
        x, y = 100 + 36 * np.cos(angle), 100 + 36 * np.sin(angle)
        ring = mask[y.astype(int), x.astype(int)]
        assert (ring & ~np.roll(ring, 1)).sum() == limbs


def test_singles_have_a_folder_per_class_and_one_object_in_the_middle(tmp_path):
    out = tmp_path / "singles"
    classes = shapes.SETS["singles"].classes
    assert shapes.generate(out, "singles", train=14, val=7)
    for split, each in (("train", 2), ("val", 1)):
        for name in classes:
            files = list((out / split / name).glob("*.jpg"))
            assert len(files) == each
            assert all(cv2.imread(str(file)).shape == (64, 64, 3) for file in files)
    for index, name in enumerate(classes):
        _, scene = scenes.draw_image(index, seed=0, split=0, size=64, shapes=shapes.SETS["singles"])
        (category, crowd), (mask,) = scene.labels[0], scene.masks
        assert (classes[category - 1], crowd) == (name, False)
        y, x = np.nonzero(mask)
        assert abs((x.min() + x.max()) / 2 - 32) < 6 and abs((y.min() + y.max()) / 2 - 32) < 6
    (out / "train" / "star" / "000001.jpg").unlink()
    with pytest.raises(FileExistsError, match="lacks files"):
        shapes.generate(out, "singles", train=14, val=7)
