"""Functions that are no layer or activation of Keras, computed operation by operation the way an integer file computes them.

The function is traced; what the trace holds is computed again with every result rounded to a range of its own. An operation that TFLite has for floats only is
written in others where that is exact: a square as a product, a negation as a product by -1.
"""

from tfdistill.bridge.integer import activations, tensorflow_ops
from tfdistill.bridge.integer.hiding import is_hiding, without_large_numbers
from tfdistill.bridge.integer.rounding import round_weights


def without_integers(function, specs, positive=()):
    """Lists the operations of a function that TFLite computes in float only.

    Args:
        function: Function of tensors.
        specs: List of a `tf.TensorSpec` for each.
        positive: Positions of the tensors that are known not to be negative.

    Returns:
        Sorted list of texts; empty if there are none, or if the function cannot be traced.
    """
    trace = _Trace.of(function, specs, positive)
    return sorted({text for op in trace.needed if (text := trace.float_only(op))}) if trace else []


def gives_positive(function, specs, positive):
    """Returns whether nothing that a function returns can be negative, as far as is known.

    Args:
        function: Function of tensors.
        specs: List of a `tf.TensorSpec` for each.
        positive: Positions of the tensors that are known not to be negative.
    """
    trace = _Trace.of(function, specs, positive)
    return trace is not None and all(map(trace.is_positive, trace.outputs))


def hides_scores(function, specs):
    """Returns whether a function computes with constants that hide the scores which they are added to, such as -1e9.

    Args:
        function: Function of tensors.
        specs: List of a `tf.TensorSpec` for each.
    """
    trace = _Trace.of(function, specs)
    return trace is not None and trace.is_known() and any(map(is_hiding, trace.constants()))


def only_moves(function, specs):
    """Whether all that a function does is to move the elements of its inputs about, so that its outputs have the ranges of these.

    Args:
        function: Function of tensors.
        specs: List of a `tf.TensorSpec` for each.
    """
    trace = _Trace.of(function, specs)
    return trace is not None and not trace.computing() and all(trace.is_moving(tensor) for tensor in trace.outputs)


def needs_rewriting(function, specs, in_training=None, positive=()):
    """Returns whether a function has to be computed here: its operations are all known, and one of them has inner results or no integers as it is.

    Args:
        function: Function of tensors.
        specs: List of a `tf.TensorSpec` for each.
        in_training: The function as it is in training, if it differs. It has to have the same operations: the ranges of all results are trained.
        positive: Positions of the tensors that are known not to be negative.
    """
    trace = _Trace.of(function, specs, positive)
    if trace is None or not trace.is_known():
        return False
    computing = trace.computing()
    # The converter fuses a ReLU alone into the operation before it.
    rewritten = len(computing) > 1 or any(op.type in tensorflow_ops.REWRITTEN and op.type not in ("Relu", "Relu6") for op in computing)
    if not rewritten or in_training is None:
        return rewritten
    trained = _Trace.of(in_training, specs, positive)
    return trained is not None and trained.is_known() and {op.name for op in computing} <= {op.name for op in trained.computing()}


def compute(function, inputs, quantize, what):
    """Computes a function of tensors operation by operation.

    Args:
        function: Function of tensors that returns one tensor or several.
        inputs: List of tensors; those of floats are rounded already.
        quantize: The `ActivationRounder`.
        what: Beginning of the names of the ranges.

    Returns:
        What `function` returns; the results of its last operations are not rounded.
    """
    import tensorflow as tf

    # Of any batch, whatever this one is: the names of the operations, and so those of the ranges, are the same in training and in the file.
    specs = [tf.TensorSpec([None, *x.shape[1:]] if x.shape.rank else x.shape, x.dtype) for x in inputs]
    trace = _Trace.of(function, specs, quantize.positive)
    if trace is None or not trace.is_known():
        return function(*inputs)
    values = _Values(trace, quantize, what)
    values.start(inputs)
    for op in trace.needed:
        values.compute(op)
    outputs = [_sized(values.unrounded(tensor), tensor.shape) for tensor in trace.outputs]
    return tf.nest.pack_sequence_as(trace.structure, outputs)


def _sized(value, shape):
    """Returns a tensor with the sizes that its function has given it beyond what its last operation knows, as a product of matrices does."""
    import tensorflow as tf

    if tf.is_symbolic_tensor(value):
        value.set_shape(shape)
    return value


