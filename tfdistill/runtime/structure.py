"""Checks the bounds of a .tflite file before anything reads it.

A .tflite file is a FlatBuffer (https://flatbuffers.dev/internals): tables, vectors and strings that refer to each other by offsets. Neither
the Python reader nor the interpreters check the offsets. This module follows every offset, length and index of the format's main tables
once and checks that it stays inside the file. The options of an operation are checked as tables; their values are not checked.
"""

import struct
from typing import Any

from tfdistill.errors import ExportError

IDENTIFIER = b"TFL3"
# Table -> field number -> type of the field: bytes of a scalar, "str", "table:T", "tables:T" (a vector of them), "vector:BYTES",
# "union" (a table whose fields are not followed), or a dict of the number in the field before -> table.
_TABLES: dict[str, dict[int, Any]] = {
    "Model": {
        0: 4,
        1: "tables:OperatorCode",
        2: "tables:SubGraph",
        3: "str",
        4: "tables:Buffer",
        5: "vector:4",
        6: "tables:Metadata",
        7: "tables:SignatureDef",
    },
    "OperatorCode": {0: 1, 1: "str", 2: 4, 3: 4},
    "SubGraph": {0: "tables:Tensor", 1: "vector:4", 2: "vector:4", 3: "tables:Operator", 4: "str", 5: 4},
    "Tensor": {
        0: "vector:4",
        1: 1,
        2: 4,
        3: "str",
        4: "table:QuantizationParameters",
        5: 1,
        6: "table:SparsityParameters",
        7: "vector:4",
        8: 1,
        9: "tables:VariantSubType",
        10: 4,
    },
    "Buffer": {0: "vector:1", 1: 8, 2: 8},
    "Operator": {
        0: 4,
        1: "vector:4",
        2: "vector:4",
        3: 1,
        4: "union",
        5: "vector:1",
        6: 1,
        7: "vector:1",
        8: "vector:4",
        9: 8,
        10: 8,
        11: 1,
        12: "union",
        13: 4,
    },
    "QuantizationParameters": {0: "vector:4", 1: "vector:4", 2: "vector:4", 3: "vector:8", 4: 1, 5: "union", 6: 4},
    "SparsityParameters": {0: "vector:4", 1: "vector:4", 2: "tables:DimensionMetadata"},
    "DimensionMetadata": {0: 1, 1: 4, 2: 1, 3: "union", 4: 1, 5: "union"},
    "VariantSubType": {0: "vector:4", 1: 1, 2: 1},
    "Metadata": {0: "str", 1: 4},
    "SignatureDef": {0: "tables:TensorMap", 1: "tables:TensorMap", 2: "str", 4: 4},
    "TensorMap": {0: "str", 1: 4},
    "Options": {},
}
# Tables can be shared, so a small file can have an unlimited number of paths. A table takes at least this many bytes, which limits their
# number.
_BYTES_PER_TABLE = 4
# How often all vectors together may use each byte of the file, for the same reason.
_USES_PER_BYTE = 16


class _Broken(Exception):
    """An offset, length or index is out of bounds."""


def check_structure(content):
    """Checks that a file is a .tflite file whose offsets, lengths and indices stay inside it. Nothing is run.

    Args:
        content: The file as bytes.

    Raises:
        ExportError: if not; the message names the table and the fault.
    """
    if content[4:8] != IDENTIFIER:
        raise ExportError("It is not a .tflite file.", "a file with the identifier TFL3 at byte 4")
    try:
        _check_indices(_Walk(content, _TABLES).root("Model"))
    except _Broken as error:
        raise ExportError(f"It is damaged: {error}.", "a whole .tflite file", "write it again") from error


def read_tables(content, tables, root):
    """Reads a FlatBuffer of another format; every offset and length is checked to stay inside it.

    Args:
        content: The FlatBuffer as bytes.
        tables: Table -> field number -> type of the field, as in this module's own.
        root: Name of its outermost table.

    Returns:
        Dict of field number -> number, (start, count) of a text or vector, dict of a table, or list of them. Fields that are not set are left out.

    Raises:
        ExportError: if an offset or length leads outside; the message names the table.
    """
    try:
        return _Walk(content, tables).root(root)
    except _Broken as error:
        raise ExportError(f"It is damaged: {error}.", f"a whole {root}", "write it again") from error


