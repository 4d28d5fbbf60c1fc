"""TensorFlow's operations by how TFLite's int8 kernels compute them: as they are, in other operations, or not at all."""

import inspect

from tfdistill.bridge.integer import activations

# The result has the range of the input.
PASSING = {
    *("BatchToSpaceND", "BroadcastTo", "CheckNumerics", "DepthToSpace", "EnsureShape", "ExpandDims", "GatherV2", "Identity"),
    *("IdentityN", "Max", "MaxPool", "Min", "MirrorPad", "Pad", "PreventGradient", "Reshape", "ResizeBilinear", "ResizeNearestNeighbor"),
    *("ReverseV2", "Slice", "Snapshot", "SpaceToBatchND", "SpaceToDepth", "Split", "SplitV", "Squeeze", "StopGradient"),
    *("StridedSlice", "Tile", "TopKV2", "Transpose", "Unpack", "ZerosLike", "OnesLike"),
}
# The result has a range of its own.
_COMPUTING = {
    *("Abs", "Add", "AddV2", "AvgPool", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "BiasAdd", "ConcatV2", "Conv2D"),
    *("DepthwiseConv2dNative", "Einsum", "Exp", "LeakyRelu", "Log", "MatMul", "Maximum", "Mean", "Minimum", "Mul", "Prod"),
    *("Select", "SelectV2", "SquaredDifference", "Sub", "Sum"),
}
# Results that are no floats.
_COMPARING = {"Greater", "GreaterEqual", "Less", "LessEqual", "Equal", "ArgMax", "ArgMin", "Shape", "Rank", "Size"}
# Operations whose second operand can be a matrix of weights.
PRODUCTS = {"BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Conv2D", "DepthwiseConv2dNative", "Einsum", "MatMul"}
# What scores go through on their way to a softmax: sums and selections, and what moves them.
HANDING_ON = {"Add", "AddV2", "Sub", "Select", "SelectV2", "ConcatV2", "Cast"}
FLOAT_ONLY = {
    *("Acos", "Acosh", "Asin", "Asinh", "Atan", "Atan2", "Atanh", "Ceil", "Cos", "Cosh", "Cumprod", "Cumsum", "Digamma", "Erf"),
    *("Erfc", "Erfinv", "Floor", "FloorDiv", "FloorMod", "Lgamma", "Mod", "Ndtri", "RFFT", "Rint", "Round", "Sign", "Sin"),
    *("Sinh", "Tan", "TruncateDiv", "TruncateMod"),
}
CONTROL = {
    *("If", "StatelessIf", "While", "StatelessWhile", "PartitionedCall", "StatefulPartitionedCall", "Case", "StatelessCase"),
    *("AssignVariableOp",),
}


# Operations that change nothing beside a constant: its value, and the position of the operand that may be the constant; None for either.
_NEUTRAL = {"Add": (0, None), "AddV2": (0, None), "Sub": (0, 1), "Mul": (1, None), "RealDiv": (1, 1)}
# What is padded with numbers beyond this one hides behind whatever is there, as infinity does: no 256 steps hold it beside others.
_ENDLESS = 1e6


def passes(op):
    """Whether the result of an operation has the range of what it reads: it moves elements, or pads with what hides behind any of them, or changes nothing."""
    if op.type == "PadV2":
        return _is_endless(op.inputs[2])
    if is_neutral(op):
        # The converter leaves it out, and with it the place for a range of its own; but not where it repeats elements.
        return any(x.shape.as_list() == op.outputs[0].shape.as_list() for x in op.inputs if _constant(x) is None)
    return op.type in PASSING


def is_neutral(op):
    """Whether one operand is a constant that changes no number of the other one: a sum with 0, or a product by 1."""
    if op.type not in _NEUTRAL or not op.outputs[0].dtype.is_floating:
        return False
    number, place = _NEUTRAL[op.type]
    values = map(_constant, op.inputs if place is None else op.inputs[place:])
    return any(value is not None and value.size and (value == number).all() for value in values)


def _constant(tensor):
    import tensorflow as tf

    return tf.get_static_value(tensor)


def _is_endless(tensor):
    value = _constant(tensor)
    return value is not None and bool(abs(value) > _ENDLESS)


