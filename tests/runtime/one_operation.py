"""Makes .tflite files of one operation each, to ask a runtime which operations it has, and in which types.

The files are written with the classes of the .tflite schema, without the converter: what the converter would refuse or replace can be asked for as well.
"""

import dataclasses

import flatbuffers
import numpy as np

from tfdistill.runtime.schema import schema

TYPES = ("float32", "int8", "int16", "dynamic")
# Activations, weights and biases of each kind of file; "dynamic" is float activations with int8 weights.
_STORED = {
    "float32": ("float32", "float32", "float32"),
    "int8": ("int8", "int8", "int32"),
    "int16": ("int16", "int8", "int64"),
    "dynamic": ("float32", "int8", "float32"),
}
# ActivationFunctionType.RELU6 of the schema.
RELU6 = 3
IMAGE, VECTORS = (1, 8, 8, 8), (1, 8, 8)
# Scales of integer tensors: that of a bias is the product of the two others.
_SCALES = {"activation": 0.05, "weight": 0.01, "bias": 0.05 * 0.01}
# Outputs whose scale and zero point the kernels fix, by type.
_FIXED = {
    "LOGISTIC": {"int8": (1 / 256, -128), "int16": (1 / 32768, 0)},
    "SOFTMAX": {"int8": (1 / 256, -128), "int16": (1 / 32768, 0)},
    "TANH": {"int8": (1 / 128, 0), "int16": (1 / 32768, 0)},
    "L2_NORMALIZATION": {"int8": (1 / 128, 0)},
    "LOG_SOFTMAX": {"int8": (16 / 256, 127)},
}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor of the file: an activation, or a constant where `value` is given.

    Attributes:
        shape: Its shape.
        role: `"activation"`, `"weight"`, `"bias"`, or the name of a type.
        value: Array of a constant; for a weight or bias any array of that shape.
    """

    shape: tuple
    role: str = "activation"
    value: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Operation:
    """One operation to ask for.

    Attributes:
        name: Its name in the schema, such as `"CONV_2D"`.
        inputs: `Tensor`s.
        outputs: `Tensor`s.
        options: Dict of the fields of its options.
        options_class: Name of their class; empty for none.
        types: Which of `TYPES` it is asked for in.
        form: What is special about it, such as `"broadcast"`; empty for its plain form.
    """

    name: str
    inputs: tuple
    outputs: tuple
    options: dict = dataclasses.field(default_factory=dict)
    options_class: str = ""
    types: tuple = ("float32", "int8", "int16")
    form: str = ""

    @property
    def key(self):
        """Its name in the tables: `"MUL"`, or `"MUL broadcast"`."""
        return f"{self.name} {self.form}".rstrip()


def _constant(values, dtype="int32"):
    array = np.asarray(values, dtype)
    return Tensor(array.shape, dtype, array)


def _weight(*shape):
    return Tensor(shape, "weight", np.ones(shape))


def _bias(size):
    return Tensor((size,), "bias", np.zeros(size))


def _unary(name, options_class="", shape=IMAGE, out=None, **options):
    return Operation(name, (Tensor(shape),), (Tensor(out or shape),), options, options_class)


def _binary(name, options_class="", **options):
    return Operation(name, (Tensor(IMAGE), Tensor(IMAGE)), (Tensor(IMAGE),), options, options_class)


def _compared(name):
    return Operation(name, (Tensor(IMAGE), Tensor(IMAGE)), (Tensor(IMAGE, "bool"),), {}, f"{name.title().replace('_', '')}Options")


def _reduced(name, axes=(1, 2), out=(1, 8)):
    return Operation(name, (Tensor(IMAGE), _constant(axes)), (Tensor(out),), {"keepDims": False}, "ReducerOptions")


def _moved(name, out, *constants, options_class="", shape=IMAGE, form="", **options):
    return Operation(name, (Tensor(shape), *constants), (Tensor(out),), options, options_class, form=form)


def _bounds(ends, strides):
    return _constant([0] * len(ends)), _constant(ends), _constant(strides)


_STRIDES = {"strideH": 1, "strideW": 1}
_WEIGHTED = ("float32", "int8", "int16", "dynamic")
OPERATIONS = (
    Operation(
        "CONV_2D",
        (Tensor(IMAGE), _weight(8, 3, 3, 8), _bias(8)),
        (Tensor(IMAGE),),
        {**_STRIDES, "dilationHFactor": 1, "dilationWFactor": 1},
        "Conv2DOptions",
        _WEIGHTED,
    ),
    Operation(
        "DEPTHWISE_CONV_2D",
        (Tensor(IMAGE), _weight(1, 3, 3, 8), _bias(8)),
        (Tensor(IMAGE),),
        {**_STRIDES, "dilationHFactor": 1, "dilationWFactor": 1, "depthMultiplier": 1},
        "DepthwiseConv2DOptions",
        _WEIGHTED,
    ),
    Operation(
        "TRANSPOSE_CONV",
        (_constant(IMAGE), _weight(8, 3, 3, 8), Tensor(IMAGE), _bias(8)),
        (Tensor(IMAGE),),
        _STRIDES,
        "TransposeConvOptions",
    ),
    Operation("FULLY_CONNECTED", (Tensor((1, 8)), _weight(8, 8), _bias(8)), (Tensor((1, 8)),), {}, "FullyConnectedOptions", _WEIGHTED),
    Operation("BATCH_MATMUL", (Tensor(VECTORS), Tensor(VECTORS)), (Tensor(VECTORS),), {}, "BatchMatMulOptions"),
    *(
        _unary(name, "Pool2DOptions", out=(1, 4, 4, 8), strideH=2, strideW=2, filterHeight=2, filterWidth=2)
        for name in ("AVERAGE_POOL_2D", "MAX_POOL_2D")
    ),
    *(_binary(name, f"{name.title()}Options") for name in ("ADD", "SUB", "MUL", "DIV")),
    # As in squeeze-excite, where a value for each channel is multiplied with an image; and with ReLU6 fused, as in a hard-swish that is written out.
    *(
        Operation(name, (Tensor(IMAGE), Tensor((1, 1, 1, 8))), (Tensor(IMAGE),), {}, f"{name.title()}Options", form="broadcast")
        for name in ("ADD", "SUB", "MUL")
    ),
    Operation("ADD", (Tensor(IMAGE), Tensor(IMAGE)), (Tensor(IMAGE),), {"fusedActivationFunction": RELU6}, "AddOptions", form="with RELU6"),
    _binary("MAXIMUM", "MaximumMinimumOptions"),
    _binary("MINIMUM", "MaximumMinimumOptions"),
    _binary("SQUARED_DIFFERENCE", "SquaredDifferenceOptions"),
    _binary("POW", "PowOptions"),
    Operation("PRELU", (Tensor(IMAGE), Tensor((1, 1, 8), "weight", np.ones((1, 1, 8)))), (Tensor(IMAGE),)),
    *(
        _unary(name)
        for name in ("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "LOGISTIC", "TANH", "ELU", "HARD_SWISH", "CEIL", "FLOOR", "ROUND")
    ),
    *(_unary(name) for name in ("RSQRT", "SQRT", "LOG", "SIN", "COS")),
    _unary("LEAKY_RELU", "LeakyReluOptions", alpha=0.1),
    _unary("GELU", "GeluOptions", approximate=False),
    _unary("ABS", "AbsOptions"),
    _unary("NEG", "NegOptions"),
    _unary("EXP", "ExpOptions"),
    _unary("SQUARE", "SquareOptions"),
    _unary("SIGN", "SignOptions"),
    _unary("SOFTMAX", "SoftmaxOptions", shape=VECTORS, beta=1.0),
    _unary("LOG_SOFTMAX", "LogSoftmaxOptions", shape=VECTORS),
    _unary("L2_NORMALIZATION", "L2NormOptions", shape=VECTORS),
    *(_reduced(name) for name in ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD")),
    Operation("ARG_MAX", (Tensor(IMAGE), _constant(3)), (Tensor(IMAGE[:3], "int32"),), {"outputType": 2}, "ArgMaxOptions"),
    Operation("CUMSUM", (Tensor(IMAGE), _constant(1)), (Tensor(IMAGE),), {}, "CumsumOptions"),
    _moved("RESHAPE", (1, 512), _constant([1, 512]), options_class="ReshapeOptions", newShape=[1, 512]),
    _moved("TRANSPOSE", IMAGE, _constant([0, 2, 1, 3]), options_class="TransposeOptions"),
    _moved("EXPAND_DIMS", (1, 1, 8, 8), _constant(1), options_class="ExpandDimsOptions", shape=VECTORS),
    _moved("SQUEEZE", (8, 8), options_class="SqueezeOptions", shape=VECTORS, squeezeDims=[0]),
    Operation("CONCATENATION", (Tensor(IMAGE), Tensor(IMAGE)), (Tensor((1, 8, 8, 16)),), {"axis": 3}, "ConcatenationOptions"),
    Operation("PACK", (Tensor(VECTORS), Tensor(VECTORS)), (Tensor((1, 2, 8, 8)),), {"valuesCount": 2, "axis": 1}, "PackOptions"),
    Operation("UNPACK", (Tensor((1, 2, 8, 8)),), (Tensor(VECTORS), Tensor(VECTORS)), {"num": 2, "axis": 1}, "UnpackOptions"),
    Operation("SPLIT", (_constant(3), Tensor(IMAGE)), (Tensor((1, 8, 8, 4)), Tensor((1, 8, 8, 4))), {"numSplits": 2}, "SplitOptions"),
    _moved("SLICE", (1, 4, 4, 8), _constant([0, 1, 1, 0]), _constant([1, 4, 4, 8]), options_class="SliceOptions"),
    _moved("STRIDED_SLICE", (1, 4, 4, 8), *_bounds((1, 4, 4, 8), (1, 1, 1, 1)), options_class="StridedSliceOptions"),
    _moved("STRIDED_SLICE", (1, 4, 4, 8), *_bounds(IMAGE, (1, 2, 2, 1)), options_class="StridedSliceOptions", form="with strides"),
    _moved(
        "STRIDED_SLICE",
        (1, 8, 8),
        *_bounds((1, 1, 8, 8), (1, 1, 1, 1)),
        options_class="StridedSliceOptions",
        form="without an axis",
        shrinkAxisMask=2,
    ),
    _moved("PAD", (1, 10, 10, 8), _constant([[0, 0], [1, 1], [1, 1], [0, 0]]), options_class="PadOptions"),
    _moved("MIRROR_PAD", (1, 10, 10, 8), _constant([[0, 0], [1, 1], [1, 1], [0, 0]]), options_class="MirrorPadOptions", mode=0),
    _moved("GATHER", (1, 2, 8, 8), _constant([0, 3]), options_class="GatherOptions", axis=1),
    _moved("TILE", (1, 16, 8, 8), _constant([1, 2, 1, 1]), options_class="TileOptions"),
    _moved("BROADCAST_TO", IMAGE, _constant(IMAGE), shape=(1, 1, 1, 8)),
    _moved("REVERSE_V2", IMAGE, _constant([1]), options_class="ReverseV2Options"),
    _moved("DEPTH_TO_SPACE", (1, 16, 16, 2), options_class="DepthToSpaceOptions", blockSize=2),
    _moved("SPACE_TO_DEPTH", (1, 4, 4, 32), options_class="SpaceToDepthOptions", blockSize=2),
    _moved("SPACE_TO_BATCH_ND", (4, 4, 4, 8), _constant([2, 2]), _constant([[0, 0], [0, 0]])),
    _moved("BATCH_TO_SPACE_ND", (1, 16, 16, 8), _constant([2, 2]), _constant([[0, 0], [0, 0]]), shape=(4, 8, 8, 8)),
    _moved("RESIZE_BILINEAR", (1, 16, 16, 8), _constant([16, 16]), options_class="ResizeBilinearOptions", halfPixelCenters=True),
    _moved("RESIZE_NEAREST_NEIGHBOR", (1, 16, 16, 8), _constant([16, 16]), options_class="ResizeNearestNeighborOptions"),
    Operation("SELECT_V2", (Tensor(IMAGE, "bool"), Tensor(IMAGE), Tensor(IMAGE)), (Tensor(IMAGE),)),
    *(_compared(name) for name in ("EQUAL", "NOT_EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL")),
    Operation("QUANTIZE", (Tensor(IMAGE, "float32"),), (Tensor(IMAGE),), types=("int8", "int16")),
    Operation("DEQUANTIZE", (Tensor(IMAGE),), (Tensor(IMAGE, "float32"),), types=("int8", "int16")),
)


def one_operation(operation, kind, version=1):
    """Returns the bytes of a .tflite file that holds one operation.

    Args:
        operation: An `Operation`.
        kind: One of its `types`.
        version: Version of the operation. A runtime has each operation in a range of versions, and newer ones for newer types.
    """
    s, roles = schema(), dict(zip(("activation", "weight", "bias"), _STORED[kind], strict=True))
    model, graph, code, operator = s.ModelT(), s.SubGraphT(), s.OperatorCodeT(), s.OperatorT()
    model.version, model.description = 3, operation.name
    model.buffers, graph.tensors = [s.BufferT()], []
    code.builtinCode = getattr(s.BuiltinOperator, operation.name)
    code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), version
    count = len(operation.inputs)
    for index, place in enumerate((*operation.inputs, *operation.outputs)):
        fixed = _FIXED.get(operation.name, {}) if index >= count else {}
        graph.tensors.append(_tensor(s, model, place, roles, fixed, index))
    operator.inputs, operator.outputs = list(range(count)), list(range(count, len(graph.tensors)))
    if operation.options_class:
        operator.builtinOptionsType = getattr(s.BuiltinOptions, operation.options_class, 0)
        options = getattr(s, f"{operation.options_class}T")()
        for field, value in operation.options.items():
            setattr(options, field, value)
        operator.builtinOptions = options
    graph.inputs = [i for i, place in enumerate(operation.inputs) if place.value is None]
    graph.outputs, graph.operators = operator.outputs, [operator]
    model.operatorCodes, model.subgraphs = [code], [graph]
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _tensor(s, model, place, roles, fixed, index):
    tensor, dtype = s.TensorT(), roles.get(place.role, place.role)
    tensor.name, tensor.shape = f"t{index}", list(place.shape)
    tensor.type = getattr(s.TensorType, dtype.upper())
    if place.value is not None:
        buffer = s.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(place.value, dtype).tobytes(), np.uint8)
        model.buffers.append(buffer)
        tensor.buffer = len(model.buffers) - 1
    if place.role in roles and not dtype.startswith("float"):
        tensor.quantization = s.QuantizationParametersT()
        scale, zero = fixed.get(dtype, (_SCALES[place.role], 0))
        tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [zero]
    return tensor
