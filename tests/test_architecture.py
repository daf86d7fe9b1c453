"""The layers of the package, read from its import statements without running them."""

import ast
import functools
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "mmdcn"
# From the ground up: a module may import those of its own layer and of those that come before it.
# The longest prefix decides which layer a module belongs to.
LAYERS = [
    (
        "mmdcn",
        "mmdcn._extension",
        "mmdcn.base_configs",
        "mmdcn.registry",
        "mmdcn.checkpoints",
    ),
    ("mmdcn.ops.reference",),
    ("mmdcn.ops",),
    ("mmdcn.ops.modules",),
    ("mmdcn.models", "mmdcn.datasets", "mmdcn.analysis", "mmdcn.onnx"),
    ("mmdcn.engine",),
    ("mmdcn.collect_env", "mmdcn.new", "mmdcn.deployment"),
    ("mmdcn.selftest",),
]
# Its only task is to collect the names of the operators and their modules.
FACADES = {"mmdcn.ops"}


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in PACKAGE.rglob("*.py") if ".mim" not in path.parts}


def layer(module: str) -> int:
    prefixes = [(p, i) for i, names in enumerate(LAYERS) for p in names]
    found = [(p, i) for p, i in prefixes if module == p or module.startswith(f"{p}.")]
    return max(found, key=lambda pair: len(pair[0]))[1]


@functools.cache
def imports(module: str) -> list[tuple[str, bool]]:
    """The modules of the package that a module imports, and whether inside a function."""
    path = MODULES[module]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".") if path.stem == "__init__" else module.split(".")[:-1]
                base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [base])])
            # A name may be a module of its own, else it stands in `base`.
            names = [
                full if (full := f"{base}.{alias.name}") in MODULES else base
                for alias in node.names
            ]
        else:
            continue
        found += [(name, id(node) in inside) for name in names if name in MODULES]
    return found


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module):
    higher = {name for name, _ in imports(module) if layer(name) > layer(module)}
    if module in FACADES:
        higher = {name for name in higher if layer(name) > layer("mmdcn.ops.modules")}
    assert not higher, f"{module} imports {sorted(higher)}, which are of a higher layer"


def needs_a_toolbox(module: str) -> bool:
    """Whether a module imports an OpenMMLab package that need not be installed."""
    statements = ast.parse(MODULES[module].read_text(encoding="utf-8")).body
    names = [n.module or "" for n in statements if isinstance(n, ast.ImportFrom) and not n.level]
    names += [a.name for n in statements if isinstance(n, ast.Import) for a in n.names]
    return bool({"mmcv", "mmdet", "mmseg"} & {name.split(".")[0] for name in names})


@pytest.mark.parametrize("module", MODULES)
def test_no_import_is_put_off(module):
    """An import inside a function hides a circle, unless it is of what may be missing."""
    late = {name for name, inside in imports(module) if inside and not needs_a_toolbox(name)}
    assert not late, f"{module} imports {sorted(late)} inside a function"


def test_there_is_no_circle():
    edges = {name: {other for other, _ in imports(name)} - {name} for name in MODULES}
    done, path = set(), []

    def visit(module: str) -> None:
        assert module not in path, f"circle: {' -> '.join([*path, module])}"
        if module in done:
            return
        path.append(module)
        for other in sorted(edges[module]):
            visit(other)
        path.pop()
        done.add(module)

    for module in MODULES:
        visit(module)


def test_the_reader_of_imports_finds_some():
    found = {name for name, _ in imports("mmdcn.ops.dcnv3")}
    assert found == {
        "mmdcn.ops._registration",
        "mmdcn.ops.reference.arguments",
        "mmdcn.ops.reference.dcnv3",
    }
