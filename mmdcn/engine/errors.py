"""Errors that the command-line tools tell in one line."""


class UsageError(ValueError):
    """An argument or config value that the tools cannot work with."""
