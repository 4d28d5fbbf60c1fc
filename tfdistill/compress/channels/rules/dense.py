"""Channels of dense layers, products of tensors and kernels, and embeddings."""

from tfdistill.compress.channels.call import LeaveWhole
from tfdistill.compress.channels.rules.activations import require_elementwise


def dense(call):
    """Units are made of their own; features that go in are read by the rows of the kernel."""
    layer = call.layer
    *rest, read = call.inputs[0]
    made = call.new(layer.units)
    call.weight(layer.kernel, {0: read, 1: made}, kernel=True)
    call.weight(layer.bias, {0: made})
    call.setting("units", made)
    require_elementwise(call, layer.activation, made)
    return [(*rest, made)]


def einsum_dense(call):
    """Axes by the letters of the equation: those of the kernel and the output alone are made here."""
    layer = call.layer
    equation = layer.equation.replace(" ", "")
    if "." in equation:
        raise LeaveWhole("an ellipsis in its equation")
    operands, result = equation.split("->")
    given, kernel = operands.split(",")
    if any(len(set(letters)) < len(letters) for letters in (given, kernel, result)):
        raise LeaveWhole("an axis that stands twice in its equation")
    labels = dict(zip(given, call.inputs[0], strict=True))
    for letter, size in zip(kernel, layer.kernel.shape, strict=True):
        if letter not in labels and letter in result:
            labels[letter] = call.new(size, letter)
    for letter, found in labels.items():
        if letter not in kernel and letter not in result:
            call.keep(found, "summed without a weight")
    call.weight(layer.kernel, {axis: labels[letter] for axis, letter in enumerate(kernel)}, kernel=True)
    if layer.bias is not None:
        # The bias has the axes of the output from the first one of bias_axes on, those that it is not for of size 1.
        rank = len(layer.bias.shape)
        places = dict(enumerate(result[-rank:]))
        call.weight(layer.bias, {axis: labels[letter] for axis, letter in places.items() if letter in layer.bias_axes})
    for letter in result:
        require_elementwise(call, layer.activation, labels[letter])

    def output_shape(removal, old):
        return [n if n is None else removal.size(labels[letter], n) for n, letter in zip(old, result[-len(old) :], strict=True)]

    shape = layer.partial_output_shape
    call.set_config("output_shape", lambda removal, old: output_shape(removal, [old] if isinstance(shape, int) else list(shape)))
    return [tuple(labels[letter] for letter in result)]


def embedding(call):
    """The widths of the table are made here; its rows are indices, and stay."""
    layer = call.layer
    made = call.new(layer.output_dim)
    call.weight(layer.embeddings, {1: made}, kernel=True)
    call.setting("output_dim", made)
    return [(*_of_indices(call), made)]


def _of_indices(call):
    for labels in call.inputs[0]:
        call.keep(labels, "they are indices")
    return [None] * len(call.inputs[0])


def reversible_embedding(call):
    """A table that tokens are looked up in, or, with reverse=True, that outputs are multiplied with."""
    layer = call.layer
    reverse = call.call.args[1] if len(call.call.args) > 1 else call.call.kwargs.get("reverse", False)
    made = call.new(layer.output_dim)
    call.weight(layer.embeddings, {1: made}, kernel=True)
    call.weight(getattr(layer, "reverse_embeddings", None), {0: made}, kernel=True)
    call.setting("output_dim", made)
    if not reverse:
        return [(*_of_indices(call), made)]
    *rest, read = call.inputs[0]
    call.join(read, made)
    return [(*rest, None)]


RULES = {"Dense": dense, "EinsumDense": einsum_dense, "Embedding": embedding, "ReversibleEmbedding": reversible_embedding}
