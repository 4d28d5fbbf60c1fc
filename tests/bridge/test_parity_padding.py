"""Padded sequences: what both Keras compute where everything is masked differs, and counts only where something reads it."""

import keras
import numpy as np
import pytest

from tfdistill.bridge import check_parity, to_tf_keras
from tfdistill.errors import BridgeError

layers = keras.layers


def transformer(last, factor, seed):
    """A block over padded tokens, with weights that are `factor` times as large as new ones: scores of a trained model are."""
    keras.utils.set_random_seed(seed)
    tokens = keras.Input((12,), dtype="int32", name="tokens")
    h = layers.Embedding(40, 16, mask_zero=True)(tokens)
    h = layers.Add()([h, layers.MultiHeadAttention(2, 8, name="attention")(h, h)])
    h = layers.LayerNormalization()(h)
    h = layers.LayerNormalization()(layers.Add()([h, layers.Dense(16)(layers.Dense(32, activation="relu")(h))]))
    model = keras.Model(tokens, layers.Dense(3)(last(h)))
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(factor * (weight + rng.normal(scale=0.3, size=weight.shape)))
    return model


@pytest.mark.parametrize("factor", [1.0, 3.0, 10.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_padded_transformer_passes(factor, seed):
    check_parity(model := transformer(layers.GlobalAveragePooling1D(), factor, seed), to_tf_keras(model))


def test_what_reads_masked_positions_is_refused():
    """Scores of some hundred: tf_keras adds a mask of -1e9 to them, which leaves of each score what float32 has there, and Keras 3 a far larger one."""
    with pytest.raises(BridgeError, match="attention"):
        to_tf_keras(transformer(lambda h: keras.ops.reshape(h, (-1, 12 * 16)), 10.0, 0))
