"""A folder that a script writes as a whole, and replaces without touching what others put there.

The folder appears when it is complete, and a list of its files with their hashes says what may be
deleted later. A run that was killed leaves ``.<name>.partial`` beside it; the next run clears it.
"""

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class OutputFolder:
    """A folder with a manifest.

    Args:
        path: The folder.
        manifest: Name of the manifest in it.
        pattern: Matches the paths of all other files that the script may write, with ``/`` between
            folders. Nothing else is ever deleted, whatever a manifest says.
    """

    def __init__(self, path: Path, manifest: str, pattern: str) -> None:
        self.path, self.manifest, self.pattern = path, manifest, re.compile(pattern)
        self.partial = path.parent / f".{path.name}.partial"

    def read_manifest(self) -> dict | None:
        """The manifest, None if there is none that can be read."""
        try:
            content = json.loads((self.path / self.manifest).read_text())
        except (OSError, ValueError, RecursionError):
            return None
        return content if isinstance(content, dict) else None

    def files(self) -> set[str]:
        """Paths of all that is in the folder and is no folder."""
        return _files(self.path)

    def foreign_files(self) -> list[str]:
        """Files that the manifest does not list as they are."""
        manifest = self.read_manifest() or {}
        listed = manifest.get("files")
        listed = listed if isinstance(listed, dict) else {}
        return sorted(
            name
            for name in self.files() - {self.manifest}
            if not self.pattern.fullmatch(name) or _hash(self.path / name) != listed.get(name)
        )

    @contextmanager
    def written(self, manifest: dict, replace: bool) -> Iterator[Path]:
        """Gives a new folder to write to; it becomes the folder when nothing fails.

        Args:
            manifest: To be written last, with a list of the files under ``files``.
            replace: Whether to delete the files that are there; :meth:`foreign_files` is empty.

        Raises:
            FileExistsError: Another process is writing.
        """
        with self._locked():
            new, old = self.partial / "new", self.partial / "old"
            new.mkdir()
            try:
                yield new
                files = {name: _hash(new / name) for name in sorted(_files(new))}
                content = manifest | dict(files=files)
                (new / self.manifest).write_text(json.dumps(content, indent=2) + "\n")
                if replace:
                    os.rename(self.path, old)
                os.rename(new, self.path)  # an empty folder is replaced
            finally:
                self._clear()

    def clear_partial(self) -> None:
        """Delete what a killed run left."""
        if self.partial.is_dir() and not self.partial.is_symlink():
            try:
                with self._locked():
                    pass
            except FileExistsError:
                pass  # at work

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Holds the partial folder, empty at first; the lock ends with the process."""
        if self.partial.is_symlink():
            raise FileExistsError(f"{self.partial} is a symbolic link; remove it")
        self.partial.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.partial, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise FileExistsError(f"another process is writing {self.path}") from error
        try:
            self._clear()
            left = sorted(_files(self.partial))
            if left:
                raise FileExistsError(
                    f"{self.partial} holds files that this script did not write, {left[0]} for "
                    "instance; move them away"
                )
            yield
        finally:
            _remove_empty(self.partial)
            os.close(handle)

    def _clear(self) -> None:
        """Delete our files in the partial folder."""
        for name in _files(self.partial):
            part, _, inner = name.partition("/")
            ours = inner == self.manifest or self.pattern.fullmatch(inner)
            if part in ("new", "old") and ours:
                (self.partial / name).unlink()
        for part in ("new", "old"):
            _remove_empty(self.partial / part)


def _files(folder: Path) -> set[str]:
    """Paths below a folder of all that is no folder; links are not followed."""
    return {
        Path(parent, name).relative_to(folder).as_posix()
        for parent, folders, names in os.walk(folder)
        for name in [*names, *(name for name in folders if Path(parent, name).is_symlink())]
    }


def _hash(file: Path) -> str | None:
    """SHA-256 of a file, None of a link or anything else."""
    if file.is_symlink() or not file.is_file():
        return None
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _remove_empty(folder: Path) -> None:
    """Remove a folder and those below it as far as they hold no files."""
    for parent, _, _ in os.walk(folder, topdown=False):
        try:
            os.rmdir(parent)
        except OSError:
            pass  # not empty, or a link
