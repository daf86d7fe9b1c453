"""What the explorer's page asks for, without the page: tabs, their images and nodes, in turns."""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
from torch import nn

from ..datasets.images import open_header
from . import drawing, panels
from .drawing import Finding
from .panels import Panel
from .subject import Node, Subject
from .turns import Turns

LARGEST_IMAGE = 20_000_000  # pixels of a file; more are not decoded
LARGEST_SHOWN = 2_000_000  # pixels; an image with more is made smaller
MOST_TABS = 32  # whose images are kept
LOWEST_SCORE = 0.05  # of detections that are kept
# The region's search, for seconds rather than for the smallest area.
SEARCH = dict(steps=30, searches=4, prune=40)


class Problem(ValueError):
    """What the person in front of the page has to know, in one sentence."""


class Stopped(Exception):
    """The search is for a node that nobody looks at any more."""


def read_image(path: str, name: str | None = None) -> np.ndarray:
    """Read an image file, whose size is looked at before anything is decoded.

    Args:
        path: the file.
        name: what people call it, for messages.

    Returns:
        ``(H, W, 3)``, uint8, BGR, turned upright.

    Raises:
        Problem: it is no image, too large, or cannot be read.
    """
    name = name or Path(path).name
    with _READING:  # the limit on pixels is Pillow's own, for the whole process
        try:
            with open_header(path) as header:
                width, height = header.size
        except FileNotFoundError:
            raise Problem(f"{name}: the file is gone; please choose it again") from None
        except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError):
            raise Problem(f"{name}: this is no image that can be read") from None
        if width * height > LARGEST_IMAGE:
            raise Problem(
                f"{name}: {width} × {height} pixels are too many; "
                f"at most {LARGEST_IMAGE / 1e6:g} million can be explored"
            )
        image = cv2.imread(str(path))
    if image is None:
        raise Problem(f"{name}: this image is damaged, or of a kind that cannot be read")
    return image


_READING = threading.Lock()


def shrink(image: np.ndarray, most: int = LARGEST_SHOWN) -> np.ndarray:
    """The image, with `most` pixels at most."""
    height, width = image.shape[:2]
    if height * width <= most:
        return image
    factor = (most / (height * width)) ** 0.5
    size = max(int(width * factor), 1), max(int(height * factor), 1)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


@dataclasses.dataclass
class Model:
    """A model to explore: its name for people, the model, and ``"mmdet"`` or ``"mmseg"``."""

    name: str
    model: nn.Module
    scope: str


@dataclasses.dataclass
class View:
    """What the controls of a tab say.

    Attributes:
        threshold: lowest score of the objects that are shown.
        layer: index in ``finding.layers``; None means :func:`main_layer`.
        levels: how many layers are followed at most.
    """

    threshold: float = 0.3
    layer: int | None = None
    levels: int = drawing.LEVELS


@dataclasses.dataclass
class Tab:
    """What a tab of the page is about.

    Attributes:
        model: index of the model.
        image: ``(H, W, 3)`` BGR, uint8.
        note: about the image, for people.
        about: the model with the image, and what was found out about a node, always of each other.
        layer: name of the layer that was chosen, which is kept for the next node.
        closed: nobody looks at it any more.
    """

    model: int = 0
    image: np.ndarray | None = None
    note: str = ""
    about: tuple[Subject | None, Finding | None] = (None, None)
    layer: str | None = None
    closed: bool = False

    @property
    def subject(self) -> Subject | None:
        return self.about[0]

    @property
    def finding(self) -> Finding | None:
        return self.about[1]


