"""Tabs, images, nodes and turns, without a page."""

import threading
import time

import cv2
import numpy as np
import PIL.Image
import pytest
import torch
from suites.compare import NATIVE_ONLY

from mmdcn.analysis import drawing, exploring, panels
from mmdcn.analysis.exploring import Explorer, Model, Problem, Stopped, Tab, View
from mmdcn.analysis.turns import Turns

pytestmark = [NATIVE_ONLY, pytest.mark.slow]
LOW = View(threshold=0.05)


@pytest.fixture(scope="module")
def detector(make_model):
    return Model("detector", make_model("tiny_mask_rcnn"), "mmdet")


@pytest.fixture(scope="module")
def segmentor(make_model):
    return Model("segmentor", make_model("tiny_fcn"), "mmseg")


@pytest.fixture
def explorer(detector, segmentor):
    return Explorer([detector, segmentor])


@pytest.fixture
def tab(explorer, images):
    tab = explorer.tab("one")
    explorer.open(tab, images[0])
    return tab


def test_a_click_is_about_the_smallest_object_or_the_pixel(explorer, tab):
    found = tab.subject.detections(0.05)
    assert len(found) > 1
    x1, y1, x2, y2 = found.bboxes[0].tolist()
    x, y = (x1 + x2) / 2 / 96, (y1 + y2) / 2 / 96
    explorer.click(tab, x, y, LOW)
    chosen = exploring.object_at(tab.subject, x * 96 - 0.5, y * 96 - 0.5, 0.05)
    label = tab.subject.classes[int(found.labels[chosen])]
    assert tab.finding.node.title == f"{label} {float(found.scores[chosen]):.2f}"
    explorer.click(tab, x, y, LOW, objects=False)
    pixel = round(x * 96 - 0.5), round(y * 96 - 0.5)
    assert tab.finding.node.title == f"backbone at ({pixel[0]}, {pixel[1]})"


@pytest.mark.parametrize("corner", [0.0, 1.0])
def test_the_corners_of_the_picture_are_pixels(explorer, tab, corner):
    explorer.click(tab, corner, corner, LOW, objects=False)
    at = 0 if corner == 0 else 95
    assert tab.finding.node.title == f"backbone at ({at}, {at})"


def test_objects_are_hit_by_mask_then_by_area(explorer, tab):
    found = tab.subject.detections(0.0)[:2].clone()
    found.scores = torch.tensor([0.9, 0.8])
    found.bboxes = torch.tensor([[0.0, 0, 90, 90], [10, 10, 40, 40]])
    found.masks = torch.ones(2, 96, 96, dtype=torch.bool)
    tab.subject.prediction.pred_instances = found
    assert exploring.object_at(tab.subject, 20, 20, 0.3) == 1
    assert exploring.object_at(tab.subject, 60, 60, 0.3) == 0
    assert exploring.object_at(tab.subject, 93, 93, 0.3) is None
    found.masks[1] = False
    assert exploring.object_at(tab.subject, 20, 20, 0.3) == 0


def test_a_finding_is_what_the_analyses_give(explorer, tab):
    explorer.click(tab, 0.4, 0.6, LOW, objects=False)
    subject, finding = tab.about
    node = subject.point(round(0.4 * 96 - 0.5), round(0.6 * 96 - 0.5), 0.05)
    layers = [item for item in subject.sampling(node) if item.total.any()]
    assert [x.sampling.layer for x in finding.layers] == [x.sampling.layer for x in layers]
    for got, expected in zip(finding.layers, layers, strict=True):
        assert torch.equal(got.total, expected.total) and got.direct is None
    assert torch.equal(finding.field, subject.receptive_field(node))


def test_what_is_followed_from_a_place(explorer, tab):
    explorer.click(tab, 0.5, 0.5, LOW, objects=False)
    subject, finding = tab.about
    items = drawing.windows(finding)
    for top in (0, len(items) - 1):
        item = items[top]
        found = drawing.followed(subject, finding, top, levels=1)
        height, width = item.sampling.locations.shape[1:3]
        x, y = finding.node.place
        row, column = int((y + 0.5) * height / 96), int((x + 0.5) * width / 96)
        places = item.sampling.in_image((96, 96))[0, row, column].flatten(0, 1)
        assert found.layers == [item.sampling.layer] and torch.equal(found.places, places)
        assert torch.equal(found.weights, item.sampling.weights[0, row, column].flatten())
        stride = 96 / item.sampling.map_size[0]
        strength = item.total[0, row, column].norm(dim=-1).flatten() / stride
        torch.testing.assert_close(found.strengths, strength)
    whole = drawing.followed(subject, finding, len(items) - 1, levels=2)
    assert whole.layers == [items[-1].sampling.layer, items[-2].sampling.layer]
    assert len(whole.places) == len(whole.weights) == len(whole.strengths) <= 81
    with pytest.raises(IndexError, match="expected one of"):
        drawing.followed(subject, finding, len(items))


