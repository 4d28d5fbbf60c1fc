"""One step of each recurrent cell, in the operations that an integer file has for it."""

from tfdistill.bridge.integer.recognize import activated, name_of
from tfdistill.bridge.integer.rounding import FIXED_RANGES


def lstm_step(cell, quantize, inputs, state, states):
    """One step of an LSTM cell: its gates from one integer matrix product of the inputs and one of the state."""
    carry = states[1]
    gates = quantize(_from_inputs(cell, quantize, inputs, cell.bias) + _from_state(cell, quantize, state), "gates")
    input_gate, forget_gate, candidate, output_gate = _split(gates, 4)
    input_gate, forget_gate, output_gate = (
        _activated(cell.recurrent_activation, x, quantize, "gate") for x in (input_gate, forget_gate, output_gate)
    )
    written = quantize(input_gate * _activated(cell.activation, candidate, quantize, "candidate"), "written")
    carry = quantize(quantize(forget_gate * carry, "kept") + written, "carry")
    state = quantize(output_gate * _activated(cell.activation, carry, quantize, "activated_carry"), "state")
    return state, carry


def gru_step(cell, quantize, inputs, state, states):
    """One step of a GRU cell, its reset gate before or after the matrix product."""
    import tensorflow as tf

    before = tf.nest.flatten(states)[0]
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
    return (quantize(kept + written, "state"),)


def simple_step(cell, quantize, inputs, state, states):
    """One step of a SimpleRNN cell."""
    total = quantize(_from_inputs(cell, quantize, inputs, cell.bias) + _from_state(cell, quantize, state), "total")
    return (_activated(cell.activation, total, quantize, "state"),)


# Class name of a cell -> (function, number of gates). The function takes (cell, quantize, inputs and state after dropout, states before it) and returns the
# new states, the first of which is the output.
STEPS = {"LSTMCell": (lstm_step, 4), "GRUCell": (gru_step, 3), "SimpleRNNCell": (simple_step, 1)}

# What the states of each are called.
STATES = {"LSTMCell": ("state", "carry"), "GRUCell": ("state",), "SimpleRNNCell": ("state",)}


def _split(gates, count):
    """Slices the gates apart. `tf.split` is not used: of the first step, whose state is zero, not all are used, and the converter leaves such a split in float.

    `tfdistill.convert.slicing` makes one operation of the slices of each other step.
    """
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
