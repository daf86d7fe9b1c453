"""What the pages of the operators say about themselves, as a table and as a grid of pictures."""

from pathlib import Path

import yaml


def pages(docs: Path) -> list[dict]:
    """The front matter of each operator's page and its name, by position."""
    found = []
    for path in (docs / "operators").glob("*.md"):
        text = path.read_text(encoding="utf-8")
        if text.startswith("---"):
            found.append({**yaml.safe_load(text.split("---")[1]), "name": path.stem})
    return sorted(found, key=lambda page: (page["position"], page["name"]))


def table(docs: Path) -> str:
    """A table for docs/operators/index.md."""
    rows = ["| Operator | What it does | Introduced by |", "|:--|:--|:--|"]
    for page in pages(docs):
        link = f"[{page['name']}](/operators/{page['name']}.md)"
        rows.append(f"| {link} | {page['summary']} | {page['introduced']} |")
    return "\n".join(rows) + "\n"


def grid(docs: Path) -> str:
    """Pictures for docs/index.md. A long name may break where a word ends."""
    lines = ["````{container} operator-grid"]
    for page in pages(docs):
        name = page["name"]
        shown = name.replace("_", "_&#8203;", 1) if len(name) > 16 else name
        picture = f"![Pixels that {name} reads](/_generated/figures/tiles/{name}.png)"
        lines += [f"[{picture} **{shown}**](/operators/{name}.md): {page['summary']}", ""]
    return "\n".join([*lines[:-1], "````"]) + "\n"
