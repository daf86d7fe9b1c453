"""The pages as they are written: their examples run, and what they name or link to exists."""

import inspect
import re
from pathlib import Path

import pytest
import torch

import mmdcn
from mmdcn import ops

ROOT = Path(__file__).parents[2]
WRITTEN = [p for p in (ROOT / "docs").rglob("*.md") if not {"_build", "_generated"} & {*p.parts}]
RECIPES = sorted((ROOT / "configs").glob("*/README.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(WRITTEN), *RECIPES]
PUBLIC = {name: getattr(ops, name) for name in ops.__all__}
OPERATORS = sorted(name for name, value in PUBLIC.items() if inspect.isroutine(value))
OPERATORS.remove("make_deformable")  # works on models


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
        # The former exist once the site is built (see test_site.py), the latter on the code host.
        if "_generated" in path or path.startswith("../../actions/"):
            continue
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.M)
            assert anchor in [slug(heading) for heading in headings], target


def slug(heading):
    """The anchor that code hosts and the site give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("operator", OPERATORS)
def test_operator_has_a_page_with_formula_picture_and_example(operator):
    text = (ROOT / "docs" / "operators" / f"{operator}.md").read_text()
    assert f".. autofunction:: mmdcn.ops.{operator}\n" in text
    assert f"/figures/{operator}.png" in text
    assert text.count("$$") == 2 and "```python" in text
    front = text.split("---")[1]  # what the lists of operators say about it
    assert all(f"\n{key}: " in front for key in ("position", "summary", "introduced"))


def test_every_layer_is_on_the_page_of_an_operator():
    pages = "\n".join(page.read_text() for page in (ROOT / "docs" / "operators").glob("*.md"))
    layers = [name for name, value in PUBLIC.items() if inspect.isclass(value)]
    assert len(layers) > 10
    for layer in layers:
        assert f".. autoclass:: mmdcn.ops.{layer}\n" in pages, layer


def test_formulas_are_on_the_pages_alone():
    """A docstring with a formula would repeat that of the page, in other letters."""
    for source in sorted((ROOT / "mmdcn").rglob("*.py")):
        assert not re.search(r"\.\. math::|:math:`", source.read_text()), source


def test_readme_has_a_small_picture_and_nothing_to_fill_in():
    text = (ROOT / "README.md").read_text()
    (picture,) = (p for p in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text) if "badge" not in p)
    assert (ROOT / picture).stat().st_size < 150 * 1024
    assert text.index(picture) < text.index("## ")
    assert not re.search(r"<[\w .-]+>|git clone|example\.(?:com|org)|TODO", text)


def test_citation_is_of_this_version():
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    readme = (ROOT / "README.md").read_text()
    assert citation["cff-version"] == "1.2.0" and citation["license"] == "Apache-2.0"
    assert citation["version"] == mmdcn.__version__
    assert f"version = {{{mmdcn.__version__}}}" in readme
    assert f"title = {{{citation['title']}}}" in readme
    for paper in citation["references"]:
        assert paper["url"] in readme and paper["authors"], paper["title"]
