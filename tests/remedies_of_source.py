"""The remedies that the package's errors give, read from the syntax of its source."""

import ast
import collections.abc
import functools
import pathlib
import re
import typing

import pytest

from tfdistill.errors import TfdistillError

PACKAGE = pathlib.Path(__file__).parents[1] / "tfdistill"
HOLE = "\0"  # what only a call knows: a value in an f-string, the remedy of another error
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@functools.cache
def remedies():
    """Returns the text of every remedy, with `HOLE` for what only a call knows -> where it stands, as ["path:line", ...].

    A remedy is what is given to a parameter named `fix`, of an error or of a function that passes it on, and what `explains_arguments` says
    for an argument. Names stand for all that their function, or else their module, assigns to them; functions for what they return.
    """
    modules = [_Module(path) for path in sorted(PACKAGE.rglob("*.py"))]
    takers = {}
    for module in modules:
        takers.update(module.takers())
    takers.update({f"{name}": 2 for name in _error_classes()})
    found = {}
    for module in modules:
        for line, text in module.remedies(takers):
            found.setdefault(text, []).append(f"{module.path.relative_to(PACKAGE.parent).as_posix()}:{line}")
    return found


class Row(typing.NamedTuple):
    """A remedy and how it is followed.

    Attributes:
        words: Part of what the error says to do.
        provoke: Function of an empty folder that raises the error.
        follow: Function of the same folder that does what the remedy says; each way, where it names several.
    """

    words: str
    provoke: collections.abc.Callable[[pathlib.Path], typing.Any]
    follow: collections.abc.Callable[[pathlib.Path], typing.Any]


def check(row, folder):
    """Provokes the error of a row (a warning is one in tests), finds the row's words in its remedy, and follows that."""
    with pytest.raises((TfdistillError, UserWarning)) as caught:
        row.provoke(folder)
    require_said(row.words, caught.value)
    row.follow(folder)


def require_said(words, error):
    """Fails unless the words are part of the remedy that an error gives, and of the one in the source that they are taken for."""
    # Keras makes a new error of one that a model raises while it is called: the text stays, the attributes are lost.
    said = str(error).partition("Fix: ")[2]
    assert words in said, str(error)
    taken = claimed(words, remedies())
    assert taken is None or pattern(taken).search(said), f"'{words}' is taken for '{taken}'"


def _error_classes():
    tree = ast.parse((PACKAGE / "errors.py").read_text(encoding="utf-8"))
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef)]


def literal(text):
    """Returns how many characters of a remedy are written in the source."""
    return len(text.replace(HOLE, ""))


def pattern(text):
    """Returns the regular expression of what a remedy says in a message."""
    return re.compile(".*".join(map(re.escape, text.split(HOLE))), re.DOTALL)


class _OfSeveral(ast.expr):
    """One of several values that a call returns."""

    _fields = ("call", "index")


