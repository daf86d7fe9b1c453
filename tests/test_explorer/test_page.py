"""What the page's components get, without a browser; Gradio builds the page."""

import types

import pytest
from suites.compare import NATIVE_ONLY

pytest.importorskip("gradio", reason="needs Gradio, mmdcn[explore]")

from mmdcn.analysis import explorer as page_module  # noqa: E402
from mmdcn.analysis.exploring import Explorer, Model, View  # noqa: E402
from mmdcn.analysis.panels import Bar, Panel  # noqa: E402

pytestmark = [NATIVE_ONLY, pytest.mark.slow]
CONTROLS = (0.05, 1, 3)  # lowest score, layer, layers followed


@pytest.fixture(scope="module")
def explorer(make_model):
    return Explorer([Model("detector", make_model("tiny_mask_rcnn"), "mmdet")])


@pytest.fixture(scope="module")
def handlers(explorer, images):
    blocks = page_module.build(explorer, images[:2])
    return {found.fn.__name__: found.fn for found in blocks.fns.values()}


def of(tab):
    return types.SimpleNamespace(session_hash=tab)


def click(x, y):
    return types.SimpleNamespace(x=x, y=y)


def pictures(values):
    """Whether each of the five panels has a picture."""
    return ["<img" in value for value in values[1:6]]


def test_a_page_from_image_to_node(handlers):
    values = handlers["on_start"](0, *CONTROLS, of("a"))
    assert "96 × 96 pixels" in values[0] and pictures(values) == [True] + [False] * 4
    assert len(values[7]["choices"]) > 1 and not values[9]["interactive"]
    values = handlers["on_click"](
        page_module.PIXEL, *CONTROLS, request=of("a"), event=click(0.5, 0.5)
    )
    assert pictures(values) == [True] * 4 + [False]
    assert "backbone at (48, 48)" in values[6] and values[9]["interactive"]
    layer = values[8]["value"]
    one, other = handlers["on_layer"](0.05, 1, 1, of("a"))
    assert "through 1 layer:" in one and layer != 1 and other != values[3]
    values = handlers["on_object"](0, *CONTROLS, of("a"))
    assert "0." in values[6] and pictures(values)[:4] == [True] * 4
    prediction, objects = handlers["on_score"](1.0, 1, 3, of("a"))
    assert "0 objects with a score ≥ 1" in prediction and objects["choices"] == []


def test_tabs_have_what_is_theirs(handlers, explorer):
    handlers["on_start"](0, *CONTROLS, of("b"))
    first = explorer.show(explorer.tab("b"), View(0.05))
    handlers["on_image"](1, *CONTROLS, of("c"))
    handlers["on_click"](page_module.OBJECT, *CONTROLS, request=of("c"), event=click(0.2, 0.2))
    assert explorer.show(explorer.tab("b"), View(0.05)) == first
    handlers["on_leave"](of("c"))
    assert explorer.tab("c").subject is None and explorer.tab("b").subject is not None


def test_mistakes_are_said_on_the_page(handlers, tmp_path):
    values = handlers["on_click"](
        page_module.PIXEL, *CONTROLS, request=of("d"), event=click(0.5, 0.5)
    )
    assert "problem" in values[0] and "choose or upload an image first" in values[0]
    values = handlers["on_image"](99, *CONTROLS, of("d"))
    assert "choose an image of the list" in values[0]
    (tmp_path / "<b>.jpg").write_text("x")
    values = handlers["on_upload"](str(tmp_path / "<b>.jpg"), *CONTROLS, of("d"))
    assert "&lt;b&gt;.jpg: this is no image" in values[0] and "<b>" not in values[0]
    assert (tmp_path / "<b>.jpg").exists(), "only files of Gradio's folder are deleted"


def test_uploads_are_forgotten(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    file = tmp_path / "hash" / "image.png"
    file.parent.mkdir()
    file.write_bytes(b"x")
    page_module.forget(str(file))
    assert not file.parent.exists() and tmp_path.exists()
    page_module.forget(str(file))  # another tab had the same


def test_a_panel_as_html():
    panel = Panel("T <1>", b"png", "note & more", Bar(["#000000", "#ffffff"], "0", "2.5", "unit"))
    text = page_module.render(panel)
    assert "T &lt;1&gt;" in text and "note &amp; more" in text
    assert "data:image/png;base64,cG5n" in text and "2.5" in text and ">unit<" in text
    assert "nothing yet" in page_module.render(Panel("T"))


@pytest.mark.parametrize(
    "host, alone",
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("a.b", False)],
)
def test_loopback_addresses(host, alone):
    assert page_module.is_loopback(host) == alone
