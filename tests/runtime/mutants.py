"""Damaged .tflite files: random bytes, and whole structures with changed fields. Seeded."""

import random
import struct

import flatbuffers
import keras
import numpy as np

from tfdistill.runtime.schema import schema
from tfdistill.tflite import export_tflite

_EXTREME = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_NUMBERS = (-(2**31), -7, -1, 0, 1, 2, 3, 5, 7, 100, 255, 65536, 2**30, 2**31 - 1)
_STEPS = (0.0, -1.0, 1e-45, 1e38, float("nan"), float("inf"), 3.0)


def models():
    """Returns dict of name -> (Keras model, its samples, arguments of `export_tflite`): one of each kind of file."""
    layers, data = keras.layers, np.random.default_rng(0)
    images, sequences = data.random((32, 6, 6, 2), dtype="float32"), data.random((32, 4, 3), dtype="float32")
    conv = keras.Sequential([keras.Input((6, 6, 2)), layers.Conv2D(3, 3), layers.Flatten(), layers.Dense(5)])
    recurrent = keras.Sequential([keras.Input((4, 3)), layers.LSTM(4, unroll=True), layers.Dense(2)])
    free = keras.Sequential([keras.Input((None, None, 2)), layers.Conv2D(3, 3, padding="same"), layers.GlobalAveragePooling2D()])
    return {
        "float": (conv, images, {}),
        "int8": (conv, images, {"variant": "int8", "calibration": images}),
        "recurrent": (recurrent, sequences, {}),
        "free": (free, images, {"batch_size": None}),
    }


def originals(folder):
    """Exports the files of `models()`; returns dict of name -> (bytes, Keras model, four samples)."""
    made = {}
    for name, (model, data, arguments) in models().items():
        path = folder / f"{name}.tflite"
        export_tflite(model, path, **arguments)
        made[name] = (path.read_bytes(), model, data[:4])
    return made


def mutants(contents, count, seed=0):
    """Yields (name of the original, damaged bytes): three of five by bytes, two of five by fields.

    Args:
        contents: Dict of name -> bytes.
        count: Number of mutants.
        seed: Seed of all of them.
    """
    rng, names = random.Random(seed), sorted(contents)
    for number in range(count):
        name = names[number % len(names)]
        change = _change_bytes if number % 5 < 3 else _change_fields
        yield name, change(contents[name], rng)


def _change_bytes(content, rng):
    made = bytearray(content)
    kind = rng.randrange(8)
    if kind == 0:
        return bytes(made[: rng.randrange(len(made))])
    if kind == 1:  # a piece in a wrong place
        start, end = sorted(rng.randrange(len(made)) for _ in range(2))
        place = rng.randrange(len(made))
        made[place : place + end - start] = made[start:end]
        return bytes(made)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        place = rng.randrange(8, len(made) - 4)
        if kind < 5:
            made[place] = rng.randrange(256)
        else:
            struct.pack_into("<I", made, place & ~3, rng.choice(_EXTREME))
    return bytes(made)


def _change_fields(content, rng):
    classes = schema()
    model = classes.ModelT.InitFromObj(classes.Model.GetRootAs(content, 0))
    for _ in range(rng.choice((1, 1, 2, 3))):
        rng.choice(_FIELDS)(model, rng)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _tensor(model, rng):
    return rng.choice(model.subgraphs[0].tensors)


def _operator(model, rng):
    return rng.choice(model.subgraphs[0].operators)


def _set_one(values, rng):
    values = np.array(values, dtype="int64").tolist() if values is not None else []
    if values:
        values[rng.randrange(len(values))] = rng.choice(_NUMBERS)
    return values


def _shape(model, rng):
    tensor = _tensor(model, rng)
    tensor.shape = _set_one(tensor.shape, rng) if rng.random() < 0.7 else [rng.choice(_NUMBERS) for _ in range(rng.randrange(6))]


def _type(model, rng):
    _tensor(model, rng).type = rng.randrange(20)


def _buffer(model, rng):
    _tensor(model, rng).buffer = rng.randrange(len(model.buffers) + 2)


def _cut_buffer(model, rng):
    buffer = rng.choice(model.buffers)
    if buffer.data is not None and len(buffer.data):
        buffer.data = buffer.data[: rng.randrange(len(buffer.data))]


def _wires(model, rng):
    operator = _operator(model, rng)
    side = rng.choice(("inputs", "outputs"))
    count = len(model.subgraphs[0].tensors)
    values = [int(v) for v in getattr(operator, side)]
    if rng.random() < 0.3:
        values = values[:-1]
    elif values:
        values[rng.randrange(len(values))] = rng.choice((-1, count, rng.randrange(count), rng.choice(_NUMBERS)))
    setattr(operator, side, values)


def _ends(model, rng):
    graph = model.subgraphs[0]
    setattr(graph, rng.choice(("inputs", "outputs")), rng.choice(([], [rng.randrange(len(graph.tensors))], [rng.choice(_NUMBERS)])))


def _code(model, rng):
    code = rng.choice(model.operatorCodes)
    code.builtinCode = rng.randrange(210)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)


def _options(model, rng):
    options = _operator(model, rng).builtinOptions
    names = [name for name, value in vars(options).items() if isinstance(value, int) and not isinstance(value, bool)] if options else []
    if names:
        name = rng.choice(names)
        bounded = {"padding": 127, "fusedActivationFunction": 127, "quantizedBiasType": 127, "weightsFormat": 127}
        setattr(options, name, rng.randrange(bounded[name]) if name in bounded else rng.choice(_NUMBERS))


def _quantization(model, rng):
    quantization = _tensor(model, rng).quantization
    if quantization is None:
        return
    kind = rng.randrange(3)
    if kind == 0 and quantization.scale is not None:
        quantization.scale = [rng.choice(_STEPS) for _ in quantization.scale]
    elif kind == 1 and quantization.zeroPoint is not None:
        quantization.zeroPoint = [rng.choice(_NUMBERS) for _ in quantization.zeroPoint]
    else:
        quantization.quantizedDimension = rng.choice(_NUMBERS)


def _signature(model, rng):
    signature = rng.choice(model.signatureDefs)
    entry = rng.choice([*signature.inputs, *signature.outputs])
    if rng.random() < 0.5:
        entry.tensorIndex = rng.randrange(len(model.subgraphs[0].tensors) + 2)
    else:
        entry.name = rng.choice(("", "x" * 5000, "\udc80", "other")).encode("utf-8", "surrogateescape")


def _name(model, rng):
    _tensor(model, rng).name = b"\xff\xfe\x00\x80"


_FIELDS = (_shape, _type, _buffer, _cut_buffer, _wires, _ends, _code, _options, _quantization, _signature, _name)