class _Module:
    def __init__(self, path):
        self.path = path
        self.tree = ast.parse(path.read_text(encoding="utf-8"))
        self.parents = {child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)}

    def takers(self):
        """Returns name -> position of the parameter `fix`, for the functions and the dataclasses that have one."""
        found = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef):
                names = [argument.arg for argument in node.args.args if argument.arg != "self"]
            elif isinstance(node, ast.ClassDef):
                names = [field.target.id for field in node.body if isinstance(field, ast.AnnAssign)]
            else:
                continue
            if "fix" in names and node.name not in ("__init__", "make", "make_error"):  # those pass on what the errors of a child say
                found[node.name] = names.index("fix")
        return found

    def remedies(self, takers):
        """Yields (line, text) of each remedy of the module."""
        for node in ast.walk(self.tree):
            if not isinstance(node, ast.Call):
                continue
            name = _name(node.func)
            given = [keyword.value for keyword in node.keywords if keyword.arg == "fix" or name == "explains_arguments"]
            if name in takers and len(node.args) > takers[name]:
                given.append(node.args[takers[name]])
            for value in given:
                for text in dict.fromkeys(self.texts(value)):
                    if literal(text):
                        yield value.lineno, text

    def texts(self, node, seen=()):
        """Returns the texts that an expression may have."""
        if isinstance(node, ast.Constant):
            return [] if node.value is None else [str(node.value)]
        if isinstance(node, ast.JoinedStr):
            return functools.reduce(_joined, (self.texts(part, seen) for part in node.values), [""])
        if isinstance(node, ast.FormattedValue):
            # Sentences are put together of others; of a single word that the message chooses, any will do.
            return [text if " " in text else HOLE for text in self.texts(node.value, seen)]
        if isinstance(node, ast.BinOp):
            return _joined(self.texts(node.left, seen), self.texts(node.right, seen))
        if isinstance(node, ast.IfExp):
            return [*self.texts(node.body, seen), *self.texts(node.orelse, seen)]
        if isinstance(node, ast.BoolOp):
            return [text for value in node.values for text in self.texts(value, seen)]
        key = ast.dump(node)
        if key in seen:
            return [HOLE]
        if isinstance(node, ast.Name):
            values = self._assigned(node)
        elif isinstance(node, _OfSeveral):
            values = [value.elts[node.index] for value in self._returned(_name(node.call.func)) if isinstance(value, ast.Tuple)]
        elif isinstance(node, ast.Call) and _name(node.func) != "nearest":
            values = self._returned(_name(node.func))
        elif isinstance(node, ast.Call):
            return [HOLE]
        else:
            values = []
        return [text for value in values for text in self.texts(value, (*seen, key))] or [HOLE]

    def _function_of(self, node):
        while node in self.parents and not isinstance(node, FUNCTIONS):
            node = self.parents[node]
        return node

    def _assigned(self, name):
        function = self._function_of(name)
        scopes = [list(ast.walk(function))] if function is not self.tree else []
        for nodes in [*scopes, self.tree.body]:
            found = []
            for node in nodes:
                if isinstance(node, ast.Assign):
                    found += _pairs(name.id, node.targets, node.value)
                elif isinstance(node, ast.AugAssign | ast.NamedExpr | ast.AnnAssign):
                    found += _pairs(name.id, [node.target], node.value)
                elif isinstance(node, ast.For) and isinstance(node.iter, ast.Tuple):
                    for row in node.iter.elts:
                        found += _pairs(name.id, [node.target], row)
            if found:
                return [value for value in found if value is not None]
        return []

    def _returned(self, name):
        functions = [node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef) and node.name == name]
        return [
            node.value
            for function in functions
            for node in ast.walk(function)
            if isinstance(node, ast.Return) and isinstance(node.value, ast.JoinedStr | ast.Constant | ast.IfExp | ast.BinOp | ast.Tuple)
        ]


def _name(function):
    return getattr(function, "id", getattr(function, "attr", None))


def _joined(left, right):
    return [(a + b).replace(HOLE + HOLE, HOLE) for a in left or [""] for b in right or [""]]


def _pairs(name, targets, value):
    found = []
    for target in targets:
        if _name(target) == name and isinstance(target, ast.Name):
            found.append(value)
        elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            for one, part in zip(target.elts, value.elts, strict=False):
                found += _pairs(name, [one], part)
        elif isinstance(target, ast.Tuple) and isinstance(value, ast.Call):
            found += [_OfSeveral(value, index) for index, one in enumerate(target.elts) if _name(one) == name]
    return found


def claimed(words, texts):
    """Returns the remedy that a part of a message is of: the one that has most of it, written in the source; None where that is not clear."""
    found = sorted(((_fit(words, text), bool(pattern(text).fullmatch(words)), text) for text in texts), reverse=True)[:2]
    (best, whole, text), second = found[0], found[1]
    return text if (best, whole) > second[:2] and best >= min(len(words), 12) / 2 else None


def _fit(words, text):
    """Returns how many characters of `words`, a part of what a remedy says, are written in the source; 0 if it is no part of it."""
    pieces = text.split(HOLE)
    return max(_begun(words, pieces, i) for i in range(len(pieces)))


def _begun(words, pieces, i):
    if words in pieces[i]:
        return len(words)
    ends = (pieces[i][at:] for at in range(len(pieces[i]) + 1))
    return max((len(end) + _after(words[len(end) :], pieces, i + 1) for end in ends if words.startswith(end)), default=0)


def _after(words, pieces, i):
    """The same for words that begin with what only the call knows, before the piece `i`."""
    if i == len(pieces):
        return 0
    best, piece = 0, pieces[i]
    for at in range(len(words)):
        if words.startswith(piece, at):
            best = max(best, len(piece) + (_after(words[at + len(piece) :], pieces, i + 1) if i + 1 < len(pieces) else 0))
        elif piece.startswith(words[at:]):
            best = max(best, len(words) - at)
    return best
