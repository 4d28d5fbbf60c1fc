"""Records from damaged files: each class refuses them with its own error, which names the file and the field, or reads what it should."""

import copy
import dataclasses
import importlib
import json
import math
import pathlib
import random
import re
import subprocess
import sys
import types
import typing

import pytest

from tfdistill.distill.cache import manifest
from tfdistill.errors import DataError
from tfdistill.records import Record, read_json

SEED = 11
EACH = 170  # damaged files of every class

ROOT = pathlib.Path(__file__).parents[1]
for source in sorted((ROOT / "tfdistill").rglob("*.py")):
    if "(Record)" in source.read_text(encoding="utf-8"):
        importlib.import_module(".".join(source.relative_to(ROOT).with_suffix("").parts))


def every_class(base):
    for cls in base.__subclasses__():
        yield cls
        yield from every_class(cls)


CLASSES = {cls.__name__: cls for cls in every_class(Record) if cls.__module__.startswith("tfdistill.")}
EVERY = pytest.mark.parametrize("cls", CLASSES.values(), ids=list(CLASSES))


def example(kind, rng, empty=False):
    """Makes a value of a field's type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return None if empty else example(next(a for a in arguments if a is not type(None)), rng)
    if origin is tuple:
        return tuple(example(arguments[0], rng) for _ in range(2))
    if origin is dict:
        return {"a": example(arguments[1], rng), "b": example(arguments[1], rng)}
    if isinstance(kind, type) and issubclass(kind, Record):
        return made(kind, rng)
    plain = {str: "text", int: rng.randrange(1, 100), float: rng.random(), bool: True, typing.Any: {"deep": [1, "two"]}}
    return plain[kind]


def made(cls, rng, empty=False):
    return cls(**{name: example(kind, rng, empty) for name, kind in typing.get_type_hints(cls).items()})


def fits(kind, value):
    """Says, by a reading of the types of its own, whether JSON's `value` may stand in a field."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is typing.Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(fits(a, value) for a in arguments)
    if kind is type(None):
        return value is None
    if origin is tuple:
        return isinstance(value, list) and all(fits(arguments[0], x) for x in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(arguments[1], x) for x in value.values())
    if isinstance(kind, type) and issubclass(kind, Record):
        hints = typing.get_type_hints(kind)
        needed = {f.name for f in dataclasses.fields(kind) if f.default is f.default_factory is dataclasses.MISSING}
        return (
            isinstance(value, dict)
            and needed <= set(value) <= set(hints)
            and all(fits(hints[name], inner) for name, inner in value.items())
        )
    if kind is float:
        return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


WRONG = ["12", "", 12, 3.5, -1e308, True, None, [], {}, [1], ["a"], {"a": 1}, [[]], {"a": None}, [None], 10**30, "\ud800", "nan"]


def places(values, trail=()):
    """Lists the paths of everything inside nested dicts and lists."""
    pairs = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, inner in pairs:
        yield (*trail, key)
        yield from places(inner, (*trail, key))


def changed(values, rng):
    """Returns a copy with one thing changed."""
    values = copy.deepcopy(values)
    *trail, last = rng.choice(list(places(values)))
    holder = values
    for key in trail:
        holder = holder[key]
    action = rng.randrange(6)
    if action == 0:
        del holder[last]
    elif action == 1 and isinstance(holder, dict):
        holder["nonsense"] = rng.choice(WRONG)
    else:
        holder[last] = rng.choice(WRONG)
    return values


def broken(text, rng):
    """Returns the bytes of a file with a few bytes changed, cut or put in."""
    content = bytearray(text.encode())
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(content))
        kind = rng.randrange(4)
        if kind == 0:
            content[at] = rng.randrange(256)
        elif kind == 1:
            del content[at:]
        elif kind == 2:
            content[at:at] = bytes(rng.randrange(256) for _ in range(3))
        else:
            content[at:at] = rng.choice([b"NaN", b"1e999", b"null", b'"', b"{", b"[", b"\xff\xfe", b"\x00", b",", b"0x10"])
        if not content:
            break
    return bytes(content)


def strict_json(content):
    """Returns what a file holds, or None where it is no JSON by the letter."""

    def once(pairs):
        assert len({k for k, _ in pairs}) == len(pairs)
        return dict(pairs)

    def finite(text):
        assert math.isfinite(float(text))
        return float(text)

    def none(name):
        raise AssertionError(name)

    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=once, parse_float=finite, parse_constant=none)
    except (ValueError, AssertionError):
        return None


