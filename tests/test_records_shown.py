"""Every kind of record prints as a readable table, in terminals and in notebooks."""

import dataclasses
import importlib
import pkgutil
import types
import typing

import pytest
from rich.console import Console

import tfdistill
from tfdistill.convert.census import CensusRecord
from tfdistill.host import HostFingerprint
from tfdistill.records import Record
from tfdistill.tflite import ExportRecord, VerificationRecord


def kinds():
    """Lists every class of records in the package."""
    for module in pkgutil.walk_packages(tfdistill.__path__, "tfdistill."):
        if not module.name.endswith(("worker", "ray_workers", "ray_watcher", "ray_cluster")):
            importlib.import_module(module.name)
    found, queue = [], [Record]
    while queue:
        below = queue.pop().__subclasses__()
        found, queue = found + below, queue + below
    return sorted((kind for kind in found if kind.__module__.startswith("tfdistill.")), key=lambda kind: kind.__name__)


def example_of(kind, depth=0):
    """Makes a value of a type: a record with every field filled."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return example_of(next(a for a in arguments if a is not type(None)), depth)
    if origin is tuple:
        return tuple(example_of(arguments[0], depth + 1) for _ in range(25 if depth < 2 else 2))
    if origin is dict:
        return {f"key{i}": example_of(arguments[1], depth + 1) for i in range(2)}
    if origin is typing.Literal:
        return arguments[0]
    if isinstance(kind, type) and issubclass(kind, Record):
        hints = typing.get_type_hints(kind)
        return kind(**{f.name: example_of(hints[f.name], depth + 1) for f in dataclasses.fields(kind)})
    return {int: 1_234_567, float: 0.123456, str: "text <b>&\x1b[31m", bool: True}.get(kind, "anything")


KINDS = {kind.__name__: kind for kind in kinds()}


def test_there_are_many_kinds():
    assert {"ExportRecord", "VerificationRecord", "BenchmarkRecord", "CensusRecord", "Plan", "ChainRecord"} <= set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_a_record_is_printed_as_a_table(name):
    record = example_of(KINDS[name])
    if KINDS[name].__str__ is Record.__str__:  # some have a text of their own
        text = str(record)
        assert text.count("\n") >= 1
        assert max(map(len, text.splitlines())) <= 140
        assert len(text.splitlines()) <= 400
        assert "\x1b" not in text
        console = Console(width=100, record=True, quiet=True)
        console.print(record)
    shown = record._repr_html_()
    assert "<table>" in shown
    assert "<b>&" not in shown
    assert "\x1b" not in shown


HOST = HostFingerprint("a CPU", "x86_64", 4, 2, 8 << 30, "Linux", "3.11.7", {"numpy": "2.0"}, "0.1")


def exported():
    tensor = tfdistill.tflite.FileTensor(0, "image", (1, 8, 8, 1), "int8", 0.00392, -128)
    verified = VerificationRecord(
        "m.tflite", "ab" * 32, 64, "ai_edge_litert", 0.1, 0.01, 0.98, 0.9, 0.91, {}, ("The accuracy drops by 0.01.",), "int8"
    )
    census = CensusRecord("m.tflite", 41284, "ab" * 32, (), {"int8": 6}, 100, 400, 1, (), "1.14.0", (tensor,), (tensor,))
    return ExportRecord("int8", "m.tflite", 41284, "ab" * 32, "int8", 1, {"int8": 6}, "1.14.0", 200, "verify_on", verified, census, HOST)


def test_what_an_export_prints():
    assert str(exported()).splitlines() == [
        "ExportRecord",
        "variant           int8",
        "path              m.tflite",
        "size              40.3 KiB",
        "accuracy          0.9",
        "keras accuracy    0.91",
        "max abs error     0.1",
        "argmax agreement  0.98",
        "dtypes            int8: 6",
        "io                int8",
        "notes             The accuracy drops by 0.01.",
        "inputs",
        "",
        "  index   name    shape        dtype   scale     zero point",
        " ───────────────────────────────────────────────────────────",
        "  0       image   1, 8, 8, 1   int8    0.00392   -128",
        "",
        "outputs",
        "",
        "  index   name    shape        dtype   scale     zero point",
        " ───────────────────────────────────────────────────────────",
        "  0       image   1, 8, 8, 1   int8    0.00392   -128",
    ]


def test_what_firmware_needs_is_in_the_record(tmp_path):
    record = exported()
    loaded = ExportRecord.load(record.save(tmp_path / "r.json"))
    assert loaded == record
    assert loaded.inputs[0].scale == 0.00392
    assert record.summary()["keras_accuracy"] == 0.91
