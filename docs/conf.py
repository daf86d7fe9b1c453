"""Sphinx configuration; ``make docs`` builds the site."""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT), str(DOCS)]

import config_pages  # noqa: E402
import figures  # noqa: E402
import model_zoo  # noqa: E402
import operator_pages  # noqa: E402
import registry_page  # noqa: E402

import mmdcn  # noqa: E402

GENERATED = DOCS / "_generated"

project = "mmdcn"
copyright = "the mmdcn authors"
release = version = mmdcn.__version__
extensions = ["mathml", "myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
highlight_language = "none"  # a block without a language is a layout or an output
nitpicky = False  # most types of signatures are other projects'
html_theme = "furo"
html_title = f"mmdcn {release}"
html_static_path = ["_static"]
html_css_files = ["mmdcn.css"]
html_math_renderer = "mathml"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
autodoc_typehints = "none"
autodoc_inherit_docstrings = False  # these would be other projects' words
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_param = False  # "stride, padding: ..." is one item of the list, not two

# Pages of the repository's root that the site shows, with the links that lead elsewhere here.
COPIES = {
    "CONTRIBUTING.md": {
        "](CHANGELOG.md)": "](changelog.md)",
        "[examples/operator](examples/operator/README.md)": "`examples/operator`",
        "](LICENSE)": "](https://www.apache.org/licenses/LICENSE-2.0)",
    },
    "CHANGELOG.md": {},
}


def generate(app) -> None:
    """Write the pages and pictures that come from elsewhere in the repository."""
    GENERATED.mkdir(exist_ok=True)
    for name, links in COPIES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        for link, here in links.items():
            text = text.replace(link, here)
        (GENERATED / name.lower()).write_text(text, encoding="utf-8")
    (GENERATED / "model_zoo.md").write_text(model_zoo.page(ROOT), encoding="utf-8")
    (GENERATED / "registry.rst").write_text(registry_page.page(), encoding="utf-8")
    config_pages.write(ROOT, GENERATED / "configs")
    (GENERATED / "operator_table.txt").write_text(operator_pages.table(DOCS), encoding="utf-8")
    (GENERATED / "operator_grid.txt").write_text(operator_pages.grid(DOCS), encoding="utf-8")
    figures.main(GENERATED / "figures")


def setup(app) -> None:
    app.connect("builder-inited", generate)