@EVERY
def test_damaged_files_are_refused_or_right(cls, tmp_path):
    """Byte faults and changed values alike: what is read is what the file holds, of the right types; everything else is our error."""
    rng = random.Random(f"{SEED} {cls.__name__}")
    values, path, refused = made(cls, rng).to_dict(), tmp_path / "damaged.json", 0
    for i in range(EACH):
        content = json.dumps(changed(values, rng)).encode() if i % 2 else broken(json.dumps(values, indent=1), rng)
        path.write_bytes(content)
        found = strict_json(content)
        right = isinstance(found, dict) and fits(cls, found)
        if right:
            assert fits(cls, cls.load(path).to_dict())
            continue
        refused += 1
        with pytest.raises(DataError) as error:
            cls.load(path)
        assert str(path) in str(error.value)
    assert EACH / 4 < refused < EACH


@EVERY
def test_whole_records_are_read_as_they_were(cls, tmp_path):
    rng = random.Random(SEED)
    for empty in (False, True):
        record = made(cls, rng, empty)
        assert cls.load(record.save(tmp_path / "r.json")) == record


@EVERY
def test_no_class_reads_another_ones_file(cls, tmp_path):
    path = made(cls, random.Random(SEED)).save(tmp_path / "r.json")
    for name, other in CLASSES.items():
        if other is not cls:
            # Some plans differ by their rows alone: then it is the first row that is of another class.
            names = f"({name}|{name.replace('Plan', 'LayerPlan')})"
            with pytest.raises(DataError, match=rf"r\.json' holds no {names}, which cannot be made: unknown fields"):
                other.load(path)


@dataclasses.dataclass(frozen=True)
class Part(Record):
    p50_ms: float
    name: str | None = None


@dataclasses.dataclass(frozen=True)
class Whole(Record):
    part: Part
    several: tuple[Part, ...]
    counts: dict[str, int]
    flag: bool = False
    shape: tuple[int | None, ...] = ()
    accuracy: float | None = None


GOOD = {"part": {"p50_ms": 1.5}, "several": [{"p50_ms": 1}], "counts": {"int8": 3}}
NAMED = {
    "text for a number": ({"part": {"p50_ms": "1.5"}}, "the field 'part.p50_ms' is '1.5'", "a valid number"),
    "flag for a number": ({"part": {"p50_ms": True}}, "the field 'part.p50_ms' is True", "a valid number"),
    "number for a flag": ({"flag": 1}, "the field 'flag' is 1", "a valid boolean"),
    "fraction for a count": ({"counts": {"int8": 3.0}}, "the field 'counts.int8' is 3.0", "a valid integer"),
    "null for a count": ({"counts": {"int8": None}}, "the field 'counts.int8' is None", "a valid integer"),
    "list for a dict": ({"counts": [3]}, "the field 'counts' is [3]", "a valid dictionary"),
    "dict for a list": ({"several": {"a": 1}}, "the field 'several' is {'a': 1}", "a valid tuple"),
    "number in a list of records": ({"several": [{"p50_ms": 1}, 7]}, "the field 'several[1]' is 7", "an instance of Part"),
    "number for a record": ({"part": 7}, "the field 'part' is 7", "an instance of Part"),
    "null for a record": ({"part": None}, "the field 'part' is None", "an instance of Part"),
    "number for a name": ({"several": [{"p50_ms": 1, "name": 5}]}, "the field 'several[0].name' is 5", "a valid string"),
    "text in a shape": ({"shape": [1, "2"]}, "the field 'shape[1]' is '2'", "a valid integer"),
    "unknown field of a part": (
        {"part": {"p50_ms": 1, "p51_ms": 2}},
        "unknown fields ['p51_ms'], missing fields [] in part",
        "['name', 'p50_ms']",
    ),
    "missing field of a part": ({"several": [{}]}, "missing fields ['p50_ms'] in several[0]", "p50_ms"),
}


@pytest.mark.parametrize("row", NAMED)
def test_the_field_is_named(row, tmp_path):
    change, happened, expected = NAMED[row]
    path = tmp_path / "whole.json"
    path.write_text(json.dumps({**GOOD, **change}))
    with pytest.raises(DataError) as error:
        Whole.load(path)
    assert f"'{path}' holds no " in str(error.value)
    assert happened in error.value.happened
    assert expected in error.value.expected
    with pytest.raises(DataError, match=re.escape(happened)):
        Whole.from_dict({**GOOD, **change})


def numbers(text):
    return json.dumps(GOOD).replace("1.5", text).encode()


