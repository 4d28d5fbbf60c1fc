"""Functions that are no layer or activation of Keras, computed operation by operation the way an integer file computes them.

The function is traced; what the trace holds is computed again with every result rounded to a range of its own. An operation that TFLite has for floats only is
written in others where that is exact: a square as a product, a negation as a product by -1.
"""

from tfdistill.bridge.integer import activations, tensorflow_ops
from tfdistill.bridge.integer.hiding import is_hiding, without_large_numbers
from tfdistill.bridge.integer.rounding import round_weights
from tfdistill.bridge.integer.trace import Trace


def without_integers(function, specs, positive=()):
    """Lists the operations of a function that TFLite computes in float only.

    Args:
        function: Function of tensors.
        specs: List of a `tf.TensorSpec` for each.
        positive: Positions of the tensors that are known not to be negative.

    Returns:
        Sorted list of texts; empty if there are none, or if the function cannot be traced.
    """
    trace = Trace.of(function, specs, positive)
    return sorted({text for op in trace.needed if (text := trace.float_only(op))}) if trace else []


def gives_positive(function, specs, positive):
    """Returns whether nothing that a function returns can be negative, as far as is known.

    Args:
        function: Function of tensors.
        specs: List of a `tf.TensorSpec` for each.
        positive: Positions of the tensors that are known not to be negative.
    """
    trace = Trace.of(function, specs, positive)
    return trace is not None and all(map(trace.is_positive, trace.outputs))


def hides_scores(function, specs):
    """Returns whether a function computes with constants that hide the scores which they are added to, such as -1e9.

    Args:
        function: Function of tensors.
        specs: List of a `tf.TensorSpec` for each.
    """
    trace = Trace.of(function, specs)
    return trace is not None and trace.is_known() and any(map(is_hiding, trace.constants()))


def only_moves(function, specs):
    """Whether all that a function does is to move the elements of its inputs about, so that its outputs have the ranges of these.

    Args:
        function: Function of tensors.
        specs: List of a `tf.TensorSpec` for each.
    """
    trace = Trace.of(function, specs)
    return trace is not None and not trace.computing() and all(trace.is_moving(tensor) for tensor in trace.outputs)


def repeats_alone(function, specs):
    """Whether a function repeats elements by a sum or product with a constant that changes none of them. Keras adds some such operands as a bias, of which the
    converter makes a BROADCAST_TO that leaves no place for a range.

    Args:
        function: Function of tensors.
        specs: List of a `tf.TensorSpec` for each.
    """
    trace = Trace.of(function, specs)
    return trace is not None and any(tensorflow_ops.is_neutral(op) and not tensorflow_ops.passes(op) for op in trace.computing())


def needs_rewriting(function, specs, in_training=None, positive=()):
    """Returns whether a function has to be computed here: its operations are all known, and one of them has inner results or no integers as it is.

    Args:
        function: Function of tensors.
        specs: List of a `tf.TensorSpec` for each.
        in_training: The function as it is in training, if it differs. It has to have the same operations: the ranges of all results are trained.
        positive: Positions of the tensors that are known not to be negative.
    """
    trace = Trace.of(function, specs, positive)
    if trace is None or not trace.is_known():
        return False
    computing = trace.computing()
    # The converter fuses a ReLU alone into the operation before it.
    written = {op.type for op in trace.needed if trace.moves(op)} & set(tensorflow_ops.REWRITTEN)
    rewritten = len(computing) > 1 or not written <= {"Relu", "Relu6"}
    if not rewritten or in_training is None:
        return rewritten
    trained = Trace.of(in_training, specs, positive)
    return trained is not None and trained.is_known() and {op.name for op in computing} <= {op.name for op in trained.computing()}


