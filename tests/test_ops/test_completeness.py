"""What every public name of mmdcn.ops must have: suites, pages, benchmarks, CUDA kernels."""

import inspect
import re

import pytest
from suites import SUITES

from benchmarks.cases import CASES
from mmdcn import ops
from mmdcn.selftest.examples import NAMES as EXAMPLES

ON_MODELS = ["make_deformable"]
FUNCTIONS = [
    name for name in ops.__all__ if inspect.isfunction(getattr(ops, name)) and name not in ON_MODELS
]
MODULES = [name for name in ops.__all__ if name not in (*FUNCTIONS, *ON_MODELS)]


def test_names():
    assert len(FUNCTIONS) >= 8 and len(MODULES) >= 16


@pytest.mark.parametrize("name", FUNCTIONS)
def test_suite(name):
    suite = SUITES[name]()
    assert (suite.function, suite.reference) == (getattr(ops, name), getattr(ops.reference, name))
    assert all([suite.tiny, suite.cases, suite.large, suite.errors, suite.differentiable])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_reference_has_the_same_signature(name):
    operator, reference = getattr(ops, name), getattr(ops.reference, name)
    assert inspect.signature(operator) == inspect.signature(reference)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_benchmark(name):
    assert any(case.operator == name for case in CASES)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_selftest(name):
    assert name in EXAMPLES


@pytest.mark.parametrize("name", FUNCTIONS)
def test_cuda_emulation(root, name):
    """The emulator runs every suite; for that it needs kernels and cases that are small enough."""
    suite = SUITES[name]()
    assert suite.for_emulation().large != suite.large
    sources = "\n".join(path.read_text() for path in (root / "mmdcn" / "csrc").rglob("*.cu"))
    registered = re.findall(r'm\.impl\(\s*"(\w+)"', sources)
    assert suite.operator in registered and f"{suite.operator}_backward" in registered


@pytest.mark.parametrize("name", ops.__all__)
def test_documentation(root, name):
    pages = [*(root / "docs" / "operators").glob("*.md"), *(root / "docs").glob("*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    assert re.search(rf"auto(function|class):: mmdcn\.ops\.{name}$", text, re.MULTILINE)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_page_of_its_own(root, name):
    text = (root / "docs" / "operators" / f"{name}.md").read_text(encoding="utf-8")
    assert (
        re.search(rf"^# {name}\b", text, re.MULTILINE)
        and f"autofunction:: mmdcn.ops.{name}\n" in text
    )
