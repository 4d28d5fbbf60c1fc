"""Makes .tflite files that keep a processor's multipliers or its memory busy, without TensorFlow: what other files can be held against."""

import numpy as np

from tfdistill.errors import ConfigurationError
from tfdistill.runtime.schema import schema

# Types whose multipliers can be tried.
TYPES = ("float32", "int8")
# A convolution of 3 x 3 over 24 x 24 places from 128 to 128 channels, whose data fit the second-level cache.
_SIDE, _CHANNELS = 24, 128
MULTIPLY_MACS = _SIDE * _SIDE * 9 * _CHANNELS * _CHANNELS


def multiply_file(kind):
    """Returns a file of one large convolution of `MULTIPLY_MACS` multiply-accumulates.

    Args:
        kind: One of `TYPES`.

    Returns:
        The file as bytes.

    Raises:
        ConfigurationError: for another type.
    """
    if kind not in TYPES:
        raise ConfigurationError(f"No file of type '{kind}' is made.", f"one of {', '.join(TYPES)}")
    rng, places = np.random.default_rng(0), [1, _SIDE, _SIDE, _CHANNELS]
    weights = rng.normal(size=(_CHANNELS, 3, 3, _CHANNELS)).astype(np.float32)
    integer = kind == "int8"
    if integer:
        weights, bias = np.clip(np.rint(weights * 40), -127, 127).astype(np.int8), np.zeros(_CHANNELS, np.int32)
    else:
        bias = np.zeros(_CHANNELS, np.float32)
    made = _File()
    x = made.tensor("x", places, kind, scale=0.05 if integer else None)
    kernel = made.tensor("kernel", weights.shape, kind, weights, [0.01] * _CHANNELS if integer else None)
    bias = made.tensor("bias", bias.shape, "int32" if integer else kind, bias, [0.0005] * _CHANNELS if integer else None)
    y = made.tensor("y", places, kind, scale=0.2 if integer else None)
    options = made.classes.Conv2DOptionsT()
    options.padding, options.strideH, options.strideW = made.classes.Padding.SAME, 1, 1
    return made.content("CONV_2D", 3, [x, kernel, bias], y, [x], options)


def add_file(moved_bytes):
    """Returns a file that adds two vectors of float32, which reads and writes about `moved_bytes` in all, as bytes."""
    made = _File()
    x, y, total = (made.tensor(name, [1, moved_bytes // 12], "float32") for name in ("x", "y", "sum"))
    return made.content("ADD", 1, [x, y], total, [x, y], made.classes.AddOptionsT())


class _File:
    def __init__(self):
        self.classes = schema()
        self.buffers, self.tensors = [self.classes.BufferT()], []

    def tensor(self, name, shape, kind, values=None, scale=None):
        tensor, classes = self.classes.TensorT(), self.classes
        tensor.name, tensor.shape, tensor.type = name.encode(), list(shape), getattr(classes.TensorType, kind.upper())
        tensor.buffer = 0
        if values is not None:
            buffer = classes.BufferT()
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            tensor.buffer = len(self.buffers)
            self.buffers.append(buffer)
        if scale is not None:
            scales = scale if isinstance(scale, list) else [scale]
            tensor.quantization = classes.QuantizationParametersT()
            tensor.quantization.scale, tensor.quantization.zeroPoint = scales, [0] * len(scales)
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def content(self, name, version, inputs, output, given, options):
        import flatbuffers  # a part of every runtime that has the schema

        classes = self.classes
        code, operator, graph, model = classes.OperatorCodeT(), classes.OperatorT(), classes.SubGraphT(), classes.ModelT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(classes.BuiltinOperator, name)
        code.version = version
        operator.opcodeIndex, operator.inputs, operator.outputs = 0, inputs, [output]
        operator.builtinOptionsType = getattr(classes.BuiltinOptions, type(options).__name__.removesuffix("T"))
        operator.builtinOptions = options
        graph.tensors, graph.inputs, graph.outputs, graph.operators, graph.name = self.tensors, given, [output], [operator], b"main"
        model.version, model.operatorCodes, model.subgraphs, model.buffers, model.description = 3, [code], [graph], self.buffers, b"peak"
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())
