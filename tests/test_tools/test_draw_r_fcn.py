"""The picture of R-FCN's bins, score maps and votes."""

import itertools

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmdcn import ops
from mmdcn.engine.launch import UsageError

pytest.importorskip("mmdet")
pytest.importorskip("matplotlib")


@pytest.fixture
def tool(load_tool):
    return load_tool("analysis_tools/draw_r_fcn")


def ramps(scale, size):
    """Maps whose values are the x and y of their pixels' centres in the image, and 9 bins each."""
    centre = (torch.arange(size, dtype=torch.float64) + 0.5) / scale
    maps = torch.stack([centre.expand(size, size), centre[:, None].expand(size, size)])
    return maps.repeat_interleave(9, 0)[None]


ROI = torch.tensor([0.0, 41.3, 60.4, 113.7, 150.2], dtype=torch.float64)


def test_bins_lie_where_the_deformable_pooling_samples(tool):
    layer = ops.DeformPSRoIPool(3, 2, 3, spatial_scale=0.125, trans_std=0.2)
    generator = torch.Generator().manual_seed(0)
    offset = torch.randn(2, 3, 3, generator=generator, dtype=torch.float64)
    for shift in (None, offset):
        pooled = layer(ramps(0.125, 30), ROI[None], None if shift is None else shift[None])[0]
        boxes = tool.bin_boxes(layer, ROI, shift)
        size = boxes[..., 2:] - boxes[..., :2]
        torch.testing.assert_close(size, size[:1, :1].expand(3, 3, 2))
        # four samples along each axis, the first in the bin's corner
        middle = boxes[..., :2] + size * 1.5 / 4
        torch.testing.assert_close(middle.permute(2, 0, 1), pooled)
    assert tool.bin_boxes(layer, ROI, None)[0, 0, :2].tolist() == [41, 60]
    assert tool.bin_boxes(layer, ROI, None)[2, 2, 2:].tolist() == pytest.approx([115, 151])


def test_bins_lie_where_the_quantised_pooling_averages(tool):
    layer = ops.PSRoIPool(3, spatial_scale=0.125)
    pooled = layer(ramps(0.125, 30), ROI[None])[0]
    boxes = tool.bin_boxes(layer, ROI, None)
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    torch.testing.assert_close(middle.permute(2, 0, 1), pooled)


def means_in_boxes(maps, boxes, stride):
    """Mean of the samples that each of ``(k, k, 4)`` boxes takes from its map of ``(k, k, H, W)``;
    they begin in its corner."""
    size = torch.tensor(maps.shape[:1:-1]) * stride
    step = torch.arange(4) / 4
    result = torch.zeros(maps.shape[:2])
    for i, j in itertools.product(*map(range, result.shape)):
        start, extent = boxes[i, j, :2], boxes[i, j, 2:] - boxes[i, j, :2]
        grid = torch.cartesian_prod(step, step) * extent + start
        inside = ((grid >= 0) & (grid <= size)).all(1)
        values = torch.nn.functional.grid_sample(
            maps[None, None, i, j], (grid / size * 2 - 1)[None, None],
            padding_mode="border", align_corners=False,
        )[0, 0, 0]  # fmt: skip
        result[i, j] = values[inside].sum() / max(int(inside.sum()), 1)
    return result


CLASSES = ("star", "crescent", "fish")
CONFIGS = ["r-fcn_r50_demo", "r-fcn_r50-mdconv-c3-c5_mdpsroi_demo"]


