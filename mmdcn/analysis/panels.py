"""The pictures of the explorer's page, each with what stands above and below it."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from . import drawing
from .drawing import Finding
from .subject import Subject

SIDE = 640  # pixels of the longer side of a panel's picture, about twice as many as it takes up
DOT = 60.0  # area of the largest dot in square points
DIM = 0.45  # brightness of the image under dots and bins
UNIT = f"{drawing.STRENGTH_UNIT} (√ scale)"


@dataclasses.dataclass
class Bar:
    """A colour bar.

    Attributes:
        colours: CSS colours from the low end to the high end.
        low, high: what stands at the ends.
        unit: of both.
    """

    colours: list[str]
    low: str
    high: str
    unit: str


@dataclasses.dataclass
class Panel:
    """A picture of the page.

    Attributes:
        title: above it.
        picture: PNG that shows the whole image and nothing beside it; None if there is none yet.
        note: below it.
        bar: what its colours mean, if they mean a number.
        legend: CSS colours and what they mean, for colours of classes.
    """

    title: str
    picture: bytes | None = None
    note: str = ""
    bar: Bar | None = None
    legend: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    @property
    def source(self) -> str:
        """The picture as a ``data:`` URL, so that no file of it is written."""
        return f"data:image/png;base64,{base64.b64encode(self.picture or b'').decode()}"


def empty_panels() -> list[Panel]:
    """What the page shows before there is an image."""
    return [
        Panel("Prediction", note="choose or upload an image"),
        Panel("From the place, layer by layer", note="click into the prediction"),
        Panel("All samples of the layer"),
        Panel("Effective receptive field"),
        Panel("Region that is enough", note="looked for on request"),
    ]


def _strengths() -> dict[str, Any]:
    """Colours of strengths: bright at both ends; a few samples have much more than most."""
    return dict(cmap="spring", norm=PowerNorm(0.5))


def _paint(
    subject: Subject, draw: Callable[[Axes], Any], brightness: float = 1.0
) -> tuple[bytes, Any]:
    """The image with something drawn onto it, as a PNG, and what `draw` returns."""
    height, width = subject.size
    scale = SIDE / max(height, width)
    dpi = 100
    figure = Figure(figsize=(width * scale / dpi, height * scale / dpi), dpi=dpi)
    panel = figure.add_axes((0, 0, 1, 1))
    panel.axis("off")
    drawing.draw_image(panel, subject)
    panel.images[0].set_alpha(brightness)
    figure.set_facecolor("black")
    result = draw(panel)
    drawing.fit(panel, subject)
    panel.set_aspect("auto")  # the picture has the sides of the image up to a fraction of a pixel
    file = io.BytesIO()
    figure.savefig(file, format="png", pil_kwargs=dict(compress_level=1))
    return file.getvalue(), result


def _css(colour: Any) -> str:
    return matplotlib.colors.to_hex(colour)


def _bar(shown: ScalarMappable, unit: str) -> Bar:
    low, high = shown.get_clim()
    colours = [_css(shown.cmap(step / 8)) for step in range(9)]
    return Bar(colours, f"{low:.3g}", f"{high:.3g}", unit)


def class_colours(subject: Subject) -> list[str]:
    """A CSS colour for each class: those of its data set, where there are any."""
    palette = subject.model.dataset_meta.get("palette")
    if isinstance(palette, list | tuple) and len(palette) >= len(subject.classes):
        if all(len(colour) == 3 for colour in palette):
            return [_css([value / 255 for value in colour]) for colour in palette]
    colours = matplotlib.colormaps["tab10"].colors
    return [_css(colours[label % 10]) for label in range(len(subject.classes))]


def prediction(subject: Subject, threshold: float, finding: Finding | None) -> Panel:
    """Boxes and masks with scores, or label map, and the node if there is one."""
    colours = class_colours(subject)
    legend = []
    if subject.labels is not None:
        present = [label for label in subject.labels.unique().tolist() if label < len(colours)]
        legend = [(colours[label], subject.classes[label]) for label in present]

    def draw(panel: Axes) -> None:
        if subject.labels is not None:
            _draw_labels(panel, subject, colours)
        else:
            _draw_objects(panel, subject, threshold, colours)
        if finding is not None:
            drawing.draw_node(panel, finding.node)

    picture, _ = _paint(subject, draw)
    if subject.labels is not None:
        note = ""
    else:
        count = len(subject.detections(threshold))
        note = f"{count} {'object' if count == 1 else 'objects'} with a score ≥ {threshold:g}"
    return Panel("Prediction: click here", picture, note, legend=legend)


def _draw_labels(panel: Axes, subject: Subject, colours: list[str]) -> None:
    table = np.array([[*matplotlib.colors.to_rgb(colour), 0.5] for colour in colours])
    labels = subject.labels.numpy()
    known = labels < len(colours)
    overlay = np.where(known[..., None], table[np.where(known, labels, 0)], 0.0)
    panel.imshow(overlay, extent=drawing.extent(subject), interpolation="nearest")


def _draw_objects(panel: Axes, subject: Subject, threshold: float, colours: list[str]) -> None:
    found = subject.detections(threshold)
    for k in range(len(found))[::-1]:  # the best ones on top
        label = int(found.labels[k])
        colour = colours[label]
        factors = found.bboxes.new_tensor([*subject.scale, *subject.scale])
        x1, y1, x2, y2 = (found.bboxes[k] * factors - 0.5).tolist()
        if "masks" in found:
            shape = subject.shape_of(found, k).numpy()
            overlay = np.zeros((*shape.shape, 4))
            overlay[shape] = [*matplotlib.colors.to_rgb(colour), 0.4]
            panel.imshow(overlay, extent=drawing.extent(subject))
        panel.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=colour, lw=2.5))
        panel.annotate(
            f"{k} {subject.classes[label]} {float(found.scores[k]):.2f}",
            (max(x1, 0), max(y1, 0)),
            xytext=(4, -4),
            textcoords="offset points",
            va="top",
            fontsize=15,
            color="white",
            bbox=dict(boxstyle="square,pad=0.15", fc=colour, ec="none", alpha=0.85),
            annotation_clip=True,
            clip_on=True,
        )


def samples(subject: Subject, finding: Finding, layer: int, levels: int) -> Panel:
    """Where the windows sample that the node's place is made of.

    Args:
        subject, finding: the model with its image, and what was found out about a node.
        layer: index in ``finding.layers``; the windows of the last layer up to it are shown.
        levels: how many layers are followed at most.
    """
    title = "From the place, layer by layer"
    below = [item.sampling for item in finding.layers[: layer + 1] if item.sampling.is_window]
    if not below:
        return Panel(title, note="no layer with windows comes before this one")
    found = drawing.followed(subject, finding, len(below) - 1, levels)

    def draw(panel: Axes) -> ScalarMappable:
        drawing.draw_node(panel, finding.node)
        return drawing.draw_dots(
            panel, found.places, found.weights, found.strengths, largest=DOT, **_strengths()
        )

    picture, shown = _paint(subject, draw, DIM)
    names = found.layers
    way = names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"
    count = f"{len(names)} layer{'s' if len(names) > 1 else ''}"
    note = f"{len(found.places)} samples through {count}: {way}; dot size: mask"
    return Panel(title, picture, note, _bar(shown, UNIT))


def whole_layer(subject: Subject, finding: Finding, layer: int) -> Panel:
    """All samples or bins of a layer that the node depends on; `layer` as in :func:`samples`."""
    item = finding.layers[layer]
    name = f"{item.sampling.layer} ({item.sampling.operator})"
    if item.sampling.is_window:
        places, masks, strength = drawing.samples_of(subject, item)
        title, note = "All samples of the layer", f"{len(places)} samples of {name}; dot size: mask"

        def draw(panel: Axes) -> ScalarMappable:
            return drawing.draw_dots(
                panel, places, masks, strength, largest=DOT / 2, **_strengths()
            )

    else:
        boxes, strength = drawing.bins_of(subject, item)
        title, note = "All bins of the layer", f"{len(boxes)} bins of {name}"

        def draw(panel: Axes) -> ScalarMappable:
            return drawing.draw_bins(panel, boxes, strength, linewidths=2.5, **_strengths())

    def draw_all(panel: Axes) -> ScalarMappable:
        shown = draw(panel)
        drawing.draw_node(panel, finding.node)
        return shown

    picture, shown = _paint(subject, draw_all, DIM)
    return Panel(title, picture, note, _bar(shown, UNIT))


def field(subject: Subject, finding: Finding) -> Panel:
    """The effective receptive field."""

    def draw(panel: Axes) -> ScalarMappable:
        shown = drawing.draw_field(panel, finding)
        drawing.draw_node(panel, finding.node)
        return shown

    picture, shown = _paint(subject, draw)
    return Panel("Effective receptive field", picture, "", _bar(shown, drawing.FIELD_UNIT))


def region(subject: Subject, finding: Finding) -> Panel:
    """The error-bounded saliency region, or that it was not looked for."""
    title = "Region that is enough"
    if finding.region is None:
        return Panel(title, note="looked for on request")

    def draw(panel: Axes) -> None:
        drawing.draw_region(panel, subject, finding.region)
        drawing.draw_node(panel, finding.node)

    picture, _ = _paint(subject, draw)
    note = f"{finding.region.area:.1%} of the image keep the response, error "
    return Panel(title, picture, f"{note}{finding.region.error:.3f}")


def numbers(subject: Subject, finding: Finding) -> list[tuple[str, str]]:
    """What the page says about a node: names and values, shares of what lies inside its object."""
    if finding.node.shape is None and finding.region is None:
        return [("object", "none there")]
    with torch.no_grad():
        values = drawing.inside(subject, finding)
    names = {
        "object_area": "object, of the image",
        "receptive_field": "receptive field inside",
        "strength": "strength of all samples inside",
        "bin_strength": "strength of all bins inside",
        "samples": f"samples through {drawing.LEVELS} layers inside, by mask",
        "region": "region inside",
        "region_area": "region, of the image",
    }
    return [(name, f"{values[k]:.1%}") for k, name in names.items() if values.get(k) is not None]
