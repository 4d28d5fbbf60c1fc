"""What `inspect` finds in a file is what is in it: against the Keras model, the interpreter, and files made to have a fault."""

import math
import re
import xml.etree.ElementTree as ElementTree

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfdistill
from tfdistill.benchmarking import memory
from tfdistill.errors import ConfigurationError, ExportError
from tfdistill.report.graph_page import graph_page
from tfdistill.runtime import tensorflow_lite
from tfdistill.runtime.capture import captured_output
from tfdistill.runtime.delegated import delegation
from tfdistill.runtime.interpreter import open_file
from tfdistill.runtime.operations import TARGETS
from tfdistill.runtime.tensors import sample_inputs
from tfdistill.tflite import FileInspection, Tolerances

L = keras.layers


def convolutions():
    inputs = keras.Input((16, 16, 3))
    x = L.Conv2D(12, 3, activation="relu", bias_initializer="uniform", name="odd")(inputs)
    x = L.DepthwiseConv2D(3, bias_initializer="uniform", name="depthwise")(x)
    x = L.Conv2DTranspose(8, 3, strides=2, name="up")(L.Conv2D(16, 3, strides=2, activation="relu6", name="even")(x))
    return keras.Model(inputs, L.Dense(10, activation="softmax", name="head")(L.GlobalAveragePooling2D()(x)))


def branches():
    inputs = keras.Input((16, 16, 8))
    one = L.Conv2D(24, 1, activation="relu")(inputs)
    two = L.Conv2D(24, 3, padding="same")(inputs)
    x = L.Concatenate()([L.Add()([one, two]), one])
    return keras.Model(inputs, L.Dense(4)(L.Flatten()(L.MaxPooling2D(4)(x))))


def hard_swish():
    stack = [L.Conv2D(8, 3), L.Activation("hard_silu"), L.Conv2D(8, 3), L.Flatten(), L.Dense(3)]
    return keras.Sequential([keras.Input((8, 8, 3)), *stack])


MODELS = {"convolutions": convolutions, "branches": branches, "hard swish": hard_swish}
FILES = [(name, variant) for name in MODELS for variant in ("float32", "int8")]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Function of a model's name and a variant: the model, the path of its file, and what was found in it."""
    folder, made = tmp_path_factory.mktemp("inspect"), {}

    def make(name, variant):
        if (name, variant) not in made:
            model = MODELS[name]()
            x = np.random.default_rng(0).normal(size=(32, *model.input_shape[1:])).astype("float32")
            path = folder / f"{name}.{variant}.tflite"
            tfdistill.export_tflite(model, path, variant, calibration=x if variant == "int8" else None, tolerances=Tolerances())
            made[name, variant] = model, path, tfdistill.inspect(path)
        return made[name, variant]

    return make


@pytest.mark.parametrize(("name", "variant"), FILES)
def test_work_and_bytes_are_those_of_the_model(name, variant, written):
    model, path, found = written(name, variant)
    assert sum(operation.macs or 0 for operation in found.operations) == tfdistill.profile(model).macs
    assert sum(found.bytes_by_kind.values()) == found.census.size_bytes == path.stat().st_size
    kernels = sum(math.prod(w.shape) for w in model.weights if len(w.shape) > 1)
    width = {"float32": 4, "int8": 1}[variant]
    assert found.bytes_by_kind[f"weights {variant}"] == width * kernels
    assert sum(operation.weights_bytes for operation in found.operations) == sum(
        n for kind, n in found.bytes_by_kind.items() if kind.split()[0] in ("weights", "biases", "other")
    )
    assert [operation.index for operation in found.operations] == list(range(len(found.operations)))
    assert {operation.kind for operation in found.operations} == {variant}
    assert found.census == tfdistill.census(path)
    assert FileInspection.from_dict(found.to_dict()) == found


@pytest.mark.parametrize(("name", "variant"), FILES)
def test_the_interpreter_shares_the_operations_out_as_the_tables_say(name, variant, written):
    _, path, found = written(name, variant)
    real = delegation(open_file(path).interpreter)
    assert (found.targets["xnnpack"].taken, found.targets["xnnpack"].left) == (real.delegated, real.operations - real.delegated)
    assert set(found.targets["xnnpack"].left_names) == {name for name, _ in real.left}
    assert set(found.targets) == set(TARGETS)


@pytest.mark.parametrize(("name", "variant"), FILES)
def test_the_planned_memory_holds_what_is_needed_and_no_more_than_the_interpreter_takes(name, variant, written):
    _, path, found = written(name, variant)
    plain = open_file(path, xnnpack=False)
    plain.set_inputs(sample_inputs(plain.inputs, 0))
    plain.invoke()
    # The interpreter's has the scratch memory of kernels too.
    assert 0 < found.peak_bytes <= found.planned_arena_bytes <= memory.arena_bytes(plain)


def test_peak_memory_by_hand(written):
    """16x16x24 twice and their sum, beside the input: floats."""
    found = written("branches", "float32")[2]
    assert found.operations[found.peak_operation].name == "CONCATENATION"
    assert found.peak_bytes == 4 * 16 * 16 * (8 + 24 + 24 + 48)


def test_channels_that_are_no_multiple_of_8(written):
    found = written("convolutions", "int8")[2]
    assert [(row.name, row.channels, row.next_multiple) for row in found.unaligned] == [("CONV_2D", 12, 16), ("DEPTHWISE_CONV_2D", 12, 16)]
    assert written("branches", "int8")[2].unaligned == ()


