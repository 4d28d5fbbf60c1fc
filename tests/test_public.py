"""The public face: one list of names, typed, documented, with examples that run; stubs and the API page are made from the list."""

import doctest
import importlib
import inspect
import pathlib

import fresh
import pytest
from example_names import names, put_files

import tfdistill
from tfdistill.public import ROOMS, TOP, module_of, public_path

ROOT = pathlib.Path(__file__).parents[1]
PUBLIC = {public_path(room, name): (room, name) for room, several in ROOMS.items() for name in several}
DOCUMENTED = [path for path, (room, name) in PUBLIC.items() if name != "VARIANTS"]
WITH_EXAMPLE = [path for path in DOCUMENTED if PUBLIC[path][0] != "errors" or path == "tfdistill.errors.TfdistillError"]


def public(path):
    room, name = PUBLIC[path]
    return getattr(importlib.import_module(f"tfdistill.{room}"), name)


@pytest.mark.parametrize("path", PUBLIC)
def test_a_public_name_is_where_the_list_says(path):
    room, name = PUBLIC[path]
    value = public(path)
    assert value is not None
    assert value is getattr(importlib.import_module(module_of(room, name)), name)
    assert name not in TOP or getattr(tfdistill, name) is value
    if callable(value):
        assert value.__module__ == module_of(room, name)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_offers_what_the_list_says(room):
    module = importlib.import_module(f"tfdistill.{room}")
    assert sorted(getattr(module, "__all__", ROOMS[room])) == sorted(ROOMS[room])
    assert set(ROOMS[room]) <= set(dir(module))


@pytest.mark.parametrize(
    ("package", "name", "said"),
    [
        ("tfdistill", "Prune", "tfdistill.compress.Prune"),
        ("tfdistill", "SoftTargets", "tfdistill.losses.SoftTargets"),
        ("tfdistill.losses", "Distiller", "tfdistill.Distiller"),
        ("tfdistill.distill", "QuantizeAware", "tfdistill.compress.QuantizeAware"),
        ("tfdistill", "nonsense", "has no attribute 'nonsense'"),
        ("tfdistill", "_private", "has no attribute '_private'"),
    ],
)
def test_a_name_in_the_wrong_place_is_told_where_it_is(package, name, said):
    with pytest.raises(AttributeError, match=said):
        getattr(importlib.import_module(package), name)


def test_stubs_and_api_page_are_made_from_the_list():
    done = fresh.run(ROOT / "docs/make_api.py", "--check")
    assert done.returncode == 0, f"run `make api`: {done.stdout}{done.stderr}"


def functions_of(value):
    """Yields (name, function) of what users call of a public function or class: its constructor and its own public methods."""
    if not isinstance(value, type):
        yield value.__name__, value
        return
    for name, member in vars(value).items():
        if name == "__init__" or not name.startswith("_"):
            member = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
            if inspect.isfunction(member):
                yield f"{value.__name__}.{name}", member


def untyped(value):
    """Lists the parameters, and "return", that lack a type."""
    found = []
    for name, function in functions_of(value):
        signature = inspect.signature(function)
        own = [p for i, p in enumerate(signature.parameters.values()) if not (i == 0 and p.name in ("self", "cls"))]
        found += [f"{name}: {p.name}" for p in own if p.annotation is p.empty]
        # Constructors return nothing.
        found += [f"{name}: return"] if signature.return_annotation is signature.empty and not name.endswith("__init__") else []
    return found


@pytest.mark.parametrize("path", DOCUMENTED)
def test_a_public_name_is_typed(path):
    assert untyped(public(path)) == []


def test_a_missing_type_is_found():
    class Example:
        def __init__(self, a, b: int):
            pass

        @property
        def size(self):
            return 1

        def _own(self, a):
            pass

    assert untyped(Example) == ["Example.__init__: a", "Example.size: return"]


@pytest.mark.parametrize("path", DOCUMENTED)
def test_a_public_docstring_is_complete(path):
    value = public(path)
    text = inspect.getdoc(value)
    signature = inspect.signature(value) if not (isinstance(value, type) and issubclass(value, Exception)) else None
    lacking = [p.name for p in signature.parameters.values() if p.name.strip("_") not in text] if signature else []
    assert lacking == []


def run_examples(text, name, globs):
    """Runs the examples of a docstring; returns their number, and what doctest prints of those that fail."""
    test = doctest.DocTestParser().get_doctest(text, globs, name, None, 0)
    printed = []
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE, verbose=False).run(test, out=printed.append)
    return result.attempted, "".join(printed) if result.failed else ""


@pytest.mark.parametrize("path", WITH_EXAMPLE)
def test_the_example_of_a_public_docstring_runs(path, tmp_path, monkeypatch):
    put_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    count, failures = run_examples(inspect.getdoc(public(path)), path, names())
    assert count, "no example"
    assert failures == ""


@pytest.mark.parametrize(("text", "found"), [(">>> 1 + 1\n3", (1, True)), (">>> 1 + 1\n2", (1, False)), ("no example", (0, False))])
def test_a_wrong_example_is_found(text, found):
    count, failures = run_examples(text, "example", {})
    assert (count, bool(failures)) == found
