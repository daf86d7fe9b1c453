"""Without the native library every operator still works, on the reference, and says so once."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch
from suites.compare import NATIVE_ONLY

from mmdcn import _extension, ops
from mmdcn.ops import _registration, reference

CODE = """
    import sys, warnings
    import torch
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        from mmdcn import _extension, ops
        assert any("mmdcn" in str(w.message) for w in caught), "pip hid what the build said"
        args = torch.load(sys.argv[1])
        results = []
        for _ in range(2):
            leaves = {k: v.clone().requires_grad_() for k, v in args.items()}
            output = ops.modulated_deform_conv2d(**leaves, padding=1)
            output.sum().backward()
            results.append({"output": output.detach(), **{k: v.grad for k, v in leaves.items()}})
        ours = [w for w in caught if "mmdcn" in str(w.message)]
    assert [w.category for w in ours] == [RuntimeWarning]
    assert not _extension.is_available("cpu") and not hasattr(torch.ops.mmdcn, "deform_conv2d")
    torch.save(results[-1], sys.argv[2])
    print(ours[0].message)
"""


def run_without_library(code, folder, *args):
    environment = {**os.environ, "MMDCN_LIBRARY_DIR": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, args)],
        capture_output=True,
        text=True,
        env=environment,
    )


@pytest.mark.parametrize("state", ["missing", "truncated"])
def test_same_numbers_and_one_warning(state, tmp_path):
    if state == "truncated":
        (tmp_path / "_C.so").write_bytes(b"\x7fELF")
    generator = torch.Generator().manual_seed(0)
    args = {
        "input": torch.randn(2, 4, 6, 7, generator=generator),
        "offset": torch.randn(2, 18, 6, 7, generator=generator),
        "mask": torch.rand(2, 9, 6, 7, generator=generator),
        "weight": torch.randn(5, 4, 3, 3, generator=generator),
        "bias": torch.randn(5, generator=generator),
    }
    torch.save(args, tmp_path / "args.pt")
    result = run_without_library(CODE, tmp_path, tmp_path / "args.pt", tmp_path / "results.pt")
    assert result.returncode == 0, result.stderr
    reason = {"missing": "does not exist", "truncated": "could not be loaded: {}: "}[state]
    reason = reason.format(tmp_path / "_C.so")  # then what the linker says
    assert reason in result.stdout
    assert "pip install --no-build-isolation --force-reinstall --no-deps ." in result.stdout

    results = torch.load(tmp_path / "results.pt")
    leaves = {k: v.clone().requires_grad_() for k, v in args.items()}
    output = ops.modulated_deform_conv2d(**leaves, padding=1)
    output.sum().backward()
    expected = {"output": output.detach(), **{k: v.grad for k, v in leaves.items()}}
    for name, value in results.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-4)


def test_errors_are_the_same_without_the_library(tmp_path):
    result = run_without_library(
        """
        import torch
        from mmdcn import ops
        ops.deform_conv2d(torch.zeros(1, 4, 5, 5), torch.zeros(1, 18, 5, 5),
                          torch.zeros(4, 4, 3, 3), padding=1, groups=3)
        """,
        tmp_path,
    )
    assert "ValueError: groups: expected a divisor of the 4 input channels, got 3" in result.stderr


def test_every_operator_has_a_reference():
    functions = {name for name in ops.__all__ if name.islower()} - {"make_deformable"}
    assert set(reference.__all__) == functions


@NATIVE_ONLY
def test_torch_that_is_too_old_is_a_reason(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.9.1+cu128")
    assert _extension._load("cpu") == "it needs torch >= 2.10, found 2.9.1+cu128"


def test_library_for_another_cuda_is_told(monkeypatch, tmp_path):
    (tmp_path / "_C_cuda12.so").touch()
    monkeypatch.setattr(torch.version, "cuda", None)
    assert _extension._load("cuda").startswith("it needs a CUDA build of torch, found ")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(_extension, "_FOLDER", tmp_path)
    monkeypatch.setitem(_extension._LIBRARIES, "cuda", "_C_cuda13.so")
    expected = f"{tmp_path}/_C_cuda13.so does not exist, only _C_cuda12.so"
    assert _extension._load("cuda") == expected


def test_unknown_device_uses_the_reference():
    _extension._warn.cache_clear()
    with pytest.warns(RuntimeWarning, match="no native kernels for device type 'xpu'"):
        assert not _extension.use_native("xpu")
    _extension._warn.cache_clear()


@NATIVE_ONLY
def test_library_that_was_built_without_an_operator(monkeypatch):
    monkeypatch.setattr("mmdcn.ops._registration.OPERATORS", {})
    _registration._warn_of_old_library.cache_clear()
    image, rois = torch.randn(1, 2, 6, 6), torch.tensor([[0.0, 0, 0, 4, 4]])
    with pytest.warns(RuntimeWarning, match="roi_avg_pool .* built without it; build it again"):
        output = ops.roi_avg_pool(image, rois, 2)
    assert torch.equal(output, reference.roi_avg_pool(image, rois, 2))
    _registration._warn_of_old_library.cache_clear()