class Explorer:
    """All tabs, and the models that they share.

    Models run for one tab at a time, as hooks are put onto them while they are observed. Methods
    may be called from several threads.

    Args:
        models: one or more.
    """

    def __init__(self, models: Sequence[Model]) -> None:
        self.models = list(models)
        self.turns = Turns()
        self._tabs: OrderedDict[str, Tab] = OrderedDict()
        self._lock = threading.Lock()

    # Tabs

    def tab(self, key: str) -> Tab:
        """The tab with that name, a new one where there is none; the oldest makes room for it."""
        with self._lock:
            tab = self._tabs.setdefault(key, Tab())
            self._tabs.move_to_end(key)
            while len(self._tabs) > MOST_TABS:
                self._tabs.popitem(last=False)[1].closed = True
            return tab

    def close(self, key: str) -> None:
        """Forget a tab, and stop what it waits for."""
        with self._lock:
            if tab := self._tabs.pop(key, None):
                tab.closed = True

    def close_all(self) -> None:
        """Forget all tabs."""
        for key in list(self._tabs):
            self.close(key)

    # Steps. Each raises Problem where a person has to know something, and leaves the tab as it was.

    def open(self, tab: Tab, path: str, name: str | None = None) -> None:
        """Read an image and predict what is on it."""
        image = read_image(path, name)
        height, width = image.shape[:2]
        note = f"{name or Path(path).name}: {width} × {height} pixels"
        image = shrink(image)
        if image.shape[:2] != (height, width):
            note += f", explored at {image.shape[1]} × {image.shape[0]}"
        subject = self._subject(tab.model, image)
        tab.image, tab.note, tab.about = image, note, (subject, None)

    def choose_model(self, tab: Tab, index: int) -> None:
        """Show the image of a tab to another model, and ask it about the same place."""
        if tab.image is None:
            tab.model = index
            return
        place = None
        if tab.finding is not None:
            places = zip(tab.finding.node.place, tab.subject.scale, strict=True)
            place = [(p + 0.5) / s - 0.5 for p, s in places]
        subject = self._subject(index, tab.image)
        tab.model, tab.about = index, (subject, None)
        if place is not None:
            self.ask(tab, lambda: subject.point(*place))

    def _subject(self, index: int, image: np.ndarray) -> Subject:
        chosen = self.models[index]
        with self.turns.mine():
            subject = Subject(chosen.model, image, chosen.scope)
        if "pred_instances" in subject.prediction:
            # The masks of all others would be most of what a tab keeps.
            found = subject.prediction.pred_instances
            subject.prediction.pred_instances = found[found.scores >= LOWEST_SCORE]
        return subject

    def click(self, tab: Tab, x: float, y: float, view: View, objects: bool = True) -> None:
        """Ask about a place of the image.

        Args:
            tab: with an image.
            x, y: from 0 on the left or at the top to 1.
            view: the controls.
            objects: whether a click into a detection is about this, the smallest one there; all
                others are about the pixel.
        """
        subject = self._known(tab)
        height, width = subject.image.shape[:2]
        if objects and hasattr(subject.model, "roi_head"):
            hit = object_at(subject, x * width - 0.5, y * height - 0.5, view.threshold)
            if hit is not None:
                return self.ask(tab, lambda: subject.detection(hit, view.threshold))
        pixel = min(max(int(x * width), 0), width - 1), min(max(int(y * height), 0), height - 1)
        return self.ask(tab, lambda: subject.point(*pixel, view.threshold))

    def choose(self, tab: Tab, index: int, view: View) -> None:
        """Ask about a detection, counted from 0 by score."""
        subject = self._known(tab)
        self.ask(tab, lambda: subject.detection(index, view.threshold))

    def ask(self, tab: Tab, choose: Callable[[], Node]) -> None:
        """Ask about the node that `choose` gives.

        Raises:
            Stopped: the tab has another image now.
        """
        subject = tab.subject
        try:
            with self.turns.mine():
                node = choose()
                layers = subject.sampling(node, direct=False)
                field = subject.receptive_field(node)
        except ValueError as error:
            raise Problem(str(error)) from error
        with self._lock:
            if tab.subject is not subject:
                raise Stopped
            tab.about = subject, Finding(node, field, [x for x in layers if x.total.any()])

    def search(
        self, tab: Tab, progress: Callable[[int, int], None] | None = None, **options: Any
    ) -> None:
        """Look for the region that is enough for the tab's node.

        Args:
            tab: with a node.
            progress: called with the number of steps so far and the most there can be.
            options: of :func:`mmdcn.analysis.saliency_region`, instead of those in `SEARCH`.

        Raises:
            Stopped: the tab was closed, or has another node now.
        """
        subject, finding = self._known(tab), tab.finding
        if finding is None:
            raise Problem("click into the prediction first")

        def step(done: int, most: int) -> None:
            self.turns.pass_on()
            if tab.closed or tab.finding is not finding:
                raise Stopped
            if progress is not None:
                progress(done, most)

        try:
            with self.turns.mine():
                region = subject.region(finding.node, progress=step, **{**SEARCH, **options})
        except ValueError as error:
            raise Problem(str(error)) from error
        finding.region = region

    @staticmethod
    def _known(tab: Tab) -> Subject:
        if tab.subject is None:
            raise Problem("choose or upload an image first")
        return tab.subject

    # What is shown

    def layer_of(self, tab: Tab) -> int:
        """Index of the layer to show: the one that was chosen, where the node has it."""
        subject, finding = tab.about
        if finding is None:
            return 0
        names = [item.sampling.layer for item in finding.layers]
        return names.index(tab.layer) if tab.layer in names else main_layer(subject, finding)

    def choose_layer(self, tab: Tab, index: int) -> None:
        """Choose a layer by its index among those of the tab's node."""
        finding = tab.finding
        if finding is not None and 0 <= index < len(finding.layers):
            tab.layer = finding.layers[index].sampling.layer

    def show(self, tab: Tab, view: View) -> list[Panel]:
        """The five panels of a tab."""
        subject, finding = tab.about
        if subject is None:
            return panels.empty_panels()
        first = panels.prediction(subject, view.threshold, finding)
        if finding is None:
            return [first, *panels.empty_panels()[1:]]
        whole = [panels.field(subject, finding), panels.region(subject, finding)]
        return [first, *_layer(subject, finding, view), *whole]

    def show_layer(self, tab: Tab, view: View) -> list[Panel]:
        """The two panels about a layer."""
        subject, finding = tab.about
        if subject is None or finding is None:
            return panels.empty_panels()[1:3]
        return _layer(subject, finding, view)


