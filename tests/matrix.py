"""Tests of the operators with several versions of Python and torch, for ``make test-matrix``.

For each combination one after the other: a virtual environment in ``.venvs``, torch, one and the
same wheel of mmdcn, and ``tests/test_ops``, in a copy from which the sources of mmdcn cannot be
imported. It ends with a table for docs/install.md.
"""

import argparse
import datetime
import os
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".venvs"
# What is about the sources and not about what is installed.
IGNORED = ("tests/test_ops/test_completeness.py",)
# Without the library, tests of it would only be skipped.
CHECK = """
import platform, torch, mmdcn._extension as extension
assert extension.is_available("cpu"), extension.why_missing("cpu")
print(platform.python_version(), torch.__version__, extension.library_path("cpu"))
"""


class NotRun(Exception):
    """There is no such interpreter."""


def interpreter(version: str) -> str:
    """A Python of that version, such as 3.12, on the PATH or among those that pyenv has."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = [shutil.which(f"python{version}"), *pyenv.glob(f"versions/*/bin/python{version}")]
    for python in filter(None, found):  # pyenv's own links are there, but need not work
        if subprocess.run([python, "-c", "import venv"], capture_output=True).returncode == 0:
            return str(python)
    raise NotRun(f"there is no python{version}")


def run(*command: object, folder: Path, check: bool = True) -> int:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    done = subprocess.run(list(map(str, command)), cwd=folder, env=environment, check=check)
    return done.returncode


def test(
    version: str, torch: str, folder: Path, wheel: Path, pytest_args: list[str]
) -> tuple[bool, str]:
    """Install and test in ``folder``; whether a test failed, and how many had which result.

    Raises:
        NotRun: There is no such interpreter.
        subprocess.CalledProcessError: Something cannot be installed, or does not work at all.
    """
    run(interpreter(version), "-m", "venv", "venv", folder=folder)
    python = folder / "venv" / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    run(*pip, f"torch=={torch}", f"{wheel}[test]", folder=folder)
    run(python, "-c", CHECK, folder=folder)

    shutil.copytree(ROOT / "tests", folder / "tests")
    shutil.copy(ROOT / "pyproject.toml", folder)
    results = folder / "results.xml"
    pytest = [python, "-m", "pytest", "-q", "-n", "auto", "--maxprocesses", "8"]
    pytest += [f"--ignore={path}" for path in IGNORED] + [f"--junit-xml={results}"]
    status = run(*pytest, "tests/test_ops", *pytest_args, folder=folder, check=False)
    if not results.exists():
        raise subprocess.CalledProcessError(status, "pytest")
    suite = ElementTree.parse(results).getroot()[0]
    counts = Counter({key: int(suite.get(key)) for key in ("failures", "errors", "skipped")})
    counts["passed"] = int(suite.get("tests")) - counts.total()
    return status != 0, summary(counts)


def summary(counts: Counter) -> str:
    names = {"failures": "failed", "errors": "with errors", "skipped": "skipped"}
    return ", ".join(
        [f"{counts['passed']} passed", *(f"{counts[k]} {v}" for k, v in names.items() if counts[k])]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("combinations", nargs="+", metavar="PYTHON:TORCH")
    parser.add_argument("--keep", action="store_true", help="do not delete the environments")
    parser.add_argument("--pytest-args", type=shlex.split, default=[])
    args = parser.parse_args()

    rows, good, bad = [], 0, 0
    for combination in args.combinations:
        version, _, torch = combination.partition(":")
        folder = FOLDER / f"python{version}-torch{torch}"
        print(f"\n== Python {version}, torch {torch}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            failed, result = test(version, torch, folder, args.wheel.resolve(), args.pytest_args)
        except NotRun as reason:
            failed, result = None, f"not run: {reason}"
        except subprocess.CalledProcessError as error:
            failed, result = True, f"no result: {error}"
        if not args.keep:
            shutil.rmtree(folder)
        good, bad = good + (failed is False), bad + (failed is True)
        rows.append((version, torch, result))

    print(f"\n{args.wheel.name}, {datetime.date.today()}\n")
    print("| Python | torch | tests |\n|:--|:--|:--|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    sys.exit(bad > 0 or good == 0)


if __name__ == "__main__":
    main()
