"""A page for each folder of configs: its README, then the source of every config in it."""

import os
import re
import shutil
from pathlib import Path

BASES = """# Bases

What the recipes have in common: data sets, schedules and models that they name in `_base_`.
"""
DEMO = """# Demo

Small models that train on a CPU within minutes, on the data set that `make data` writes;
`make demo` and `make demo-seg` run them. The
[benchmarks](../../benchmarks.md#what-do-the-demos-reach) have their results.
"""
INTRODUCTIONS = {"_base_": BASES, "demo": DEMO}  # of the folders without a README


def write(root: Path, out: Path) -> None:
    """Write ``out/<folder>.md`` for each folder of ``root/configs``."""
    shutil.rmtree(out, ignore_errors=True)  # with pages of folders that are no more
    out.mkdir(parents=True)
    for folder in sorted(path for path in (root / "configs").iterdir() if path.is_dir()):
        (out / f"{folder.name}.md").write_text(page(root, folder, out), encoding="utf-8")


def page(root: Path, folder: Path, out: Path) -> str:
    readme = folder / "README.md"
    if readme.is_file():
        text = rewrite_links(readme.read_text(encoding="utf-8"), root, folder, out)
    else:
        text = INTRODUCTIONS[folder.name]
    parts = [text, "## Sources", ""]
    for config in sorted(folder.rglob("*.py")):
        source = os.path.relpath(config, out)
        parts += [
            f"({label(config.relative_to(root))})=",
            f"### {config.relative_to(folder).with_suffix('')}",
            "",
            f"{{download}}`{config.relative_to(root)} <{source}>`",
            "",
            f"```{{literalinclude}} {source}",
            ":language: python",
            "```",
            "",
        ]
    return "\n".join(parts)


def label(config: Path | str) -> str:
    """Target of the section that shows a config, which is relative to the root."""
    return "-".join(Path(config).with_suffix("").parts).replace(".", "-")


def rewrite_links(text: str, root: Path, folder: Path, out: Path) -> str:
    """Links relative to `folder`, as a code host follows them, lead to pages of the site."""

    def target(match: re.Match) -> str:
        path, _, anchor = match[1].partition("#")
        file = (folder / path).resolve()
        place = file.relative_to(root.resolve())
        if place.parts[0] == "configs" and file.suffix == ".py":
            return f"](#{label(place)})"
        if place.parts[0] == "configs" and file.name == "README.md":
            page = f"{file.parent.name}.md"
        elif place.parts[0] == "docs":
            page = os.path.relpath(file, out)
        else:
            raise ValueError(f"{folder / 'README.md'}: the site has no page for {match[1]!r}")
        return f"]({page}#{anchor})" if anchor else f"]({page})"

    return re.sub(r"\]\((?![a-z]+://|#)([^)]+)\)", target, text)
