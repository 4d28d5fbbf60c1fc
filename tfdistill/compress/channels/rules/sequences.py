"""Channels of attention, of recurrent layers, and of the wrappers around layers."""

import keras

from tfdistill.compress.channels.call import LeaveWhole, repeated, tiled
from tfdistill.compress.channels.rules import convolutions, dense, normalizations, passing
from tfdistill.compress.channels.rules.activations import require_elementwise
from tfdistill.compress.channels.rules.shapes import concatenated
from tfdistill.graph.layers import attention_projections


def _attended(call, *names):
    """Returns the labels of the channels of the query, value and key of an attention layer."""
    given = [*call.inputs, *(axes for name in ("query", "value", "key") for axes in call.arguments.get(name, ()))]
    if len(given) < 2:
        raise LeaveWhole("its query and value are not known")
    query, value = given[:2]
    key = given[2] if len(given) > 2 else value
    return [call.only(axes, -1)[-1] for axes in (query, value, key)]


def _project(call, dense, read, heads, width, scale=None):
    if dense is not None:
        call.weight(dense.kernel, {0: read, 1: heads, 2: width}, kernel=True, scale=scale)
        call.weight(dense.bias, {0: heads, 1: width}, scale=scale)


def _attention_outputs(call, made, heads):
    rank = len(call.output_shapes[0])
    outputs = [(*(None for _ in range(rank - 1)), made)]
    if len(call.output_shapes) > 1:
        outputs.append(tuple(heads if axis == 1 else None for axis in range(len(call.output_shapes[1]))))
    return outputs


def attention(call):
    """Heads, key widths, value widths and the output's width are four axes of their own."""
    layer, parts = call.layer, attention_projections(call.layer)
    query, value, key = _attended(call)
    heads = call.new(layer.num_heads, "heads", aligned=False)
    key_width, value_width = call.new(layer.key_dim, "key width"), call.new(layer.value_dim, "value width")
    kernel = parts["output"].kernel
    if len(kernel.shape) != 3:
        raise LeaveWhole("its output has several axes")
    made = call.new(kernel.shape[-1], "output width")
    # The scores are divided by the square root of the key width.
    _project(call, parts["query"], query, heads, key_width, scale=key_width)
    _project(call, parts["key"], key, heads, key_width)
    _project(call, parts["value"], value, heads, value_width)
    _project(call, parts.get("gate"), query, heads, value_width)
    call.weight(kernel, {0: heads, 1: value_width, 2: made}, kernel=True)
    call.weight(parts["output"].bias, {0: made})
    call.setting("num_heads", heads)
    call.setting("key_dim", key_width)
    call.setting("value_dim", value_width)
    call.setting("output_shape", made, lambda n: (n,))
    return _attention_outputs(call, made, heads)