def _layer(subject: Subject, finding: Finding, view: View) -> list[Panel]:
    if not finding.layers:
        why = "the node depends on no deformable layer"
        return [dataclasses.replace(panel, note=why) for panel in panels.empty_panels()[1:3]]
    last = len(finding.layers) - 1
    layer = main_layer(subject, finding) if view.layer is None else min(max(view.layer, 0), last)
    return [
        panels.samples(subject, finding, layer, view.levels),
        panels.whole_layer(subject, finding, layer),
    ]


def main_layer(subject: Subject, finding: Finding) -> int:
    """Index in ``finding.layers`` of the layer of :func:`drawing.main_window`.

    It is the last one of all where none has windows.
    """
    if items := drawing.windows(finding):
        main = items[drawing.main_window(subject, finding)]
        return next(k for k, item in enumerate(finding.layers) if item is main)
    return len(finding.layers) - 1


def object_at(subject: Subject, x: float, y: float, threshold: float) -> int | None:
    """Index of the smallest detection at (x, y) in pixels of the image, by mask or else by box."""
    found = subject.detections(threshold)
    height, width = subject.image.shape[:2]
    column, row = min(max(round(x), 0), width - 1), min(max(round(y), 0), height - 1)
    hits = []
    for k in range(len(found)):
        x1, y1, x2, y2 = found.bboxes[k].tolist()
        # Boxes are measured from the outer edge of the first pixel, pixels from its centre.
        if x1 <= x + 0.5 <= x2 and y1 <= y + 0.5 <= y2:
            on_mask = "masks" not in found or bool(found.masks[k][row, column])
            hits.append((not on_mask, (x2 - x1) * (y2 - y1), k))
    return min(hits)[2] if hits else None