def compute(function, inputs, quantize, what):
    """Computes a function of tensors operation by operation.

    Args:
        function: Function of tensors that returns one tensor or several.
        inputs: List of tensors; those of floats are rounded already.
        quantize: The `ActivationRounder`.
        what: Beginning of the names of the ranges.

    Returns:
        What `function` returns; the results of its last operations are not rounded, but for those that are in `quantize.ready`.
    """
    import tensorflow as tf

    # Of any batch, whatever this one is: the names of the operations, and so those of the ranges, are the same in training and in the file.
    specs = [tf.TensorSpec([None, *x.shape[1:]] if x.shape.rank else x.shape, x.dtype) for x in inputs]
    trace = Trace.of(function, specs, quantize.positive)
    if trace is None or not trace.is_known():
        return function(*inputs)
    values = _Values(trace, quantize, what)
    values.start(inputs)
    for op in trace.needed:
        values.compute(op)
    outputs = [_sized(values.unrounded(tensor), tensor.shape) for tensor in trace.outputs]
    quantize.ready.extend(value for value, tensor in zip(outputs, trace.outputs, strict=True) if values.is_ready(tensor))
    return tf.nest.pack_sequence_as(trace.structure, outputs)


def _sized(value, shape):
    """Returns a tensor with the sizes that its function has given it beyond what its last operation knows, as a product of matrices does."""
    import tensorflow as tf

    if tf.is_symbolic_tensor(value):
        value.set_shape(shape)
    return value


class _Values:
    """The tensors computed so far, those of floats rounded at their first use: an activation that follows a sum is fused into it."""

    def __init__(self, trace, quantize, what):
        self.trace, self.quantize, self.what = trace, quantize, what
        self._rounded, self._raw = {}, {}

    def start(self, inputs):
        for tensor, value in zip(self.trace.arguments, inputs, strict=True):
            self._rounded[id(tensor)] = value
        for tensor, value in zip(self.trace.captures, self.trace.concrete.captured_inputs, strict=True):
            self._rounded[id(tensor)] = value

    def name(self, op):
        """Returns the name of the range of an operation's result."""
        return f"{self.what}_{op.name.replace('/', '_')}"

    def rounded(self, tensor, **settings):
        """Returns the value of a tensor of the trace, rounded if it depends on the arguments."""
        key = id(tensor)
        if key not in self._rounded or settings:
            value = self.unrounded(tensor)
            if tensor.dtype.is_floating and key in self._raw:
                value = self.quantize(value, self.name(tensor.op), scores=self.trace.are_scores(tensor), **settings)
            self._rounded[key] = value
        return self._rounded[key]

    def unrounded(self, tensor):
        """Returns the value of a tensor of the trace as its operation left it."""
        key = id(tensor)
        return self._raw[key] if key in self._raw else self._rounded[key]

    def is_ready(self, tensor):
        """Whether a tensor of floats that depends on the arguments has a range already, so that another one would be a second rounding."""
        return tensor.dtype.is_floating and id(tensor) not in self._raw and self.trace.is_moving(tensor)

    def is_unrounded(self, tensor):
        """Whether the value of a tensor can still be changed before it is rounded."""
        return id(tensor) in self._raw and id(tensor) not in self._rounded and self.trace.is_used_once(tensor)

    def compute(self, op):
        """Computes one operation of the trace."""
        if all(id(tensor) in self._rounded for tensor in op.outputs):
            return  # an argument
        if not self.trace.moves(op):
            results, ready = tensorflow_ops.run(op, [self.unrounded(tensor) for tensor in op.inputs]), True
            if op.type == "Const" and results.dtype.is_floating and (self.quantize.scores or self.trace.are_scores(op.outputs[0])):
                results = without_large_numbers(results)
        elif op.type in tensorflow_ops.REWRITTEN:
            results = tensorflow_ops.REWRITTEN[op.type](op, self)
            ready = op.type in tensorflow_ops.READY or tensorflow_ops.passes(op)
        else:
            results = tensorflow_ops.run(op, [self._operand(op, tensor) for tensor in op.inputs])
            ready = tensorflow_ops.passes(op)
        flat = results if isinstance(results, (list, tuple)) else [results]
        for tensor, value in zip(op.outputs, flat, strict=False):
            (self._rounded if ready or not tensor.dtype.is_floating else self._raw)[id(tensor)] = value

    def _operand(self, op, tensor):
        value = self.rounded(tensor)
        matrix = (
            op.type in tensorflow_ops.PRODUCTS
            and tensor.dtype.is_floating
            and not self.trace.is_moving(tensor)
            and (tensor.shape.rank or 0) > 1
        )
        return round_weights(value, 8) if matrix else value

    def form(self, op, name):
        """Computes an operation by the form of an activation."""
        return activations.ACTIVATIONS[name](self.rounded(op.inputs[0]), self.quantize, self.name(op))
