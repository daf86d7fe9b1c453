"""The site builds without warnings, needs no network, and its links lead somewhere."""

import html
import importlib
import pkgutil
import re
import subprocess
import sys
from urllib.parse import unquote

import pytest

pytest.importorskip("sphinx")
pytest.importorskip("mmdet")  # the reference has its detectors
pytest.importorskip("mmseg")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "docs", str(out)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


def test_every_page_is_built(site, root):
    docs = root / "docs"
    pages = [p for p in docs.rglob("*.md") if "_build" not in p.parts]
    assert len(pages) > 15
    for page in pages:
        assert (site / page.relative_to(docs).with_suffix(".html")).is_file()


def test_links_and_pictures_resolve(site):
    pages = {page: page.read_text(encoding="utf-8") for page in site.rglob("*.html")}
    pictures = 0
    for page, text in pages.items():
        for target in re.findall(r'(?:href|src)="([^"]+)"', text):
            if re.match(r"[a-z]+:|//", target):
                continue
            path, _, anchor = unquote(target).partition("#")
            linked = (page.parent / path.partition("?")[0]).resolve() if path else page
            linked = linked / "index.html" if linked.is_dir() else linked
            assert linked.is_file(), (page.name, target)
            pictures += linked.suffix == ".png"
            if anchor and linked in pages:
                assert f'id="{anchor}"' in pages[linked], (page.name, target)
    assert pictures >= 8


def test_nothing_is_loaded_from_a_network(site):
    """Pictures, styles and scripts lie beside the pages."""
    loads = re.compile(r'<(?:script|img|link|iframe|source)\b[^>]*?\b(?:src|href)="([^"]+)"')
    for page in site.rglob("*.html"):
        for target in loads.findall(page.read_text(encoding="utf-8")):
            assert not re.match(r"(?:[a-z]+:)?//", target), (page.name, target)
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", style.read_text()), style


def test_formulas_are_mathml(site, root):
    """Browsers draw MathML without a script; no formula is left as LaTeX."""
    operators = [p.stem for p in (root / "docs" / "operators").glob("*.md") if p.stem != "index"]
    assert len(operators) >= 8
    for operator in operators:
        text = (site / "operators" / f"{operator}.html").read_text(encoding="utf-8")
        assert len(re.findall(r'<math [^>]*display="block"', text)) == 1, operator
        assert not re.search(r"\\\(|\\\[|\\frac|\\sum", text), operator


def test_grouped_arguments_are_one_item(site):
    text = (site / "operators" / "deform_conv2d.html").read_text(encoding="utf-8")
    assert "<strong>stride, padding, dilation</strong>" in text
    assert "<strong>in_channels, out_channels, kernel_size, " in text


def test_every_registered_name_is_described(site):
    """Whatever mmdcn registers is in the table of names, with a link to its description."""
    from mmengine.registry import Registry

    import mmdcn
    from mmdcn import registry

    for module in pkgutil.walk_packages(mmdcn.__path__, "mmdcn."):
        if module.name.split(".")[1] in ("models", "engine", "datasets"):
            importlib.import_module(module.name)
    text = (site / "_generated" / "registry.html").read_text(encoding="utf-8")
    linked = re.findall(
        r'<a class="reference internal" [^>]*href="[^"]*#[^"]+"[^>]*>(.*?)</a>', text
    )
    linked = {html.unescape(re.sub(r"<[^>]+>", "", link)) for link in linked}
    own = [r for r in vars(registry).values() if isinstance(r, Registry) and r.scope == "mmdcn"]
    names = {f"mmdcn.{name}" for each in own for name in each.module_dict}
    assert len(own) >= 6 and len(names) > 25
    assert names <= linked


def test_model_zoo_links_every_entry_to_its_config(site, root):
    import yaml

    text = (site / "_generated" / "model_zoo.html").read_text(encoding="utf-8")
    links = re.findall(r'href="(configs/\w+\.html#[^"]+)">(.*?)</a>', text)
    target = {html.unescape(re.sub(r"<[^>]+>", "", name)): link for link, name in links}
    for metafile in sorted((root / "configs").glob("*/metafile.yml")):
        for model in yaml.safe_load(metafile.read_text(encoding="utf-8"))["Models"]:
            page, _, anchor = target[model["Name"]].partition("#")
            shown = (site / "_generated" / page).read_text(encoding="utf-8")
            section = shown[shown.index(f'id="{anchor}"') :]
            source = re.sub(r"<[^>]+>", "", section[section.index("<pre>") :].split("</pre>")[0])
            expected = (root / model["Config"]).read_text(encoding="utf-8")
            assert html.unescape(source).strip() == expected.strip(), model["Name"]
