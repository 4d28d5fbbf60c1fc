"""A file holds nothing that its result does not need, equal parts stand once, and the rewriting that sees to it is exact."""

import collections
import pathlib
import sys

import keras
import numpy as np
import pytest

from tfdistill.convert import finish as finishing
from tfdistill.convert.finish import finish
from tfdistill.runtime import schema as schemas
from tfdistill.runtime.interpreter import ModelFile, open_file
from tfdistill.runtime.structure import check_structure
from tfdistill.runtime.tensors import sample_inputs
from tfdistill.tflite import Tolerances, export, export_tflite

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "zoo"))
import zoo_models
from zoo_rows import data_for

L = keras.layers
classes = schemas.schema()
NAMES = {value: name for name, value in vars(classes.BuiltinOperator).items() if isinstance(value, int)}


def recurrent(layer, steps):
    return lambda: keras.Sequential([keras.Input((steps, 8)), layer(12), L.Dense(3)])


MODELS = {
    **{name: zoo_models.SMALL[name] for name in ("conv1d_net", "siamese", "two_in_two_out", "unet", "nested", "ops_graph")},
    "GRU": recurrent(L.GRU, 8),
    "transformer_encoder": zoo_models.SMALL["transformer_encoder"],
}


def files_of(model, folder, monkeypatch):
    """Returns the bytes that the converter wrote, and those of the exported file."""
    written = []
    monkeypatch.setattr(export, "finish", lambda content: written.append(content) or finish(content))
    record = export_tflite(model, folder / "m.tflite", "int8", calibration=data_for(model), tolerances=Tolerances())
    return written[-1], pathlib.Path(record.path).read_bytes()


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


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in ("GRU", "transformer_encoder") else ()) for n in MODELS])
def test_the_file_of_a_model_has_no_waste(name, tmp_path, monkeypatch):
    keras.utils.set_random_seed(0)
    before, after = files_of(MODELS[name](), tmp_path, monkeypatch)
    check_structure(after)
    assert len(after) < 0.8 * len(before)
    assert_same(before, after)
    assert_same(before, after, engine="tensorflow", xnnpack=False)
    model = parsed(after)
    _assert_without_waste(model, after)
    ops, graph = operations(model), model.subgraphs[0]
    assert sorted(collections.Counter(o for o, _, _ in ops)) == sorted(
        {NAMES[max(c.builtinCode, c.deprecatedBuiltinCode)] for c in model.operatorCodes}
    )
    assert [t.name for t in graph.tensors if t.name.startswith((b"serving_default_", b"StatefulPartitionedCall:"))]


def _assert_without_waste(model, content):
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


@pytest.mark.slow
@pytest.mark.parametrize("layer", [L.GRU, L.LSTM])
def test_a_step_that_is_written_out_is_small(layer, tmp_path):
    sizes = {}
    for steps in (8, 24):
        keras.utils.set_random_seed(0)
        model = recurrent(layer, steps)()
        record = export_tflite(model, tmp_path / "m.tflite", "int8", calibration=data_for(model), tolerances=Tolerances())
        sizes[steps] = record.size_bytes
        assert {op.name: op.count for op in record.census.ops}["FULLY_CONNECTED"] <= steps + 1  # one for the inputs of all steps
        assert [int(part) for part in record.census.min_runtime_version.split(".")] >= [
            2,
            0,
            0,
        ]  # which keeps the axes of what is multiplied
    assert (sizes[24] - sizes[8]) / 16 < 1792  # a tenth of it names, as every tensor has one of its own


# Files made by hand, of operations that do nothing in ways that the converter does not write today.


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
        operator, code = classes.OperatorT(), classes.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(classes.BuiltinOperator, name)
        code.version = 2 if name in ("TRANSPOSE", "LOGISTIC", "DEQUANTIZE") else 1
        self.model.operatorCodes.append(code)
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
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