FILES = {
    "missing": (None, "cannot be read: No such file"),
    "folder": ("folder", "cannot be read: "),
    "empty": (b"", "not JSON"),
    "not UTF-8": (b'{"part": "\xff"}', "not UTF-8 text: invalid start byte at byte 10"),
    "UTF-16": (json.dumps(GOOD).encode("utf-16"), "not UTF-8 text"),
    "byte order mark": (b"\xef\xbb\xbf{}", "not JSON"),
    "cut": (json.dumps(GOOD).encode()[:-5], "not JSON"),
    "two values": (b"{} {}", "not JSON: Extra data"),
    "NaN": (numbers("NaN"), "not JSON: JSON has no NaN"),
    "infinity": (numbers("-Infinity"), "not JSON: JSON has no -Infinity"),
    "beyond floats": (numbers("1e999"), "not JSON: the number 1e999 is too large"),
    "5,000 digits": (numbers("9" * 5000), "not JSON|is 9999"),
    "400 digits": (numbers("9" * 400), "the field 'part.p50_ms' is 9999"),
    "key twice": (b'{"part": 1, "part": 2}', "not JSON: the key 'part' is there twice"),
    "key twice inside": (b'{"part": {"a": 1, "a": 1}}', "not JSON: the key 'a' is there twice"),
    "deep": (b"[" * 100_000 + b"]" * 100_000, "nested too deeply|not JSON"),
    "deep in a field": (b'{"part": ' + b'{"a": ' * 50_000 + b"1" + b"}" * 50_001, "nested too deeply|not JSON"),
    "list": (b"[]", "holds a list"),
    "number": (b"3", "holds a int"),
    "null": (b"null", "holds a NoneType"),
}


@pytest.mark.parametrize("row", FILES)
def test_files_that_are_no_record(row, tmp_path):
    content, message = FILES[row]
    path = tmp_path / "r.json"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        Whole.load(path)
    assert str(path) in str(error.value)


def test_what_is_not_a_dict_is_refused():
    for values in (None, [], "text", 3):
        with pytest.raises(DataError, match="cannot be made of a"):
            Whole.from_dict(values)
    with pytest.raises(DataError, match="unknown fields"):
        Whole.from_dict({**GOOD, 3: 4, None: 5})


def test_a_number_that_is_not_finite_is_nan_where_none_cannot_be(tmp_path):
    record = Whole(Part(math.inf), (Part(math.nan),), {}, accuracy=math.nan)
    path = record.save(tmp_path / "r.json")
    assert json.loads(path.read_text())["part"]["p50_ms"] is None
    found = Whole.load(path)
    assert math.isnan(found.part.p50_ms)
    assert math.isnan(found.several[0].p50_ms)
    assert found.accuracy is None


def test_names_that_are_no_text_are_kept(tmp_path):
    """A file's name may hold bytes that are not UTF-8."""
    record = Part(1.0, "a\udcff")
    assert Part.load(record.save(tmp_path / "r.json")) == record


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b'{"sha256": "x", "content": []}', b'{"sha256": "x", "content": {"settings": 5}}', b"5", b"\xff"],
    ids=["deep", "list", "settings", "number", "not UTF-8"],
)
def test_signed_manifests_too(content, tmp_path):
    path = tmp_path / "manifest.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"manifest\.json' is damaged"):
        manifest.load_signed(manifest.Manifest, path)


@pytest.mark.parametrize("change", [{"elements": "7"}, {"settings": 5}, {"shards": [5]}], ids=str)
def test_a_signed_manifest_with_wrong_types(change, tmp_path):
    values = {**made(manifest.Manifest, random.Random(SEED)).to_dict(), **change}
    if isinstance(values["settings"], dict):
        values["settings"]["format"] = manifest.FORMAT
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({"sha256": manifest._checksum(values), "content": values}))
    with pytest.raises(DataError, match=rf"manifest\.json' holds no Manifest, which cannot be made: the field '{next(iter(change))}"):
        manifest.load_signed(manifest.Manifest, path)


def test_read_json_gives_what_is_there(tmp_path):
    path = tmp_path / "r.json"
    path.write_text(json.dumps(GOOD))
    assert read_json(path) == read_json(str(path)) == GOOD


def test_writing_needs_no_pydantic():
    code = (
        "import sys, tfdistill.records, tfdistill.host; tfdistill.host.fingerprint().to_dict(); "
        "sys.exit(bool({'pydantic', 'typing_extensions'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
