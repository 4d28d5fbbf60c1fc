"""Reads what a .tflite file says of itself: labels and normalization, as TFLite's metadata format has them. Standard library only.

The format is a FlatBuffer inside the file's own FlatBuffer, and text files in a ZIP archive behind it (mediapipe/tasks/metadata/metadata_schema.fbs).
"""

import pathlib
import struct
import zipfile

from errors import KitError

_AXIS_LABELS, _IMAGE, _NORMALIZATION = 2, 2, 1  # numbers of AssociatedFileType, ContentProperties and ProcessUnitOptions


def read(path):
    """Reads the labels and normalizations of a file.

    Args:
        path: The .tflite file.

    Returns:
        Dict of `inputs` and `outputs`: lists, in the order of the graph, of dicts with `mean`, `std` and `image` of an input and `labels` of an output, each where
        the file says it. Empty lists if it says nothing.

    Raises:
        KitError: if the file or its metadata is damaged.
    """
    content = pathlib.Path(path).read_bytes()
    if content[4:8] != b"TFL3":
        raise KitError(f"'{path}' is no .tflite file.", "give the file that tfdistill or another converter wrote")
    try:
        return _read(content, path)
    except (struct.error, IndexError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile) as error:
        raise KitError(f"'{path}' is damaged: {error}.", "copy it again") from error


def _read(content, path):
    model, found = _Table(content), {"inputs": [], "outputs": []}
    buffers = model.tables(4)
    described = [entry for entry in model.tables(6) if entry.text(0) == "TFLITE_METADATA"]
    if not described or described[0].number(1, "I") >= len(buffers):
        return found
    start, count = buffers[described[0].number(1, "I")].span(0, 1)
    tables = content[start : start + count]
    if tables[4:8] != b"M001":
        return found
    graphs = _Table(tables).tables(3)
    if not graphs:
        return found
    found["inputs"] = [_input(tensor) for tensor in graphs[0].tables(2)]
    found["outputs"] = [_output(tensor, path) for tensor in graphs[0].tables(3)]
    return found


def _input(tensor):
    about = {}
    content = tensor.table(3)
    if content is not None and content.number(0, "B") == _IMAGE:
        about["image"] = True
    for unit in tensor.tables(4):
        options = unit.table(1)
        if unit.number(0, "B") == _NORMALIZATION and options is not None:
            about["mean"], about["std"] = options.floats(0), options.floats(1)
    return about


def _output(tensor, path):
    for file in tensor.tables(6):
        if file.number(2, "B") == _AXIS_LABELS:
            return {"labels": _lines(path, file.text(0))}
    return {}


def _lines(path, name):
    with zipfile.ZipFile(path) as archive:
        try:
            entry = archive.getinfo(name)
        except KeyError as error:
            raise KitError(f"'{path}' names the labels '{name}', which are not in it.", "export it again with its labels") from error
        if entry.compress_type != zipfile.ZIP_STORED:  # what is stored as it is cannot grow beyond the file
            raise KitError(f"'{path}' holds the labels '{name}' compressed.", "export it again with its labels")
        lines = archive.read(entry).decode("utf-8").splitlines()
    while lines and not lines[-1]:
        lines.pop()
    return lines


class _Table:
    """A table of a FlatBuffer. Every position is checked by `struct` and by slices to lie inside the bytes."""

    def __init__(self, content, position=None):
        self.content = content
        self.position = struct.unpack_from("<I", content, 0)[0] if position is None else position
        self.fields = self.position - struct.unpack_from("<i", content, self.position)[0]
        if self.fields < 0:
            raise IndexError("a table lies before the first byte")
        self.size = struct.unpack_from("<H", content, self.fields)[0]

    def _at(self, field):
        slot = 4 + 2 * field
        offset = struct.unpack_from("<H", self.content, self.fields + slot)[0] if slot + 2 <= self.size else 0
        return self.position + offset if offset else None

    def _follow(self, field):
        at = self._at(field)
        return None if at is None else at + struct.unpack_from("<I", self.content, at)[0]

    def number(self, field, kind):
        at = self._at(field)
        return 0 if at is None else struct.unpack_from("<" + kind, self.content, at)[0]

    def span(self, field, width):
        """Returns (start, bytes) of a vector of numbers of `width` bytes."""
        at = self._follow(field)
        if at is None:
            return 0, 0
        count = struct.unpack_from("<I", self.content, at)[0] * width
        if at + 4 + count > len(self.content):
            raise IndexError("a list leads outside the file")
        return at + 4, count

    def text(self, field):
        start, count = self.span(field, 1)
        return self.content[start : start + count].decode("utf-8", errors="replace")

    def floats(self, field):
        start, count = self.span(field, 4)
        return list(struct.unpack_from(f"<{count // 4}f", self.content, start))

    def table(self, field):
        at = self._follow(field)
        return None if at is None else _Table(self.content, at)

    def tables(self, field):
        start, count = self.span(field, 4)
        return [_Table(self.content, at + struct.unpack_from("<I", self.content, at)[0]) for at in range(start, start + count, 4)]
