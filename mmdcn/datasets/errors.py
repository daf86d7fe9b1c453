"""Errors about data, and a way to report many faults of a file at once."""

from collections import Counter
from collections.abc import Iterator

EXAMPLES = 3


class DatasetError(ValueError):
    """A data set cannot be used; the message names the config field and the file."""


class LoadingError(DatasetError):
    """A file that a run is loading cannot be used; the message names it."""


class ImageError(LoadingError):
    """An image cannot be used; the message names the file."""


class LabelMapError(LoadingError):
    """A label map cannot be used; the message names the file."""


def some(items: list) -> str:
    """The first of the items as text."""
    shown = ", ".join(str(item) for item in items[:EXAMPLES])
    return f"{shown}, ..." if len(items) > EXAMPLES else shown


class Findings:
    """What is wrong with the parts of something: each kind with its number and first places."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._places: dict[str, list[str]] = {}

    def add(self, kind: str, place: object) -> None:
        self._counts[kind] += 1
        places = self._places.setdefault(kind, [])
        if len(places) <= EXAMPLES:  # one more than is shown
            places.append(str(place))

    def __bool__(self) -> bool:
        return bool(self._counts)

    def __iter__(self) -> Iterator[tuple[str, int, str]]:
        """Kind, how often, and where first."""
        for kind, count in self._counts.items():
            yield kind, count, some(self._places[kind])

    def raise_if_any(self, where: str) -> None:
        """Raise one error with all findings.

        Raises:
            DatasetError: There are findings.
        """
        if self:
            kinds = [f"{kind} ({count} times: {places})" for kind, count, places in self]
            raise DatasetError(f"{where}: {'; '.join(kinds)}")