def converted(function, *settings):
    """Bytes of a file that the converter makes of a function of (1, 8, 8, 4), calibrated, with floats where it has no integers."""
    module = tf.Module()
    module.serve = tf.function(function, input_signature=[tf.TensorSpec((1, 8, 8, 4), tf.float32)])
    data = np.random.default_rng(0).random((8, 1, 8, 8, 4), dtype="float32")
    with captured_output():
        converter = tensorflow_lite.converter_class().from_concrete_functions([module.serve.get_concrete_function()], module)
        converter.optimizations = [tensorflow_lite.default_optimization()]
        converter.representative_dataset = lambda: ([sample] for sample in data)
        for name, value in settings:
            setattr(converter, name, value)
        return converter.convert()


KERNEL = np.random.default_rng(1).normal(size=(3, 3, 4, 4)).astype("float32")


def conv(x):
    return tf.nn.conv2d(x, KERNEL, 1, "SAME")


# What lies between two convolutions -> the operations of each island.
ISLANDS = {
    "nothing": (lambda x: conv(conv(x)), []),
    "one": (lambda x: conv(tf.sin(conv(x))), [("SIN",)]),
    "neighbours": (lambda x: conv(tf.sin(tf.exp(conv(x)) + 1.0)), [("SIN",)]),
    "two apart": (lambda x: tf.sin(conv(tf.cos(conv(x)))), [("COS",), ("SIN",)]),
    "joined": (lambda x: (lambda y: conv(tf.sin(y) * tf.cos(y)))(conv(x)), [("SIN",), ("COS",)]),
}


@pytest.mark.parametrize("case", ISLANDS)
def test_floats_among_integers_are_found(case, tmp_path):
    function, expected = ISLANDS[case]
    path = tmp_path / "mixed.tflite"
    path.write_bytes(converted(function))
    found = tfdistill.inspect(path)
    names = [island.names for island in found.float_islands]
    for island in expected:
        assert any(set(island) <= set(one) for one in names), names
    assert bool(names) == bool(expected)
    inside = [i for island in found.float_islands for i in island.operations]
    assert len(inside) == len(set(inside))
    assert all(found.operations[i].kind.startswith("float") for i in inside)


def test_sizes_that_are_not_known(tmp_path):
    model = keras.Sequential([keras.Input((None, None, 3)), L.Conv2D(4, 3), L.GlobalAveragePooling2D()])
    path = tfdistill.export_tflite(
        model, tmp_path / "any.tflite", verify_on=np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32"), batch_size=None
    ).path
    found = tfdistill.inspect(path)
    assert any("conv" in name.lower() for name in found.dynamic), found.dynamic
    # Sizes of 1 leave nothing for a 3x3 filter: the interpreter, too, has memory for the input alone.
    assert found.peak_bytes <= found.planned_arena_bytes
    assert found.census.inputs[0].shape == (1, 1, 1, 3)


def test_loops_and_operations_of_other_makers(tmp_path):
    path = tmp_path / "custom.tflite"
    path.write_bytes(
        converted(
            lambda x: tf.while_loop(lambda i, v: i < 3, lambda i, v: (i + 1, conv(v)), [0, tf.raw_ops.Betainc(a=x, b=x, x=x)])[1],
            ("optimizations", []),
            ("representative_dataset", None),
            ("allow_custom_ops", True),
        )
    )
    found = tfdistill.inspect(path)
    assert found.census.subgraphs == 3
    assert {"WHILE", "CONV_2D"} <= {operation.name for operation in found.operations}
    custom = next(operation for operation in found.operations if operation.name == "Betainc")
    assert custom.targets["edgetpu"] is False
    assert custom.targets["xnnpack"] is None
    assert {operation.graph for operation in found.operations} == {0, 1, 2}
    assert found.float_islands == ()


def test_damaged_files_are_refused(written, tmp_path):
    content = written("convolutions", "int8")[1].read_bytes()
    rng, path = np.random.default_rng(0), tmp_path / "damaged.tflite"
    refused = []
    for number in range(60):
        damaged = bytearray(content[: rng.integers(8, len(content))] if number % 3 == 0 else content)
        for place in rng.integers(8, len(damaged), 6):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            tfdistill.inspect(path)
        except ExportError as error:
            refused.append(str(error))
    assert len(refused) > 20
    assert all("damaged.tflite" in text for text in refused)
    with pytest.raises(ConfigurationError, match="There is no file"):
        tfdistill.inspect(tmp_path / "missing.tflite")


def test_the_page_draws_every_operation(written):
    found = written("hard swish", "int8")[2]
    page = graph_page(found)
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    (tree,) = map(ElementTree.fromstring, drawings)
    space = {"s": "http://www.w3.org/2000/svg"}
    names = [text.text for text in tree.iterfind(".//s:text[@class='name']", space)]
    assert names == [operation.name for operation in found.operations]
    assert len(tree.findall(".//s:path", space)) == sum(len(operation.reads) for operation in found.operations)
    boxes = [(float(box.get("x")), float(box.get("y"))) for box in tree.iterfind(".//s:rect", space)]
    assert len(set(boxes)) == len(boxes)
    for operation in found.operations:  # everything is drawn below what it reads
        assert all(boxes[read][1] < boxes[operation.index][1] for read in operation.reads)
    assert "<script" not in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")


def test_names_from_a_file_are_only_text_on_the_page(tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, L.Dense(2, name="a")(inputs))
    path = tfdistill.export_tflite(model, tmp_path / "m.tflite").path
    found = tfdistill.inspect(path)
    operation = {**found.operations[0].to_dict(), "name": "<script>alert(1)</script>", "output": "'><script>"}
    page = graph_page(FileInspection.from_dict({**found.to_dict(), "operations": [operation]}))
    assert "<script" not in page
