"""COCO's format of instances as types, and a reader that checks a file against them.

What MMDetection reads is described here and nothing else; other keys are passed over. All parts
that do not fit are collected, so that one run shows all of them.
"""

import gc
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from mmdcn.datasets.errors import DatasetError, Findings

# OpenCV reads no larger image.
MAX_SIDE = 1 << 20
MAX_PIXELS = 1 << 30

Id = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
Side = Annotated[float, Meta(ge=1, le=MAX_SIDE)]  # some writers put 640.0 for 640


class Image(Struct, gc=False):
    """An image; its size is in pixels."""

    id: Id | Annotated[str, Meta(max_length=1000)]
    file_name: Annotated[str, Meta(min_length=1, max_length=4000)]
    width: Side
    height: Side


class Category(Struct, gc=False):
    """A class of objects."""

    id: Id
    name: str


class RunLengths(Struct, gc=False):
    """A mask by columns: lengths of runs of 0 and 1 in turn, as numbers or compressed to text."""

    size: tuple[int, int]  # height, width
    counts: list[Annotated[int, Meta(ge=0, le=MAX_PIXELS)]] | str


class Annotation(Struct, gc=False):
    """An object, without its mask; the box is x, y, width, height in pixels."""

    id: Id
    image_id: Id | str
    category_id: Id
    bbox: tuple[float, float, float, float]
    area: float
    iscrowd: bool | int | None = None
    ignore: bool | int | None = None


class MaskAnnotation(Annotation, gc=False):
    """An object with its mask: polygons x, y, x, y, ... or run lengths."""

    segmentation: list[list[float]] | RunLengths | None = None


class CocoFile(Struct, gc=False):
    """A file whose parts are not decoded yet."""

    images: list[Raw]
    categories: list[Raw]
    annotations: list[Raw] | None = None


@contextmanager
def without_gc() -> Iterator[None]:
    """Pause the search for circular garbage, which takes long among millions of new objects."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def read(file: str, where: str) -> CocoFile:
    """Read a file and split it into its parts.

    Raises:
        DatasetError: It is not JSON, or lacks one of the lists; the message begins with ``where``.
    """
    with open(file, "rb") as stream:
        data = stream.read()
    try:
        return msgspec.json.decode(data, type=CocoFile)
    except RecursionError as error:
        raise DatasetError(f"{where}: it is nested too deeply") from error
    except msgspec.ValidationError as error:
        problem = _fault(error)
        raise DatasetError(f"{where}: {problem}; it is not in COCO's format") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"{where}: it is not a whole JSON file: {error}{_at(error, data)}"
        ) from (error)


def _at(error: Exception, data: bytes) -> str:
    """The text around the fault."""
    place = re.search(r"\(byte (\d+)\)", str(error))
    if not place:
        return ""
    start = int(place[1])
    text = data[max(0, start - 20) : start + 20].decode("utf-8", "replace")
    reason = "; JSON has no NaN and no Infinity" if re.search("NaN|Infinity", text) else ""
    return f" in {text!r}{reason}"


def decode_all(
    parts: list[Raw], kind: type, name: str, faults: Findings, otherwise: type | None = None
) -> Iterator[Any]:
    """Decode parts of a file one by one.

    Args:
        parts: What :func:`read` gives.
        kind: Type of each part.
        name: Of the list, for messages.
        faults: Takes what does not fit.
        otherwise: Type of those parts that are not of the first.

    Yields:
        The index of a part and its content, for each that fits.
    """
    decode = msgspec.json.Decoder(kind).decode
    for index, part in enumerate(parts):
        try:
            item = decode(part)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            if otherwise is None:
                faults.add(f"{name}: {_fault(error)}", f"{name}[{index}]{_id_of(part)}")
            else:
                yield from ((index, x) for _, x in decode_all([part], otherwise, name, faults))
            continue
        yield index, item


def _fault(error: Exception) -> str:
    """What msgspec says, with the path in front and without indices, so that it can be counted."""
    text, _, path = str(error).partition(" - at `")
    path = re.sub(r"\[\d+\]", "[...]", path.rstrip("`").removeprefix("$").removeprefix("."))
    missing = re.search(r"missing required field (`\w+`)", text)
    text = f"there is no {missing[1]}" if missing else text[:1].lower() + text[1:]
    return f"{path}: {text}" if path else text


def _id_of(part: Raw) -> str:
    try:
        number = msgspec.json.decode(part)["id"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return f" (id {str(number)[:30]})"


def is_polygon(values: list[float]) -> bool:
    """Whether coordinates are those of a polygon: three points or more."""
    return len(values) >= 6 and len(values) % 2 == 0


def whole(side: float) -> bool:
    """Whether a side of an image is a number of pixels."""
    return math.floor(side) == side
