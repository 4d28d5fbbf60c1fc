"""Parts of .tflite files that tests look at, a check that nothing in a file is waste, and files made by hand of operations that the converter does not write so."""

import collections
import pathlib

import numpy as np

from tfdistill.runtime import schema as schemas
from tfdistill.runtime.interpreter import ModelFile, open_file
from tfdistill.runtime.tensors import sample_inputs

classes = schemas.schema()
# Versions of operations for int8, where that is not the first.
_VERSIONS = {"TRANSPOSE": 2, "LOGISTIC": 2, "DEQUANTIZE": 2, "STRIDED_SLICE": 2, "FULLY_CONNECTED": 4}
NAMES = {value: name for name, value in vars(classes.BuiltinOperator).items() if isinstance(value, int)}


def parsed(content):
    return classes.ModelT.InitFromObj(classes.Model.GetRootAs(content, 0))


def operations(model):
    """Returns a list of (name, inputs, outputs) of the main graph."""
    codes = [NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in model.operatorCodes]
    return [(codes[o.opcodeIndex], list(map(int, o.inputs)), list(map(int, o.outputs))) for o in model.subgraphs[0].operators]


def outputs_of(content, engine="ai_edge_litert", xnnpack=True):
    opened = open_file(ModelFile(pathlib.Path("m.tflite"), content), engine=engine, xnnpack=xnnpack)
    found = []
    for seed in range(4):
        opened.reset()
        opened.set_inputs(sample_inputs(opened.inputs, seed))
        opened.invoke()
        found.append(opened.read_outputs())
    return found


