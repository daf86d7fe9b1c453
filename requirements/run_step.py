"""Run a step of the set-up that says little or far too much, and show that it is alive.

``python run_step.py LOG COMMAND...`` writes all that the command says to LOG and shows the time it
has taken so far with the last line of it, on a terminal in one line every ten seconds, elsewhere in
a new line every 30. Where the command fails, the end of the log and the line that says why appear.
The exit status is that of the command.

The Makefile calls this before anything is installed, so it needs nothing but Python, and stands
with the lists of what is to be installed rather than with the tools for models.
"""

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ON_TERMINAL, ELSEWHERE = 10, 30  # seconds between two signs of life
TAIL = 12  # lines of the log that a failure shows
GRACE = 5  # seconds that a command has to end in order
# What says why something failed; the first pattern that is found anywhere, and its first line.
REASONS = [
    r"No space left on device",
    r"(^|[\w./+-]+:(\d+:)* )fatal error: ",  # compilers, and what kills them
    r"^[\w./+-]+:\d+(:\d+)?: error: ",
    r"undefined reference to|cannot find -l",
    r"^error: (?!subprocess-exited|command |metadata-generation)",
    r"^(?!urllib3|pip\b)[\w.]*(Error|Exception)\b: (?!Command|Error compiling objects)",
    r"^ERROR: ",
    r"\berror:",
]
# pip frames what it quotes of a subprocess.
FRAME = re.compile(r"^[\s│╰─>×]+")


def plain(line: str) -> str:
    """A line without pip's frame and without colours."""
    return FRAME.sub("", re.sub(r"\x1b\[[0-9;]*m", "", line)).rstrip()


def reason(text: str) -> str:
    """The line of a log that most likely says why a command failed."""
    lines = [line for line in map(plain, text.splitlines()) if line]
    for pattern in REASONS:
        for line in lines:
            if re.search(pattern, line):
                return line
    return lines[-1] if lines else "it says nothing"


def last_line(log: Path) -> str:
    """The last line that is not empty."""
    with open(log, "rb") as file:
        file.seek(max(0, os.path.getsize(log) - 4096))
        lines = file.read().decode(errors="replace").replace("\r", "\n").splitlines()
    return next(filter(None, map(plain, reversed(lines))), "")


def duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


class Heartbeat:
    """Lines about the time that has passed."""

    def __init__(self, log: Path) -> None:
        self.log, self.started = log, time.monotonic()
        self.terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self.interval = ON_TERMINAL if self.terminal else ELSEWHERE
        self.next = self.started + self.interval
        self.shown = False

    def beat(self) -> None:
        """Show one if it is time."""
        now = time.monotonic()
        if now < self.next:
            return
        self.next += self.interval
        line = f"   … {duration(now - self.started)}  {last_line(self.log)}"
        line = line[: shutil.get_terminal_size().columns - 1]
        print(f"\r\x1b[K{line}" if self.terminal else line, end="", flush=self.terminal)
        if not self.terminal:
            print(flush=True)
        self.shown = True

    def clear(self) -> None:
        """Leave a terminal's line to what comes next."""
        if self.terminal and self.shown:
            print("\r\x1b[K", end="", flush=True)


def end_with_us() -> None:
    """In the command: end when this script is killed. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)  # PR_SET_PDEATHSIG


class Step:
    """A command with all its processes, in a group of its own, so that they can end together."""

    def __init__(self) -> None:
        self.signal, self.process = 0, None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # as nohup does
                signal.signal(number, self.pass_on)

    def pass_on(self, number: int, _: object) -> None:
        """Signal handler: tell the command, too."""
        self.signal = number
        self.tell(number)

    def tell(self, number: int) -> None:
        if self.process is not None:
            try:
                os.killpg(self.process.pid, number)
            except (ProcessLookupError, PermissionError):
                pass  # there is none any more

    def run(self, command: list[str], heartbeat: Heartbeat) -> int:
        """Run it to its end; returns its exit status."""
        with open(heartbeat.log, "wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_us,
            )
        if self.signal:  # it came before there was a process to tell
            self.tell(self.signal)
        limit = None
        while True:
            try:
                status = self.process.wait(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                heartbeat.beat()
            if self.signal:
                limit = limit or time.monotonic() + GRACE
                if time.monotonic() > limit:
                    self.tell(signal.SIGKILL)
        if self.signal:
            self.tell(signal.SIGKILL)  # what the command has started and left behind
        return status


def report(log: Path, text: str, status: int) -> None:
    """Say on stderr how the command failed, the reason last."""
    lines = text.splitlines()
    print(*lines[-TAIL:], sep="\n", file=sys.stderr)
    end = f"signal {-status}" if status < 0 else f"exit status {status}"
    print(f"\nThis step failed ({end}); {log} has all {len(lines)} lines.", file=sys.stderr)
    line = reason(text)
    print(line if re.match("error: ", line, re.I) else f"error: {line}", file=sys.stderr)


def main(argv: list[str]) -> int:
    if len(argv) < 2:
        sys.exit("usage: run_step.py LOG COMMAND...")
    log, command = Path(argv[0]), argv[1:]
    log.parent.mkdir(parents=True, exist_ok=True)
    step, heartbeat = Step(), Heartbeat(log)
    try:
        status = step.run(command, heartbeat)
    except OSError as error:
        sys.exit(f"error: {command[0]}: {error.strerror}")
    heartbeat.clear()
    if step.signal:
        print("\nstopped: the same command does this step again", file=sys.stderr)
        return 128 + step.signal
    if status:
        report(log, log.read_text(errors="replace"), status)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
