"""The documentation site builds without warnings, and its links lead somewhere."""

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


def test_model_zoo_shows_every_metafile_entry(site, root):
    import yaml

    text = (site / "_generated" / "model_zoo.html").read_text(encoding="utf-8")
    for metafile in sorted((root / "configs").glob("*/metafile.yml")):
        for model in yaml.safe_load(metafile.read_text(encoding="utf-8"))["Models"]:
            assert model["Name"] in text
