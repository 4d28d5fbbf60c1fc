"""The inputs and outputs of a file have the names that the user gave, whatever wraps the layers meanwhile."""

import keras
import pytest

from tfdistill.compress import Cluster, Prune, QuantizeAware
from tfdistill.convert.signature import describe

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
