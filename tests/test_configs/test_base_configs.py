"""``mmdcn::...`` as the base of another project's config."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

import mmdcn.models  # noqa: F401 (which makes MMEngine find them)

CONFIGS = Path(__file__).parents[2] / "configs"
SOME = [
    "dcn/mask-rcnn_r50-mdconv-c3-c5_fpn_1x_coco.py",
    "internimage/dino-4scale_internimage-t_1x_coco.py",
    "internimage/upernet_internimage-t_160k_ade20k-512x512.py",
    "flash_internimage/mask2former_flash-internimage-t_160k_ade20k-512x512.py",
    "demo/upernet_r50-mdconv-c3-c5_demo.py",
]


def inherit(tmp_path, name, more=""):
    path = tmp_path / "mine.py"
    path.write_text(f'_base_ = "mmdcn::{name}"\n{more}')
    return Config.fromfile(path)


@pytest.mark.parametrize("name", SOME)
def test_an_inherited_config_is_the_same(name, tmp_path):
    pytest.importorskip("mmdet")
    pytest.importorskip("mmseg")
    expected = Config.fromfile(CONFIGS / name)
    assert inherit(tmp_path, name).to_dict() == expected.to_dict()


def test_values_of_a_base_are_overridden(tmp_path):
    pytest.importorskip("mmdet")
    cfg = inherit(tmp_path, SOME[0], "model = dict(backbone=dict(depth=101))\n")
    assert cfg.model.backbone.depth == 101 and cfg.model.backbone.dcn.type == "mmdcn.DCNv2"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dcn/mask-rcnn_r50-mdconv.py", "mask-rcnn_r50-mdconv-c3-c5_fpn_1x_coco.py"),
        ("../setup.py", "mmdcn has no such config"),
        ("dcn", "mmdcn has no such config"),
    ],
)
def test_an_unknown_name_is_answered_with_similar_ones(name, message, tmp_path):
    with pytest.raises(FileNotFoundError, match=message):
        inherit(tmp_path, name)


def test_other_projects_are_found_as_before(tmp_path):
    pytest.importorskip("mmdet")
    path = tmp_path / "mine.py"
    path.write_text('_base_ = "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"\n')
    assert Config.fromfile(path).model["_scope_"] == "mmdet"


@pytest.mark.slow
def test_the_tools_find_them(root, tmp_path):
    pytest.importorskip("mmdet")
    (tmp_path / "mine.py").write_text(f'_base_ = "mmdcn::{SOME[0]}"\n')
    tool = root / "tools" / "analysis_tools" / "get_flops.py"
    done = subprocess.run(
        [sys.executable, tool, "mine.py", "--shape", "64", "64"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
