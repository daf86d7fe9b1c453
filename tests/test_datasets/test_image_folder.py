"""Images in a folder per class: labels, classes, errors, and accuracy."""

import cv2
import numpy as np
import pytest
import torch

from mmdcn.datasets.errors import DatasetError

pytest.importorskip("mmcv")
from mmdcn.datasets.image_folder import (  # noqa: E402
    ImageFolder,
    PackLabelledImage,
    TopOneAccuracy,
)


@pytest.fixture
def root(tmp_path):
    for label, (name, count) in enumerate(dict(cat=2, ant=1).items()):
        (tmp_path / name).mkdir()
        for index in range(count):
            image = np.full((4, 5, 3), 10 * label + index, np.uint8)
            cv2.imwrite(str(tmp_path / name / f"{index}.png"), image)
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "README").write_text("no class")
    return tmp_path


def pipeline():
    return [dict(type="mmcv.LoadImageFromFile"), dict(type="mmdcn.PackLabelledImage")]


def test_classes_are_folders_in_order(root):
    data = ImageFolder(str(root), pipeline=pipeline())
    assert data.metainfo["classes"] == ("ant", "cat")
    items = [data[i] for i in range(len(data))]
    assert [item["data_samples"] for item in items] == [0, 1, 1]
    assert [int(item["inputs"][0, 0, 0]) for item in items] == [10, 0, 1]
    assert all(i["inputs"].shape == (3, 4, 5) and i["inputs"].dtype == torch.uint8 for i in items)


def test_the_config_can_say_the_classes(root):
    data = ImageFolder(str(root), metainfo=dict(classes=("cat", "ant")), pipeline=pipeline())
    assert [data[i]["data_samples"] for i in range(3)] == [0, 0, 1]


def test_missing_folders_and_images_are_named(root, tmp_path):
    with pytest.raises(DatasetError, match="nowhere: there is no such folder"):
        ImageFolder(str(tmp_path / "nowhere"))
    with pytest.raises(DatasetError, match="the class dog has no image there"):
        ImageFolder(str(root), metainfo=dict(classes=("cat", "dog")))


def test_channels_are_not_mixed_up():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    packed = PackLabelledImage().transform(dict(img=image, label=1))
    assert all(torch.equal(packed["inputs"][c], torch.tensor(image[..., c])) for c in range(3))


def test_accuracy():
    metric = TopOneAccuracy()
    for answers in ([0, 1, 2], [2]):
        metric.process({}, [dict(answer=a, label=1) for a in answers])
    assert metric.evaluate(4) == {"accuracy/top1": 25.0}
