"""Frozen records of results that can be saved and loaded as JSON.

The names of their fields have the unit (`p50_ms`, `size_bytes`), and records of measurements have a field with the machine and package
versions. Reports are made from records alone, so they can be made again without the models.
"""

import dataclasses
import functools
import json
import math
import pathlib
import types
import typing
from collections.abc import Mapping

from tfdistill.errors import DataError
from tfdistill.utils import tables
from tfdistill.utils.files import write_whole
from tfdistill.utils.types import PathLike

Self = typing.TypeVar("Self", bound="Record")


def _plain(value):
    """Converts NumPy scalars, paths, tuples and records to JSON values."""
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
        return None  # JSON has no NaN and no infinity
    return value


def _restore(kind, value, source, where):
    """Converts a JSON value to the containers and records of a field's type. What does not fit is left to the later check."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _restore(next(a for a in arguments if a is not type(None)), value, source, where)
    if kind is float and value is None:
        return math.nan  # NaN and infinity are written as null
    if origin is tuple and isinstance(value, list):
        return tuple(_restore(arguments[0], inner, source, f"{where}[{i}]") for i, inner in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {key: _restore(arguments[1], inner, source, f"{where}.{key}") for key, inner in value.items()}
    if isinstance(kind, type) and issubclass(kind, Record) and isinstance(value, dict):
        return kind.from_dict(value, source, f"{where}.")
    return value


@functools.cache
def _fields(cls):
    """Returns a dict of field name -> type."""
    return typing.get_type_hints(cls)


@functools.cache
def _checker(cls):
    """Returns the validator of a dict of field values."""
    # Imported here, because measuring processes and small boards only write records.
    import pydantic
    from typing_extensions import TypedDict

    return pydantic.TypeAdapter(TypedDict(cls.__name__, _fields(cls), total=False))


def _field_of(location):
    """Converts pydantic's location of an error to a path such as `"rows[0].name"`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".")


def read_json(path: PathLike) -> dict[str, typing.Any]:
    """Reads a JSON file whose outermost value is an object.

    Args:
        path: The file. It must be UTF-8 and strict JSON: no NaN, no duplicate key, no number that overflows a float.

    Returns:
        The object as a dict.

    Raises:
        DataError: if it cannot be read or is not such a file; the message names the file and the fault.
    """
    path = pathlib.Path(path)
    try:
        values = json.loads(path.read_bytes().decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror or error}.", "a JSON file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"'{path}' is not UTF-8 text: {error.reason} at byte {error.start}.", "a JSON file") from error
    except RecursionError as error:
        raise DataError(f"'{path}' is nested too deeply to be read.", "a JSON file") from error
    except ValueError as error:
        raise DataError(f"'{path}' is not JSON: {error}.", "a JSON file") from error
    if not isinstance(values, dict):
        raise DataError(f"'{path}' holds a {type(values).__name__}.", "a JSON object")
    return values


def _holds_records(value):
    values = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else ()
    return any(isinstance(inner, Record) for inner in values)


def _unique(pairs):
    found = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is there twice")
        found[key] = value
    return found


def _no_constant(name):
    raise ValueError(f"JSON has no {name}")


def _finite(text):
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text:.40} is too large")
    return value


@dataclasses.dataclass(frozen=True)
class Record:
    """Base class of result records: a frozen dataclass with a JSON form.

    `print(record)` and notebooks show a table. Fields can be numbers, strings, booleans, None, tuples, dicts with string keys, and other records. JSON has no NaN and no infinity, so
    both are written as null. When a record is loaded, null becomes None in a field that can be None, and NaN in a field that must be a
    number.
    """

    def summary(self) -> dict[str, typing.Any]:
        """Returns what the first table of the record shows: name of each field that is no table of its own -> value."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        nested = {name for name, value in values.items() if name in self.parts() or (isinstance(value, Record) and not value.line())}
        return {name: value for name, value in values.items() if name not in nested}

    def parts(self) -> dict[str, typing.Any]:
        """Returns what is shown in tables of its own: name -> tuple, or dict by name, of records."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if _holds_records(value)}

    def line(self) -> str:
        """Returns the record as one line within another one's table; empty if it is left out there."""
        return ""

    def __str__(self) -> str:
        return tables.as_text(self)

    def __rich__(self) -> typing.Any:
        return tables.as_rich(self)

    def _repr_html_(self) -> str:
        return tables.as_html(self)

    def to_dict(self) -> dict[str, typing.Any]:
        """Returns the record as dicts, lists, numbers and strings."""
        return _plain(self)

    @classmethod
    def from_dict(cls: type[Self], values: Mapping[str, typing.Any], source: PathLike | None = None, where: str = "") -> Self:
        """Makes a record from the result of `to_dict()`.

        Args:
            values: Dict of field name -> JSON value.
            source: The file that the values come from, for errors.
            where: Prefix of field names in errors, for a record inside another one.

        Returns:
            The record.

        Raises:
            DataError: if a field is missing, unknown or of another type; the message names it.
        """
        import pydantic

        holder = f"A {cls.__name__}" if source is None else f"'{source}' holds no {cls.__name__}, which"
        if not isinstance(values, dict):
            raise DataError(f"{holder} cannot be made of a {type(values).__name__}.", "a dict of the fields")
        fields = {f.name: f for f in dataclasses.fields(cls)}
        unknown = sorted(set(values) - set(fields), key=str)
        required = {n for n, f in fields.items() if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING}
        missing = sorted(required - set(values))
        if unknown or missing:
            raise DataError(
                f"{holder} cannot be made: unknown fields {unknown[:20]}, missing fields {missing}{f' in {where[:-1]}' if where else ''}.",
                f"the fields {sorted(fields)}",
            )
        hashable: typing.Any = cls  # to a type checker a class of a type variable is not
        kinds = _fields(hashable)
        restored = {name: _restore(kinds[name], value, source, where + name) for name, value in values.items()}
        try:
            return cls(**_checker(hashable).validate_python(restored, strict=True))  # "12" is no int, and neither is True
        except pydantic.ValidationError as error:
            first, *others = error.errors(include_url=False, include_context=False)
            more = f" {len(others)} other values are wrong as well." if others else ""
            raise DataError(
                f"{holder} cannot be made: the field '{where}{_field_of(first['loc'])}' is {first['input']!r:.80}.{more}",
                first["msg"].removeprefix("Input should be "),
            ) from error

    def save(self, path: PathLike) -> pathlib.Path:
        """Writes the record to `path` as JSON, completely or not at all.

        Args:
            path: The file. Its folder is created if missing.

        Returns:
            The path.

        Raises:
            ConfigurationError: if the file cannot be written.
        """
        path = pathlib.Path(path)
        with write_whole(path) as temporary:
            temporary.write_text(json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls: type[Self], path: PathLike) -> Self:
        """Reads a record that `save` wrote.

        Args:
            path: The file.

        Returns:
            The record.

        Raises:
            DataError: if the file cannot be read, is not JSON, or does not have the fields of this record; the message names the file and
                the field.
        """
        return cls.from_dict(read_json(path), path)
