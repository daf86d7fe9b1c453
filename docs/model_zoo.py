"""The table of all configs and their published results, from the metafiles."""

from pathlib import Path

import config_pages
import yaml

INTRODUCTION = """# Model zoo

Every recipe of this repository, generated from its `metafile.yml` files. **Results and checkpoints
are published by others**, as the notes say, and were not measured with mmdcn; where a cell is empty
there is no published number. Each name leads to the source of the config, under the explanation of
its folder.

```{toctree}
:hidden:
:glob:

configs/*
```
"""


def page(root: Path) -> str:
    """Markdown with one table per metafile of ``model-index.yml``."""
    index = yaml.safe_load((root / "model-index.yml").read_text(encoding="utf-8"))
    parts = [INTRODUCTION]
    for metafile in index["Import"]:
        content = yaml.safe_load((root / metafile).read_text(encoding="utf-8"))
        parts.append(section(Path(metafile).parent, content))
    return "\n".join(parts)


def section(folder: Path, content: dict) -> str:
    papers = {c["Paper"]["Title"]: c["Paper"]["URL"] for c in content["Collections"]}
    models = content["Models"]
    names = {name: None for model in models for name in metrics(model)}  # in order, once
    head = ["Config", "Parameters", *names, "Checkpoint"]
    lines = [f"## [{folder}](configs/{folder.name}.md)", ""]
    lines += [f"- [{title}]({url})" for title, url in papers.items()]
    lines += ["", f"| {' | '.join(head)} |", f"|:--|--:|{'--:|' * len(names)}:--|"]
    for model in models:
        parameters = model["Metadata"].get("Parameters")
        weights = model.get("Weights")
        cells = [
            f"[`{model['Name']}`](#{config_pages.label(model['Config'])})",
            f"{parameters / 1e6:,.1f} M" if parameters else "",
            *(str(metrics(model).get(name, "")) for name in names),
            f"[file]({weights})" if weights else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    sources = {model["Metadata"].get("Results From") for model in models} - {None}
    lines += ["", *(f"Results {source}." for source in sorted(sources)), ""]
    return "\n".join(lines)


def metrics(model: dict) -> dict[str, float]:
    return {k: v for result in model.get("Results", []) for k, v in result["Metrics"].items()}
