"""The page in a real, headless Chromium: clicks, uploads, errors, and tabs beside each other."""

import os
import re
import shutil
import signal
import subprocess
import sys

import PIL.Image
import pytest
import torch
from suites.compare import NATIVE_ONLY

pytest.importorskip("gradio", reason="needs Gradio, mmdcn[explore]")
playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright")

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = [
    NATIVE_ONLY,
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
]
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
WAIT = 60_000  # milliseconds
IDS = ("prediction", "samples", "layer-samples", "field", "region", "numbers")


@pytest.fixture(scope="module")
def server(make_model, root, images, tmp_path_factory):
    """The tool on a detector and a segmentor: its address, and the folder for its own files."""
    folder = tmp_path_factory.mktemp("explorer")
    configs = root / "tests" / "test_tools" / "configs"
    paths = []
    for name in ("tiny_mask_rcnn", "tiny_fcn"):
        model = make_model(name)
        meta = dict(dataset_meta=model.dataset_meta)
        torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / f"{name}.pth")
        paths.append((str(configs / f"{name}.py"), str(folder / f"{name}.pth")))
    (folder / "tmp").mkdir()
    environment = dict(
        os.environ,
        PYTHONPATH=os.pathsep.join([str(configs), *filter(None, [os.environ.get("PYTHONPATH")])]),
        OMP_NUM_THREADS="1",
        TMPDIR=str(folder / "tmp"),
    )
    command = [sys.executable, str(root / "tools" / "explore.py"), *paths[0], *images[:2]]
    command += ["--compare", *paths[1], "--device", "cpu", "--score-thr", "0.05"]
    with subprocess.Popen(
        command, env=environment, cwd=folder, stdout=subprocess.PIPE, text=True
    ) as process:
        said = []
        for line in process.stdout:
            said.append(line)
            if found := re.search(r"Open (http://127\.0\.0\.1:\d+/)", line):
                break
        else:
            pytest.fail("".join(said))
        try:
            yield found[1], folder / "tmp"
        finally:
            process.send_signal(signal.SIGINT)
            status = process.wait(timeout=30)
    assert status == 0
    assert not list((folder / "tmp").glob("mmdcn-explore-*")), "its folder stays behind"


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        yield started.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)


@pytest.fixture
def open_tab(browser, server):
    """Opens tabs of 1280 x 800 pixels; at the end none may have met an error or another host."""
    url, _ = server
    faults, contexts = [], []

    def note(request):
        if not request.url.startswith((url, "data:", "blob:")):
            faults.append(request.url)

    def open_tab():
        contexts.append(browser.new_context(viewport=dict(width=1280, height=800)))
        tab = contexts[-1].new_page()
        tab.set_default_timeout(WAIT)
        tab.on("request", note)
        tab.on("pageerror", lambda error: faults.append(str(error)))
        tab.goto(url)
        tab.wait_for_selector("#prediction img")
        return tab

    yield open_tab
    for context in contexts:
        context.close()
    assert not faults


def click(tab, x, y):
    """Click a pixel of the prediction, and wait until the panels are about what is there."""
    # Gradio's client closes its stream of answers now; a click in this moment may have to wait.
    tab.wait_for_timeout(500)
    before = tab.locator("#field").inner_html()
    box = tab.locator("#prediction img").bounding_box()
    scale = box["width"] / 96
    tab.mouse.click(box["x"] + (x + 0.5) * scale, box["y"] + (y + 0.5) * scale)
    changed(tab, "#field", before)


def changed(tab, selector, before):
    tab.wait_for_function(
        "([selector, before]) => document.querySelector(selector).innerHTML !== before",
        arg=[selector, before],
    )


def title(tab):
    return tab.locator("#numbers h2").inner_text()


def set_slider(tab, name, value):
    tab.locator(f"#{name} input[type=number]").fill(str(value))
    tab.locator(f"#{name} input[type=number]").press("Enter")


