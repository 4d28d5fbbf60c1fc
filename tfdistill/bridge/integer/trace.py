"""A function as TensorFlow traces it: the operations that it is made of, and what is known of their results."""

from tfdistill.bridge.integer import tensorflow_ops
from tfdistill.graph.operations import needed_operations


class Trace:
    """The operations of a traced function that its outputs need, in the order in which they can be computed."""

    def __init__(self, concrete, positive):
        import tensorflow as tf

        self.concrete, self.structure = concrete, concrete.structured_outputs
        self.outputs = tf.nest.flatten(concrete.structured_outputs)
        self.needed = needed_operations(concrete.graph, self.outputs)
        self.readers = {}  # id of tensor -> the operations that read it, None for what the function returns
        for tensor, reader in [*((tensor, op) for op in self.needed for tensor in op.inputs), *((x, None) for x in self.outputs)]:
            self.readers.setdefault(id(tensor), []).append(reader)
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
        return [op for op in self.needed if self.moves(op) and not tensorflow_ops.passes(op)]

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
        return len(self.readers[id(tensor)]) == 1

    def are_scores(self, tensor):
        """Whether softmaxes inside the function alone read a tensor of floats, at once or after it was added to or selected from."""
        return tensor.dtype.is_floating and all(
            op is not None
            and (
                op.type == "Softmax"
                or (
                    (op.type in tensorflow_ops.HANDING_ON or tensorflow_ops.passes(op))
                    and all(self.are_scores(x) for x in op.outputs if id(x) in self.readers)
                )
            )
            for op in self.readers[id(tensor)]
        )

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
