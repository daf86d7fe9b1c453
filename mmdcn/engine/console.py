"""What a run says on the console; its log file has everything.

MMEngine writes hundreds of lines before the first iteration: the environment, the whole config, all
hooks, and the options of each parameter.
"""

import functools
import logging

from mmengine.logging import MMLogger

# How the messages begin that only the file gets.
LENGTHY = (
    "\n" + "-" * 60 + "\nSystem environment:",
    "Config:\n",
    "Hooks will be executed in the following order:",
    "paramwise_options -- ",
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
)


def is_brief(record: logging.LogRecord) -> bool:
    """Whether a message is for the console, too."""
    return not record.getMessage().startswith(LENGTHY)


def install() -> None:
    """Make the loggers that MMEngine makes from now on brief on the console."""
    original = MMLogger.__init__
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def create(self, *args, **kwargs) -> None:
        original(self, *args, **kwargs)
        for handler in self.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(is_brief)

    MMLogger.__init__ = create


def log_file(logger: logging.Logger) -> str | None:
    """Path of the file that a logger writes."""
    files = (h.baseFilename for h in logger.handlers if isinstance(h, logging.FileHandler))
    return next(files, None)
