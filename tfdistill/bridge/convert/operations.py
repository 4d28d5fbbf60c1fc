"""TensorFlow operations in the graph of a tf_keras model, as operations of `keras.ops` that compute the same."""

import keras

from tfdistill.errors import BridgeError

_ARITHMETIC = {
    "__operators__.add": "add",
    "__operators__.eq": "equal",
    "__operators__.ne": "not_equal",
    "abs": "abs",
    "math.abs": "abs",
    "math.add": "add",
    "math.divide": "true_divide",
    "math.equal": "equal",
    "math.exp": "exp",
    "math.greater": "greater",
    "math.greater_equal": "greater_equal",
    "math.less": "less",
    "math.less_equal": "less_equal",
    "math.log": "log",
    "math.logical_and": "logical_and",
    "math.logical_not": "logical_not",
    "math.logical_or": "logical_or",
    "math.maximum": "maximum",
    "math.minimum": "minimum",
    "math.multiply": "multiply",
    "math.negative": "negative",
    "math.not_equal": "not_equal",
    "math.pow": "power",
    "math.rsqrt": "rsqrt",
    "math.sigmoid": "sigmoid",
    "math.sign": "sign",
    "math.sqrt": "sqrt",
    "math.square": "square",
    "math.subtract": "subtract",
    "math.tanh": "tanh",
    "math.truediv": "true_divide",
    "nn.elu": "elu",
    "nn.relu": "relu",
    "nn.relu6": "relu6",
    "nn.sigmoid": "sigmoid",
    "nn.silu": "silu",
    "nn.softplus": "softplus",
    "nn.swish": "silu",
    "nn.tanh": "tanh",
}
_REDUCTIONS = {f"math.reduce_{name}": name for name in ("max", "mean", "min", "prod", "sum", "any", "all")}
# Operation -> (operation of keras.ops, its arguments as TensorFlow names them -> as Keras does).
_RENAMED = {
    **{name: (other, {"axis": "axis", "keepdims": "keepdims"}) for name, other in _REDUCTIONS.items()},
    "cast": ("cast", {"dtype": "dtype"}),
    "clip_by_value": ("clip", {"clip_value_min": "x_min", "clip_value_max": "x_max"}),
    "concat": ("concatenate", {"axis": "axis"}),
    "expand_dims": ("expand_dims", {"axis": "axis"}),
    "linalg.matmul": ("matmul", {"b": "x2"}),
    "math.softmax": ("softmax", {"axis": "axis"}),
    "nn.gelu": ("gelu", {"approximate": "approximate"}),
    "nn.leaky_relu": ("leaky_relu", {"alpha": "negative_slope"}),
    "nn.softmax": ("softmax", {"axis": "axis"}),
    "repeat": ("repeat", {"repeats": "repeats", "axis": "axis"}),
    "reshape": ("reshape", {"shape": "newshape"}),
    "reverse": ("flip", {"axis": "axis"}),
    "squeeze": ("squeeze", {"axis": "axis"}),
    "stack": ("stack", {"axis": "axis"}),
    "tile": ("tile", {"multiples": "repeats"}),
    "transpose": ("transpose", {"perm": "axes"}),
}
# Names of TensorFlow's arguments by position, behind the first.
_POSITIONS = {
    "cast": ("dtype",),
    "clip_by_value": ("clip_value_min", "clip_value_max"),
    "concat": ("axis",),
    "expand_dims": ("axis",),
    "linalg.matmul": ("b",),
    "repeat": ("repeats", "axis"),
    "reshape": ("shape",),
    "reverse": ("axis",),
    "tile": ("multiples",),
    "transpose": ("perm",),
    **dict.fromkeys(_REDUCTIONS, ("axis", "keepdims")),
}
# Keras 3 names some operands otherwise, and defaults of the two may differ.
_DEFAULTS = {
    "nn.gelu": {"approximate": False},
    "nn.leaky_relu": {"negative_slope": 0.2},
    "nn.softmax": {"axis": -1},
    "math.softmax": {"axis": -1},
}
_DEFAULTS |= {"repeat": {"axis": None}, "stack": {"axis": 0}}


def operation_named(layer, path):
    """Returns a function of `keras.ops` for a layer by which tf_keras holds a TensorFlow operation; None for any other layer.

    Args:
        layer: tf_keras layer.
        path: Where it is, for the error.

    Returns:
        Function that takes Keras tensors where the layer takes its own.

    Raises:
        BridgeError: for an operation that is not known to compute the same in Keras 3.
    """
    kind = type(layer).__name__
    if kind == "SlicingOpLambda":
        return _sliced
    if kind not in ("TFOpLambda", "InstanceMethod", "InstanceProperty", "ClassMethod", "TensorFlowOpLayer"):
        return None
    name = layer.get_config().get("function", "").removeprefix("compat.v1.") if kind == "TFOpLambda" else None
    if name in _ARITHMETIC:
        return _arithmetic(getattr(keras.ops, _ARITHMETIC[name]))
    if name in _RENAMED:
        return _renamed(name)
    raise BridgeError(
        f"The layer '{path}' is the TensorFlow operation {name or kind}, for which no operation of Keras 3 is known that computes the same.",
        "layers of Keras, or TensorFlow's arithmetic, reductions and changes of shape",
        "give the Keras 3 model that it was made from: to_keras(model, like=keras_model); or adopt it as it is: tfdistill.adopt(model)",
    )


def _arithmetic(function):
    def call(x, *others, name=None, **named):
        return function(x, *others, *named.values())

    return call


def _renamed(operation):
    target, names = _RENAMED[operation]

    def call(x, *others, name=None, **named):
        given = {**dict(zip(_POSITIONS.get(operation, ()), others, strict=False)), **named}
        arguments = {names[key]: _plain(value) for key, value in given.items() if key in names and value is not None}
        unknown = {key: value for key, value in given.items() if key not in names and value not in (None, False)}
        if unknown:
            raise ValueError(f"{operation} has the arguments {unknown}, which keras.ops.{target} lacks")
        return getattr(keras.ops, target)(x, **{**_DEFAULTS.get(operation, {}), **arguments})

    return call


def _plain(value):
    name = getattr(value, "name", None)
    return name if isinstance(name, str) and hasattr(value, "as_numpy_dtype") else value


def _sliced(x, slice_spec, **_):
    parts = slice_spec if isinstance(slice_spec, (list, tuple)) else [slice_spec]
    return x[tuple(slice(p["start"], p["stop"], p["step"]) if isinstance(p, dict) else p for p in parts)]
