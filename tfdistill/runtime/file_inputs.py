"""Reads the inputs and outputs that a .tflite file declares, without a runtime."""

from tfdistill.errors import ExportError
from tfdistill.runtime.schema import schema
from tfdistill.runtime.structure import check_structure


def declared_inputs(content):
    """Returns a dict of input name -> declared shape, with None for an axis of any size; empty for a damaged file, which a runtime refuses.

    Args:
        content: The file as bytes.
    """
    try:
        check_structure(content)
    except ExportError:
        return {}
    model = schema().Model.GetRootAs(content)
    graph = model.Subgraphs(0)
    return {name: declared_shape(graph.Tensors(index)) for index, name in names_of(model, graph, "Input").items()}


def declared_shape(tensor):
    """Returns the shape of a tensor of the schema, with None for an axis of any size."""
    signed = tensor.ShapeSignatureLength()
    sizes = tensor.ShapeSignatureAsNumpy() if signed else tensor.ShapeAsNumpy() if tensor.ShapeLength() else ()
    return tuple(None if size < 0 else int(size) for size in sizes)


def names_of(model, graph, side):
    """Returns a dict of tensor index -> name of the inputs or outputs of the main graph, as `tfdistill.runtime.tensors.tensor_names` names them.

    Args:
        model: A `Model` of the schema.
        graph: Its first graph.
        side: `"Input"` or `"Output"`.
    """
    tensors = [getattr(graph, f"{side}s")(i) for i in range(getattr(graph, f"{side}sLength")())]
    for i in range(model.SignatureDefsLength()):
        signature = model.SignatureDefs(i)
        maps = [getattr(signature, f"{side}s")(j) for j in range(getattr(signature, f"{side}sLength")())]
        named = {entry.TensorIndex(): _text(entry.Name()) for entry in maps}
        if set(named) == set(tensors):
            return named
    return {tensor: _text(graph.Tensors(tensor).Name()) for tensor in tensors}


def _text(name):
    return (name or b"").decode("utf-8", errors="replace")
