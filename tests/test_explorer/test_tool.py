"""tools/explore.py up to the page: images, and what is missing."""

import builtins
import sys

import cv2
import numpy as np
import pytest

pytest.importorskip("mmdet")

from mmdcn.engine import launch  # noqa: E402


@pytest.fixture(scope="module")
def tool(load_tool):
    return load_tool("explore")


def test_images_of_files_and_folders(tool, tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt"):
        cv2.imwrite(str(tmp_path / "x.png"), np.zeros((4, 4, 3), np.uint8))
        (tmp_path / "x.png").rename(tmp_path / name)
    found = tool.find_images([str(tmp_path), str(tmp_path / "b.png")])
    assert [path.rsplit("/")[-1] for path in found] == ["a.JPG", "b.png", "b.png"]


def test_images_that_are_none(tool, tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(launch.UsageError, match="there is no image in this folder"):
        tool.find_images([str(tmp_path)])
    with pytest.raises(launch.UsageError, match=r"image notes\.txt: this is no image"):
        tool.find_images([str(tmp_path / "notes.txt")])
    with pytest.raises(launch.UsageError, match="there is no such file"):
        tool.find_images([str(tmp_path / "missing.png")])


def test_without_gradio_it_says_what_to_install(tool, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.partition(".")[0] == "gradio":
            raise ModuleNotFoundError(f"No module named {name!r}", name="gradio")
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "mmdcn.analysis.explorer", raising=False)
    monkeypatch.delattr("mmdcn.analysis.explorer", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(launch.UsageError, match=r"pip install .*\[explore\]"):
        tool.import_page()
