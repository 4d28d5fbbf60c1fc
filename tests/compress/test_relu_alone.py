"""A ReLU that no operation before it computes: XNNPACK has no integer operation for it, and would leave it, and split the graph."""

import keras
import numpy as np
import pytest

from tfdistill import load_model
from tfdistill.compress import Quantize, QuantizeAware
from tfdistill.runtime.delegated import delegation
from tfdistill.runtime.interpreter import open_file
from tfdistill.tflite import Tolerances, export_tflite

L = keras.layers
X = np.random.default_rng(0).normal(size=(64, 8, 8, 4)).astype("float32")
RELUS = {
    "a layer": lambda x: L.ReLU(name="relu")(x),
    "a layer up to 6": lambda x: L.ReLU(max_value=6, name="relu")(x),
    "an activation": lambda x: L.Activation("relu", name="relu")(x),
    "an activation up to 6": lambda x: L.Activation("relu6", name="relu")(x),
    "an operation": lambda x: keras.ops.relu(x),
    "an operation up to 6": lambda x: keras.ops.relu6(x),
}
# What stands before it, given the first convolution's output: it is read a second time, or is no operation that a ReLU is fused into.
BEFORE = {
    "a convolution that is read twice": lambda x: x,
    "a sum that is read twice": lambda x: L.Add()([x, L.Conv2D(8, 1)(x)]),
    "a concatenation": lambda x: L.Concatenate()([x, L.Conv2D(8, 1)(x)]),
    "a pooling": lambda x: L.MaxPooling2D(2)(x),
    "a change of shape": lambda x: L.Reshape((16, 32))(x),
}


def net(before, relu):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 4))
    h = BEFORE[before](L.Conv2D(8, 1)(inputs))
    after = [RELUS[relu](h), h] if "twice" in before else [RELUS[relu](h)]
    pooled = [L.GlobalAveragePooling2D()(y) if y.shape.count(None) + len(y.shape) == 5 else L.GlobalAveragePooling1D()(y) for y in after]
    return keras.Model(inputs, L.Dense(3)(L.Concatenate()(pooled) if len(pooled) > 1 else pooled[0]))


def exported(model, path, **settings):
    quantized = Quantize(**settings).apply(model, X)
    return quantized, export_tflite(quantized, path, "int8", verify_on=X, tolerances=Tolerances())


def names(record):
    return {op.name for op in record.census.ops}


ROWS = [("a sum that is read twice", relu) for relu in RELUS] + [(before, "a layer") for before in BEFORE]


@pytest.mark.parametrize(("before", "relu"), dict.fromkeys(ROWS))
def test_xnnpack_gets_a_product(before, relu, tmp_path):
    model = net(before, relu)
    _, product = exported(model, tmp_path / "product.tflite")
    _, operation = exported(model, tmp_path / "operation.tflite", target="builtin")
    assert "MUL" in names(product)
    assert not {"RELU", "RELU6"} & names(product)
    # The converter lets a pooling compute it, and changes the scale behind that.
    assert ({"RELU", "RELU6"} if before != "a pooling" else {"QUANTIZE"}) & names(operation)
    assert delegation(open_file(product.path, trusted=True).interpreter).share == 1.0
    files = [open_file(record.path, trusted=True, xnnpack=False) for record in (product, operation)]
    found, expected = (next(iter(file.run(X).values())) for file in files)
    # Both round once; a product by one may round the other way where it is halfway.
    assert np.abs(found - expected).max() <= 1.01 * product.outputs[0].scale
    assert (np.abs(found - expected) > 0).mean() < 0.05


def test_saved_and_loaded_it_is_the_same_file(tmp_path):
    made, product = exported(net("a concatenation", "a layer"), tmp_path / "product.tflite")
    made.save(tmp_path / "net.keras")
    again = export_tflite(load_model(tmp_path / "net.keras"), tmp_path / "again.tflite", "int8", verify_on=X, tolerances=Tolerances())
    assert again.sha256 == product.sha256


def test_the_plan_says_so_and_what_is_fused_stays_fused():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 4))
    h = L.ReLU(name="fused")(L.Conv2D(8, 1)(inputs))
    h = L.ReLU(name="alone")(L.Concatenate()([h, L.Conv2D(8, 1)(h)]))
    model = keras.Model(inputs, L.Dense(3)(L.Flatten()(h)))
    plan = QuantizeAware().plan(model)
    assert (plan.row("fused").operations, plan.row("alone").operations) == ((), ("MUL broadcast",))
    assert "ReLU as a product by one" in plan.row("alone").reason
    assert "product" not in plan.row("fused").reason
    for target, taken in (("builtin", True), ("micro", True), ("edgetpu", True)):
        row = QuantizeAware(target=target).plan(model).row("alone")
        assert row.operations == ("RELU",), target
        assert (row.slow == ()) is taken, target


def test_training_computes_the_function_itself():
    model = net("a pooling", "a layer up to 6")
    step = QuantizeAware(layers="relu")
    quantized = step.apply(model, calibration=X, dry_run=False)
    expected = np.asarray(keras.Model(model.inputs[0], model.get_layer("relu").output)(X))
    before = np.asarray(keras.Model(model.inputs[0], model.get_layer("relu").input)(X))
    layer = quantized.get_layer("relu")
    found = np.asarray(layer(before))
    step_size = float(layer.ranges["output"][1]) / 255.0
    assert np.abs(found - expected).max() <= 0.51 * step_size
    assert found.min() == 0.0
