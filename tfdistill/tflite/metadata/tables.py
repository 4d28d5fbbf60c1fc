"""The tables of TFLite's metadata format, written and read by one list of their fields.

The format is `metadata_schema.fbs` of MediaPipe (mediapipe/tasks/metadata) and of TFLite Support, version 1.5.0: a FlatBuffer of its own inside a buffer of the file.
"""

import struct
from typing import Any

import flatbuffers
import numpy as np

from tfdistill.errors import ExportError
from tfdistill.runtime.structure import read_tables

_IDENTIFIER = b"M001"
# The lowest version of the format that has all fields written here.
PARSER_VERSION = "1.0.0"
RGB, GRAYSCALE = 1, 2  # ColorSpaceType
AXIS_LABELS = 2  # AssociatedFileType
IMAGE = 2  # of the union ContentProperties
NORMALIZATION = 1  # of the union ProcessUnitOptions
# Table -> its fields in the order of the schema, up to the last one used here. Types as in `tfdistill.runtime.structure`; 0 is a field that is not read.
_FIELDS: dict[str, dict[str, Any]] = {
    "ModelMetadata": {
        "name": "str",
        "description": "str",
        "version": "str",
        "subgraph_metadata": "tables:SubGraphMetadata",
        "author": "str",
        "license": "str",
        "associated_files": "tables:AssociatedFile",
        "min_parser_version": "str",
    },
    "SubGraphMetadata": {
        "name": "str",
        "description": "str",
        "input_tensor_metadata": "tables:TensorMetadata",
        "output_tensor_metadata": "tables:TensorMetadata",
    },
    "TensorMetadata": {
        "name": "str",
        "description": "str",
        "dimension_names": 0,
        "content": "table:Content",
        "process_units": "tables:ProcessUnit",
        "stats": 0,
        "associated_files": "tables:AssociatedFile",
    },
    "Content": {"content_properties_type": 1, "content_properties": {IMAGE: "ImageProperties"}},
    "ImageProperties": {"color_space": 1},
    "ProcessUnit": {"options_type": 1, "options": {NORMALIZATION: "NormalizationOptions"}},
    "NormalizationOptions": {"mean": "vector:4", "std": "vector:4"},
    "AssociatedFile": {"name": "str", "description": "str", "type": 1},
}
_NUMBERED = {kind: dict(enumerate(fields.values())) for kind, fields in _FIELDS.items()}


def pack_tables(values, kind="ModelMetadata"):
    """Writes a table and all inside it.

    Args:
        values: Dict of field -> text, number, list of floats, dict of a table, or list of such dicts.
        kind: Name of the table.

    Returns:
        The FlatBuffer as bytes: the same bytes for the same values.
    """
    builder = flatbuffers.Builder(1024)
    builder.Finish(_pack(builder, kind, values), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def _pack(builder, kind, values):
    forms = list(_FIELDS[kind].items())
    made = {}
    for name, form in forms:
        if name in values:
            form = f"table:{form[values[_type_of(name)]]}" if isinstance(form, dict) else form
            made[name] = _pack_field(builder, form, values[name])
    builder.StartObject(len(forms))
    for slot, (name, form) in enumerate(forms):
        if name in made:
            add = builder.PrependInt8Slot if isinstance(form, int) else builder.PrependUOffsetTRelativeSlot
            add(slot, made[name], 0)
    return builder.EndObject()


def _type_of(union):
    """Name of the field that tells which table a union is."""
    return f"{union}_type"


def _pack_field(builder, form, value):
    if isinstance(form, int):
        return value
    form, _, inner = form.partition(":")
    if form == "str":
        return builder.CreateString(value)
    if form == "vector":
        return builder.CreateNumpyVector(np.asarray(value, np.float32))
    if form == "table":
        return _pack(builder, inner, value)
    offsets = [_pack(builder, inner, each) for each in value]
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def unpack_tables(content):
    """Reads what `pack_tables` or another program wrote.

    Args:
        content: The FlatBuffer as bytes, from anywhere.

    Returns:
        Dict of the fields that are set, in Python's types.

    Raises:
        ExportError: if it is no such FlatBuffer, or damaged.
    """
    if content[4:8] != _IDENTIFIER:
        raise ExportError(
            f"It describes itself in another format, '{content[4:8].decode('latin-1')}'.", "metadata with the identifier M001 at byte 4"
        )
    return _named(content, "ModelMetadata", read_tables(content, _NUMBERED, "ModelMetadata"))


def _named(content, kind, fields):
    found = {}
    for number, (name, form) in enumerate(_FIELDS[kind].items()):
        if number in fields and form != 0:
            form = f"table:{form.get(found.get(_type_of(name)))}" if isinstance(form, dict) else form
            found[name] = _value(content, form, fields[number])
    return found


def _value(content, form, value):
    if isinstance(form, int):
        return value
    form, _, inner = form.partition(":")
    if form == "table":
        return _named(content, inner, value) if inner in _FIELDS else {}
    if form == "tables":
        return [_named(content, inner, each) for each in value]
    start, count = value
    if form == "str":
        return content[start : start + count].decode("utf-8", errors="replace")
    return list(struct.unpack_from(f"<{count}f", content, start))
