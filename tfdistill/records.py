"""Frozen result records that write and read themselves as JSON.

Every measured thing is a record: the unit is in the field's name (`p50_ms`, `size_bytes`), and where it was measured is in the record itself.
Reports are made from records alone, so a report can be made again without the models.
"""

import dataclasses
import json
import math
import pathlib
import types
import typing

from tfdistill.errors import DataError
from tfdistill.files import write_whole


def _plain(value):
    """Turns NumPy scalars, paths, tuples and records into what JSON knows."""
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, pathlib.PurePath):
        return str(value)
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no NaN; an unknown figure is null
    return value


def _restore(kind, value):
    """Turns what JSON gave back into the type of the field."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if value is None:
        return None
    if origin in (typing.Union, types.UnionType):
        return _restore(next(a for a in arguments if a is not type(None)), value)
    if origin is tuple:
        inner = arguments[0] if arguments else typing.Any
        return tuple(_restore(inner, v) for v in value)
    if origin is dict:
        return {k: _restore(arguments[1], v) for k, v in value.items()}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return kind.from_dict(value)
    if kind is float:
        return float(value)
    return value


@dataclasses.dataclass(frozen=True)
class Record:
    """Base of every result record: a frozen dataclass with a JSON form.

    Fields may be numbers, strings, booleans, None, tuples, dicts with string keys, and other records.
    """

    def to_dict(self):
        """Returns the record as plain dicts, lists, numbers and strings."""
        return _plain(self)

    @classmethod
    def from_dict(cls, values):
        """Makes a record from `to_dict()`'s form.

        Raises:
            DataError: if a field is missing or unknown.
        """
        kinds = typing.get_type_hints(cls)
        fields = {f.name: f for f in dataclasses.fields(cls)}
        unknown = sorted(set(values) - set(fields))
        required = {n for n, f in fields.items() if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING}
        missing = sorted(required - set(values))
        if unknown or missing:
            raise DataError(
                f"A {cls.__name__} cannot be made: unknown fields {unknown}, missing fields {missing}.", f"the fields {sorted(fields)}"
            )
        return cls(**{name: _restore(kinds[name], value) for name, value in values.items()})

    def save(self, path):
        """Writes the record to `path` as JSON, whole or not at all; returns the path."""
        path = pathlib.Path(path)
        with write_whole(path) as beside:
            beside.write_text(json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, path):
        """Reads a record that `save` wrote.

        Raises:
            DataError: if the file is not JSON or does not hold this record.
        """
        try:
            values = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise DataError(f"'{path}' is not JSON: {error}.", f"a file written by {cls.__name__}.save") from error
        if not isinstance(values, dict):
            raise DataError(f"'{path}' holds a {type(values).__name__}.", f"the object of a {cls.__name__}")
        return cls.from_dict(values)
