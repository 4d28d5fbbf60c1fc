"""Shortens the names of a .tflite file's tensors, which can be a third of a small file: the converter joins those of all operations that it fuses."""

import collections
import re

import flatbuffers
import numpy as np

from tfdistill.runtime.schema import schema

# TFLite reads the buffers in place, so their content must begin at a multiple of this.
_ALIGNMENT = 16
_IDENTIFIER = b"TFL3"


def shorten_names(content):
    """Gives the tensors of a file short names, which begin with the user's name of the layer: `conv/Conv2D`. Nothing else of the file changes.

    Inputs and outputs get the names that the converter gives those of a float file: `serving_default_NAME:0` and `StatefulPartitionedCall:INDEX`.

    Args:
        content: The file as bytes, as the converter wrote it.

    Returns:
        The new file as bytes; the same bytes where the weights are too large to stand inside the format's tables.
    """
    classes = schema()
    model = classes.ModelT.InitFromObj(classes.Model.GetRootAs(content, 0))
    if any(getattr(buffer, "offset", 0) > 1 for buffer in model.buffers):
        return content
    for index, graph in enumerate(model.subgraphs):
        given = _given_names(model, index, graph)
        for tensor, name in zip(graph.tensors, _short([_text(tensor.name) for tensor in graph.tensors], given), strict=True):
            tensor.name = name.encode()
    for buffer in model.buffers:
        buffer.Pack = lambda builder, buffer=buffer: _pack_buffer(classes, buffer, builder)
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def _given_names(model, index, graph):
    """Returns a dict of tensor -> name of the inputs and outputs of a graph that has a signature."""
    given = {}
    for signature in model.signatureDefs or []:
        if signature.subgraphIndex == index:
            given |= {entry.tensorIndex: f"serving_default_{_text(entry.name)}:0" for entry in signature.inputs or []}
            given |= {tensor: f"StatefulPartitionedCall:{place}" for place, tensor in enumerate(graph.outputs) if tensor not in given}
    return given


def _short(names, given):
    """Returns a short name for each of a graph's tensors, all different."""
    parts = [name.partition(";")[0].split("/") for name in names]
    scopes = [part for place, part in enumerate(parts) if place not in given and len(part) > 2]
    shared = 0
    while scopes and all(len(part) > shared + 2 and part[shared] == scopes[0][shared] for part in scopes):
        shared += 1
    head, counts, found = scopes[0][:shared] if scopes else [], collections.Counter(given.values()), []
    for place, part in enumerate(parts):
        if place in given:
            found.append(given[place])
            continue
        kept = part[shared:] if part[:shared] == head else part
        name = "/".join(word for i, word in enumerate(kept) if i == 0 or word != kept[i - 1].removeprefix("quant_"))
        name = re.sub(r"(^|/)quant_", r"\1", name)
        count = counts[name]
        counts[name] += 1
        found.append(f"{name}.{count}" if count else name)
    return found


def _pack_buffer(classes, buffer, builder):
    data = None
    if buffer.data is not None and len(buffer.data):
        values = np.asarray(buffer.data, np.uint8)
        builder.StartVector(1, len(values), _ALIGNMENT)
        builder.head = builder.Head() - len(values)
        builder.Bytes[builder.Head() : builder.Head() + len(values)] = values.tobytes()
        data = builder.EndVector()
    classes.BufferStart(builder)
    if data is not None:
        classes.BufferAddData(builder, data)
    return classes.BufferEnd(builder)


def _text(name):
    return (name or b"").decode("utf-8", errors="replace")
