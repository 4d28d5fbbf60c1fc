"""Quantization-aware training where something is divided by what rounds to zero: quiet rows, padding, constant rows; and training that turns NaN."""

import keras
import numpy as np
import pytest
from keras import layers

from tfdistill import export_tflite
from tfdistill.compress import QuantizeAware
from tfdistill.errors import InvariantError
from tfdistill.runtime.interpreter import open_file


def padded(rng, count=64):
    """Sequences of six steps, of which the last three are zeros."""
    x = rng.normal(size=(count, 6, 8)).astype("float32")
    x[:, 3:] = 0.0
    return x


def quiet(rng, count=64):
    """Some steps are 0.03 times as loud as the others."""
    x = rng.normal(size=(count, 6, 8)).astype("float32")
    x[:, ::2] *= 0.03
    return x


def constant(rng, count=64):
    """Some steps have one value in all channels."""
    x = rng.normal(size=(count, 6, 8)).astype("float32")
    x[:, 1] = 0.7
    return x


def silent(rng, count=64):
    """The first half of the samples, and so of the batches, is zero."""
    x = rng.normal(size=(count, 6, 8)).astype("float32")
    x[: count // 2] = 0.0
    return x


BODIES = {
    "layer normalization": lambda x: layers.LayerNormalization(epsilon=1e-6)(x),
    "layer normalization of a dense layer": lambda x: layers.LayerNormalization(epsilon=1e-12)(layers.Dense(8, use_bias=False)(x)),
    "group normalization": lambda x: layers.GroupNormalization(2, epsilon=1e-6)(x),
    "two normalizations": lambda x: layers.LayerNormalization(epsilon=1e-6)(layers.Dense(8)(layers.LayerNormalization(epsilon=1e-6)(x))),
    "attention": lambda x: layers.MultiHeadAttention(2, 4)(x, x),
    "GRU": lambda x: layers.GRU(4, return_sequences=True)(x),
    "elu": lambda x: layers.Dense(8, activation="elu")(x),
    "softmax": lambda x: layers.Softmax()(layers.Dense(8)(x)),
}
DATA = {"padded": padded, "quiet": quiet, "constant": constant, "silent": silent}
FAST = {("layer normalization", "padded"), ("layer normalization", "quiet"), ("group normalization", "padded")}
NORMALIZATIONS = {"layer normalization", "layer normalization of a dense layer", "group normalization"}
CASES = [
    pytest.param(body, data, marks=[] if (body, data) in FAST else [pytest.mark.slow])
    for body in BODIES
    for data in (DATA if body in NORMALIZATIONS else ["silent"])
]


def model_of(body):
    inputs = keras.Input((6, 8))
    return keras.Model(inputs, layers.Dense(3, name="head")(layers.GlobalAveragePooling1D()(body(inputs))))


def trained(model, x, step=None, epochs=1):
    step = step or QuantizeAware()
    adopted = step.apply(model)
    adopted.compile(keras.optimizers.SGD(0.01), "mse")
    adopted.fit(x, np.zeros((len(x), 3), "float32"), batch_size=16, epochs=epochs, shuffle=False, verbose=0, callbacks=step.callbacks())
    step.check(adopted)
    return adopted


@pytest.mark.parametrize(("body", "data"), CASES)
def test_rows_that_round_to_zero_stay_finite_and_the_file_agrees(body, data, rng, tmp_path):
    x = DATA[data](rng)
    adopted = trained(model_of(BODIES[body]), x)
    export_tflite(adopted, tmp_path / "a.tflite", "int8", verify_on=x)
    outputs = next(iter(open_file(tmp_path / "a.tflite").run(x).values()))
    expected = adopted.predict(x, verbose=0)
    assert np.isfinite(expected).all()
    assert np.abs(outputs - expected).max() < 0.03 * np.ptp(expected)


def test_rows_of_zeros_do_not_make_the_others_coarser(rng):
    """Padding takes nothing from the range that the inverse deviation of the other rows is rounded to."""
    model = keras.Sequential([keras.Input((6, 8)), layers.LayerNormalization(epsilon=1e-6, name="norm")])
    loud = rng.normal(size=(64, 6, 8)).astype("float32")
    errors = []
    for x in (loud, np.concatenate([loud[:, :3], np.zeros_like(loud[:, 3:])], axis=1)):
        step = QuantizeAware()
        adopted = step.apply(model)
        adopted.compile("sgd", "mse")
        adopted.optimizer.learning_rate.assign(0.0)
        adopted.fit(x, x, epochs=2, verbose=0)
        errors.append(np.abs(adopted.predict(x, verbose=0)[:, :3] - model.predict(x, verbose=0)[:, :3]).mean())
    assert errors[1] < 1.5 * errors[0]


# Where a fault is planted -> what the error names first.
PLANTED = {"data": "the input", "weights": "the weights of 'first'", "inside": "'logarithm'", "step": "'head'"}


@keras.saving.register_keras_serializable("test_quiet_rows")
class Logarithm(layers.Layer):
    """Is minus infinity at zero."""

    def call(self, x):
        return keras.ops.log(keras.ops.relu(x))


def planted(where):
    inputs = keras.Input((4,))
    x = layers.Dense(4, name="first")(inputs)
    x = Logarithm(name="logarithm")(x) if where == "inside" else layers.ReLU()(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(x), name="planted")


@pytest.mark.parametrize("where", PLANTED)
def test_a_training_that_turns_nan_ends_and_names_the_layer(where, rng):
    from tfdistill.bridge import host, register_bridge

    register_bridge(Logarithm, host)
    x = rng.normal(size=(64, 4)).astype("float32")
    step = QuantizeAware()
    adopted = step.apply(planted(where))
    # A step of this size overflows in what the last layer computes next.
    adopted.compile(keras.optimizers.SGD(3e38 if where == "step" else 0.01), "mse")
    if where == "data":
        x[40] = np.nan
    if where == "weights":
        adopted.get_layer("first").layer.kernel.assign(np.full((4, 4), np.inf))
    with pytest.raises(InvariantError, match=f"'planted' turned NaN or infinite in epoch 1.*First of all {PLANTED[where]}"):
        adopted.fit(x, np.zeros((64, 3), "float32"), batch_size=16, verbose=0, shuffle=False, callbacks=step.callbacks())
    with pytest.raises(InvariantError, match=f"turned NaN or infinite.*{PLANTED[where]}"):
        step.check(adopted)


def test_the_layer_that_is_named_can_be_left_out(rng):
    """The remedy of the error: a layer that is left out trains in float, and the model trains on."""
    from tfdistill.bridge import host, register_bridge

    register_bridge(Logarithm, host)
    inputs = keras.Input((4,))
    x = layers.Dense(4, name="first")(inputs)
    model = keras.Model(inputs, layers.Dense(3, name="head")(keras.ops.tanh(Logarithm(name="logarithm")(keras.ops.exp(x)))))
    x = rng.normal(size=(64, 4)).astype("float32")
    trained(model, x, QuantizeAware(exclude="logarithm"))


def test_a_distiller_ends_as_well(rng):
    import tfdistill

    x = rng.normal(size=(64, 4)).astype("float32")
    step = QuantizeAware()
    adopted = step.apply(planted("weights"))
    distiller = tfdistill.Distiller(planted("weights"), adopted, tfdistill.losses.OutputMatching(), student_loss_weight=0.0)
    distiller.compile(keras.optimizers.SGD(1e38))
    with pytest.raises(InvariantError, match="turned NaN or infinite in epoch 1, at the latest in batch 2"):
        distiller.fit(x, batch_size=16, verbose=0, callbacks=step.callbacks())