def assert_same(one, other, **settings):
    for a, b in zip(outputs_of(one, **settings), outputs_of(other, **settings), strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def assert_without_waste(model, content):
    graph = model.subgraphs[0]
    buffers = [None if b.data is None else bytes(bytearray(b.data)) for b in model.buffers]
    assert len(set(buffers)) == len(buffers)
    used = {t.buffer for t in graph.tensors} | {m.buffer for m in model.metadata or []} | {0}
    assert used == set(range(len(buffers)))
    constants = [
        # Scales to the last bit: 1 / 255 and the next float are two.
        (t.buffer, tuple(t.shape), t.type, None if t.quantization is None else np.asarray(t.quantization.scale, "float32").tobytes())
        for t in graph.tensors
        if buffers[t.buffer]
    ]
    assert len(set(constants)) == len(constants)
    ops = operations(model)
    readers, makers = collections.Counter(i for _, ins, _ in ops for i in set(ins)), {o: (n, ins[0]) for n, ins, outs in ops for o in outs}
    both = lambda i: str(graph.tensors[i].quantization and vars(graph.tensors[i].quantization))  # noqa: E731
    for name, (source, *_), outs in ops:
        before = makers.get(source)
        assert (before and before[0], name) not in {("RESHAPE", "RESHAPE"), ("TRANSPOSE", "TRANSPOSE")}
        if (before and before[0], name) == ("DEQUANTIZE", "QUANTIZE"):
            assert both(before[1]) != both(outs[0])
        if name == "RESHAPE" and not (source in graph.inputs and outs[0] in graph.outputs):
            assert list(graph.tensors[source].shape) != list(graph.tensors[outs[0]].shape)
        assert name == "UNPACK" or any(readers[o] or o in graph.outputs for o in outs)
    # Equal shapes and scales are at one place of the file.
    file = classes.Model.GetRootAs(content, 0).Subgraphs(0)
    tensors = [file.Tensors(i) for i in range(file.TensorsLength())]
    places = collections.defaultdict(set)
    for tensor in tensors:
        if tensor.Quantization() is not None:
            q = tensor.Quantization()
            places[np.asarray(q.ScaleAsNumpy()).tobytes(), np.asarray(q.ZeroPointAsNumpy()).tobytes(), q.QuantizedDimension()].add(
                q._tab.Pos
            )
        places[("shape", *tensor.ShapeAsNumpy())].add(tensor._tab.Vector(tensor._tab.Offset(4)))
    assert all(len(where) == 1 for where in places.values())


class Maker:
    """Makes a file of int8 operations on one input of the shape (1, 4, 6)."""

    def __init__(self):
        self.model, self.graph = classes.ModelT(), classes.SubGraphT()
        self.model.version, self.model.subgraphs, self.model.operatorCodes = 3, [self.graph], []
        self.model.buffers, self.graph.tensors, self.graph.operators = [classes.BufferT()], [], []
        self.x = self.tensor((1, 4, 6))

    def tensor(self, shape, scale=0.5, zero=3, kind="INT8", data=None):
        made = classes.TensorT()
        made.shape, made.type, made.name = (
            np.array(shape, np.int32),
            getattr(classes.TensorType, kind),
            f"t{len(self.graph.tensors)}".encode(),
        )
        made.hasRank = True
        if kind == "INT8":
            made.quantization = classes.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = np.array([scale], np.float32), np.array([zero], np.int64)
        self.model.buffers.append(classes.BufferT())
        self.model.buffers[-1].data = None if data is None else np.asarray(data).view(np.uint8).reshape(-1)
        made.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def add(self, name, inputs, output, options=None):
        operator, number = classes.OperatorT(), getattr(classes.BuiltinOperator, name)
        known = [code.builtinCode for code in self.model.operatorCodes]
        if number not in known:
            code = classes.OperatorCodeT()
            code.builtinCode = code.deprecatedBuiltinCode = number
            code.version = _VERSIONS.get(name, 1)
            self.model.operatorCodes.append(code)
        operator.opcodeIndex = known.index(number) if number in known else len(known)
        operator.inputs, operator.outputs = np.array(inputs, np.int32), np.atleast_1d(np.array(output, np.int32))
        if options is not None:
            operator.builtinOptions, operator.builtinOptionsType = (
                options,
                getattr(classes.BuiltinOptions, type(options).__name__.removesuffix("T")),
            )
        self.graph.operators.append(operator)
        return output

    def like(self, x, shape):
        given = self.graph.tensors[x].quantization
        return self.tensor(shape, given.scale[0], given.zeroPoint[0])

    def reshape(self, x, *shape):
        return self.add(
            "RESHAPE",
            [x, self.tensor((len(shape),), kind="INT32", data=np.array(shape, np.int32))],
            self.like(x, shape),
            classes.ReshapeOptionsT(),
        )

    def transpose(self, x, *order):
        shape = [self.graph.tensors[x].shape[axis] for axis in order]
        order = self.tensor((len(order),), kind="INT32", data=np.array(order, np.int32))
        return self.add("TRANSPOSE", [x, order], self.like(x, shape), classes.TransposeOptionsT())

    def quantize(self, x, scale=0.5, zero=3):
        return self.add("QUANTIZE", [x], self.tensor(self.graph.tensors[x].shape, scale, zero))

    def dequantize(self, x):
        return self.add("DEQUANTIZE", [x], self.tensor(self.graph.tensors[x].shape, kind="FLOAT32"))

    def logistic(self, x):
        return self.add("LOGISTIC", [x], self.tensor(self.graph.tensors[x].shape, 1 / 256, -128))

    def slice(self, x, *bounds, masks=0):
        """Cuts an int8 tensor: `bounds` are (start, end) of each axis; `masks` has a bit for each axis that is taken whole, whatever its bounds."""
        ends = [end if end > 0 else self.graph.tensors[x].shape[axis] + end for axis, (_, end) in enumerate(bounds)]
        shape = [
            n if masks >> i & 1 else e - s for i, (n, e, (s, _)) in enumerate(zip(self.graph.tensors[x].shape, ends, bounds, strict=True))
        ]
        columns = [np.array(values, np.int32) for values in ([s for s, _ in bounds], [e for _, e in bounds], [1] * len(bounds))]
        options = classes.StridedSliceOptionsT()
        options.beginMask = options.endMask = masks
        places = [self.tensor((len(bounds),), kind="INT32", data=values) for values in columns]
        return self.add("STRIDED_SLICE", [x, *places], self.like(x, shape), options)

    def pieces(self, *ends, **settings):
        """The pieces of the last axis of the input that begin and end there, each through an operation."""
        whole = [(0, n) for n in self.graph.tensors[self.x].shape[:-1]]
        return [self.logistic(self.slice(self.x, *whole, each, **settings)) for each in ends]

    def products_of_steps(self, *weights):
        """Takes three steps of (1, 4) apart, and multiplies each by constants of these numbers of rows."""
        parts, found = [self.like(self.x, (1, 8)) for _ in range(3)], []
        options = classes.UnpackOptionsT()
        options.num = 3
        self.add("UNPACK", [self.reshape(self.x, 3, 1, 8)], parts, options)
        for place, rows in enumerate(weights):
            data = np.random.default_rng(place).integers(-127, 128, (rows, 8)).astype("int8")
            kernel = self.tensor((rows, 8), 0.01, 0, data=data)
            found += [
                self.add("FULLY_CONNECTED", [part, kernel, -1], self.tensor((1, rows)), classes.FullyConnectedOptionsT())
                for part in parts[place:]
            ]
        return found

    def product_of_parts(self, x, *shape):
        """Takes (2, rows, columns) apart, and multiplies one part by the other."""
        parts = [self.like(x, shape[1:]) for _ in range(2)]
        options = classes.UnpackOptionsT()
        options.num, options.axis = 2, 0
        self.add("UNPACK", [self.reshape(x, *shape)], parts, options)
        return self.add("FULLY_CONNECTED", [*parts, -1], self.tensor((shape[1], shape[1])), classes.FullyConnectedOptionsT())

    def content(self, *outputs):
        self.graph.inputs, self.graph.outputs = np.array([self.x], np.int32), np.array(outputs, np.int32)
        # A file is written through the classes of the schema, as the converter writes it: nothing is shared.
        import flatbuffers

        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())
