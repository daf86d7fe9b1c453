"""Training, testing and prediction as a user runs them, with tiny models on the CPU."""

import json
import math
import pickle

import pytest
import torch

from mmdcn.checkpoints import load_checkpoint_file

pytest.importorskip("mmdet")
pytest.importorskip("mmseg")
pytestmark = pytest.mark.slow


def weights(path):
    return load_checkpoint_file(path, "cpu")["state_dict"]


def assert_same_weights(ours, reference, **tolerance):
    ours, reference = weights(ours), weights(reference)
    assert ours.keys() == reference.keys()
    for name, value in reference.items():
        torch.testing.assert_close(
            ours[name], value, **tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.fixture(scope="session")
def fcn(make_workspace):
    """An uninterrupted run of 6 iterations on 4 images each."""
    workspace = make_workspace("fcn")
    workspace.log = workspace.run("train", "tiny_fcn.py", "--work-dir", "run")
    return workspace


@pytest.fixture(scope="session")
def mask_rcnn(make_workspace):
    workspace = make_workspace("mask_rcnn")
    workspace.log = workspace.run("train", "tiny_mask_rcnn.py", "--auto-scale-lr")
    return workspace


def test_detector_trains_and_evaluates(mask_rcnn, shapes):
    run = mask_rcnn / "work_dirs" / "tiny_mask_rcnn"
    losses = list(mask_rcnn.scalars(run, "loss").values())
    assert len(losses) == 3 * 12
    assert all(map(math.isfinite, losses))
    assert sum(losses[-6:]) < 0.9 * sum(losses[:6])
    # --auto-scale-lr: 0.03 is meant for batches of 4, and these are of 2
    assert set(mask_rcnn.scalars(run, "lr").values()) == {0.015}
    assert (run / "last_checkpoint").read_text().endswith("epoch_3.pth")
    assert sorted(p.name for p in run.glob("*.pth*")) == ["epoch_2.pth", "epoch_3.pth"]
    (metric,) = mask_rcnn.scalars(run, "coco/bbox_mAP").values()
    assert 0 <= metric <= 1
    content = json.loads((shapes / "annotations" / "instances_train.json").read_text())
    count = len(content["annotations"])
    crowds = sum(annotation["iscrowd"] for annotation in content["annotations"])
    numbers = f"{count} annotations, {crowds} crowd regions, {count - crowds} of them used"
    assert f"24 images, {numbers}" in mask_rcnn.log


def test_random_numbers_do_not_depend_on_an_interruption(workspace):
    workspace.run("train", "tiny_seeded.py", "--work-dir", "whole")
    kill = dict(MMDCN_TEST_KILL="step 15")
    workspace.run("train", "tiny_seeded.py", "--work-dir", "run", fails=True, env=kill)
    workspace.run("train", "tiny_seeded.py", "--work-dir", "run", "--resume")
    for epoch in (1, 2):
        name = f"epoch_{epoch}.pth"
        assert_same_weights(workspace / "run" / name, workspace / "whole" / name, rtol=0, atol=0)


def test_two_processes_evaluate_all_images(mask_rcnn, shapes):
    mask_rcnn.run(
        "test",
        "tiny_mask_rcnn.py",
        "work_dirs/tiny_mask_rcnn/epoch_3.pth",
        "--out=predictions/two.pkl",
        processes=2,
    )
    with open(mask_rcnn / "predictions" / "two.pkl", "rb") as file:
        ids = sorted(prediction["img_id"] for prediction in pickle.load(file))
    content = json.loads((shapes / "annotations" / "instances_val.json").read_text())
    assert ids == sorted(image["id"] for image in content["images"])


def test_augmentation_and_pictures(mask_rcnn, shapes):
    checkpoint = "work_dirs/tiny_mask_rcnn/epoch_3.pth"
    # MMDetection's augmentation is for boxes alone.
    boxes = ["model.roi_head.mask_head=None", "model.roi_head.mask_roi_extractor=None"]
    boxes += ["test_evaluator.metric=bbox"]
    options = ["--tta", "--show-dir=pictures", "--cfg-options", *boxes]
    log = mask_rcnn.run("test", "tiny_mask_rcnn.py", checkpoint, *options)
    assert "coco/bbox_mAP" in log
    names = {p.name for p in (shapes / "val").iterdir()}
    assert {p.name for p in (mask_rcnn / "pictures").iterdir()} == names


def test_picture_of_detections(mask_rcnn):
    import cv2

    image = mask_rcnn / "data" / "deformed_shapes" / "val" / "000001.jpg"
    options = ["--out-file=drawn/boxes.png", "--score-thr=0.0", "--zoom=3"]
    log = mask_rcnn.run(
        "image_demo",
        "tiny_mask_rcnn.py",
        image,
        "work_dirs/tiny_mask_rcnn/epoch_3.pth",
        *options,
    )
    assert "10 objects with a score of at least 0: drawn/boxes.png" in log
    drawn = cv2.imread(str(mask_rcnn / "drawn" / "boxes.png"))
    enlarged = cv2.resize(cv2.imread(str(image)), None, fx=3, fy=3)
    assert drawn.shape == enlarged.shape
    assert (cv2.absdiff(drawn, enlarged) > 30).mean() > 0.01


def test_segmentor_trains_tests_and_draws(fcn):
    import cv2

    losses = fcn.scalars("run", "loss")
    assert sorted(losses) == [1, 2, 3, 4, 5, 6] and all(map(math.isfinite, losses.values()))
    fcn.run("test", "tiny_fcn.py", "run/iter_6.pth", "--out=maps", "--work-dir=test")
    assert len(list((fcn / "maps").glob("*.png"))) == 9
    assert fcn.scalars("run", "aAcc") and 0 <= fcn.scalars("run", "mIoU")[6] <= 100

    image = fcn / "data" / "deformed_shapes" / "val" / "000001.jpg"
    log = fcn.run("image_demo", "tiny_fcn.py", image, "run/iter_6.pth", "--out-file=drawn.png")
    assert "classes " in log
    assert cv2.imread(str(fcn / "drawn.png")).shape == (96, 96, 3)


def test_offset_keys_of_early_mmdetection(fcn):
    new = weights(fcn / "run" / "iter_6.pth")
    old = {key.replace(".conv_offset.", "_offset."): value for key, value in new.items()}
    assert "backbone.layer3.0.conv2_offset.bias" in old
    meta = load_checkpoint_file(fcn / "run" / "iter_6.pth")["meta"]
    torch.save(dict(state_dict=old, meta=meta), fcn / "old.pth")
    image = fcn / "data" / "deformed_shapes" / "val" / "000001.jpg"
    logs = [
        fcn.run("test", "tiny_fcn.py", "old.pth", "--work-dir=old"),
        fcn.run("image_demo", "tiny_fcn.py", image, "old.pth", "--out-file=old.png"),
    ]
    for log in logs:
        assert "missing keys" not in log and "unexpected key" not in log
    (metrics,) = (fcn / "old").glob("*/*.json")
    assert json.loads(metrics.read_text())["aAcc"] == fcn.scalars("run", "aAcc")[6]


@pytest.mark.parametrize("started_by", ["torchrun", "--cpu-processes"])
def test_two_processes_train_like_one(fcn, started_by):
    if started_by == "torchrun":
        half = ["--cfg-options", "train_dataloader.batch_size=2"]
        fcn.run("train", "tiny_fcn.py", "--work-dir=two", *half, processes=2)
    elif torch.cuda.is_available():
        pytest.skip("it is for machines without a CUDA device")
    else:
        fcn.run("train", "tiny_fcn.py", "--work-dir=two", "--cpu-processes=2")
    # The same images make up each batch, and the loss is a mean over pixels, so the gradients
    # agree up to the order of float32 sums.
    first = fcn / "two" / "iter_2.pth"
    assert_same_weights(first, fcn / "run" / "iter_2.pth", rtol=1e-4, atol=1e-6)
    assert fcn.scalars("two", "aAcc")[6] == pytest.approx(fcn.scalars("run", "aAcc")[6], abs=0.1)


@pytest.mark.parametrize("place", ["step 5", "write 6"])
def test_killed_run_ends_like_an_uninterrupted_one(fcn, workspace, place):
    workspace.run("train", "tiny_fcn.py", fails=True, env={"MMDCN_TEST_KILL": place})
    run = workspace / "work_dirs" / "tiny_fcn"
    assert sorted(p.name for p in run.glob("iter_*.pth")) == ["iter_2.pth", "iter_4.pth"]
    assert (run / "iter_6.pth.0.tmp").exists() == (place == "write 6")

    log = workspace.run("train", "tiny_fcn.py", "--resume")
    assert "resumed epoch: 0, iter: 4" in log
    assert sorted(p.name for p in run.glob("iter_*")) == [f"iter_{n}.pth" for n in (2, 4, 6)]
    assert_same_weights(run / "iter_6.pth", fcn / "run" / "iter_6.pth", rtol=0, atol=0)
    reference = fcn.scalars("run", "loss")
    assert {n: workspace.scalars(run, "loss")[n] for n in (5, 6)} == {
        n: reference[n] for n in (5, 6)
    }


def test_truncated_checkpoint(fcn, workspace):
    whole = (fcn / "run" / "iter_4.pth").read_bytes()
    run = workspace / "run"
    run.mkdir()
    (run / "iter_2.pth").write_bytes((fcn / "run" / "iter_2.pth").read_bytes())
    (run / "iter_4.pth").write_bytes(whole[: len(whole) // 2])
    (run / "last_checkpoint").write_text(str(run / "iter_4.pth"))

    for tool, *args in (("train", "--resume", "run/iter_4.pth"), ("test", "run/iter_4.pth")):
        log = workspace.run(tool, "tiny_fcn.py", *args, fails=True)
        assert "error: checkpoint run/iter_4.pth: the file is truncated" in log
        assert "Traceback" not in log

    log = workspace.run("train", "tiny_fcn.py", "--resume", "--work-dir=run")
    assert "Passed over for resuming: checkpoint run/iter_4.pth: the file is truncated" in log
    assert "resumed epoch: 0, iter: 2" in log
    assert_same_weights(run / "iter_6.pth", fcn / "run" / "iter_6.pth", rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["train_dataloader.dataset.data_root=nowhere/"],
            "error: train_dataloader.dataset.data_root: there is no folder 'nowhere/' in /",
        ),
        (["default_scope=mmpose"], "error: default_scope: expected mmdet or mmseg or"),
    ],
)
def test_mistakes_get_one_line(workspace, options, message):
    log = workspace.run("train", "tiny_mask_rcnn.py", "--cfg-options", *options, fails=True)
    assert message in log
    assert "Traceback" not in log


def test_mistakes_get_one_line_from_all_processes(workspace):
    options = ["--cfg-options", "data_root=x", "train_dataloader.dataset.ann_file=nowhere.json"]
    log = workspace.run("train", "tiny_mask_rcnn.py", *options, processes=2, fails=True)
    assert log.count("error: train_dataloader.dataset.ann_file: there is no file") == 1
