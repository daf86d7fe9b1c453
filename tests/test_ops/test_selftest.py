"""``python -m mmdcn.selftest`` passes, and says so where something is wrong."""

import itertools
import json

import pytest
import torch
from suites.compare import NATIVE_ONLY

from mmdcn import ops
from mmdcn.selftest import __main__ as selftest
from mmdcn.selftest.examples import NAMES


@NATIVE_ONLY
def test_it_passes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["selftest", "--json", str(tmp_path / "result.json")])
    with pytest.raises(SystemExit) as end:
        selftest.main()
    shown = capsys.readouterr().out
    assert end.value.code == 0, shown
    assert "native operators: yes" in shown and "All operators are right." in shown
    written = json.loads((tmp_path / "result.json").read_text())
    assert written["operators"].keys() == set(NAMES) and written["environment"]["torch"]
    for name in NAMES:
        entry = written["operators"][name]
        assert set(entry["errors"]) == {"float64", "float32", "bfloat16", "float16"}
        assert not entry["wrong"] and entry["ms"] > 0 and entry["copy_ms"] > 0
        assert f"\n{name} " in shown


def scaled(by, only=None):
    """A wrong operator: its output, in one dtype, is multiplied."""
    right = ops.ps_roi_pool

    def wrong(input, *args, **kwargs):
        output = right(input, *args, **kwargs)
        return output if only not in (None, input.dtype) else output * by

    return wrong


def of_the_gradient():
    """A wrong operator whose output is right."""
    right = ops.ps_roi_pool

    def wrong(input, *args, **kwargs):
        return right(1.001 * input - 0.001 * input.detach(), *args, **kwargs)

    return wrong


def raises(*args, **kwargs):
    raise RuntimeError("no kernel")


def changing():
    """A wrong operator that changes with every call, by too little for a comparison."""
    right, calls = ops.ps_roi_pool, itertools.count()

    def wrong(input, *args, **kwargs):
        small = 1e-6 if input.dtype == torch.float32 else 0
        return right(input, *args, **kwargs) * (1 + small * next(calls))

    return wrong


FAULTS = {
    "output": (lambda: scaled(1.001), "float64: output is off by 1.0e-03"),
    "one dtype": (lambda: scaled(1.1, torch.bfloat16), "bfloat16: "),
    "gradient": (of_the_gradient, "float32: input is off by 1.0e-03"),
    "not a number": (lambda: scaled(float("nan")), "float64: output is off by inf"),
    "error": (lambda: raises, "float64: RuntimeError: no kernel"),
    "not the same": (changing, "deterministic mode: a second call gives other bits"),
}


@NATIVE_ONLY
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_found(fault, monkeypatch, capsys):
    make, message = FAULTS[fault]
    monkeypatch.setattr(selftest, "NAMES", ["ps_roi_pool", "roi_avg_pool"])
    monkeypatch.setattr(ops, "ps_roi_pool", make())
    monkeypatch.setattr("sys.argv", ["selftest"])
    with pytest.raises(SystemExit) as end:
        selftest.main()
    shown = capsys.readouterr().out
    assert end.value.code == 1
    assert message in shown and "WRONG: ps_roi_pool\n" in shown
