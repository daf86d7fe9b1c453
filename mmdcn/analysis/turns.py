"""A lock that is fair to those who wait for it."""

from __future__ import annotations

import collections
import contextlib
import threading
from collections.abc import Iterator


class Turns:
    """A lock that is given to those who wait for it in the order in which they came.

    A long search passes it on between its steps, which an ordinary lock would not do: that is taken
    again before anybody else wakes up.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: collections.deque[threading.Lock] = collections.deque()
        self._taken = False

    def acquire(self) -> None:
        with self._lock:
            if not self._taken:
                self._taken = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        mine.acquire()

    def release(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False

    def pass_on(self) -> None:
        """Let those who wait have it first. The caller holds it before and after."""
        self.release()
        self.acquire()

    @contextlib.contextmanager
    def mine(self) -> Iterator[None]:
        self.acquire()
        try:
            yield
        finally:
            self.release()
