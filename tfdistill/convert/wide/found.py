"""Which layers of a file have activations of 16 bits."""

from tfdistill.runtime.schema import schema


def split_by_width(content, layers):
    """Splits layers that should be wide into those that have a tensor of int16 in a file, and the others.

    Args:
        content: A finished file as bytes, whose tensors have names that begin with those of layers.
        layers: Names of layers.

    Returns:
        Two tuples of names.
    """
    if not layers:
        return (), ()
    classes = schema()
    model = classes.ModelT.InitFromObj(classes.Model.GetRootAs(content, 0))
    names = {
        part for graph in model.subgraphs for tensor in graph.tensors if tensor.type == classes.TensorType.INT16 for part in _parts(tensor)
    }
    return tuple(name for name in layers if name in names), tuple(name for name in layers if name not in names)


def told_narrow(narrow):
    """Returns the sentence to warn the user by of layers that should be wide and are not, in a tuple; an empty one where there are none."""
    if not narrow:
        return ()
    shown = ", ".join(f"'{name}'" for name in narrow)
    return (f"The activations of {shown} have 8 bits in the file, in which the converter left no tensor of that name.",)


def _parts(tensor):
    return {part.partition(".")[0].partition(";")[0] for part in tensor.name.decode(errors="replace").split("/")}