def run(op, inputs):
    """Runs an operation of a graph on other tensors.

    Args:
        op: `tf.Operation`.
        inputs: List of tensors, one for each of its inputs.

    Returns:
        Its output, or the list of its outputs.
    """
    import tensorflow as tf

    definition, attributes, arguments, taken = op.op_def, {}, {}, 0
    inferred = set()
    for argument in definition.input_arg:
        inferred |= {argument.type_attr, argument.number_attr, argument.type_list_attr}
        if argument.number_attr or argument.type_list_attr:
            given = op.get_attr(argument.number_attr or argument.type_list_attr)
            count = given if argument.number_attr else len(given)
            arguments[argument.name], taken = list(inputs[taken : taken + count]), taken + count
        else:
            arguments[argument.name], taken = inputs[taken], taken + 1
    for attribute in definition.attr:
        if attribute.name not in inferred:
            value = op.get_attr(attribute.name)
            attributes[attribute.name] = value.decode() if isinstance(value, bytes) else value
    if op.type == "Const":
        return tf.constant(tf.make_ndarray(op.get_attr("value")))
    function = getattr(tf.raw_ops, op.type)
    given = {**arguments, **attributes}
    taken = [name for name in inspect.signature(function).parameters if name != "name"]
    # TensorFlow's Python functions call some arguments otherwise: always "axis".
    outputs = function(**{name if name in taken else "axis": value for name, value in given.items()})
    return list(outputs) if isinstance(outputs, (list, tuple)) else outputs


def exponent(op):
    """Returns the exponent of a `Pow` that has other operations for it: 0.5, 1, 2, 3, -0.5 or -1; None for any other."""
    import tensorflow as tf

    value = tf.get_static_value(op.inputs[1])
    if value is None or value.size != 1:
        return None
    found = float(value.reshape(-1)[0])
    return found if found in (0.5, 1.0, 2.0, 3.0, -0.5, -1.0) else None


def is_positive(tensor, positive):
    """Whether an operation's result cannot be negative.

    Args:
        tensor: A tensor of a graph.
        positive: The same function of one argument, for the operation's inputs.
    """
    import tensorflow as tf

    op = tensor.op
    if op.type in ("Abs", "Exp", "Relu", "Relu6", "Sigmoid", "Softmax", "Softplus", "Sqrt", "Square", "SquaredDifference", "Rsqrt"):
        return True
    if op.type in ("Mean", "Sum", "Max", "Min", "Prod", "Cast", "Log1p", "Reciprocal") or op.type in PASSING:
        return positive(op.inputs[0])
    if op.type == "Mul" and op.inputs[0] is op.inputs[1]:
        return True
    if op.type == "Pow":
        return exponent(op) == 2.0 or positive(op.inputs[0])
    if op.type in ("Add", "AddV2", "Mul", "RealDiv", "Minimum", "BiasAdd"):
        return all(positive(x) for x in op.inputs[:2])
    if op.type == "Maximum":
        return any(positive(x) for x in op.inputs)
    value = tf.get_static_value(tensor)
    return value is not None and bool((value >= 0).all())


def _relu(op, values):
    import tensorflow as tf

    source, most = op.inputs[0], {"Relu": None, "Relu6": 6.0}[op.type]
    if values.is_unrounded(source) and source.op.type in ("Add", "AddV2", "Sub", "Mul", "BiasAdd", "MatMul"):
        x = values.unrounded(source)
        return values.quantize(tf.nn.relu(x) if most is None else tf.nn.relu6(x), values.name(op))
    return values.quantize(activations.ONE * values.rounded(source), values.name(op), low=0.0, high=most)


def _power(op, values):
    import tensorflow as tf

    found = exponent(op)
    if found in (-0.5, -1.0):
        divisor = _divisor(op.inputs[0], values)
        return tf.math.rsqrt(divisor) if found == -0.5 else 1.0 / divisor
    x = values.rounded(op.inputs[0])
    if found == 3.0:
        return values.quantize(x * x, f"{values.name(op)}_square") * x
    return _root(op, values) if found == 0.5 else x * x if found == 2.0 else tf.identity(x)


def _above_zero(tensor, values):
    """Returns the rounded value of what is not negative, at least one of its steps: an inverse of less would take all of its range. What another layer has rounded is
    rounded once more, as its steps are not known here."""
    if not values.is_ready(tensor):
        return values.rounded(tensor, positive=True)
    return values.quantize(activations.ONE * values.rounded(tensor), f"{values.name(tensor.op)}_operand", positive=True)


def _root(op, values):
    x = _above_zero(op.inputs[0], values)
    return activations.root(x, values.quantize, values.name(op), values.quantize.divisor)


def _divisor(tensor, values):
    """Returns the rounded value of what is divided by, at least one of its steps: TFLite refuses to divide by zero."""
    x = values.unrounded(tensor)
    # What comes from another layer has been rounded: the converter needs an operation in between to round it to another range.
    return values.quantize.divisor(activations.ONE * x if values.trace.is_argument(tensor) else x, f"{values.name(tensor.op)}_divisor")


