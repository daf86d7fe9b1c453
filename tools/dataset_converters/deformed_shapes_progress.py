"""How far a long loop is: one line that changes on a terminal, a few plain lines elsewhere."""

import sys
import time

ON_TERMINAL, ELSEWHERE = 0.5, 10  # seconds between two of them


class Progress:
    """Shows on stderr how many items are done and how long the others will take.

    Args:
        name: What the items belong to.
        unit: What they are.
        count: Their number.
    """

    def __init__(self, name: str, unit: str, count: int) -> None:
        self.name, self.unit, self.count = name, unit, count
        self.terminal = sys.stderr.isatty()
        self.started = self.shown = time.monotonic()

    def update(self, done: int) -> None:
        """Show it if it is time, or all are done."""
        now = time.monotonic()
        last = done == self.count
        if not last and now - self.shown < (ON_TERMINAL if self.terminal else ELSEWHERE):
            return
        self.shown = now
        left = (now - self.started) / done * (self.count - done)
        line = f"{self.name}: {done}/{self.count} {self.unit}"
        line += f" in {now - self.started:.0f} s" if last else f", {left:.0f} s left"
        if self.terminal:
            line = f"\r\x1b[K{line}"  # from the start of the line, which is cleared
        end = "" if self.terminal and not last else "\n"
        print(line, end=end, file=sys.stderr, flush=True)
