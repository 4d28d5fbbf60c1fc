"""The inputs and outputs of a file have the names that the user gave, whatever wraps the layers meanwhile."""

import keras
import pytest

from tfdistill.compress import Cluster, Prune, QuantizeAware
from tfdistill.convert.signature import describe
from tfdistill.runtime.interpreter import open_file
from tfdistill.tflite import export_tflite

layers = keras.layers


def two_heads():
    image = keras.Input((8, 8, 1), name="image")
    h = layers.Flatten()(layers.Conv2D(4, 3, name="conv")(image))
    return keras.Model(image, {"a": layers.Dense(3, activation="softmax", name="kind")(h), "b": layers.Dense(1, name="size")(h)})


def nested():
    image = keras.Input((8, 8, 1), name="image")
    return keras.Model(
        image, keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(3, name="probs")], name="inner")(image)
    )


MODELS = {
    "sequential": (
        lambda: keras.Sequential([keras.Input((8, 8, 1), name="image"), layers.Flatten(), layers.Dense(3, "softmax", name="probs")]),
        ("probs",),
    ),
    "two heads": (two_heads, ("kind", "size")),
    "nested": (nested, ("inner",)),
}
STEPS = {"QuantizeAware": QuantizeAware(), "Prune": Prune(0.5, end_step=2), "Cluster": Cluster(4), "none": None}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", MODELS)
def test_names_are_the_users(name, step):
    make, outputs = MODELS[name]
    model = make()
    signature = describe(STEPS[step].apply(model) if STEPS[step] else model)
    assert tuple(signature.output_keys) == outputs
    assert [i.key for i in signature.inputs] == ["image"]


NAMES = ("x", "X", "1", "_1", "größe")


# The bridge has no names of other letters than those of ASCII.
@pytest.mark.parametrize(("variant", "names"), [("float32", NAMES), ("int8", NAMES[:-1])])
def test_inputs_of_any_name_are_exported(variant, names, tmp_path, rng):
    inputs = [keras.Input((2,), name=name) for name in names]
    model = keras.Model(inputs, layers.Dense(2)(layers.Concatenate()(inputs)))
    data = {name: rng.normal(size=(16, 2)).astype("float32") for name in names}
    record = export_tflite(model, tmp_path / "model.tflite", variant, calibration=data if variant == "int8" else None, verify_on=data)
    assert [i.key for i in describe(model).inputs] == list(names)
    assert set(open_file(record.path).inputs) == set(("x", "X_1", "input_1", "input_1_1", "gr__e")[: len(names)])


@pytest.mark.parametrize("variant", ["float32", "int8"])
def test_inputs_and_outputs_stand_in_the_order_of_the_model(variant, tmp_path, rng):
    inputs = [keras.Input((3,), name=name) for name in "zpx"]
    outputs = [layers.Dense(2, name=name)(layers.Concatenate()(inputs)) for name in "dacb"]
    data = [rng.normal(size=(16, 3)).astype("float32") for _ in inputs]
    record = export_tflite(keras.Model(inputs, outputs), tmp_path / "m.tflite", variant, calibration=data)
    assert [tensor.name for tensor in record.inputs] == list("zpx")
    assert [tensor.name for tensor in record.outputs] == list("dacb")
    assert [tensor.index for tensor in record.outputs] == [0, 1, 2, 3]
