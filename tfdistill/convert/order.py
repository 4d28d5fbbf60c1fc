"""Puts the inputs and outputs of a .tflite file in the order of the model: firmware finds them by position."""

import numpy as np

from tfdistill.convert.packing import pack
from tfdistill.convert.parsed_file import listed
from tfdistill.runtime.schema import schema


def in_order(content, inputs, outputs):
    """Returns a file whose inputs and outputs stand in a given order; the converter puts them in one of its own.

    Args:
        content: The file as bytes, as the converter wrote it.
        inputs: Names of the inputs in its signature, in the order to have.
        outputs: Names of the outputs likewise; None leaves them as they are.

    Returns:
        The file as bytes, the same where the order is right.
    """
    classes = schema()
    model = classes.ModelT.InitFromObj(classes.Model.GetRootAs(content, 0))
    if any(getattr(buffer, "offset", 0) > 1 for buffer in model.buffers):
        return content
    (signature,) = model.signatureDefs
    graph, changed = model.subgraphs[signature.subgraphIndex or 0], False
    for side, names in (("inputs", inputs), ("outputs", outputs)):
        entries = {entry.name.decode(): entry for entry in getattr(signature, side) or []}
        if names is None or set(names) != set(entries):
            continue
        found, wanted = listed(getattr(graph, side)), [int(entries[name].tensorIndex) for name in names]
        if found != wanted and sorted(found) == sorted(wanted):
            setattr(graph, side, np.array(wanted, np.int32))
            setattr(signature, side, [entries[name] for name in names])
            changed = True
    return pack(model, classes) if changed else content