def _divide(op, values):
    import tensorflow as tf

    x, y = op.inputs
    if not values.trace.is_moving(y):
        return values.rounded(x) * (1.0 / values.rounded(y))
    divided = values.rounded(x) / _divisor(y, values)
    return tf.where(values.unrounded(y) > 0.0, divided, tf.zeros_like(divided)) if op.type == "DivNoNan" else divided


def _cast(op, values):
    import tensorflow as tf

    x, dtype = values.rounded(op.inputs[0]), op.outputs[0].dtype
    if op.inputs[0].dtype.is_integer:
        return tf.cast(values.quantize.integers(x, values.name(op)), dtype) if dtype.is_floating else tf.cast(x, dtype)
    if op.inputs[0].dtype != tf.bool or not dtype.is_floating:
        return tf.cast(x, dtype)
    # TFLite makes floats of booleans, and selects among integers.
    ones = values.quantize.within(tf.ones(x.shape, dtype) if x.shape.is_fully_defined() else tf.ones_like(x, dtype), 0.0, 1.0)
    return tf.where(x, ones, tf.zeros_like(ones))


def _pad(op, values):
    """Pads with a number: the last of the steps in place of infinity, which the converter finds for any number beyond them; or brings both to one range."""
    import tensorflow as tf

    x, paddings, value = op.inputs
    paddings = values.unrounded(paddings)
    if not _is_endless(value):
        with values.quantize.together():
            x, value = (values.quantize(activations.ONE * values.rounded(one), f"{values.name(op)}_operands") for one in (x, value))
        return activations.ONE * tf.pad(x, paddings, constant_values=value)
    x, below = values.rounded(x), float(tf.get_static_value(value)) < 0.0
    if values.quantize.in_the_file:
        return tf.pad(x, paddings, constant_values=-_ENDLESS if below else _ENDLESS)
    return tf.pad(x, paddings, constant_values=tf.stop_gradient(tf.reduce_min(x) if below else tf.reduce_max(x)))


def _fixed(name):
    def compute(op, values):
        import tensorflow as tf

        return values.quantize.fixed(getattr(tf.nn, name)(values.rounded(op.inputs[0])), name)

    return compute


def _stack(op, values):
    """Stacks tensors that are brought to one range: TFLite moves their integers as they are."""
    import tensorflow as tf

    with values.quantize.together():
        found = [values.quantize(activations.ONE * values.rounded(x), f"{values.name(op)}_operands") for x in op.inputs]
    return tf.stack(found, op.get_attr("axis"))


def _log1p(op, values):
    import tensorflow as tf

    return tf.math.log(values.quantize(1.0 + values.rounded(op.inputs[0]), f"{values.name(op)}_sum", positive=True))


def _expm1(op, values):
    import tensorflow as tf

    return values.quantize(tf.exp(values.rounded(op.inputs[0])), f"{values.name(op)}_exponential") - 1.0


def _rsqrt(op, values):
    import tensorflow as tf

    return tf.math.rsqrt(_above_zero(op.inputs[0], values))


# How an operation is computed in others: function of (operation, values of the trace).
REWRITTEN = {
    "Cast": _cast,
    "DivNoNan": _divide,
    "Elu": lambda op, values: values.form(op, "elu"),
    "Expm1": _expm1,
    "Inv": lambda op, values: 1.0 / _divisor(op.inputs[0], values),
    "Log1p": _log1p,
    "LogSoftmax": lambda op, values: values.form(op, "log_softmax"),
    "Pack": _stack,
    "PadV2": _pad,
    "Neg": lambda op, values: -1.0 * values.rounded(op.inputs[0]),
    "Pow": _power,
    "RealDiv": _divide,
    "Reciprocal": lambda op, values: 1.0 / _divisor(op.inputs[0], values),
    "Relu": _relu,
    "Relu6": _relu,
    "Rsqrt": _rsqrt,
    "Selu": lambda op, values: values.form(op, "selu"),
    "Sigmoid": _fixed("sigmoid"),
    "Softmax": _fixed("softmax"),
    "Softplus": lambda op, values: values.form(op, "softplus"),
    "Softsign": lambda op, values: values.form(op, "softsign"),
    "Sqrt": _root,
    "Square": lambda op, values: values.rounded(op.inputs[0]) * values.rounded(op.inputs[0]),
    "Tanh": _fixed("tanh"),
}
# Those of them whose results are rounded already.
READY = {"Cast", "Relu", "Relu6", "Sigmoid", "Softmax", "Tanh"}
KNOWN = PASSING | _COMPUTING | _COMPARING | set(REWRITTEN)
