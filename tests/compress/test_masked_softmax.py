"""Attention that others write with operations and a Softmax: a mask hides scores without taking the range of those that are seen."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from tfdistill.bridge import imports
from tfdistill.bridge.integer.attention import masked_softmax
from tfdistill.bridge.integer.rounding import ActivationRounder
from tfdistill.compress import QuantizeAware
from tfdistill.tflite.export import export_tflite


def attention(mask_of):
    """Attention on six tokens, of which each sees what the mask given as the second input shows."""
    tokens, mask = keras.Input((6, 8), name="tokens"), keras.Input((6, 6), dtype="int32", name="mask")
    query, key, value = (layers.Dense(8, name=name)(tokens) for name in ("query", "key", "value"))
    scores = ops.matmul(query, ops.transpose(key, (0, 2, 1)))
    seen = layers.Softmax(axis=(-1,), name="softmax")(scores, mask=mask_of(mask))
    return keras.Model([tokens, mask], layers.Dense(3, name="out")(ops.matmul(seen, value)))


@pytest.mark.parametrize(("axis", "positional"), [(-1, False), (-1, True), ((-1,), False)])
def test_it_is_the_softmax_of_what_is_seen(axis, positional, rng):
    scores, mask = rng.normal(size=(3, 4, 5)).astype("float32"), rng.random((3, 4, 5)) < 0.6
    mask[..., 0] = True
    layer = imports.tf_keras().layers.Softmax(axis=axis)
    args, kwargs = ((tf.constant(mask),), {}) if positional else ((), {"mask": tf.constant(mask)})
    x = tf.constant(scores)
    with tf.GradientTape() as tape:
        tape.watch(x)
        found = masked_softmax(layer, ActivationRounder(lambda what: (None,) * 3, training=False, rounding=False), (x, *args), kwargs)
        total = tf.reduce_sum(found * found)
    powers = np.where(mask, np.exp(scores), np.exp(-16.0))
    expected = powers / powers.sum(-1, keepdims=True)
    # d sum(p^2) / dx of a softmax p.
    gradient = 2 * expected * (expected - (expected**2).sum(-1, keepdims=True)) * mask
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(tape.gradient(total, x), gradient, atol=1e-6)


@pytest.mark.parametrize("trained", [True, False])
def test_a_mask_goes_to_an_integer_file(trained, rng, tmp_path):
    model = attention(lambda mask: ops.cast(mask, "bool"))
    x = [rng.normal(size=(64, 6, 8)).astype("float32"), np.tile(np.tri(6, dtype="int32"), (64, 1, 1))]
    if trained:
        step = QuantizeAware()
        applied = step.apply(model)
        applied(x, training=True)
        model = step.strip(applied)
    record = export_tflite(model, tmp_path / "model.tflite", "int8", calibration=x)
    (output,) = record.verification.outputs.values()
    assert output.mean_abs_error / output.scale < 0.01