def test_a_click_shows_what_the_pixel_depends_on(open_tab, tmp_path):
    tab = open_tab()
    tab.get_by_label("the pixel itself").check()
    click(tab, 48, 48)
    assert title(tab) == "backbone at (48, 48)"
    for name in ("samples", "layer-samples"):
        assert (
            tab.locator(f"#{name} .unit")
            .inner_text()
            .startswith("|gradient| per pixel of the input")
        )
    assert "maximum" in tab.locator("#field .unit").inner_text()
    assert tab.locator("#numbers td").count() >= 4
    boxes = [tab.locator(f"#{name}").bounding_box() for name in ("controls", *IDS)]
    for k, a in enumerate(boxes):
        assert a["x"] >= 0 and a["x"] + a["width"] <= 1280
        for b in boxes[:k]:
            beside = a["x"] >= b["x"] + b["width"] or b["x"] >= a["x"] + a["width"]
            below = a["y"] >= b["y"] + b["height"] or b["y"] >= a["y"] + a["height"]
            assert beside or below, "panels overlap"
    tab.screenshot(path=tmp_path / "page.png")
    with PIL.Image.open(tmp_path / "page.png") as shot:
        assert shot.size == (1280, 800) and len(shot.convert("RGB").getcolors(1 << 24)) > 1000


def test_an_object_a_layer_and_the_region(open_tab):
    tab = open_tab()
    tab.locator("#object input").click()
    tab.get_by_role("option").first.click()
    tab.wait_for_selector("#field img")
    assert re.match(r"\w+ 0\.\d\d$", title(tab))
    before = tab.locator("#samples").inner_html()
    set_slider(tab, "levels", 1)
    changed(tab, "#samples", before)
    assert "through 1 layer:" in tab.locator("#samples").inner_text()
    before = tab.locator("#layer-samples").inner_html()
    set_slider(tab, "layer", 2)
    changed(tab, "#layer-samples", before)
    tab.locator("#search").click()
    tab.wait_for_selector("#region img")
    assert "% of the image keep the response" in tab.locator("#region").inner_text()
    assert "region inside" in tab.locator("#numbers").inner_text()


def test_the_other_model_is_asked_about_the_same_place(open_tab):
    tab = open_tab()
    tab.get_by_label("the pixel itself").check()
    click(tab, 24, 24)
    before = tab.locator("#field").inner_html()
    tab.get_by_label("tiny_fcn").check()
    changed(tab, "#field", before)
    assert "at (24, 24)" in title(tab)


def test_uploads_and_what_is_wrong_with_them(open_tab, server, images, tmp_path):
    tab = open_tab()
    line = tab.locator("#status")
    (tmp_path / "notes.png").write_text("no image")
    PIL.Image.new("1", (10_000, 10_000)).save(tmp_path / "large.png")
    shutil.copy(images[5], tmp_path / "mine.jpg")
    upload = tab.locator("#upload input, input#upload, input[type=file]").first
    for name, message in (
        ("notes.png", "notes.png: this is no image that can be read"),
        ("large.png", "large.png: 10000 × 10000 pixels are too many; at most 20 million"),
        ("mine.jpg", "mine.jpg: 96 × 96 pixels"),
    ):
        before = tab.locator("#prediction").inner_html()
        upload.set_input_files(tmp_path / name)
        line.get_by_text(message).wait_for()
        kept = tab.locator("#prediction").inner_html() == before
        assert kept == (name != "mine.jpg")
    left = [path for path in server[1].rglob("*") if path.is_file() and path.stat().st_size]
    assert not [path for path in left if path.name in ("notes.png", "large.png", "mine.jpg")]
    click(tab, 48, 48)


def test_two_tabs_beside_each_other(open_tab):
    one, two = open_tab(), open_tab()
    one.get_by_label("the pixel itself").check()
    click(one, 24, 24)
    shown = [one.locator(f"#{name}").inner_html() for name in IDS]
    before = two.locator("#prediction").inner_html()
    two.locator("#image input").click()
    two.get_by_role("option").nth(1).click()
    changed(two, "#prediction", before)
    two.get_by_label("the pixel itself").check()
    click(two, 72, 72)
    assert title(one) == "backbone at (24, 24)" and title(two) == "backbone at (72, 72)"
    assert [one.locator(f"#{name}").inner_html() for name in IDS] == shown


def test_other_names_of_this_machine_are_refused(browser, server):
    context = browser.new_context(extra_http_headers={})
    answer = context.request.get(server[0], headers={"Host": "elsewhere.example"})
    assert answer.status == 400
    policy = context.request.get(server[0]).headers["content-security-policy"]
    assert policy.startswith("default-src 'self';")
    context.close()
