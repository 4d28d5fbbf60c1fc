"""Private attributes and modules of Keras, tf_keras, TensorFlow, TFMOT and LiteRT that the package relies on, by room: none may be added unseen.

A new version of those libraries breaks here first. `graph` and `bridge` are the rooms for Keras's; what other rooms still read is listed, so that it shrinks.
"""

import ast
import json
import pathlib
import re

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "tfdistill"
TABLE = pathlib.Path(__file__).with_name("private_attributes.json")
PRIVATE_MODULES = ("keras.src", "tf_keras.src", "tensorflow.python", "tensorflow_model_optimization.python")
FILES = sorted(PACKAGE.rglob("*.py"))


NAMED_TUPLE = ("_replace", "_asdict", "_fields", "_field_defaults")


def is_private(name):
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__")) and name not in NAMED_TUPLE


def defined(tree):
    """Names that a module itself gives: functions, classes, variables, and attributes that it sets."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Store):
            yield node.id if isinstance(node, ast.Name) else node.attr
        elif isinstance(node, ast.arg):
            yield node.arg


def used(tree):
    """Private attributes that a module reads, and private modules that it imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            yield node.attr
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (name for name in names if name.startswith(PRIVATE_MODULES))


def foreign_by_room(sources):
    """Returns a dict of room to the sorted private names of others that its modules use.

    Args:
        sources: Dict of room to a list of its modules' source texts.
    """
    trees = {room: [ast.parse(text) for text in texts] for room, texts in sources.items()}
    own = {name for several in trees.values() for tree in several for name in defined(tree)}
    found = {room: sorted({name for tree in several for name in used(tree)} - own) for room, several in trees.items()}
    return {room: names for room, names in found.items() if names}


def package_sources():
    sources = {}
    for path in FILES:
        parts = path.relative_to(PACKAGE).parts
        sources.setdefault(parts[0] if len(parts) > 1 else parts[0].removesuffix(".py"), []).append(path.read_text(encoding="utf-8"))
    return sources


def test_no_private_attribute_is_used_outside_its_room():
    found, listed = foreign_by_room(package_sources()), json.loads(TABLE.read_text(encoding="utf-8"))
    new = {room: sorted(set(names) - set(listed.get(room, []))) for room, names in found.items()}
    assert {room: names for room, names in new.items() if names} == {}, (
        "use a public way, or read it in graph/ or bridge/ behind a function"
    )
    gone = {room: sorted(set(names) - set(found.get(room, []))) for room, names in listed.items()}
    assert {room: names for room, names in gone.items() if names} == {}, f"no longer used: take them out of {TABLE.name}"


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("def f(layer):\n    return layer._call_spec", ["_call_spec"]),
        ("from keras.src.backend.common import global_state", ["keras.src.backend.common"]),
        ("import tensorflow.python.lib.io.tf_record", ["tensorflow.python.lib.io.tf_record"]),
        ("class A:\n    def __init__(self):\n        self._own = 1\n\n    def own(self):\n        return self._own", []),
        ("def f(x):\n    return x.__class__", []),
    ],
)
def test_a_private_name_is_found(source, names):
    assert foreign_by_room({"somewhere": [source]}) == ({"somewhere": names} if names else {})


# Private package of a library -> the module of this one that alone may name it, in code or in a string: where it moves, one file changes.
ONE_HOME = {"keras.src": "graph/keras_internals.py", "tf_keras.src": "bridge/imports.py"}


def without_docstrings(source):
    """Returns the code of a module without comments and docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def strays(path, source):
    """Returns the private packages that a module names without being their home."""
    named = set(re.findall(r"\b(?:tf_)?keras\.src\b", without_docstrings(source)))
    return sorted(package for package in named if path != ONE_HOME[package])


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_private_package_has_one_home(path):
    assert strays(path.relative_to(PACKAGE).as_posix(), path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("path", "source", "found"),
    [
        ("distill/distiller.py", "from keras.src.trainers import trainer", ["keras.src"]),
        ("bridge/convert/layers.py", "own = kind.__module__.startswith('keras.src.')", ["keras.src"]),
        ("bridge/convert/layers.py", "MODULES = ['tf_keras.src.engine']", ["tf_keras.src"]),
        ("graph/keras_internals.py", "import tf_keras.src.saving", ["tf_keras.src"]),
        ("graph/keras_internals.py", "import keras.src.saving", []),
        ("bridge/imports.py", "import tf_keras.src.saving", []),
        ("losses/base.py", '"""Keras moves keras.src."""\n\n\ndef f():\n    """As keras.src does."""', []),
    ],
)
def test_a_stray_private_package_is_found(path, source, found):
    assert strays(path, source) == found
