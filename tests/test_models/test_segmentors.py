"""Segmentation models without MMDetection, and the prediction of Mask2Former."""

import subprocess
import sys
import textwrap

import pytest
import torch

pytest.importorskip("mmseg")

HIDE = "import sys; sys.modules['mmdet'] = None  # makes an import fail\n"


def run_without_mmdet(code, **kwargs):
    code = HIDE + textwrap.dedent(code)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, **kwargs)


@pytest.mark.slow
def test_segmentors_do_without_mmdet(root):
    done = run_without_mmdet(f"""
        from pathlib import Path
        import torch
        from mmengine.config import Config
        from mmengine.registry import MODELS, DefaultScope

        names = [p for p in sorted(Path({str(root)!r}, "configs").glob("[a-z]*/*.py"))
                 if "ade20k-" in p.name or p.name.startswith("upernet_") and "demo" in p.name]
        for path in names:
            if "mask2former" not in path.name:
                cfg = Config.fromfile(path)
                with DefaultScope.overwrite_default_scope("mmseg"), torch.device("meta"):
                    MODELS.build(cfg.model)
                print(path.stem)
        assert not [name for name in sys.modules if name.startswith("mmdet.")]
    """)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 12 + 7 + 4 + 3


@pytest.mark.slow
def test_tools_do_without_mmdet(root, shapes, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "deformed_shapes").symlink_to(shapes)
    config = root / "configs" / "demo" / "upernet_r50-mdconv-c3-c5_demo.py"
    done = run_without_mmdet(
        f"""
        import runpy
        sys.argv = ["train.py", {str(config)!r}, "--work-dir", "run", "--cfg-options",
                    "train_cfg.max_iters=1", "train_cfg.val_interval=1",
                    "train_dataloader.batch_size=2"]
        runpy.run_path({str(root / "tools" / "train.py")!r}, run_name="__main__")
        """,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "mIoU" in done.stdout + done.stderr
    assert (tmp_path / "run" / "iter_1.pth").is_file()


@pytest.mark.parametrize("tool", ["train.py", "analysis_tools/get_flops.py"])
def test_mask2former_says_that_it_needs_mmdet(root, tmp_path, tool):
    name = "mask2former_flash-internimage-t_160k_ade20k-512x512.py"
    config = root / "configs" / "flash_internimage" / name
    done = run_without_mmdet(
        f"""
        import runpy
        sys.argv = ["tool", {str(config)!r}]
        runpy.run_path({str(root / "tools" / tool)!r}, run_name="__main__")
        """,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    message = f"error: config {config}: Mask2Former needs MMDetection, which is not installed"
    assert message in done.stderr and "Traceback" not in done.stderr


class TestMask2FormerPrediction:
    """Two queries on a map of 2 x 3 pixels, in place of the transformer."""

    CLASSES = torch.tensor([[[2.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 3.0]]])  # the last: no object
    MASKS = torch.tensor([[[[1.0, -2.0, 0.5], [3.0, 0.0, -1.0]], [[-1.0, 2.0, 0.0]] * 2]])

    @pytest.fixture
    def predict(self, monkeypatch):
        pytest.importorskip("mmdet")
        from mmdcn.models.heads.mask2former import Mask2FormerHead

        head = object.__new__(Mask2FormerHead)
        torch.nn.Module.__init__(head)
        monkeypatch.setattr(head, "forward", lambda x, samples: ([self.CLASSES], [self.MASKS]))
        return lambda meta: head.predict((), [meta], None)

    def test_probabilities_are_summed_before_they_are_enlarged(self, predict):
        small = torch.zeros(3, 2, 3)
        for query in range(2):
            exponentials = self.CLASSES[0, query].exp()
            for c in range(3):
                share = exponentials[c] / exponentials.sum()
                small[c] += share / (1 + (-self.MASKS[0, query]).exp())
        scores = predict(dict(img_shape=(2, 3)))
        torch.testing.assert_close(scores, small[None])
        # twice the size: the corners stay, inner pixels are a quarter of the way between two
        large = predict(dict(img_shape=(4, 6)))
        torch.testing.assert_close(large[0, :, 0, 0], small[:, 0, 0])
        expected = 0.75 * small[:, 0, 0] + 0.25 * small[:, 0, 1]
        torch.testing.assert_close(large[0, :, 0, 1], expected)

    def test_size_is_that_of_the_padded_image(self, predict):
        assert predict(dict(img_shape=(4, 6), pad_shape=(8, 8))).shape == (1, 3, 8, 8)
