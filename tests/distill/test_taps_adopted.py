"""Hints reach into a pruned or quantization-aware student by the names that the user gave its layers."""

import keras
import numpy as np
import pytest
from small import CLASSES

from tfdistill import Distiller
from tfdistill.compress import Prune, QuantizeAware
from tfdistill.distill import Tap, Taps
from tfdistill.losses import Hint, SoftTargets

X = np.random.default_rng(0).uniform(size=(32, 8, 8, 1)).astype("float32")
Y = np.random.default_rng(1).integers(0, CLASSES, 32)


def net(width, name):
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(width, 3, name="stem")(inputs)
    x = keras.layers.BatchNormalization(momentum=0.9, name="norm")(x)
    x = keras.layers.ReLU(name="relu")(x)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="logits")(x), name=name)


STEPS = {"pruned": lambda: Prune(sparsity=0.5, end_step=2), "quantization-aware": lambda: QuantizeAware()}


@pytest.mark.parametrize("layer", ["stem", "relu"])
@pytest.mark.parametrize("kind", STEPS)
def test_a_hint_by_the_users_name(kind, layer):
    teacher, student = net(8, "teacher"), net(4, "student")
    step = STEPS[kind]()
    adopted = step.apply(student)
    distiller = Distiller(teacher, adopted, [SoftTargets(2.0), Hint(layer, layer)])
    assert tuple(distiller.projections.trainable_weights[0].shape)[-2:] == (4, 8)
    distiller.compile(keras.optimizers.Adam(1e-2), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = distiller.fit(X, Y, batch_size=8, epochs=3, callbacks=step.callbacks(), verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    step.check(adopted)


def test_the_tapped_value_of_an_adopted_model_is_the_users_layers(rng):
    student = net(4, "student")
    adopted = Prune(sparsity=0.5, end_step=2).apply(student)
    _, features = Taps(adopted, ["stem"])(X)
    np.testing.assert_allclose(features[Tap("stem")], student.get_layer("stem")(X), atol=1e-5)
    _, again = Taps(adopted, ["stem"])(X)
    np.testing.assert_array_equal(features[Tap("stem")], again[Tap("stem")])


def test_a_misspelt_name_suggests_the_users_own():
    adopted = QuantizeAware().apply(net(4, "student"))
    with pytest.raises(ValueError, match="'stem'"):
        Distiller(net(8, "teacher"), adopted, Hint("stem", "stm"))
