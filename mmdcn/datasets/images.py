"""Checks of image files before a run, from their names, sizes and headers; nothing is decoded."""

import logging
import os
import time
from collections.abc import Sequence
from contextlib import contextmanager

import cv2
import PIL.Image
from PIL.ExifTags import Base

from mmdcn.datasets.coco_format import MAX_PIXELS
from mmdcn.datasets.errors import DatasetError, Findings, some

# What is looked at before a run, as a network disk may take milliseconds for each file. The rest is
# checked when it is loaded.
SECONDS = 5.0
HEADERS = 1000
TURNS_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


def check_names(folder: str, names: Sequence[str], where: str, kind: str = "images") -> None:
    """Check that files exist in a folder and are not empty; each folder is listed once.

    Args:
        folder: Where the files should be.
        names: Their paths in it. They may be absolute, but not lead out of it.
        where: Config field and file, for messages.
        kind: What the files are.

    Raises:
        DatasetError: A file is missing, empty, or outside of the folder.
    """
    root = os.path.abspath(folder or ".")
    listings: dict[str, dict[str, os.DirEntry]] = {}
    outside, absent, empty = [], [], []
    deadline = time.monotonic() + SECONDS
    for name in names:
        path = os.path.normpath(os.path.join(root, name))
        if "\0" in name or not path.startswith(root.rstrip(os.sep) + os.sep):
            outside.append(repr(name))
            continue
        parent, base = os.path.split(path)
        if parent not in listings:
            listings[parent] = _listing(parent)
        entry = listings[parent].get(base)
        if entry is None or entry.is_dir():
            absent.append(name)
        elif time.monotonic() < deadline and _size(entry) == 0:
            empty.append(name)
    for found, problem in (
        (outside, "lead out of"),
        (absent, "are not in"),
        (empty, "are empty files in"),
    ):
        if found:
            raise DatasetError(
                f"{where}: {len(found)} of its {len(names)} {kind} {problem} {folder!r}: "
                f"{some(found)}"
            )


def _listing(folder: str) -> dict[str, os.DirEntry]:
    if not os.path.isdir(folder):
        return {}
    with os.scandir(folder) as entries:
        return {entry.name: entry for entry in entries}


def _size(entry: os.DirEntry) -> int:
    try:
        return entry.stat().st_size
    except OSError:  # a link to nothing
        return 0


@contextmanager
def open_header(file):
    """Open an image of any size with Pillow, to read its header only."""
    limit, PIL.Image.MAX_IMAGE_PIXELS = PIL.Image.MAX_IMAGE_PIXELS, None
    try:
        image = PIL.Image.open(file)
    finally:
        PIL.Image.MAX_IMAGE_PIXELS = limit
    with image:
        yield image


def orientation(image: PIL.Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 is upright."""
    try:
        value = image.getexif().get(Base.Orientation, 1)
    except Exception:  # whatever a broken EXIF block does to the parser, OpenCV ignores it too
        return 1
    return value if value in range(1, 9) else 1


def check_headers(
    files: Sequence[tuple[str, tuple[float, float] | str]],
    turned: bool,
    where: str,
    logger: logging.Logger,
) -> None:
    """Compare the headers of images with what belongs to them.

    At most ``HEADERS`` images, spread evenly, and for ``SECONDS`` at most.

    Args:
        files: Path of each image, with its width and height as annotated or the path of its label
            map.
        turned: Whether images are turned upright by their EXIF orientation when they are loaded.
        where: Config field and file, for messages.
        logger: Takes a warning where images are turned and the sizes do not show whether the
            annotations are turned, too.

    Raises:
        DatasetError: An image cannot be read, is too large, or has another size.
    """
    deadline = time.monotonic() + SECONDS
    faults, ambiguous = Findings(), []
    for file, reference in files[:: -(-len(files) // HEADERS) or 1]:
        if time.monotonic() > deadline:
            break
        try:
            with open_header(file) as image:
                stored, turn = image.size, orientation(image) if turned else 1
            expected, of = reference, "annotation"
            if isinstance(reference, str):
                with open_header(reference) as labels:
                    expected, of = labels.size, f"label map {reference}"
        except Exception as error:  # Pillow's parsers raise what they like
            if not cv2.haveImageReader(file):  # which reads some that Pillow does not
                faults.add("images that cannot be read", f"{file} ({first_line(error)})")
            continue
        loaded = stored[::-1] if turn in TURNS_SIDEWAYS else stored
        if stored[0] * stored[1] > MAX_PIXELS:
            faults.add(f"images of more than {MAX_PIXELS} pixels", file)
        elif loaded != tuple(expected):
            text = size_mismatch(file, loaded, expected, turn, of)
            faults.add("images of another size than annotated", text)
        elif turn != 1 and loaded == stored:
            ambiguous.append(file)
    faults.raise_if_any(where)
    if ambiguous:
        logger.warning(
            f"{where}: {len(ambiguous)} images are turned or mirrored by their EXIF orientation on "
            f"loading, and their annotations may not be: {some(ambiguous)}. Store them upright"
        )


def orientation_of(file: str) -> int:
    """EXIF orientation of a file; 1 where it has none."""
    try:
        with open_header(file) as image:
            return orientation(image)
    except Exception:  # no file that Pillow reads
        return 1


def size_mismatch(
    file: str, loaded: tuple, expected: tuple, turn: int, of: str = "annotation"
) -> str:
    """A sentence on an image whose size, width and height, is not the annotated one."""
    here, there = (f"{width:g}x{height:g}" for width, height in (loaded, expected))
    text = f"{file} has {here} pixels, its {of} {there}"
    if turn != 1:
        text += (
            f"; it is turned on loading, since its EXIF orientation is {turn}. Store it upright, "
            "or annotate it upright"
        )
    return text


def first_line(error: Exception) -> str:
    """What an error says, shortly."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
