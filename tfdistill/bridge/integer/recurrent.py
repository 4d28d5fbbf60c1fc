"""Recurrent layers computed step by step, the way an integer file without loops computes them, with one range for each kind of tensor over all steps.

A range of its own for every step would follow the data no better: the tensors of all steps are of the same kind, and a file with one scale for all needs no
operation between two steps that only changes scales.
"""

import contextlib
import functools

from tfdistill.bridge import imports
from tfdistill.bridge.integer.recognize import activated, name_of
from tfdistill.bridge.integer.rounding import FIXED_RANGES


def recurrent(layer, quantize, args, kwargs):
    """LSTM, GRU, SimpleRNN, RNN of their cells, and Bidirectional of these: all steps unrolled, every tensor of a step rounded."""
    with contextlib.ExitStack() as replaced:
        # States grow from step to step: an average over steps would clip those of the last.
        replaced.enter_context(quantize.together())
        for prefix, inner in _directions(layer):
            # Past tf_keras's attribute setter, as the layer's own settings come back at once.
            zeroed = inner.zero_output_for_mask
            for name, value in (("unroll", True), ("_could_use_gpu_kernel", False), ("zero_output_for_mask", False)):
                replaced.enter_context(_attribute(inner, name, value))
            # The file's concatenation has one scale for all that it joins.
            shared = ("state",) if getattr(layer, "merge_mode", None) == "concat" else ()
            found = _cells(inner, prefix)
            cells = [(cell, _Named(quantize, name, shared if cell is found[-1][1] else ())) for name, cell in found]
            for cell, within in cells:
                replaced.enter_context(
                    _attribute(cell, "call", _not_converted(functools.partial(STEPS[type(cell).__name__], cell, within)))
                )
            replaced.enter_context(
                _attribute(inner, "call", _not_converted(functools.partial(_rounded_outputs, inner, zeroed, inner.call, cells)))
            )
        return layer(*args, **kwargs)


def is_known(layer):
    """Whether all cells of a recurrent tf_keras layer, or of both directions of a Bidirectional, have a form here."""
    return all(type(cell).__name__ in STEPS for prefix, inner in _directions(layer) for _, cell in _cells(inner, prefix))


def _directions(layer):
    if isinstance(layer, imports.tf_keras().layers.Bidirectional):
        return [("forward_", layer.forward_layer), ("backward_", layer.backward_layer)]
    return [("", layer)]


def _cells(layer, prefix):
    cells = getattr(layer.cell, "cells", None)
    return [(prefix, layer.cell)] if cells is None else [(f"{prefix}{i}_", cell) for i, cell in enumerate(cells)]


class _Named:
    """Rounds the tensors of one cell, each under its name with a prefix."""

    def __init__(self, quantize, prefix, shared=()):
        self._quantize, self._prefix, self._shared = quantize, prefix, shared
        self.fixed, self.within, self.in_the_file = quantize.fixed, quantize.within, quantize.in_the_file
        self.form_of, self.is_float, self.unrounded = quantize.form_of, quantize.is_float, quantize.unrounded

    def __call__(self, x, what, **settings):
        return self._quantize(x, what if what in self._shared else self._prefix + what, **settings)

    def divisor(self, x, what):
        return self._quantize.divisor(x, self._prefix + what)


def _rounded_outputs(layer, zeroed, call, cells, inputs, mask=None, **kwargs):
    """Runs a recurrent layer and rounds its outputs to the ranges of its states once more.

    Under a mask a step's output is chosen between two states, and the file's operation for that has one scale for all three tensors. Without a range of its
    own, its output would take that of whatever stands behind the layer.
    """
    import tensorflow as tf

    outputs = call(inputs, mask=mask, **kwargs)
    several = isinstance(outputs, (list, tuple))
    first = outputs[0] if several else outputs
    if zeroed and mask is not None:
        # Done here as tf_keras, where it unrolls a layer that goes backwards, takes the mask forwards.
        mask = mask[0] if isinstance(mask, (list, tuple)) else mask
        mask = mask[:, ::-1] if layer.go_backwards else mask
        first = tf.where(mask[..., None] if layer.return_sequences else mask[:, -1:], first, tf.zeros_like(first))
    first = _rounded_state(*cells[-1], first)
    if not several:
        return first
    states = [(cell, within, what) for cell, within in cells for what in _STATES[type(cell).__name__]]
    flat = [_rounded_state(cell, within, x, what) for (cell, within, what), x in zip(states, tf.nest.flatten(outputs[1:]), strict=True)]
    return [first, *tf.nest.pack_sequence_as(list(outputs[1:]), flat)]


def _rounded_state(cell, quantize, x, what="state"):
    name = name_of(cell.activation) if type(cell).__name__ == "SimpleRNNCell" else ""
    return quantize.fixed(x, name) if name in FIXED_RANGES else quantize(x, what)


@contextlib.contextmanager
def _attribute(owner, name, value):
    own, missing = vars(owner), object()
    before = own.get(name, missing)
    own[name] = value
    try:
        yield
    finally:
        if before is missing:
            del own[name]
        else:
            own[name] = before


