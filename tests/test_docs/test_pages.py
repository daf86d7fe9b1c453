"""The Python examples of the documentation run as they stand, and what it names exists."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
WRITTEN = [p for p in (ROOT / "docs").rglob("*.md") if not {"_build", "_generated"} & {*p.parts}]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(WRITTEN)]


def name(page):
    return str(page.relative_to(ROOT))


def examples():
    for page in PAGES:
        text = page.read_text()
        for match in re.finditer(r"^```python\n(.*?)^```", text, re.M | re.S):
            line = text.count("\n", 0, match.start()) + 2
            yield pytest.param(match[1], id=f"{name(page)}:{line}")


@pytest.mark.parametrize("code", examples())
def test_python_example(code, tmp_path):
    exec(compile(code, "example", "exec"), {"__name__": "example"})
    if "_base_ =" in code:
        build_config(code, tmp_path)


def build_config(code, tmp_path):
    pytest.importorskip("mmdet")
    from mmengine.config import Config
    from mmengine.registry import MODELS, DefaultScope

    path = tmp_path / "example.py"
    path.write_text(code)
    cfg = Config.fromfile(path)
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device("meta"):
        MODELS.build(cfg.model)


def test_readme_has_examples_of_both_uses():
    code = "\n".join(param.values[0] for param in examples() if param.id.startswith("README"))
    assert "from mmdcn.ops import" in code and 'type="mmdcn.DCNv2"' in code


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_named_files_exist(page):
    own = r"(?<!\.mim/)\b(?:tools|configs)/[\w./-]+\.(?:py|sh|yml|md)\b"
    for path in re.findall(own, page.read_text()):
        assert (ROOT / path).is_file(), path


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\((?!https?://)([^)]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        if "_generated" in path:  # exists once the site is built, see test_site.py
            continue
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.M)
            assert anchor in [h.lower().replace(" ", "-") for h in headings], target
