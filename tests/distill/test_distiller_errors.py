"""Bad input to the Distiller: each row is a mistake a user makes, and words that the error must have. All of them come before any training."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small import CLASSES, Subclassed, data, mlp, pair

from tfdistill import Distiller
from tfdistill.errors import ConfigurationError, DataError, ModelError, TfdistillError
from tfdistill.losses import Hint, SoftTargets

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def make(losses=None, teacher=None, student=None, **kwargs):
    return Distiller(teacher or mlp(32, 24, name="teacher"), student or mlp(16, 12, name="student"), losses or SoftTargets(2.0), **kwargs)


def fit(x=None, y=None, sample_weight=None, distiller=None, **arguments):
    good_x, good_y = data(32)
    distiller = distiller or make()
    distiller.compile("sgd", loss=CROSS_ENTROPY)
    distiller.fit(good_x if x is None else x, good_y if y is None else y, sample_weight=sample_weight, verbose=0, **arguments)


def with_nan(array, at):
    array = np.array(array, "float32")
    array[at] = np.nan
    return array


def two_inputs(name):
    inputs = {"image": keras.Input((4,), name="image"), "meta": keras.Input((4,), name="meta")}
    return keras.Model(inputs, keras.layers.Dense(CLASSES)(keras.layers.Concatenate()(list(inputs.values()))), name=name)


def fit_two_inputs(shorter=False):
    x, y = data(32)
    distiller = make(teacher=two_inputs("teacher"), student=two_inputs("student"))
    meta = x[:20, 4:] if shorter else with_nan(x[:, 4:], (3, 1))
    fit({"image": x[:, :4], "meta": meta}, y, distiller=distiller)


def teacher_of_nan():
    teacher = mlp(8, name="teacher")
    teacher.get_layer("logits").bias.assign(np.full(CLASSES, np.nan))
    fit(distiller=make(teacher=teacher))


def sees_probabilities():
    inner = mlp(8)
    fit(distiller=make(teacher=keras.Model(inner.input, keras.layers.Softmax()(inner.output), name="teacher")))


class Twice(Subclassed):
    """Calls one block twice and the other not at all."""

    def build(self, input_shape):
        self.body.build((None, 8))
        for layer in (*self.blocks, self.head):
            layer.build((None, 12))

    def call(self, inputs, training=None):
        return self.head(self.blocks[0](self.blocks[0](self.body(inputs))))


MISTAKES = {
    "outputs of other length": (
        lambda: make(student=mlp(8, classes=3, name="student")),
        ModelError,
        ["teacher", "(None, 5)", "(None, 3)", "output"],
    ),
    "inputs of other shape": (lambda: make(student=mlp(8, features=4, name="student")), ModelError, ["input", "(None, 8)", "(None, 4)"]),
    "teacher no model": (lambda: make(teacher="resnet"), ModelError, ["Teacher must be a keras.Model"]),
    "teacher is student": (lambda: (lambda m: make(teacher=m, student=m))(mlp(8)), ModelError, ["one and the same"]),
    "teacher unbuilt": (
        lambda: fit(distiller=make(teacher=keras.Sequential([keras.layers.Dense(CLASSES)]))),
        ModelError,
        ["not built", "train it"],
    ),
    "teacher's layer misspelt": (lambda: make(Hint("hiden_0", "hidden_0")), ModelError, ["teacher", "'hiden_0'", "'hidden_0'"]),
    "student's layer misspelt": (lambda: make(Hint("hidden_0", "hidden_9")), ModelError, ["student", "'hidden_9'", "'hidden_0'"]),
    "layer never called": (
        lambda: fit(distiller=make(Hint("hidden_1", "blocks/1"), student=Twice())),
        ModelError,
        ["did not run", "blocks/1"],
    ),
    "layer called twice": (
        lambda: fit(distiller=make(Hint("hidden_1", "blocks/0"), student=Twice())),
        ModelError,
        ["called 2 times", "blocks/0@0"],
    ),
    "no projection possible": (lambda: make(Hint("hidden_0", "hidden_0", projection=None)), TfdistillError, ["hidden_0", "32", "16"]),
    "temperature 0": (lambda: SoftTargets(0.0), ConfigurationError, ["temperature", "0"]),
    "temperature negative": (lambda: SoftTargets(-1.0), ConfigurationError, ["temperature", "-1"]),
    "too many weights": (lambda: make([SoftTargets(2.0)], distillation_loss_weights=[1.0, 2.0]), ConfigurationError, ["(2)", "(1)"]),
    "too few weights": (lambda: make([SoftTargets(2.0)] * 2, distillation_loss_weights=[1.0]), ConfigurationError, ["(1)", "(2)"]),
    "weight negative": (lambda: make(distillation_loss_weights=[-1.0]), ConfigurationError, ["-1.0", "SoftTargets"]),
    "weight NaN": (lambda: make(distillation_loss_weights=[float("nan")]), ConfigurationError, ["nan"]),
    "share above 1": (lambda: make(student_loss_weight=1.5), ConfigurationError, ["student_loss_weight", "1.5"]),
    "no losses": (lambda: Distiller(mlp(8), mlp(4), []), ConfigurationError, ["empty"]),
    "losses None": (lambda: Distiller(mlp(8), mlp(4), None), ConfigurationError, ["None"]),
    "loss is a string": (lambda: make("kl_divergence"), ConfigurationError, ["'kl_divergence'", "tfdistill.losses"]),
    "no student loss": (lambda: make().compile("sgd"), ConfigurationError, ["loss", "student_loss_weight=0"]),
    "output misspelt": (lambda: fit(distiller=make({"logitz": SoftTargets(2.0)})), ModelError, ["'logitz'", "logits"]),
    "NaN in x": (lambda: fit(x=with_nan(data(32)[0], (2, 5))), DataError, ["input", "NaN", "[2, 5]"]),
    "NaN in one of two inputs": (fit_two_inputs, DataError, ["'meta'", "NaN", "[3, 1]"]),
    "infinity in x": (lambda: fit(x=np.full((32, 8), np.inf, "float32")), DataError, ["input", "infinity", "256 of 256"]),
    "NaN in y": (lambda: fit(y=with_nan(data(32)[1], 4)), DataError, ["target", "NaN", "[4]"]),
    "NaN in weights": (lambda: fit(sample_weight=with_nan(np.ones(32), 7)), DataError, ["sample weight", "[7]"]),
    "NaN in tf.data": (
        lambda: make_and_fit_dataset(tf.data.Dataset.from_tensor_slices((with_nan(data(32)[0], (0, 0)), data(32)[1])).batch(8)),
        DataError,
        ["input", "NaN"],
    ),
    "labels with a number for each class": (
        lambda: fit(y=np.eye(CLASSES)[data(32)[1]]),
        DataError,
        ["(32, 5)", "SparseCategoricalCrossentropy takes the index", "CategoricalCrossentropy(from_logits=True)"],
    ),
    "labels from 1": (lambda: fit(y=data(32)[1] + 1), DataError, ["from 1 to 5", "'student' has 5 classes", "from 0 to 4"]),
    "a label of -1": (lambda: fit(y=data(32)[1] - 1), DataError, ["from -1 to 3"]),
    "fewer labels": (lambda: fit(y=data(32)[1][:20]), DataError, ["x has 32, y has 20"]),
    "fewer weights": (lambda: fit(sample_weight=np.ones(31)), DataError, ["x has 32, y has 32, sample_weight has 31"]),
    "one of two inputs shorter": (
        lambda: fit_two_inputs(shorter=True),
        DataError,
        ["unequal numbers of samples"],
    ),
    "fewer labels to validate on": (lambda: fit(validation_data=(data(32)[0], data(9)[1])), DataError, ["validation", "y has 9"]),
    "inputs of another width": (lambda: fit(x=data(32, features=7)[0]), DataError, ["(32, 7)", "'student'", "(None, 8)"]),
    "inputs of another width in tf.data": (
        lambda: make_and_fit_dataset(tf.data.Dataset.from_tensor_slices(data(32, features=7)).batch(8)),
        DataError,
        ["(8, 7)", "(None, 8)"],
    ),
    "empty dataset": (lambda: make_and_fit_dataset(tf.data.Dataset.from_tensor_slices(data(32)).batch(8).take(0)), DataError, ["empty"]),
    "empty arrays": (lambda: fit(x=np.zeros((0, 8), "float32"), y=np.zeros(0, "int32")), DataError, ["empty"]),
    "teacher answers NaN": (teacher_of_nan, DataError, ["teacher", "NaN"]),
    "probabilities as logits": (sees_probabilities, TfdistillError, ["teacher", "probabilities"]),
}


def make_and_fit_dataset(dataset):
    distiller = make()
    distiller.compile("sgd", loss=CROSS_ENTROPY)
    distiller.fit(dataset, verbose=0)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_named_before_any_training(mistake):
    cause, kind, words = MISTAKES[mistake]
    with pytest.raises(kind) as caught:
        cause()
    for word in words:
        assert word in str(caught.value)


def test_keras_broken_default_is_warned_of_once_with_the_remedy():
    losses = [keras.distillation.LogitsDistillation(3.0), keras.distillation.LogitsDistillation(2.0)]
    with pytest.warns(UserWarning, match="raw logits") as caught:
        make(losses)
    assert len(caught) == 1
    assert "SoftTargets(3.0)" in str(caught[0].message)
    assert caught[0].filename == __file__


def test_keras_losses_that_are_right_are_not_warned_of():
    make([keras.distillation.LogitsDistillation(3.0, loss=keras.losses.KLDivergence()), keras.distillation.FeatureDistillation()])


def test_sample_weights_that_a_keras_loss_cannot_use_are_said():
    distiller = make(keras.distillation.LogitsDistillation(3.0, loss=keras.losses.KLDivergence()))
    with pytest.warns(UserWarning, match="sample_weight and class_weight do not reach it"):
        fit(sample_weight=np.ones(32, "float32"), distiller=distiller)


def test_keras_feature_loss_with_the_students_layer_alone_taps_it():
    teacher, _ = pair()
    student = mlp(CLASSES, name="student")
    x, y = data(32)
    distiller = Distiller(
        teacher, student, keras.distillation.FeatureDistillation("mse", student_layer_name="hidden_0"), student_loss_weight=0.0
    )
    distiller.compile("sgd", loss=None)
    logs = distiller.evaluate(x, y, batch_size=32, verbose=0, return_dict=True)
    hidden = keras.Model(student.input, student.get_layer("hidden_0").output).predict(x, verbose=0)
    np.testing.assert_allclose(logs["distillation_loss"], ((teacher.predict(x, verbose=0) - hidden) ** 2).mean(), rtol=1e-5)
