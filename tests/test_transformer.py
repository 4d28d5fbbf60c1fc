"""A transformer of six blocks teaches one of three, with attention maps and hidden states, in one forward pass per step."""

import keras
import numpy as np
from keras import layers

from tfdistill import Distiller
from tfdistill.demo import models
from tfdistill.losses import AttentionMaps, HiddenStates, SoftTargets

BLOCKS = [(2, 1), (4, 2), (6, 3)]


class Counting(layers.Layer):
    """Counts how often it is called; does nothing else."""

    calls = 0

    def call(self, inputs, training=None):
        type(self).calls += 1
        return inputs


class CountingTeacher(Counting):
    calls = 0


def counted(model, layer):
    return keras.Model(model.input, layer(name="counter")(model.output), name=model.name)


def test_attention_maps_and_hidden_states_in_one_pass_of_each_model(rng):
    x, y = rng.normal(size=(32, 8, 8)).astype("float32"), rng.integers(0, 10, 32)
    teacher = counted(models.transformer((8, 8), 10, blocks=6, width=16, heads=4, name="teacher"), CountingTeacher)
    student = counted(models.transformer((8, 8), 10, blocks=3, width=8, heads=4, name="student"), Counting)
    losses = [SoftTargets(4.0)]
    losses += [AttentionMaps(f"attention_{t}", f"attention_{s}") for t, s in BLOCKS]
    losses += [HiddenStates(f"block_{t}", f"block_{s}") for t, s in BLOCKS]
    distiller = Distiller(teacher, student, losses)
    distiller.compile(keras.optimizers.Adam(1e-3), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
    distiller.fit(x, y, batch_size=32, verbose=0)  # the first look at the data runs both once more
    Counting.calls = CountingTeacher.calls = 0
    history = distiller.fit(x, y, batch_size=8, epochs=2, verbose=0).history
    assert (Counting.calls, CountingTeacher.calls) == (8, 8), "one call of each in each of the 8 steps"
    assert np.all(np.isfinite(history["loss"]))
    assert [tuple(w.shape) for w in distiller.projections.weights] == [(8, 16)] * 3


def test_the_scores_that_are_compared_are_those_of_the_layers(rng):
    x = rng.normal(size=(4, 8, 8)).astype("float32")
    teacher = models.transformer((8, 8), 10, blocks=2, width=16, heads=4, name="teacher")
    student = models.transformer((8, 8), 10, blocks=1, width=8, heads=4, name="student")
    distiller = Distiller(teacher, student, AttentionMaps("attention_2", "attention_1"), student_loss_weight=0.0)
    distiller.compile("sgd", loss=None)
    logged = distiller.evaluate(x, verbose=0, return_dict=True)["distillation_loss"]

    def scores(model, number):
        norm = model.get_layer(f"attention_{number}")._inbound_nodes[0].input_tensors[0]
        normed = keras.Model(model.input, norm)(x)
        return model.get_layer(f"attention_{number}")(normed, normed, return_attention_scores=True)[1].numpy()

    np.testing.assert_allclose(logged, np.mean((scores(teacher, 2) - scores(student, 1)) ** 2), rtol=1e-4)
