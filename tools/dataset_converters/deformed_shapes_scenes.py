"""Pictures of the sets of deformed shapes: which objects, where, and how deformed."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from deformed_shapes_annotations import annotation, has_holes
from deformed_shapes_drawing import background, coverage, hue_of, paint, photograph
from deformed_shapes_outlines import SHAPES, Shape, deform, distractor

CYCLE, EMPTY, CROWD = 32, 1, 2  # image i has no object if i % CYCLE == EMPTY, a crowd if == CROWD


@dataclass(frozen=True)
class ShapeSet:
    """What the pictures of one set show.

    Attributes:
        classes: Names of shapes.
        scale: Smallest and largest size of an object, half its extent over that of the image.
        most: The largest number of objects.
        visible: The share of an object that has to stay visible.
        deformation: Arguments of :func:`deform`.
        play: How freely limbs are articulated.
        hinted: Whether the hue hints at the class.
        centred: Whether the picture has one object, in its middle, and no crowd.
        train, val, size: Defaults: images, and their width and height in pixels.
    """

    classes: tuple[str, ...]
    scale: tuple[float, float]
    most: int
    deformation: dict[str, float]
    train: int
    val: int
    size: int
    visible: float = 0.65
    play: float = 1.0
    hinted: bool = False
    centred: bool = False

    def shape(self, category: int, rng: np.random.Generator) -> Shape:
        """A deformed shape of a category, from 1 on."""
        return deform(SHAPES[self.classes[category - 1]](rng, self.play), rng, **self.deformation)

    def hue(self, category: int, rng: np.random.Generator) -> float:
        return hue_of((category - 1) / len(self.classes) if self.hinted else None, rng)


SETS = dict(
    shapes=ShapeSet(
        classes=("star", "crescent", "fish"),
        scale=(0.24, 0.4),
        most=3,
        deformation={},
        hinted=True,
        train=1600,
        val=200,
        size=128,
    ),
    # Told apart by their structure alone, over a large range of scales and aspects.
    structures=ShapeSet(
        classes=("hook", "fork", "cross", "ring"),
        scale=(0.2, 0.5),
        most=3,
        deformation=dict(bend=0.7, stretch=0.4, shear=0.5),
        visible=0.85,  # a cross without a limb would be a fork
        train=1600,
        val=400,
        size=128,
    ),
    # For classification: one object each, deformed little.
    singles=ShapeSet(
        classes=tuple(SHAPES),
        scale=(0.28, 0.46),
        most=1,
        deformation=dict(bend=0.3, stretch=0.15, shear=0.2),
        play=0.6,
        centred=True,
        train=4200,
        val=420,
        size=64,
    ),
)


def placed(shape: Shape, scale: float, position: np.ndarray) -> Shape:
    return [part * scale + position for part in shape]


def area(shape: Shape) -> float:
    """Area of a shape, the parts that it has outside the image included."""
    if len(shape) == 1:
        return cv2.contourArea(shape[0].astype(np.float32))
    corners = np.concatenate(shape)
    low = np.floor(corners.min(axis=0))
    size = int(np.ceil((corners.max(axis=0) - low).max())) + 1
    return float(coverage(placed(shape, 1, -low), size).sum())


class Scene:
    """Objects of one picture, back to front, with the masks of their visible parts."""

    def __init__(self, size: int, visible: float):
        self.size, self.visible = size, visible
        self.alphas: list[tuple[np.ndarray, int]] = []  # coverage and category id
        self.masks: list[np.ndarray] = []  # visible part
        self.min_area: list[float] = []  # that has to stay visible
        self.labels: list[tuple[int, bool]] = []  # category id, is a crowd

    def add(self, shape: Shape, category: int) -> bool:
        """Put an object in front unless it or another one would be hidden or pierced."""
        alpha = coverage(shape, self.size)
        mask = alpha >= 0.5
        masks = [old & ~mask for old in self.masks] + [mask]
        min_area = [*self.min_area, max(self.visible * area(shape), 1)]
        labels = [*self.labels, (category, False)]
        for visible, least, (_, crowd) in zip(masks, min_area, labels, strict=True):
            if visible.sum() < least or (not crowd and has_holes(visible)):
                return False
        self.alphas.append((alpha, category))
        self.masks, self.min_area, self.labels = masks, min_area, labels
        return True

    def add_crowd(self, shapes: list[Shape], category: int) -> None:
        """Put a group behind everything else; its mask covers the gaps between its members too."""
        alphas = [coverage(shape, self.size) for shape in shapes]
        self.alphas += [(alpha, category) for alpha in alphas]
        union = (np.max(alphas, axis=0) >= 0.5).astype(np.uint8)
        mask = cv2.morphologyEx(union, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)) > 0
        self.masks.append(mask)
        self.min_area.append(0.6 * mask.sum())
        self.labels.append((category, True))


def draw_scene(rng: np.random.Generator, size: int, kind: str, shapes: ShapeSet) -> Scene:
    scene = Scene(size, shapes.visible)
    if kind == "empty":
        return scene
    if kind == "crowd":
        category = int(rng.integers(len(shapes.classes)))
        centre = rng.uniform(0.3, 0.7, 2) * size
        offsets = [(x, y) for y in (-1, 0, 1) for x in (-1.5, -0.5, 0.5, 1.5)]
        members = []
        for offset in offsets:
            scale = rng.uniform(0.06, 0.08) * size
            position = centre + (np.array(offset) + rng.uniform(-0.2, 0.2, 2)) * 0.13 * size
            members.append(placed(shapes.shape(category + 1, rng), scale, position))
        scene.add_crowd(members, category + 1)

    count = rng.integers(1, shapes.most if kind == "crowd" else shapes.most + 1)
    anchor = None
    for _ in range(count):
        category = int(rng.integers(len(shapes.classes)))
        for _ in range(100):
            scale = math.exp(rng.uniform(*map(math.log, shapes.scale))) * size
            position = rng.uniform(0.08, 0.92, 2) * size
            if anchor is not None and rng.random() < 0.5:  # close to the last one: overlap
                position = anchor + rng.normal(0, 0.2 * size, 2)
            shape = placed(shapes.shape(category + 1, rng), scale, position)
            if scene.add(shape, category + 1):
                anchor = position
                break
    return scene


def draw_single(rng: np.random.Generator, size: int, category: int, shapes: ShapeSet) -> Scene:
    """A picture of one object of the category, from 1 on."""
    scene = Scene(size, shapes.visible)
    while not scene.masks:  # a shape with a hole is not taken
        scale = math.exp(rng.uniform(*map(math.log, shapes.scale))) * size
        position = rng.uniform(0.44, 0.56, 2) * size
        scene.add(placed(shapes.shape(category, rng), scale, position), category)
    return scene


def draw_image(
    index: int, *, seed: int, split: int, size: int, shapes: ShapeSet
) -> tuple[np.ndarray, Scene]:
    """Draw one picture; it depends on nothing but the arguments.

    Returns:
        The image, ``(size, size, 3)`` uint8, and its objects.
    """
    cv2.setNumThreads(1)
    rng = np.random.default_rng([seed, split, index])
    if shapes.centred:
        scene = draw_single(rng, size, index % len(shapes.classes) + 1, shapes)
    else:
        kind = {EMPTY: "empty", CROWD: "crowd"}.get(index % CYCLE, "ordinary")
        scene = draw_scene(rng, size, kind, shapes)

    angle = rng.uniform(0, 2 * math.pi)
    light = np.array([math.cos(angle), math.sin(angle)])  # points towards the light
    image = background(rng, size)
    for _ in range(rng.integers(0, 4)):
        scale = rng.uniform(0.05, 0.12) * size
        # Bent less: a strongly bent ellipse would be a crescent.
        shape = placed(deform(distractor(rng), rng, bend=0.25), scale, rng.uniform(0, 1, 2) * size)
        paint(image, coverage(shape, size), light, rng)
    if rng.random() < 0.5:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.5))  # out of focus
    for alpha, category in scene.alphas:
        paint(image, alpha, light, rng, shapes.hue(category, rng))
    return photograph(image, rng), scene


def annotate(scene: Scene) -> tuple[list[dict], np.ndarray]:
    """The COCO annotations without ids, and the label map of ADE20K's kind."""
    annotations = []
    labels = np.ones((scene.size, scene.size), np.uint8)
    for mask, (category, crowd) in zip(scene.masks, scene.labels, strict=True):
        annotations.append(annotation(mask, category, crowd))
        labels[mask] = 0 if crowd else category + 1
    return annotations, labels
