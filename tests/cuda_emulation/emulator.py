"""The emulated device from Python, in a process that has loaded the emulated library."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ORDERS = ("forward", "reverse", "random")


@dataclass(frozen=True)
class Traffic:
    """What one kernel asked of the memory with accesses of one kind and width.

    Attributes:
        kernel: its name with template arguments.
        kind: ``load``, ``store`` or ``atomic``.
        width: bytes that one thread accesses at once.
        requests: instructions, counted once a warp.
        accesses: instructions, counted for each thread that took part.
        bytes: what the threads accessed.
        sectors: different 32-byte sectors, summed over the requests.
    """

    kernel: str
    kind: str
    width: int
    requests: int
    accesses: int
    bytes: int
    sectors: int


class Device:
    """Settings and statistics."""

    def __init__(self, folder: Path) -> None:
        self.library = ctypes.CDLL(str(folder / "_C.so"))
        self.library.emulation_report.restype = ctypes.c_char_p

    def configure(
        self,
        order: str = "forward",
        seed: int = 0,
        max_blocks: int = 1 << 20,
        vectors: bool = False,
    ) -> None:
        """Order of a block's threads, limit of a grid, and whether there are vector atomics."""
        self.library.emulation_configure(ORDERS.index(order), seed, max_blocks, vectors)

    def scalar_dcnv3(self, *arguments: int) -> None:
        """The mapping to compare with, see scalar_mapping.cu: four addresses, then sizes."""
        pointers, sizes = arguments[:4], arguments[4:]
        self.library.scalar_dcnv3(*map(ctypes.c_void_p, pointers), *sizes)

    @contextlib.contextmanager
    def record(self) -> Iterator[list[Traffic]]:
        """Collect the traffic of what runs inside; it stands in the list afterwards."""
        traffic: list[Traffic] = []
        self.library.emulation_record(1)
        try:
            yield traffic
            *lines, last = self.library.emulation_report().decode().splitlines()
            for line in lines:
                kernel, kind, *numbers = line.split("\t")
                traffic.append(Traffic(kernel, kind, *map(int, numbers)))
            if int(last.split("\t")[1]):
                raise RuntimeError(
                    "the threads of a warp took different paths; requests are unknown"
                )
        finally:
            self.library.emulation_record(0)
