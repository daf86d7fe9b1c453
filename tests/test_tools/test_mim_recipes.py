"""One recipe of each family, started with ``mim train`` as README says, on narrow models."""

import os
import subprocess
import sys

import pytest
import torch

from mmdcn.checkpoints import load_checkpoint_file

pytest.importorskip("mim")
pytest.importorskip("mmdet")
pytestmark = pytest.mark.slow

HEADS = [
    "model.rpn_head.feat_channels=32",
    "model.roi_head.bbox_head.fc_out_channels=32",
    "model.roi_head.bbox_head.num_classes=3",
    "model.train_cfg.rpn_proposal.max_per_img=20",
]
INTERN_IMAGE = [
    "model.backbone.channels=16",
    "model.backbone.depths=(1,1,1,1)",
    "model.backbone.groups=(1,2,4,8)",
    "model.neck.in_channels=[16,32,64,128]",
    *HEADS,
    "model.roi_head.mask_head.num_classes=3",
]
RESNET = [
    "model.backbone.base_channels=8",
    "model.backbone.stem_channels=8",
    "model.backbone.frozen_stages=-1",
    "model.neck.in_channels=[32,64,128,256]",
    *HEADS,
]
R_FCN = [
    "model.backbone.base_channels=8",
    "model.backbone.stem_channels=8",
    "model.backbone.frozen_stages=-1",
    "model.rpn_head.in_channels=128",
    "model.rpn_head.feat_channels=32",
    "model.roi_head.bbox_head.in_channels=256",
    "model.roi_head.bbox_head.feat_channels=32",
    "model.roi_head.bbox_head.num_classes=3",
]
FAMILIES = {
    "dcn/faster-rcnn_r50-dcnv3-c3-c5_fpn_1x_coco.py": RESNET,
    "internimage/mask-rcnn_internimage-t_fpn_1x_coco.py": INTERN_IMAGE,
    "flash_internimage/mask-rcnn_flash-internimage-s_fpn_1x_coco.py": INTERN_IMAGE,
    "r_fcn/r-fcn_r50-mdconv-c3-c5_mdpsroi_1x_coco.py": R_FCN,
}
OFFSETS = (".offset.weight", ".offset_mask.weight", ".conv_offset.weight", ".conv_mask.weight")
RUN = [
    "model.backbone.init_cfg=None",
    "train_dataloader.num_workers=0",
    "train_dataloader.persistent_workers=False",
    "train_dataloader.dataset.metainfo.classes=('star','crescent','fish')",
    "train_dataloader.dataset.pipeline.2.scale=(96,96)",
    "val_dataloader=None",
    "val_evaluator=None",
    "val_cfg=None",
    "default_hooks.checkpoint.save_best=None",
]


@pytest.fixture
def coco(shapes, tmp_path):
    """A folder where the shapes lie as COCO does."""
    data = tmp_path / "data" / "coco"
    (data / "annotations").mkdir(parents=True)
    annotations = data / "annotations" / "instances_train2017.json"
    annotations.symlink_to(shapes / "annotations" / "instances_train.json")
    (data / "train2017").symlink_to(shapes / "train")
    return tmp_path


def mim_train(folder, config, *args, epochs, options):
    command = [sys.executable, "-m", "mim", "train", "mmdcn", str(config), "--work-dir", "run"]
    command += [*args, "--cfg-options", *options, f"train_cfg.max_epochs={epochs}"]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    return done.stdout


def assert_offsets_learn(before, after):
    offsets = [key for key in after if key.endswith(OFFSETS)]
    assert len(offsets) >= 4
    for key in offsets:
        assert after[key].dtype == torch.float32 and after[key].isfinite().all()
        assert not torch.equal(after[key], before[key])


def weights(path):
    return load_checkpoint_file(path)["state_dict"]


@pytest.mark.parametrize("name", FAMILIES)
def test_recipe_trains_with_amp(name, coco, root):
    config, options = root / "configs" / name, [*RUN, *FAMILIES[name]]
    log = mim_train(coco, config, "--amp", epochs=1, options=options)
    assert "Epoch(train) [1]" in log
    after = weights(coco / "run" / "epoch_1.pth")
    assert_offsets_learn({key: torch.zeros_like(value) for key, value in after.items()}, after)
    if "internimage-t" not in name and "r_fcn" not in name:
        return
    log = mim_train(coco, config, "--amp", "--resume", epochs=2, options=options)
    assert "resumed epoch: 1" in log
    assert_offsets_learn(after, weights(coco / "run" / "epoch_2.pth"))