def test_the_layers_that_are_followed_are_fewer_where_samples_are_many(explorer, tab, monkeypatch):
    explorer.click(tab, 0.5, 0.5, LOW, objects=False)
    subject, finding = tab.about
    monkeypatch.setattr(drawing, "MOST_SAMPLES", 100)
    assert len(drawing.followed(subject, finding, levels=5).layers) == 2
    monkeypatch.setattr(drawing, "MOST_SAMPLES", 5)
    assert len(drawing.followed(subject, finding, levels=5).layers) == 1


def test_panels_show_the_image_alone(explorer, tab):
    explorer.choose(tab, 0, LOW)
    shown = explorer.show(tab, LOW)
    assert [panel.title for panel in shown[3:]] == [
        "Effective receptive field",
        "Region that is enough",
    ]
    for panel in shown[:4]:
        picture = cv2.imdecode(np.frombuffer(panel.picture, np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape == (panels.SIDE, panels.SIDE, 3)
    assert shown[4].picture is None
    for panel in shown[1:4]:
        assert panel.bar.unit and float(panel.bar.low) == 0 < float(panel.bar.high)
    # Outside of what is drawn, the picture is the image: its corner, for instance.
    corner = cv2.imdecode(np.frombuffer(shown[0].picture, np.uint8), cv2.IMREAD_COLOR)[1, 1]
    assert np.abs(corner.astype(int) - tab.subject.picture[0, 0, ::-1].astype(int)).max() <= 2


def test_dots_lie_where_the_samples_are(explorer, tab, monkeypatch):
    explorer.click(tab, 0.5, 0.5, LOW, objects=False)
    subject, finding = tab.about
    place = torch.tensor([[20.0, 70.0]])
    one = drawing.Followed(["x"], place, torch.ones(1), torch.ones(1))
    monkeypatch.setattr(drawing, "followed", lambda *args: one)
    monkeypatch.setattr(drawing, "draw_node", lambda *args: None)
    layer = len(finding.layers) - 1
    with_dot = panels.samples(subject, finding, layer, 1).picture
    blank, _ = panels._paint(subject, lambda panel: None, panels.DIM)
    with_dot, blank = (
        cv2.imdecode(np.frombuffer(p, np.uint8), cv2.IMREAD_COLOR).astype(int)
        for p in (with_dot, blank)
    )
    rows, columns = np.nonzero(np.abs(with_dot - blank).max(-1) > 30)
    scale = panels.SIDE / 96
    assert abs(columns.mean() / scale - 20.5) < 0.2 and abs(rows.mean() / scale - 70.5) < 0.2


def test_the_chosen_layer_is_kept_for_the_next_node(explorer, tab):
    explorer.click(tab, 0.5, 0.5, LOW, objects=False)
    assert explorer.layer_of(tab) == exploring.main_layer(*tab.about)
    explorer.choose_layer(tab, 1)
    name = tab.finding.layers[1].sampling.layer
    explorer.choose(tab, 0, LOW)
    assert tab.finding.layers[explorer.layer_of(tab)].sampling.layer == name


def test_the_other_model_is_asked_about_the_same_place(explorer, tab):
    explorer.click(tab, 0.25, 0.75, LOW, objects=False)
    place = tab.finding.node.place
    explorer.choose_model(tab, 1)
    assert tab.subject.scope == "mmseg" and tab.finding.node.place == pytest.approx(place)
    shown = explorer.show(tab, LOW)
    assert shown[0].legend and all(panel.picture for panel in shown[:4])


def test_region_and_its_progress(explorer, tab):
    with pytest.raises(Problem, match="click into the prediction first"):
        explorer.search(tab)
    explorer.choose_model(tab, 1)
    explorer.click(tab, 0.5, 0.5, LOW)
    seen = []
    explorer.search(tab, lambda *step: seen.append(step), steps=3, searches=2, epsilon=0.5)
    assert [done for done, _ in seen] == list(range(seen[0][0], seen[-1][0] + 1))
    assert all(done <= most for done, most in seen)
    assert tab.finding.region.error < 0.5
    assert explorer.show(tab, LOW)[4].picture
    assert ("region, of the image", f"{tab.finding.region.area:.1%}") in panels.numbers(*tab.about)


def test_a_search_ends_where_nobody_looks_any_more(explorer, tab):
    explorer.choose_model(tab, 1)
    explorer.click(tab, 0.5, 0.5, LOW)
    with pytest.raises(Stopped):
        explorer.search(tab, lambda *_: explorer.close("one"))
    tab = explorer.tab("one")
    assert tab.image is None and not tab.closed


def test_a_search_lets_others_in(explorer, tab, images):
    explorer.choose_model(tab, 1)
    explorer.click(tab, 0.5, 0.5, LOW)
    finding, other, steps = tab.finding, explorer.tab("two"), []

    def act():
        explorer.open(other, images[1])
        explorer.click(other, 0.1, 0.1, LOW)

    def progress(done, most):
        if not steps:
            thread.start()
        steps.append(other.finding is not None)
        time.sleep(0.01)

    thread = threading.Thread(target=act)
    explorer.search(tab, progress, steps=20, searches=2, epsilon=0.5)
    thread.join(30)
    assert not steps[0] and steps[-1], "the other tab had to wait for the whole search"
    assert tab.finding is finding and other.finding.node is not finding.node


def test_tabs_do_not_disturb_each_other(explorer, tab, images):
    explorer.click(tab, 0.5, 0.5, LOW)
    before = explorer.show(tab, LOW)
    other = explorer.tab("two")
    explorer.open(other, images[1])
    explorer.click(other, 0.1, 0.9, LOW)
    explorer.choose_layer(other, 0)
    assert explorer.tab("one") is tab and explorer.show(tab, LOW) == before
    assert explorer.show(other, LOW)[0] != before[0]


def test_the_oldest_tab_makes_room(explorer, monkeypatch):
    monkeypatch.setattr(exploring, "MOST_TABS", 2)
    first, second = explorer.tab("a"), explorer.tab("b")
    explorer.tab("a")
    explorer.tab("c")
    assert second.closed and not first.closed and explorer.tab("a") is first


def test_a_problem_leaves_the_tab_as_it_was(explorer, tab, tmp_path):
    explorer.click(tab, 0.5, 0.5, LOW)
    about, note = tab.about, tab.note
    (tmp_path / "notes.jpg").write_text("no image")
    with pytest.raises(Problem, match=r"^notes\.jpg: this is no image"):
        explorer.open(tab, tmp_path / "notes.jpg")
    with pytest.raises(Problem, match="there are .* got index 999"):
        explorer.choose(tab, 999, LOW)
    assert tab.about == about and tab.note == note
    with pytest.raises(Problem, match="choose or upload an image first"):
        explorer.click(Tab(), 0.5, 0.5, LOW)


def test_large_images_are_not_decoded(tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    PIL.Image.new("1", (10_000, 10_000)).save(path)
    monkeypatch.setattr(exploring.cv2, "imread", lambda *_: pytest.fail("decoded"))
    with pytest.raises(Problem, match=r"10000 × 10000 pixels .* at most 20 million"):
        exploring.read_image(str(path), "mine.png")


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"II*\0" + b"\xff" * 99])
def test_damaged_images(tmp_path, content):
    path = tmp_path / "damaged.png"
    path.write_bytes(content)
    with pytest.raises(Problem, match="damaged.png: this"):
        exploring.read_image(str(path))
    with pytest.raises(Problem, match="the file is gone"):
        exploring.read_image(str(tmp_path / "missing.png"))


def test_images_with_many_pixels_are_made_smaller(explorer, tmp_path, monkeypatch):
    monkeypatch.setattr(exploring, "LARGEST_SHOWN", 5000)
    path = tmp_path / "wide.png"
    cv2.imwrite(str(path), np.full((100, 200, 3), 90, np.uint8))
    small = exploring.shrink(cv2.imread(str(path)), 5000)
    assert small.shape == (50, 100, 3)
    assert exploring.shrink(np.zeros((1, 9000, 3), np.uint8), 5000).shape[0] == 1


def test_turns_are_given_in_order():
    turns, order = Turns(), []
    turns.acquire()

    def wait(name):
        with turns.mine():
            order.append(name)

    threads = [threading.Thread(target=wait, args=(k,)) for k in range(3)]
    for count, thread in enumerate(threads, 1):
        thread.start()
        while len(turns._waiting) < count:
            time.sleep(0.001)
    turns.pass_on()  # behind all that wait
    assert order == [0, 1, 2]
    turns.release()
    with turns.mine():
        pass