# What a file does with its input -> the operations that stay.
EDITS = {
    "two reshapes": (lambda m: [m.logistic(m.reshape(m.reshape(m.x, 2, 12), 24))], ["RESHAPE", "LOGISTIC"]),
    "reshapes there and back": (lambda m: [m.logistic(m.reshape(m.reshape(m.x, 2, 12), 1, 4, 6))], ["LOGISTIC"]),
    "reshapes there and back to the output": (lambda m: [m.reshape(m.reshape(m.logistic(m.x), 24), 1, 4, 6)], ["LOGISTIC"]),
    "an input that is the output": (lambda m: [m.reshape(m.reshape(m.x, 24), 1, 4, 6)], ["RESHAPE"]),
    "transpositions that cancel": (lambda m: [m.logistic(m.transpose(m.transpose(m.x, 2, 0, 1), 1, 2, 0))], ["LOGISTIC"]),
    "two transpositions": (lambda m: [m.logistic(m.transpose(m.transpose(m.x, 0, 2, 1), 1, 2, 0))], ["TRANSPOSE", "LOGISTIC"]),
    "two transpositions that move one element": (
        lambda m: [m.logistic(m.transpose(m.transpose(m.x, 2, 0, 1), 2, 1, 0))],
        ["RESHAPE", "LOGISTIC"],
    ),
    "a transposition of one element": (lambda m: [m.logistic(m.transpose(m.x, 1, 0, 2))], ["RESHAPE", "LOGISTIC"]),
    "a transposition that moves": (lambda m: [m.logistic(m.transpose(m.x, 0, 2, 1))], ["TRANSPOSE", "LOGISTIC"]),
    "a rounding to the same steps": (lambda m: [m.logistic(m.quantize(m.x))], ["LOGISTIC"]),
    "a rounding to other steps": (lambda m: [m.logistic(m.quantize(m.x, 0.7, 1))], ["QUANTIZE", "LOGISTIC"]),
    "floats between equal integers": (lambda m: [m.logistic(m.quantize(m.dequantize(m.x)))], ["LOGISTIC"]),
    "floats between other integers": (
        lambda m: [m.logistic(m.quantize(m.dequantize(m.x), 0.7, 1))],
        ["DEQUANTIZE", "QUANTIZE", "LOGISTIC"],
    ),
    "a float output": (lambda m: [m.dequantize(m.logistic(m.x))], ["LOGISTIC", "DEQUANTIZE"]),
    "what two operations read": (
        lambda m: (lambda y: [m.logistic(m.reshape(y, 1, 4, 6)), m.logistic(y)])(m.reshape(m.x, 24)),
        ["RESHAPE", "LOGISTIC", "LOGISTIC"],
    ),
    "an output read on": (lambda m: (lambda y: [y, m.logistic(m.reshape(y, 1, 4, 6))])(m.reshape(m.x, 24)), ["RESHAPE", "LOGISTIC"]),
    "a product of the parts of a whole": (lambda m: [m.product_of_parts(m.x, 2, 3, 4)], ["RESHAPE", "UNPACK", "FULLY_CONNECTED"]),
    "equal constants": (
        lambda m: [m.logistic(m.reshape(m.x, 24)), m.reshape(m.logistic(m.x), 24)],
        ["RESHAPE", "LOGISTIC", "LOGISTIC", "RESHAPE"],
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_operations_that_do_nothing_go(name):
    make, expected = EDITS[name]
    maker = Maker()
    before = maker.content(*make(maker))
    after = finish(before)
    check_structure(after)
    assert [operation for operation, _, _ in operations(parsed(after))] == expected
    assert_same(before, after)
    _assert_without_waste(parsed(after), after)
    assert finish(after) == after


def test_weights_outside_the_tables_are_left_as_they_are(monkeypatch):
    """The format keeps what is beyond 2 GiB behind its tables, at an offset."""
    maker = Maker()
    content = maker.content(maker.logistic(maker.x))

    def parsed_with_offset(*args):
        model = parsed(content)
        model.buffers[-1].offset = 64
        return model

    monkeypatch.setattr(finishing, "schema", lambda: _Offset(parsed_with_offset))
    assert finish(content) is content


class _Offset:
    """The schema, for a file whose last buffer stands behind the tables."""

    def __init__(self, parse):
        self.Model, self.ModelT = classes.Model, self
        self.InitFromObj = parse