def _not_converted(step):
    import tensorflow as tf

    # There is no Python control flow of tensors to convert, and the search for it takes most of the time of tracing.
    return tf.autograph.experimental.do_not_convert(lambda *args, **kwargs: step(*args, **kwargs))


def lstm_step(cell, quantize, inputs, states, training=None):
    """One step of an LSTM cell: its gates from one integer matrix product of the inputs and one of the state."""

    carry = states[1]
    inputs, state = _dropped(cell, inputs, states[0], training, 4)
    gates = quantize(_from_inputs(cell, quantize, inputs, cell.bias) + _from_state(cell, quantize, state), "gates")
    input_gate, forget_gate, candidate, output_gate = _split(gates, 4)
    input_gate, forget_gate, output_gate = (
        _activated(cell.recurrent_activation, x, quantize, "gate") for x in (input_gate, forget_gate, output_gate)
    )
    written = quantize(input_gate * _activated(cell.activation, candidate, quantize, "candidate"), "written")
    carry = quantize(quantize(forget_gate * carry, "kept") + written, "carry")
    state = quantize(output_gate * _activated(cell.activation, carry, quantize, "activated_carry"), "state")
    return state, [state, carry]


def gru_step(cell, quantize, inputs, states, training=None):
    """One step of a GRU cell, its reset gate before or after the matrix product."""
    import tensorflow as tf

    nested = tf.nest.is_nested(states)
    before = states[0] if nested else states
    inputs, state = _dropped(cell, inputs, before, training, 3)
    input_bias, recurrent_bias = (tf.unstack(cell.bias) if cell.reset_after else (cell.bias, None)) if cell.use_bias else (None, None)
    update, reset, candidate = _split(_from_inputs(cell, quantize, inputs, input_bias), 3)
    if cell.reset_after:
        products = _split(_from_state(cell, quantize, state, recurrent_bias), 3)
    else:
        products = _split(quantize(tf.matmul(state, cell.recurrent_kernel[:, : 2 * cell.units]), "product"), 2)
    update = _activated(cell.recurrent_activation, quantize(update + products[0], "update"), quantize, "gate")
    reset = _activated(cell.recurrent_activation, quantize(reset + products[1], "reset"), quantize, "gate")
    if cell.reset_after:
        remembered = quantize(reset * products[2], "remembered")
    else:
        left = quantize(reset * state, "left")
        remembered = quantize(tf.matmul(left, cell.recurrent_kernel[:, 2 * cell.units :]), "remembered")
    candidate = _activated(cell.activation, quantize(candidate + remembered, "candidate"), quantize, "activated")
    kept = quantize(update * before, "kept")
    written = quantize(quantize(1.0 - update, "complement") * candidate, "written")
    state = quantize(kept + written, "state")
    return state, [state] if nested else state


def simple_step(cell, quantize, inputs, states, training=None):
    """One step of a SimpleRNN cell."""
    import tensorflow as tf

    nested = tf.nest.is_nested(states)
    inputs, state = _dropped(cell, inputs, states[0] if nested else states, training, 1)
    total = quantize(_from_inputs(cell, quantize, inputs, cell.bias) + _from_state(cell, quantize, state), "total")
    state = _activated(cell.activation, total, quantize, "state")
    return state, [state] if nested else state


# Class name of a cell -> function of (cell, quantize, inputs, states, training), which returns the output and the new states.
STEPS = {"LSTMCell": lstm_step, "GRUCell": gru_step, "SimpleRNNCell": simple_step}

# What the states of each are called.
_STATES = {"LSTMCell": ("state", "carry"), "GRUCell": ("state",), "SimpleRNNCell": ("state",)}


def _dropped(cell, inputs, state, training, count):
    """Applies the cell's dropout; the first of its masks serves all gates, which are one product here (Keras's implementation=2)."""
    masks = cell.get_dropout_mask_for_cell(inputs, training, count=count)
    recurrent_masks = cell.get_recurrent_dropout_mask_for_cell(state, training, count=count)
    first = [found[0] if isinstance(found, (list, tuple)) else found for found in (masks, recurrent_masks)]
    return tuple(x if mask is None else x * mask for x, mask in zip((inputs, state), first, strict=True))


def _split(gates, count):
    """Slices the gates apart. `tf.split` is not used: of the first step, whose state is zero, not all are used, and the converter leaves such a split in float."""
    units = gates.shape[-1] // count
    return [gates[:, i * units : (i + 1) * units] for i in range(count)]


def _from_inputs(cell, quantize, inputs, bias):
    import tensorflow as tf

    product = tf.matmul(inputs, cell.kernel)
    return quantize(product if bias is None else tf.nn.bias_add(product, bias), "input")


def _from_state(cell, quantize, state, bias=None):
    import tensorflow as tf

    product = tf.matmul(state, cell.recurrent_kernel)
    return quantize(product if bias is None else tf.nn.bias_add(product, bias), "product")


def _activated(function, x, quantize, what):
    name = name_of(function)
    if name in FIXED_RANGES:
        return quantize.fixed(function(x), name)
    return x if name == "linear" else quantize(activated(function, x, quantize, what), what)
