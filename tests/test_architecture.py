"""The house: imports point down only, files stay small, and importing the package costs nothing."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "tfdistill"

# Module prefix -> (floor, rooms of other floors or of its own that it may import). Longest prefix wins.
FLOORS = {
    "tfdistill.version": 0,
    "tfdistill.public": 0,
    "tfdistill.errors": 0,
    "tfdistill.utils": 0,
    "tfdistill.records": 0,
    "tfdistill.host": 0,
    "tfdistill.saveable": 0,
    "tfdistill.tasks": 0,
    "tfdistill.losses": 1,
    "tfdistill.graph": 1,
    "tfdistill.runtime": 1,
    "tfdistill.bridge": 2,
    "tfdistill.convert": 3,
    "tfdistill.distill": 4,
    "tfdistill.compress": 4,
    "tfdistill.benchmarking": 4,
    "tfdistill.report": 4,
    "tfdistill.tflite": 5,
    "tfdistill.recipe": 6,
    "tfdistill.pipeline": 6,
    "tfdistill.preflight": 6,
    "tfdistill.kits": 6,
    "tfdistill.demo": 7,
    "tfdistill.search": 7,
    "tfdistill.cli": 8,
    "tfdistill.__main__": 9,
}
# Rooms of one floor do not know each other, and some lower ones are not everybody's.
DOORS = {
    "tf_keras": {"tfdistill.bridge"},
    "tensorflow_model_optimization": {"tfdistill.bridge"},
    "ai_edge_litert": {"tfdistill.runtime", "tfdistill.tflite"},  # tflite reads the schema only
    "tflite_runtime": {"tfdistill.runtime"},
    "tflite_micro": {"tfdistill.runtime"},
}
ALLOWED = {
    "tfdistill.losses": set(),
    "tfdistill.graph": set(),
    "tfdistill.runtime": set(),
    "tfdistill.bridge": {"tfdistill.graph"},
    "tfdistill.distill": {"tfdistill.losses", "tfdistill.graph", "tfdistill.bridge", "tfdistill.runtime"},
    "tfdistill.convert": {"tfdistill.graph", "tfdistill.bridge", "tfdistill.runtime"},
    "tfdistill.compress": {"tfdistill.graph", "tfdistill.bridge", "tfdistill.runtime", "tfdistill.convert"},
    "tfdistill.tflite": {
        *("tfdistill.graph", "tfdistill.bridge", "tfdistill.runtime", "tfdistill.convert", "tfdistill.compress"),
        "tfdistill.report",  # pictures of its records
    },
    "tfdistill.benchmarking": {"tfdistill.runtime"},
    "tfdistill.report": set(),
    "tfdistill.kits": {"tfdistill.runtime", "tfdistill.convert", "tfdistill.tflite"},
    "tfdistill.preflight": {
        *("tfdistill.graph", "tfdistill.bridge", "tfdistill.runtime", "tfdistill.convert", "tfdistill.compress", "tfdistill.tflite")
    },
}
FILES = sorted(PACKAGE.rglob("*.py"))


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module):
    return max((prefix for prefix in FLOORS if module == prefix or module.startswith(prefix + ".")), key=len, default=None)


def imports(source):
    """Every module that the source imports, at the top or inside a function."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def faults(module, source):
    """What is wrong with the imports of one module."""
    own, found = room(module), []
    for name in imports(source):
        for door, rooms in DOORS.items():
            if name.split(".")[0] == door and own not in rooms:
                found.append(f"{module} imports {name}: only {sorted(rooms)} may")
        if not name.startswith("tfdistill.") or module == "tfdistill":
            continue
        other = room(name)
        if other is None:
            found.append(f"{name} has no floor")
        elif other != own and FLOORS[other] >= FLOORS[own] > 0:
            found.append(f"{module} (floor {FLOORS[own]}) imports {name} (floor {FLOORS[other]})")
        elif FLOORS[own] == 0 and FLOORS[other] > 0:
            found.append(f"{module} (floor 0) imports {name}")
        elif other != own and FLOORS[other] > 0 and own in ALLOWED and other not in ALLOWED[own]:
            found.append(f"{module} may not know {other}")
    return found


def test_every_module_has_a_floor():
    assert [m for m in map(module_name, FILES) if m != "tfdistill" and room(m) is None] == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    assert faults(module_name(path), path.read_text()) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("tfdistill.errors", "import tfdistill.losses"),
        ("tfdistill.losses.logits", "from tfdistill.distill import Distiller"),
        ("tfdistill.compress.prune.prune", "def f():\n    from tfdistill.distill.distiller import Distiller"),
        ("tfdistill.distill.distiller", "import tf_keras"),
        ("tfdistill.report.plots", "from tfdistill.benchmarking import Cpu"),
        ("tfdistill.losses.logits", "from tfdistill.nowhere import x"),
    ],
)
def test_an_upward_import_is_found(module, source):
    assert faults(module, source)


def graph():
    names = {module_name(p): p for p in FILES}
    edges = {}
    for name, path in names.items():
        top = [n for n in ast.parse(path.read_text()).body if isinstance(n, (ast.Import, ast.ImportFrom))]
        wanted = set(imports(ast.unparse(ast.Module(top, []))))
        edges[name] = {t for w in wanted for t in (w, w.rpartition(".")[0]) if t in names and t != name and names[t].name != "__init__.py"}
    return edges


def test_no_circles():
    edges, done = graph(), set()

    def visit(name, trail):
        assert name not in trail, f"circle: {' -> '.join([*trail, name])}"
        if name not in done:
            for other in edges[name]:
                visit(other, [*trail, name])
            done.add(name)

    for name in edges:
        visit(name, [])


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_stay_small(path):
    # About 300 lines; a little more where cutting would tear one thing apart.
    assert len(path.read_text().splitlines()) <= 320


def test_import_loads_nothing_heavy():
    code = (
        "import sys, keras; before = set(sys.modules); import tfdistill; "
        "new = {m.split('.')[0] for m in set(sys.modules) - before}; print(sorted(new)); "
        "heavy = {'tf_keras', 'tensorflow_model_optimization', 'ai_edge_litert', 'tflite_runtime', 'matplotlib', 'sklearn', 'rich', 'typer'}; "
        "sys.exit(bool(heavy & new))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip() == "['tfdistill']"


def test_every_public_name_is_there():
    import tfdistill

    for name in tfdistill.__all__:
        assert getattr(tfdistill, name) is not None
    assert dir(tfdistill) == sorted(tfdistill.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = tfdistill.nonsense


def test_test_modules_have_names_of_their_own():
    """pytest imports them by their names alone."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py")]
    assert sorted({name for name in names if names.count(name) > 1}) == []