def grouped_attention(call):
    """A head of keys and values goes with all heads of queries that share it."""
    layer, parts = call.layer, attention_projections(call.layer)
    query, value, key = _attended(call)
    kept = call.new(layer.num_key_value_heads, "key and value heads", aligned=False)
    heads = repeated(kept, layer.num_query_heads // layer.num_key_value_heads)
    width = call.new(layer.head_dim, "head width")
    _project(call, parts["query"], query, heads, width, scale=width)
    _project(call, parts["key"], key, kept, width)
    _project(call, parts["value"], value, kept, width)
    _project(call, parts.get("gate"), query, heads, width)
    # The output is as wide as the query.
    call.weight(parts["output"].kernel, {0: heads, 1: width, 2: query}, kernel=True)
    call.weight(parts["output"].bias, {0: query})
    call.setting("num_query_heads", heads)
    call.setting("num_key_value_heads", kept)
    call.setting("head_dim", width)
    return _attention_outputs(call, query, heads)


_GATES = {"SimpleRNN": 1, "GRU": 3, "LSTM": 4}
_STATES = {"SimpleRNN": 1, "GRU": 1, "LSTM": 2}


def recurrent(call, key="channels"):
    """Units go with their gates, with what they feed back, and with the channels of a first state."""
    layer = call.layer
    if layer.stateful:
        raise LeaveWhole("it keeps its state from batch to batch")
    axes = call.inputs[0]
    read = call.only(axes, -1)[-1]
    units = call.new(layer.units, key)
    gates = tiled(units, _GATES[type(layer).__name__])
    cell = layer.cell
    call.weight(cell.kernel, {0: read, 1: gates}, kernel=True)
    call.weight(cell.recurrent_kernel, {0: units, 1: gates}, kernel=True)
    if cell.bias is not None:
        call.weight(cell.bias, {len(cell.bias.shape) - 1: gates})
    for state in [*call.inputs[1:], *call.arguments.get("initial_state", ())][: _STATES[type(layer).__name__]]:
        if state[-1] is None:
            call.keep(units, "its first state comes from what stays as it is")
        else:
            call.join(state[-1], units)
    for function in (layer.activation, getattr(layer, "recurrent_activation", None)):
        require_elementwise(call, function, units)
    call.setting("units", units)
    return [(*(None for _ in shape[:-1]), units) for shape in call.output_shapes]


def bidirectional(call):
    """Both directions lose the same units, each in its part of the output."""
    layer = call.layer
    kinds = {type(one) for one in (layer.forward_layer, layer.backward_layer)}
    if (
        not kinds <= {keras.layers.SimpleRNN, keras.layers.GRU, keras.layers.LSTM}
        or len(call.inputs) > 1
        or call.arguments.get("initial_state")
    ):
        raise LeaveWhole("no rule is known for the layers inside, or for their states")
    if layer.return_state or layer.forward_layer.units != layer.backward_layer.units or layer.merge_mode is None:
        raise LeaveWhole("its directions return states, several outputs or different widths")
    ways = [
        recurrent(call.inside(one, (name, "config")), key)[0]
        for one, name, key in ((layer.forward_layer, "layer", "forward"), (layer.backward_layer, "backward_layer", "backward"))
    ]
    call.join(ways[0][-1], ways[1][-1])
    if layer.merge_mode != "concat":
        return [ways[0]]
    shape = (*call.output_shapes[0][:-1], layer.forward_layer.units)
    return [concatenated(call, [(way, shape) for way in ways], -1)]


_INSIDE = {**convolutions.RULES, **dense.RULES, **normalizations.RULES, **passing.RULES}


def each_step(call):
    """The rule of the layer inside, without the axis of steps."""
    rule = _INSIDE.get(type(call.layer.layer).__name__) if type(call.layer.layer).__module__.startswith("keras.") else None
    if rule is None or len(call.inputs) != 1:
        raise LeaveWhole("no rule is known for the layer inside")
    inner = call.inside(call.layer.layer, ("layer", "config"))
    call.keep(call.inputs[0][1], "they are steps in time")
    inner.inputs = [(axes[0], *axes[2:]) for axes in call.inputs]
    inner.input_shapes = [(shape[0], *shape[2:]) for shape in call.input_shapes]
    inner.output_shapes = [(shape[0], *shape[2:]) for shape in call.output_shapes]
    return [(axes[0], None, *axes[1:]) for axes in rule(inner)]


def dot_product_attention(call):
    """Whole heads: the scores are divided by the root of the width of keys, and Keras takes that of values for the same."""
    (query, key, value), rest = call.inputs[:3], call.inputs[3:]
    heads = call.join(call.join(query[2], key[2]), value[2])
    if len({shape[2] for shape in call.input_shapes[:3]}) > 1:
        raise LeaveWhole("several queries share a key")
    for labels in (query[3], key[3], value[3], *(labels for axes in rest for labels in axes)):
        call.keep(labels, "the scores depend on them")
    return [(*query[:2], heads, None)]


RULES = {
    "MultiHeadAttention": attention,
    "GroupedQueryAttention": grouped_attention,
    **dict.fromkeys(_GATES, recurrent),
    "Bidirectional": bidirectional,
    "TimeDistributed": each_step,
}
