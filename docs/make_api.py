"""Writes what is made from the list of public names, `tfdistill/public.py`: the rooms' `__init__.pyi` and `docs/api.md`. Run it by `make api`.

    python docs/make_api.py [--check]

With `--check` nothing is written; the exit code is 1 if a file is not as it would be written.
"""

import argparse
import importlib
import inspect
import pathlib
import sys
import types

from tfdistill.public import ROOMS, TOP, module_of, public_path

ROOT = pathlib.Path(__file__).resolve().parents[1]
MADE = "Made by `make api` from tfdistill/public.py."
# `bridge` imports its names in its __init__.py, where editors see them; `errors` is a module.
STUBBED = [room for room in ROOMS if room not in ("bridge", "errors")]


def stub(imports):
    """Returns the text of an `__init__.pyi` that offers names: pairs of (module, name)."""
    lines = [f"from {module} import {name} as {name}" for module, name in sorted(imports)]
    return "\n".join([f"# {MADE}", *lines, ""])


def stubs():
    """Yields (path, text) of each stub."""
    top = [(module_of(room, name), name) for name, room in TOP.items()]
    top += [("tfdistill", room) for room in ROOMS] + [("tfdistill.version", "__version__")]
    yield ROOT / "tfdistill/__init__.pyi", stub(top)
    for room in STUBBED:
        yield ROOT / f"tfdistill/{room}/__init__.pyi", stub([(module_of(room, name), name) for name in ROOMS[room]])


def signature(value):
    """Returns the parameters of a function or class as text, without types and with short defaults."""
    if isinstance(value, type) and issubclass(value, Exception):
        return ""
    parameters = inspect.signature(value).parameters.values() if callable(value) else []
    plain = [p.replace(annotation=p.empty, default=_default(p.default)) for p in parameters]
    return str(inspect.Signature(plain)) if callable(value) else ""


def _default(value):
    if value is inspect.Parameter.empty:
        return value
    if isinstance(value, (types.FunctionType, type)):
        return _Shown(value.__name__)
    return _Shown("...") if "object at 0x" in repr(value) or "<factory>" in repr(value) else value


class _Shown:
    """A default that is shown as a word."""

    def __init__(self, text):
        self.text = text

    def __repr__(self):
        return self.text


def summary(value):
    """Returns the first sentence of an object's docstring."""
    text = inspect.getdoc(value) if callable(value) else "A " + type(value).__name__ + "."
    return " ".join((text or "").split("\n\n")[0].split()).replace("|", "\\|")


def page():
    """Returns the text of the API page."""
    parts = [
        "# Public names\n",
        f"{MADE} All have docstrings with arguments, errors and an example: `help(tfdistill.Distiller)`. What is not listed here is internal.\n",
    ]
    for room in ROOMS:
        module = importlib.import_module(f"tfdistill.{room}")
        parts += [f"## tfdistill.{room}\n", summary_of_module(module) + "\n", "| name | |", "|---|---|"]
        for name in sorted(ROOMS[room], key=str.casefold):
            value = getattr(module, name)
            parts.append(f"| `{public_path(room, name)}{signature(value)}` | {summary(value)} |".replace("\n", " "))
        parts.append("")
    return "\n".join(parts)


def summary_of_module(module):
    """Returns the first paragraph of a module's docstring."""
    return " ".join(module.__doc__.split("\n\n")[0].split())


def files():
    """Returns a dict of path to text of everything that is made."""
    return {**dict(stubs()), ROOT / "docs/api.md": page()}


def main():
    """Writes the files, or compares them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is out of date")
    check = parser.parse_args().check
    old = [path for path, text in files().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in old:
        print(f"{'out of date' if check else 'written'}: {path.relative_to(ROOT)}")
        if not check:
            path.write_text(files()[path], encoding="utf-8")
    sys.exit(bool(old) and check)


if __name__ == "__main__":
    main()
