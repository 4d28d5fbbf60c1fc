"""Writes a .tflite file in which equal parts stand once: FlatBuffers refer to their parts by offsets, so several tensors can point to one shape or scale."""

import flatbuffers
import numpy as np

_IDENTIFIER = b"TFL3"
# TFLite reads the buffers in place, so their content must begin at a multiple of this.
_ALIGNMENT = 16


def pack(model, classes):
    """Returns the bytes of a file.

    Args:
        model: `ModelT` of the schema. Its parts get a `Pack` of their own, so it is of no further use.
        classes: The module of the schema.
    """
    builder = _SharingBuilder(sum(0 if buffer.data is None else len(buffer.data) for buffer in model.buffers) + 4096)
    for buffer in model.buffers:
        buffer.Pack = lambda builder, buffer=buffer: builder.once(("buffer", id(buffer)), lambda: _pack_buffer(classes, buffer, builder))
    for graph in model.subgraphs:
        for tensor in graph.tensors or []:
            _share(tensor, "quantization")
        for operator in graph.operators or []:
            _share(operator, "builtinOptions", "builtinOptions2")
    builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


class _SharingBuilder(flatbuffers.Builder):
    """Writes equal strings, vectors and tables once, and the fields of a table in the order of their sizes, so that none is there to align the next one."""

    def __init__(self, size):
        super().__init__(size)
        self._written, self._fields = {}, []

    def once(self, key, write):
        """Returns the offset of what `write` wrote when it was first called with this key."""
        if key not in self._written:
            self._written[key] = write()
        return self._written[key]

    def PrependSlot(self, flags, o, x, d):
        if x != d:
            self._fields.append((flags.bytewidth, o, lambda: self.Prepend(flags, x)))

    def PrependUOffsetTRelativeSlot(self, o, x, d):
        if x != d:
            self._fields.append((flatbuffers.number_types.UOffsetTFlags.bytewidth, o, lambda: self.PrependUOffsetTRelative(x)))

    def EndObject(self):
        for _, slot, write in sorted(self._fields, key=lambda field: -field[0]):
            write()
            self.Slot(slot)
        self._fields = []
        return super().EndObject()

    def CreateString(self, s, *args, **kwargs):
        return self.once(("string", s), lambda: super(_SharingBuilder, self).CreateString(s, *args, **kwargs))

    def CreateNumpyVector(self, x):
        return self.once((x.dtype.str, x.tobytes()), lambda: super(_SharingBuilder, self).CreateNumpyVector(x))


def _share(owner, *names):
    """Lets the tables under these names be written once for all that are equal."""
    for name in names:
        table = getattr(owner, name)
        if table is not None:
            key, write = content_of(table), type(table).Pack
            table.Pack = lambda builder, key=key, write=write, table=table: builder.once(key, lambda: write(table, builder))


def content_of(part):
    """Returns what is in a part of a parsed file, as a value that can be compared and hashed."""
    if isinstance(part, np.ndarray):
        return part.dtype.str, part.tobytes()
    if isinstance(part, (list, tuple)):
        return tuple(content_of(item) for item in part)
    if hasattr(part, "__dict__"):
        return (type(part).__name__, *((name, content_of(value)) for name, value in vars(part).items() if name != "Pack"))
    return part


def _pack_buffer(classes, buffer, builder):
    data = None
    if buffer.data is not None:  # a constant without elements has data, too
        values = np.asarray(buffer.data, np.uint8)
        builder.StartVector(1, len(values), _ALIGNMENT)
        builder.head = builder.Head() - len(values)
        builder.Bytes[builder.Head() : builder.Head() + len(values)] = values.tobytes()
        data = builder.EndVector()
    classes.BufferStart(builder)
    if data is not None:
        classes.BufferAddData(builder, data)
    return classes.BufferEnd(builder)