class _Trace:
    """The operations of a traced function that its outputs need, in the order in which they can be computed."""

    def __init__(self, concrete, positive):
        import tensorflow as tf

        self.concrete, self.structure = concrete, concrete.structured_outputs
        self.outputs = tf.nest.flatten(concrete.structured_outputs)
        wanted, stack = set(), [tensor.op for tensor in self.outputs]
        while stack:
            op = stack.pop()
            if op not in wanted:
                wanted.add(op)
                stack.extend(tensor.op for tensor in op.inputs)
        self.needed = [op for op in concrete.graph.get_operations() if op in wanted]
        self.readers = {}
        for tensor in [*(tensor for op in self.needed for tensor in op.inputs), *self.outputs]:
            self.readers[id(tensor)] = self.readers.get(id(tensor), 0) + 1
        captured = len(concrete.captured_inputs)
        arguments = concrete.inputs[: len(concrete.inputs) - captured]
        self.arguments, self.captures = arguments, concrete.inputs[len(arguments) :]
        self._moving = {id(tensor) for tensor in arguments}
        for op in self.needed:
            if any(id(tensor) in self._moving for tensor in op.inputs):
                self._moving.update(id(tensor) for tensor in op.outputs)
        self._positive = {id(arguments[position]): True for position in positive}

    @classmethod
    def of(cls, function, specs, positive=()):
        """Traces a function; returns None if that fails, or if it computes by calls of other traced functions, by branches or loops."""
        import tensorflow as tf

        try:
            concrete = tf.function(lambda *tensors: function(*tensors), autograph=False).get_concrete_function(*specs)
        except Exception:  # it needs what the specs do not say; then it is called as it is
            return None
        trace = cls(concrete, positive) if all(isinstance(x, tf.Tensor) for x in tf.nest.flatten(concrete.structured_outputs)) else None
        return trace if trace and not any(op.type in tensorflow_ops.CONTROL for op in concrete.graph.get_operations()) else None

    def moves(self, op):
        """Whether an operation depends on the arguments of the function, and reads or writes floats."""
        moving = any(id(tensor) in self._moving for tensor in op.inputs)
        return moving and any(tensor.dtype.is_floating for tensor in [*op.inputs, *op.outputs])

    def computing(self):
        """Lists the operations whose results have ranges of their own."""
        return [op for op in self.needed if self.moves(op) and op.type not in tensorflow_ops.PASSING]

    def constants(self):
        """Lists the arrays of floats among the operations."""
        import tensorflow as tf

        tensors = [op.outputs[0] for op in self.needed if op.type == "Const" and op.outputs[0].dtype.is_floating]
        return [tf.get_static_value(tensor) for tensor in tensors]

    def is_known(self):
        """Whether all operations can be computed in integers, as far as is known here."""
        return all(op.type in tensorflow_ops.KNOWN and not self.float_only(op) for op in self.needed if self.moves(op))

    def is_moving(self, tensor):
        """Whether a tensor depends on the arguments of the function."""
        return id(tensor) in self._moving

    def is_argument(self, tensor):
        """Whether a tensor is an argument of the function."""
        return any(tensor is argument for argument in self.arguments)

    def is_used_once(self, tensor):
        """Whether one operation reads a tensor, and it is no output."""
        return self.readers[id(tensor)] == 1

    def float_only(self, op):
        """Returns a text about an operation that TFLite computes in float only, None for any other."""
        if not self.moves(op):
            return None
        if op.type in tensorflow_ops.FLOAT_ONLY:
            return op.type.upper()
        if op.type == "Pow" and tensorflow_ops.exponent(op) is None:
            return "POW by anything but 0.5, 1, 2, 3, -0.5 and -1"
        if (
            op.type in ("RealDiv", "Reciprocal", "Inv", "Xdivy", "DivNoNan")
            and self.is_moving(op.inputs[-1])
            and not self.is_positive(op.inputs[-1])
        ):
            return "a division by what may be negative"
        if op.type == "Cast" and op.inputs[0].dtype.is_floating and not op.outputs[0].dtype.is_floating:
            return f"CAST to {op.outputs[0].dtype.name}"
        return None

    def is_positive(self, tensor):
        """Whether a tensor is known not to be negative."""
        if id(tensor) not in self._positive:
            self._positive[id(tensor)] = tensorflow_ops.is_positive(tensor, self.is_positive)
        return self._positive[id(tensor)]


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
            moving = tensor.dtype.is_floating and key in self._raw
            self._rounded[key] = self.quantize(value, self.name(tensor.op), **settings) if moving else value
        return self._rounded[key]

    def unrounded(self, tensor):
        """Returns the value of a tensor of the trace as its operation left it."""
        key = id(tensor)
        return self._raw[key] if key in self._raw else self._rounded[key]

    def is_unrounded(self, tensor):
        """Whether the value of a tensor can still be changed before it is rounded."""
        return id(tensor) in self._raw and id(tensor) not in self._rounded and self.trace.is_used_once(tensor)

    def compute(self, op):
        """Computes one operation of the trace."""
        if all(id(tensor) in self._rounded for tensor in op.outputs):
            return  # an argument
        if not self.trace.moves(op):
            results, ready = tensorflow_ops.run(op, [self.unrounded(tensor) for tensor in op.inputs]), True
            if op.type == "Const" and self.quantize.scores and results.dtype.is_floating:
                results = without_large_numbers(results)
        elif op.type in tensorflow_ops.REWRITTEN:
            results, ready = tensorflow_ops.REWRITTEN[op.type](op, self), op.type in tensorflow_ops.READY
        else:
            results = tensorflow_ops.run(op, [self._operand(op, tensor) for tensor in op.inputs])
            ready = op.type in tensorflow_ops.PASSING
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
