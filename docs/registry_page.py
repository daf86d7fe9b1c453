"""The page of all names that mmdcn registers for configs, read from the registries."""

import importlib
import inspect
import pkgutil
import sys

from mmengine.registry import Registry

from mmdcn import registry

INTRODUCTION = """
Names for configs
=================

Everything that a config can name with the prefix ``mmdcn.``, read from the registries when this
page was built. Where a table has a column *Import*, a name is found only after the module there was
imported, as in

.. code-block:: python

    custom_imports = dict(imports=["mmdcn.models.detectors"], allow_failed_imports=False)

The others need no import. The configs of this repository import ``mmdcn.models`` all the same, so
that a missing installation is reported at the start and not while a model is being built.
"""
PACKAGES = ("datasets", "engine", "models")  # what registers something
# Title of the section of a registry, or of a role in mmdcn.models; a registry that is not here has
# its own name as title. In the order of the page.
MODEL_ROLES = {
    "backbones": "Backbones",
    "necks": "Necks",
    "heads": "Heads",
    "detectors": "Detectors",
    "segmentors": "Segmentors",
    "layers": "Layers",
}
OTHERS = {
    "transform": "Data transforms",
    "hook": "Hooks",
    "optim_wrapper": "Optimizer wrappers",
    "optimizer wrapper constructor": "Optimizer wrapper constructors",
    "strategy": "Strategies",
}


def registries() -> list[Registry]:
    """Those of mmdcn, without the parents that the module imports."""
    values = vars(registry).values()
    return [v for v in values if isinstance(v, Registry) and v.scope == "mmdcn"]


def entries() -> dict[str, list[tuple[str, object, str]]]:
    """Title of a section -> its names, what they stand for, and what has to be imported."""
    sections = {title: [] for title in (*MODEL_ROLES.values(), *OTHERS.values())}
    found = {}
    for each in registries():
        each.import_from_location()
        found[each] = set(each.module_dict)
    for package in PACKAGES:
        top = importlib.import_module(f"mmdcn.{package}")
        for module in pkgutil.walk_packages(top.__path__, f"{top.__name__}."):
            importlib.import_module(module.name)
    for each in registries():
        for name, value in sorted(each.module_dict.items()):
            needs = "" if name in found[each] else f"``{public_module(value)}``"
            sections.setdefault(section(each, value), []).append((name, value, needs))
    return {title: names for title, names in sections.items() if names}


def section(of: Registry, value: object) -> str:
    if of.name != "model":
        return OTHERS.get(of.name, of.name.capitalize())
    role = value.__module__.removeprefix("mmdcn.models.").split(".")[0]
    return MODEL_ROLES.get(role, "Layers")


def public_module(value: object) -> str:
    """The shortest module that exports `value`: what a config imports and the pages name."""
    parts = value.__module__.split(".")
    modules = (".".join(parts[: i + 1]) for i in range(len(parts)))
    return next(m for m in modules if vars(sys.modules[m]).get(value.__name__) is value)


def summary(value: object) -> str:
    """The first sentence of the docstring."""
    text = " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split())
    return text.split(". ")[0].rstrip(".")


def page() -> str:
    """reStructuredText, as the docstrings are."""
    parts = [INTRODUCTION]
    for title, names in entries().items():
        table, details = [["Name", "What it is", "Import"]], []
        for name, value, needs in names:
            path = f"{public_module(value)}.{value.__name__}"
            kind, role = ("class", "class") if inspect.isclass(value) else ("function", "func")
            table.append([f":{role}:`mmdcn.{name} <{path}>`", summary(value), needs])
            if not path.startswith("mmdcn.ops."):  # these are on the page of their operator
                details += [f".. auto{kind}:: {path}"]
                details += ["   :members:", ""] if kind == "class" else [""]
        if not any(needs for *_, needs in names):
            table = [cells[:2] for cells in table]
        parts += [title, "-" * len(title), "", *list_table(table), "", *details]
    return "\n".join(parts)


def list_table(rows: list[list[str]]) -> list[str]:
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: auto", ""]
    for row in rows:
        lines += [f"   {'*' if i == 0 else ' '} - {cell}" for i, cell in enumerate(row)]
    return lines
