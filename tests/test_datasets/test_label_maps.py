"""Label maps in which classes are never seen, and label maps that cannot be used."""

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmdcn.datasets import label_maps
from mmdcn.datasets.errors import DatasetError, LabelMapError

pytest.importorskip("mmseg")


@pytest.fixture
def roads(tmp_path):
    """Writes images and label maps with the given values; gives a config with two classes."""

    def write(*maps, **dataset):
        for part in ("images", "labels"):
            (tmp_path / part).mkdir(exist_ok=True)
        for number, values in enumerate(maps):
            values = np.resize(np.array(values, np.uint8), (10, 20))
            Image.fromarray(values).save(tmp_path / "labels" / f"{number:03d}.png")
            Image.new("RGB", (20, 10)).save(tmp_path / "images" / f"{number:03d}.jpg")
        dataset = dict(
            type="BaseSegDataset",
            data_root=str(tmp_path),
            data_prefix=dict(img_path="images", seg_map_path="labels"),
            metainfo=dict(classes=("ground", "road")),
            pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")],
            **dataset,
        )
        return Config(dict(default_scope="mmseg", train_dataloader=dict(dataset=dataset)))

    return write


def test_good_label_maps(roads, check, lines):
    check(roads([0, 0], [0, 1, 255]))
    assert len(lines()) == 1 and "2 images" in lines()[0]


def test_masks_of_0_and_255(roads, check, lines):
    check(roads([0, 255], [0]))
    assert "1 of 2 classes do not occur in 2 label maps: road" in lines()[0]
    assert "the maps hold 0 and 255 only" in lines()[0] and "as 0, 1, 2" in lines()[0]
    message = r"no pixel of 2 label maps .* values 255; the maps hold 0 and 255 only"
    with pytest.raises(DatasetError, match=message):
        check(roads([255], [255]))


def test_reduce_zero_label_of_maps_that_begin_with_0(roads, check, lines):
    message = r"no pixel of .* values 0; with reduce_zero_label=True pixels of value 0 do not count"
    with pytest.raises(DatasetError, match=message):
        check(roads([0], [0], reduce_zero_label=True))
    check(roads([0, 1], [0], reduce_zero_label=True))
    assert "1 of 2 classes do not occur in 2 label maps: road" in lines()[0]
    with pytest.raises(DatasetError, match="hold 0 and 255 only"):
        check(roads([0, 255], [0], reduce_zero_label=True))


def test_class_that_never_occurs(roads, check, lines):
    check(roads([1], [1, 255]))
    assert lines()[0].endswith("1 of 2 classes do not occur in 2 label maps: ground")


def test_number_of_maps_is_bounded(roads, check, lines, monkeypatch):
    monkeypatch.setattr(label_maps, "MAPS", 4)
    cfg = roads(*([0] for _ in range(10)))
    check(cfg)
    assert "do not occur in 4 label maps" in lines()[0]
    monkeypatch.setattr(label_maps, "SECONDS", -1)
    check(cfg)
    assert "do not occur in 1 label maps" in lines()[2]


def test_labels_of_a_subset_of_classes(tmp_path, check, lines):
    # the labels in the files are those of all of ADE20K's classes
    for part, suffix in (("images", ".jpg"), ("labels", ".png")):
        (tmp_path / part).mkdir()
        Image.new("L", (20, 10), 2).save(tmp_path / part / f"a{suffix}")
    dataset = dict(
        type="ADE20KDataset",
        data_root=str(tmp_path),
        data_prefix=dict(img_path="images", seg_map_path="labels"),
        metainfo=dict(classes=("building", "sky")),  # 2 and 3 in the files
        pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")],
    )
    check(Config(dict(default_scope="mmseg", train_dataloader=dict(dataset=dataset))))
    assert "1 of 2 classes do not occur in 1 label maps: sky" in lines()[0]


def test_label_map_out_of_range_is_named_before_a_run(roads, check):
    with pytest.raises(LabelMapError, match=r"001\.png: label 2 in 100 pixels"):
        check(roads([0, 1], [0, 2]))


def test_own_loading_is_not_second_guessed(roads, check):
    # a user's transform may read whatever it likes
    cfg = roads([0, 1], [0, 9])
    cfg.train_dataloader.dataset.pipeline[1].type = "LoadMyLabels"
    check(cfg)


def test_empty_label_map(roads, check, tmp_path):
    cfg = roads([0, 1], [0, 1])
    (tmp_path / "labels" / "001.png").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"1 of its 2 label maps are empty files .*001\.png"):
        check(cfg)
    (tmp_path / "labels" / "001.png").write_text("x")
    with pytest.raises(DatasetError, match=r"label map .*001\.png: it cannot be read"):
        check(cfg)
