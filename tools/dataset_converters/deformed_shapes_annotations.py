"""COCO annotations of the masks of the deformed shapes."""

import cv2
import numpy as np
from pycocotools import mask as mask_utils


def has_holes(mask: np.ndarray) -> bool:
    outside = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
    return cv2.connectedComponents(outside, connectivity=4)[0] > 2


def mask_to_polygons(mask: np.ndarray) -> list[list[float]]:
    """Outlines of a mask without holes, along the pixel borders.

    Corners are integer coordinates, so that the COCO API rasterises the polygons to exactly this
    mask.
    """
    padded = np.pad(mask, 1).astype(np.int8)
    # Directed borders with the mask on their right-hand side: start corner -> end corners.
    borders: dict[tuple[int, int], list[tuple[int, int]]] = {}
    step_y = np.diff(padded, axis=0)[:, 1:-1]
    step_x = np.diff(padded, axis=1)[1:-1]
    for y, x in np.argwhere(step_y):
        ends = ((x, y), (x + 1, y))
        start, end = ends if step_y[y, x] > 0 else ends[::-1]
        borders.setdefault(start, []).append(end)
    for y, x in np.argwhere(step_x):
        ends = ((x, y + 1), (x, y))
        start, end = ends if step_x[y, x] > 0 else ends[::-1]
        borders.setdefault(start, []).append(end)

    polygons = []
    while borders:
        first = min(borders)
        loop, corner, heading = [], first, (0, 0)
        while corner in borders:
            ends = borders[corner]
            # Where two pixels touch at a corner only, turning right keeps the two loops apart.
            right = (corner[0] - heading[1], corner[1] + heading[0])
            end = ends.pop(ends.index(right) if right in ends else 0)
            if not ends:
                del borders[corner]
            step = (end[0] - corner[0], end[1] - corner[1])
            if step != heading:
                loop.append(corner)
            corner, heading = end, step
        polygons.append([float(value) for point in loop for value in point])
    return polygons


def annotation(mask: np.ndarray, category: int, crowd: bool) -> dict:
    """A COCO annotation (without ids) of a visible mask."""
    rle = mask_utils.encode(np.asfortranarray(mask, dtype=np.uint8))
    if crowd:
        flat = np.concatenate([[0], mask.T.ravel(), [0]])
        changes = np.flatnonzero(np.diff(flat)).tolist()
        if not mask[-1, -1]:
            changes.append(mask.size)
        counts = np.diff([0, *changes]).tolist()
        segmentation = dict(counts=counts, size=list(mask.shape))
    else:
        segmentation = mask_to_polygons(mask)
    return dict(
        category_id=category,
        segmentation=segmentation,
        area=float(mask_utils.area(rle)),
        bbox=mask_utils.toBbox(rle).tolist(),
        iscrowd=int(crowd),
    )