@pytest.fixture
def model(root, tmp_path):
    """Writes a narrow config and its checkpoint, returns their paths."""

    def write(name, **options):
        cfg = Config.fromfile(root / "configs" / "demo" / f"{name}.py")
        cfg.model.backbone.base_channels = 4
        cfg.model.rpn_head.in_channels = 64
        cfg.model.roi_head.bbox_head.in_channels = 128
        cfg.model.test_cfg.rcnn.score_thr = 0.0
        # without training, only the image's own statistics make its features differ
        norm_cfg = dict(type="BN", track_running_stats=False)
        cfg.model.backbone.norm_cfg = cfg.model.roi_head.bbox_head.norm_cfg = norm_cfg
        cfg.model.roi_head.bbox_head.roi_layer.update(options)
        cfg.dump(tmp_path / "config.py")
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope("mmdet"):
            network = MODELS.build(cfg.model)
        for parameter in network.roi_head.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        state = dict(state_dict=network.state_dict(), meta=dict(dataset_meta=dict(classes=CLASSES)))
        torch.save(state, tmp_path / "weights.pth")
        return tmp_path / "config.py", tmp_path / "weights.pth"

    return write


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("options", [{}, dict(type="DeformPSRoIPoolPack")], ids=["", "offsets"])
def test_votes_of_the_picture_are_those_of_the_detections(name, options, tool, model, shapes):
    from mmdet.apis import inference_detector, init_detector

    config, weights = model(name, **options)
    detector = init_detector(str(config), str(weights), device="cpu")
    image = str(shapes / "val" / "000001.jpg")
    with torch.no_grad():
        shown, found = tool.best_proposals(detector, image, 3)
        predicted = inference_detector(detector, image).pred_instances
        assert shown.shape == (128, 128, 3) and len(found) == 3
        for i, item in enumerate(found):
            assert item["score"] == pytest.approx(float(predicted.scores[i]), rel=1e-5)
            assert item["name"] == CLASSES[predicted.labels[i]]
            scale = 96 / 128  # predictions are in pixels of the file
            torch.testing.assert_close(item["detection"] * scale, predicted.bboxes[i])
            side = 128 // detector.cfg.stride
            assert item["maps"].shape == (7, 7, side, side) and item["votes"].shape == (7, 7)
            # what the drawn boxes hold of the drawn maps is the drawn votes
            held = means_in_boxes(item["maps"], item["bins"], item["stride"])
            assert held.std() > 0.01
            if "mdpsroi" not in name or options:
                torch.testing.assert_close(item["votes"], held, rtol=1e-4, atol=1e-5)
            else:  # up to a factor between 0 and 1
                seen = held.abs() > 1e-4
                factors = item["votes"][seen] / held[seen]
                assert seen.sum() > 40 and 0 < factors.min() < factors.max() < 1


@pytest.mark.parametrize("name", CONFIGS)
def test_draws_a_picture(name, tool, model, shapes, tmp_path, monkeypatch, capsys):
    import cv2

    config, weights = model(name)
    out = tmp_path / "new" / "picture.png"
    image = shapes / "val" / "000001.jpg"
    argv = ["draw_r_fcn", image, config, weights, "--out-file", out, "--objects", "1"]
    monkeypatch.setattr("sys.argv", [str(arg) for arg in argv])
    tool.main()
    assert f"1 objects: {out}" in capsys.readouterr().out
    assert [p.name for p in out.parent.iterdir()] == ["picture.png"]
    picture = cv2.imread(str(out)).astype(int)
    blue, green, red = picture.reshape(-1, 3).T
    for colour in (
        (red > 200) & (green < 60) & (blue < 60),
        (red > 200) & (green > 200) & (blue < 60),
        (green > 200) & (red < 60) & (blue < 60),
    ):
        assert colour.sum() > 100


def test_mistakes(tool, root, tmp_path, monkeypatch):
    config = root / "tests" / "test_tools" / "configs" / "tiny_mask_rcnn.py"
    for path in ("image.jpg", "weights.pth"):
        (tmp_path / path).touch()
    base = [str(tmp_path / "image.jpg"), str(config), str(tmp_path / "weights.pth")]
    for args, match in (
        (["no.jpg", *base[1:]], "image no.jpg: there is no such file"),
        ([*base[:2], "no.pth"], "checkpoint no.pth: there is no such file"),
        (base, r"image .*image\.jpg: it cannot be read as an image"),
        ([*base, "--objects", "0"], "--objects: expected a positive number, got 0"),
    ):
        monkeypatch.setattr("sys.argv", ["draw_r_fcn", *args])
        with pytest.raises(UsageError, match=match):
            tool.main()
