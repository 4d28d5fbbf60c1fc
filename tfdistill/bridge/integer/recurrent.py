"""Recurrent layers computed step by step, the way an integer file without loops computes them, with one range for each kind of tensor over all steps.

A file has every step written out, and so has an eager call. A graph for training or evaluation has one step in a loop: the numbers are the same, and TensorFlow would
take 0.3 s to trace and optimize each step of a layer before the first batch.

A range of its own for every step would follow the data no better: the tensors of all steps are of the same kind, and a file with one scale for all needs no
operation between two steps that only changes scales.
"""

import contextlib
import functools

from tfdistill.bridge import imports
from tfdistill.bridge.integer.recognize import name_of
from tfdistill.bridge.integer.recurrent_steps import STATES, STEPS
from tfdistill.bridge.integer.rounding import FIXED_RANGES


def recurrent(layer, quantize, args, kwargs):
    """LSTM, GRU, SimpleRNN, RNN of their cells, and Bidirectional of these: every tensor of every step rounded."""
    import tensorflow as tf

    with contextlib.ExitStack() as replaced:
        # States grow from step to step: an average over steps would clip those of the last.
        ranges = replaced.enter_context(quantize.together())
        written_out = quantize.in_the_file or quantize.counts or tf.executing_eagerly()
        for prefix, inner in _directions(layer):
            # Past tf_keras's attribute setter, as the layer's own settings come back at once.
            zeroed = inner.zero_output_for_mask
            for name, value in (("unroll", True), ("_could_use_gpu_kernel", False), ("zero_output_for_mask", False)):
                replaced.enter_context(_attribute(inner, name, value))
            # The file's concatenation has one scale for all that it joins.
            shared = ("state",) if getattr(layer, "merge_mode", None) == "concat" else ()
            found = _cells(inner, prefix)
            cells = [(cell, _Named(quantize, name, shared if cell is found[-1][1] else ())) for name, cell in found]
            steps = [_Step(cell, within) for cell, within in cells]
            for step in steps:
                replaced.enter_context(_attribute(step.cell, "call", _not_converted(step)))
            call = inner.call if written_out or inner.time_major else functools.partial(_in_a_loop, inner, ranges, steps)
            replaced.enter_context(
                _attribute(inner, "call", _not_converted(functools.partial(_rounded_outputs, inner, zeroed, call, cells)))
            )
        return layer(*args, **kwargs)


def is_known(layer):
    """Whether all cells of a recurrent tf_keras layer, or of both directions of a Bidirectional, have a form here."""
    return all(type(cell).__name__ in STEPS for cell in cells_of(layer))


def cells_of(layer):
    """Lists the cells of a recurrent tf_keras layer, of both directions where it is a Bidirectional."""
    return [cell for prefix, inner in _directions(layer) for _, cell in _cells(inner, prefix)]


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
        self.positive = ()  # those of the rounder are of what the layer is called on

    def __getattr__(self, name):
        return getattr(self._quantize, name)

    def __call__(self, x, what, **settings):
        return self._quantize(x, what if what in self._shared else self._prefix + what, **settings)

    def divisor(self, x, what):
        return self._quantize.divisor(x, self._prefix + what)


class _Step:
    """Computes a step of one cell: `(inputs, states, training=None)` to the output and the new states."""

    def __init__(self, cell, quantize):
        self.cell, self._quantize = cell, quantize
        self._compute, self._gates = STEPS[type(cell).__name__]
        self._masks = None

    def draw_masks(self, of, training):
        """Draws the masks of the cell's dropout, which are the same in all steps.

        Args:
            of: Tensor of as many samples.
            training: Python bool.
        """
        import tensorflow as tf

        self._masks = [None, None]
        if not self.cell.dropout and not self.cell.recurrent_dropout:
            return
        self.cell.reset_dropout_mask()
        self.cell.reset_recurrent_dropout_mask()
        batch = tf.shape(of)[0]
        kernels = self.cell.kernel, self.cell.recurrent_kernel
        inputs, state = (tf.ones((batch, kernel.shape[0]), kernel.dtype) for kernel in kernels)
        masks = self.cell.get_dropout_mask_for_cell(inputs, training, count=self._gates)
        recurrent_masks = self.cell.get_recurrent_dropout_mask_for_cell(state, training, count=self._gates)
        # The first serves all gates, which are one product here (Keras's implementation=2).
        self._masks = [found[0] if isinstance(found, (list, tuple)) else found for found in (masks, recurrent_masks)]

    def __call__(self, inputs, states, training=None):
        import tensorflow as tf

        if self._masks is None:
            self.draw_masks(inputs, training)
        nested = tf.nest.is_nested(states)
        before = states[0] if nested else states
        pair = (x if mask is None else x * mask for x, mask in zip((inputs, before), self._masks, strict=True))
        output, *others = self._compute(self.cell, self._quantize, *pair, states)
        return output, [output, *others] if nested else output


def _in_a_loop(layer, ranges, steps, inputs, mask=None, training=None, initial_state=None):
    """Calls a recurrent layer, as tf_keras does, with one step in the graph for all of them.

    Args:
        layer: tf_keras layer with `return_sequences`, `return_state` and `go_backwards`.
        ranges: `SharedRanges` of the call.
        steps: The `_Step` of each of its cells.
        inputs: Tensor (batch, steps, features).
        mask: bool tensor (batch, steps), or a list of it; None if no step is masked.
        training: Python bool.
        initial_state: States before the first step; None for zeros.
    """
    import tensorflow as tf

    inputs, like, _ = layer._process_inputs(inputs, initial_state, None)
    mask = mask[0] if isinstance(mask, (list, tuple)) else mask
    batch, length = tf.shape(inputs)[0], inputs.shape[1]
    series = [tf.transpose(inputs, (1, 0, 2)), *([] if mask is None else [tf.transpose(mask)[..., None]])]
    series = [tf.reverse(x, [0]) for x in series] if layer.go_backwards else series
    arrays = [tf.TensorArray(x.dtype, length, element_shape=x.shape[1:]).unstack(x) for x in series]
    for step in steps:
        step.draw_masks(inputs, training)

    def compute(i, output, states, seen):
        x, *kept = (array.read(i) for array in arrays)
        seen = dict(seen)
        with ranges.step_of_loop(seen):
            found = layer.cell(x, tf.nest.pack_sequence_as(like, states), training=training)
        found = tf.nest.flatten(found)
        if kept:
            found = [tf.where(kept[0], new, old) for new, old in zip(found, (output, *states), strict=True)]
        return found[0], found[1:], seen

    states = tf.nest.flatten(like)
    output = tf.zeros((batch, steps[-1].cell.units), inputs.dtype)
    seen = ranges.read_for_loop(lambda: compute(0, output, states, {})[-1])
    outputs = tf.TensorArray(output.dtype, length, element_shape=output.shape) if layer.return_sequences else ()

    def body(i, outputs, *carried):
        output, states, seen = compute(i, *carried)
        return i + 1, outputs.write(i, output) if layer.return_sequences else (), output, states, seen

    start = tf.constant(0), outputs, output, states, seen
    _, outputs, output, states, seen = tf.while_loop(lambda i, *_: i < length, body, start, maximum_iterations=length)
    ranges.add(seen)
    if layer.return_sequences:
        output = tf.ensure_shape(tf.transpose(outputs.stack(), (1, 0, 2)), (None, length, None))
    return [output, *tf.nest.pack_sequence_as(like, states)] if layer.return_state else output


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
    states = [(cell, within, what) for cell, within in cells for what in STATES[type(cell).__name__]]
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