class _Walk:
    """Follows every offset of a file."""

    def __init__(self, content, tables):
        self.content, self.size, self.left = content, len(content), len(content) // _BYTES_PER_TABLE
        self.tables, self.bytes_left = tables, self.size * _USES_PER_BYTE

    def root(self, kind):
        return self.table(kind, self.follow(0, "the root"))

    def number(self, position, form, what):
        size = struct.calcsize(form)
        if position < 0 or position + size > self.size:
            raise _Broken(f"{what} lies at byte {position}")
        return struct.unpack_from(form, self.content, position)[0]

    def follow(self, position, what):
        offset = self.number(position, "<I", what)
        if offset == 0 or position + offset >= self.size:
            raise _Broken(f"{what} points to byte {position + offset}")
        return position + offset

    def vector(self, position, width, what):
        count = self.number(position, "<I", what)
        if position + 4 + count * width > self.size:
            raise _Broken(f"{what} has {count} elements at byte {position}")
        self.bytes_left -= count * width
        if self.bytes_left < 0:
            raise _Broken(f"its vectors hold over {_USES_PER_BYTE} times its bytes")
        return position + 4, count

    def table(self, kind, position):
        """Returns the fields that the table has: number -> value, (start, count) of a vector, or a list of tables."""
        self.left -= 1
        if self.left < 0:
            raise _Broken(f"it leads to over {self.size // _BYTES_PER_TABLE} tables")
        layout = position - self.number(position, "<i", f"a {kind}")
        length, size = self.number(layout, "<H", f"the layout of a {kind}"), self.number(layout + 2, "<H", f"the layout of a {kind}")
        if length < 4 or length % 2 or layout + length > self.size or position + size > self.size:
            raise _Broken(f"the layout of a {kind} at byte {position} has {length} bytes for a table of {size}")
        fields = {}
        for field, offset in enumerate(struct.unpack_from(f"<{length // 2 - 2}H", self.content, layout + 4)):
            form = self.tables.get(kind, {}).get(field, 0)
            form = f"table:{form.get(fields.get(field - 1), '')}" if isinstance(form, dict) else form
            width = form if isinstance(form, int) else 4
            if offset == 0:
                continue
            if offset < 4 or offset + width > size:
                raise _Broken(f"field {field} of a {kind} lies at byte {offset} of {size}")
            fields[field] = self.field(form, position + offset, f"field {field} of a {kind}")
        return fields

    def field(self, form, position, what):
        if isinstance(form, int):
            return self.number(position, {0: "<B", 1: "<B", 4: "<i", 8: "<Q"}[form], what)
        form, _, inner = form.partition(":")
        target = self.follow(position, what)
        if form == "str":
            start, count = self.vector(target, 1, what)
            if self.number(start + count, "<B", what) != 0:
                raise _Broken(f"{what} is a text without an end")
            return start, count
        if form == "vector":
            return self.vector(target, int(inner), what)
        if form == "tables":
            start, count = self.vector(target, 4, what)
            return [self.table(inner, self.follow(start + 4 * i, what)) for i in range(count)]
        return self.table(inner or "Options", target)  # of a table that is not known, the layout is checked


def _check_indices(model):
    codes, graphs, buffers = (model.get(field, []) for field in (1, 2, 4))
    if not graphs:
        raise _Broken("it has no graph")
    for graph in graphs:
        for tensor in graph.get(0, []):
            _inside(tensor.get(2, 0), len(buffers), "a tensor's buffer")
        for operator in graph.get(3, []):
            _inside(operator.get(0, 0), len(codes), "an operation's code")
    for entry in model.get(6, []):
        _inside(entry.get(1, 0), len(buffers), "a metadata's buffer")
    for signature in model.get(7, []):
        number = signature.get(4, 0)
        _inside(number, len(graphs), "a signature's graph")
        for entry in (*signature.get(0, []), *signature.get(1, [])):
            _inside(entry.get(1, 0), len(graphs[number].get(0, [])), "a signature's tensor")


def _inside(index, count, what):
    if not 0 <= index < count:
        raise _Broken(f"{what} is number {index} of {count}")
