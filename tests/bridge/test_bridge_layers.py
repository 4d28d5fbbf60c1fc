"""Every kind of layer and operation alone, in inference and in training mode, and cloned as compression libraries clone it."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from zoo_models import randomize

from tfdistill.bridge import check_parity, to_keras, to_tf_keras
from tfdistill.bridge.imports import tf_keras

BOUND = 1e-6
SIGNAL, IMAGE, VOLUME, VECTOR, TOKENS = (8, 6), (8, 8, 4), (4, 4, 4, 2), (6,), (7,)


def one(layer, *shapes, dtype="float32"):
    """Makes a model of one layer."""
    inputs = [keras.Input(shape, dtype=dtype, name=f"x{i}") for i, shape in enumerate(shapes)]
    return keras.Model(inputs, layer(inputs[0] if len(inputs) == 1 else inputs))


def op(function, *shapes, dtype="float32"):
    """Makes a model of operations."""
    inputs = [keras.Input(shape, dtype=dtype, name=f"x{i}") for i, shape in enumerate(shapes)]
    return keras.Model(inputs, function(*inputs))


def attention(layer, **arguments):
    query, value = keras.Input((5, 8), name="query"), keras.Input((7, 8), name="value")
    return keras.Model([query, value], layer(query, value, **arguments))


def masked(layer):
    tokens = keras.Input((7,), dtype="int32", name="tokens")
    return keras.Model(tokens, layer(layers.Embedding(11, 6, mask_zero=True)(tokens)))


def stateful_start():
    x, state = keras.Input(SIGNAL, name="x"), keras.Input((4,), name="state")
    outputs, last = layers.GRU(4, return_state=True, return_sequences=True)(x, initial_state=state)
    return keras.Model([x, state], [outputs, last])


def seq2seq():
    source, target = keras.Input(SIGNAL, name="source"), keras.Input((5, 3), name="target")
    _, *states = layers.LSTM(4, return_state=True)(source)
    return keras.Model([source, target], layers.LSTM(4, return_sequences=True)(target, initial_state=states))


def masked_operation(act):
    """An operation on what is masked: Keras drops the mask there, so the layer after it sees padding."""
    tokens = keras.Input((7,), dtype="int32", name="tokens")
    x = layers.Embedding(11, 6, mask_zero=True)(tokens)
    return keras.Model(tokens, layers.GlobalAveragePooling1D()(act(x, layers.Dense(6)(x))))


def explicit_mask():
    x, mask = keras.Input((5, 8), name="x"), keras.Input((5, 5), dtype="bool", name="mask")
    return keras.Model([x, mask], layers.MultiHeadAttention(2, 4)(x, x, attention_mask=mask))


def adapted_normalization():
    layer = layers.Normalization()
    layer.adapt(np.random.default_rng(0).normal(3.0, 2.0, (50, 6)).astype("float32"))
    return one(layer, VECTOR)


@keras.saving.register_keras_serializable("tests")
def own_activation(x):
    return ops.tanh(x) * 0.5


LAYERS = {
    "Dense": lambda: one(layers.Dense(5, activation="relu", use_bias=False), VECTOR),
    "Dense of sequences": lambda: one(layers.Dense(5), SIGNAL),
    "EinsumDense": lambda: one(layers.EinsumDense("abc,cd->abd", output_shape=(None, 5), bias_axes="d", activation="gelu"), SIGNAL),
    "Embedding": lambda: one(layers.Embedding(11, 5), TOKENS, dtype="int32"),
    "Embedding of floats": lambda: one(layers.Embedding(11, 5), TOKENS),
    "Conv1D": lambda: one(layers.Conv1D(5, 3, strides=2, padding="same", activation="tanh"), SIGNAL),
    "Conv1D causal": lambda: one(layers.Conv1D(5, 3, padding="causal", dilation_rate=2), SIGNAL),
    "Conv2D": lambda: one(layers.Conv2D(5, (3, 2), dilation_rate=2), IMAGE),
    "Conv2D grouped": lambda: one(layers.Conv2D(6, 3, groups=2, padding="same"), IMAGE),
    "Conv3D": lambda: one(layers.Conv3D(3, 2), VOLUME),
    "Conv1DTranspose": lambda: one(layers.Conv1DTranspose(5, 3, strides=2, padding="same"), SIGNAL),
    "Conv2DTranspose": lambda: one(layers.Conv2DTranspose(5, 3, strides=2, padding="valid"), IMAGE),
    "Conv2DTranspose output_padding": lambda: one(layers.Conv2DTranspose(5, 3, strides=2, padding="same", output_padding=1), IMAGE),
    "Conv3DTranspose": lambda: one(layers.Conv3DTranspose(3, 2, strides=2), VOLUME),
    "SeparableConv1D": lambda: one(layers.SeparableConv1D(5, 3, depth_multiplier=2), SIGNAL),
    "SeparableConv2D": lambda: one(layers.SeparableConv2D(5, 3, padding="same"), IMAGE),
    "DepthwiseConv1D": lambda: one(layers.DepthwiseConv1D(3, depth_multiplier=2), SIGNAL),
    "DepthwiseConv2D": lambda: one(layers.DepthwiseConv2D(3, strides=2, padding="same"), IMAGE),
    "MaxPooling1D": lambda: one(layers.MaxPooling1D(2), SIGNAL),
    "MaxPooling2D": lambda: one(layers.MaxPooling2D(3, strides=2, padding="same"), IMAGE),
    "MaxPooling3D": lambda: one(layers.MaxPooling3D(2), VOLUME),
    "AveragePooling1D": lambda: one(layers.AveragePooling1D(2, padding="same"), SIGNAL),
    "AveragePooling2D": lambda: one(layers.AveragePooling2D(3, strides=2, padding="same"), IMAGE),
    "AveragePooling3D": lambda: one(layers.AveragePooling3D(2), VOLUME),
    "GlobalAveragePooling1D": lambda: one(layers.GlobalAveragePooling1D(keepdims=True), SIGNAL),
    "GlobalAveragePooling1D masked": lambda: masked(layers.GlobalAveragePooling1D()),
    "GlobalAveragePooling2D": lambda: one(layers.GlobalAveragePooling2D(keepdims=True), IMAGE),
    "GlobalAveragePooling3D": lambda: one(layers.GlobalAveragePooling3D(), VOLUME),
    "GlobalMaxPooling1D": lambda: one(layers.GlobalMaxPooling1D(), SIGNAL),
    "GlobalMaxPooling2D": lambda: one(layers.GlobalMaxPooling2D(), IMAGE),
    "GlobalMaxPooling3D": lambda: one(layers.GlobalMaxPooling3D(), VOLUME),
    "UpSampling1D": lambda: one(layers.UpSampling1D(2), SIGNAL),
    "UpSampling2D nearest": lambda: one(layers.UpSampling2D((2, 3)), IMAGE),
    "UpSampling2D bilinear": lambda: one(layers.UpSampling2D(2, interpolation="bilinear"), IMAGE),
    "UpSampling3D": lambda: one(layers.UpSampling3D(2), VOLUME),
    "ZeroPadding1D": lambda: one(layers.ZeroPadding1D((1, 2)), SIGNAL),
    "ZeroPadding2D": lambda: one(layers.ZeroPadding2D(((1, 0), (2, 1))), IMAGE),
    "ZeroPadding3D": lambda: one(layers.ZeroPadding3D(1), VOLUME),
    "Cropping1D": lambda: one(layers.Cropping1D(1), SIGNAL),
    "Cropping2D": lambda: one(layers.Cropping2D(((1, 0), (2, 1))), IMAGE),
    "Cropping3D": lambda: one(layers.Cropping3D(1), VOLUME),
    "Flatten": lambda: one(layers.Flatten(), IMAGE),
    "Reshape": lambda: one(layers.Reshape((4, -1)), IMAGE),
    "Permute": lambda: one(layers.Permute((3, 1, 2)), IMAGE),
    "RepeatVector": lambda: one(layers.RepeatVector(3), VECTOR),
    "Identity": lambda: one(layers.Identity(), VECTOR),
    "Masking": lambda: op(lambda x: layers.LSTM(3)(layers.Masking(0.0)(ops.relu(x))), SIGNAL),
    "Rescaling": lambda: one(layers.Rescaling(1 / 127.5, offset=-1.0), IMAGE),
    "Rescaling per channel": lambda: one(layers.Rescaling([1.0, 2.0, 3.0, 4.0], offset=[0.0, 1.0, 2.0, 3.0]), IMAGE),
    "Rescaling of integers": lambda: one(layers.Rescaling(1 / 255), IMAGE, dtype="uint8"),
    "Normalization": lambda: one(layers.Normalization(mean=[1.0] * 6, variance=[2.0] * 6), VECTOR),
    "Normalization adapted": adapted_normalization,
    "Normalization inverted": lambda: one(layers.Normalization(mean=1.5, variance=2.0, axis=None, invert=True), VECTOR),
    "Resizing": lambda: one(layers.Resizing(5, 6), IMAGE),
    "CenterCrop": lambda: one(layers.CenterCrop(5, 6), IMAGE),
    "CategoryEncoding": lambda: one(layers.CategoryEncoding(9, output_mode="multi_hot"), TOKENS, dtype="int32"),
    "RandomFlip": lambda: one(layers.RandomFlip(), IMAGE),
    "BatchNormalization": lambda: one(layers.BatchNormalization(momentum=0.9, epsilon=1e-2), IMAGE),
    "BatchNormalization of vectors": lambda: one(layers.BatchNormalization(scale=False), VECTOR),
    "BatchNormalization axis": lambda: one(layers.BatchNormalization(axis=1, center=False), IMAGE),
    "LayerNormalization": lambda: one(layers.LayerNormalization(epsilon=1e-5), SIGNAL),
    "LayerNormalization axes": lambda: one(layers.LayerNormalization(axis=[1, 2], center=False), SIGNAL),
    "GroupNormalization": lambda: one(layers.GroupNormalization(2), IMAGE),
    "GroupNormalization instance": lambda: one(layers.GroupNormalization(-1), IMAGE),
    "UnitNormalization": lambda: one(layers.UnitNormalization(), SIGNAL),
    "RMSNormalization": lambda: one(layers.RMSNormalization(), SIGNAL),
    "SpectralNormalization": lambda: one(layers.SpectralNormalization(layers.Dense(4)), VECTOR),
    "Dropout": lambda: one(layers.Dropout(0.5, seed=3), VECTOR),
    "SpatialDropout2D": lambda: one(layers.SpatialDropout2D(0.5), IMAGE),
    "AlphaDropout": lambda: one(layers.AlphaDropout(0.5), VECTOR),
    "GaussianNoise": lambda: one(layers.GaussianNoise(0.5), VECTOR),
    "GaussianDropout": lambda: one(layers.GaussianDropout(0.5), VECTOR),
    "ActivityRegularization": lambda: one(layers.ActivityRegularization(l1=0.1), VECTOR),
    "ReLU": lambda: one(layers.ReLU(6.0, negative_slope=0.1, threshold=0.2), VECTOR),
    "LeakyReLU": lambda: one(layers.LeakyReLU(0.17), VECTOR),
    "PReLU": lambda: one(layers.PReLU(shared_axes=[1, 2]), IMAGE),
    "ELU": lambda: one(layers.ELU(0.7), VECTOR),
    "Softmax": lambda: one(layers.Softmax(axis=1), SIGNAL),
    "Activation layer": lambda: one(layers.Activation(layers.LeakyReLU(0.3)), VECTOR),
    "own activation": lambda: one(layers.Dense(4, activation=own_activation), VECTOR),
    "Add": lambda: one(layers.Add(), VECTOR, VECTOR, VECTOR),
    "Subtract": lambda: one(layers.Subtract(), VECTOR, VECTOR),
    "Multiply": lambda: one(layers.Multiply(), IMAGE, (1, 1, 4)),
    "Average": lambda: one(layers.Average(), VECTOR, VECTOR),
    "Maximum": lambda: one(layers.Maximum(), VECTOR, VECTOR),
    "Minimum": lambda: one(layers.Minimum(), VECTOR, VECTOR),
    "Concatenate": lambda: one(layers.Concatenate(axis=1), SIGNAL, SIGNAL),
    "Dot": lambda: one(layers.Dot(axes=(2, 2), normalize=True), SIGNAL, SIGNAL),
    "LSTM": lambda: one(layers.LSTM(4, return_sequences=True), SIGNAL),
    "LSTM masked": lambda: masked(layers.LSTM(4)),
    "LSTM backwards unrolled": lambda: one(layers.LSTM(4, go_backwards=True, unroll=True, unit_forget_bias=False), SIGNAL),
    "LSTM dropout": lambda: one(layers.LSTM(4, dropout=0.3, recurrent_dropout=0.2), SIGNAL),
    "LSTM hard": lambda: one(layers.LSTM(4, recurrent_activation="hard_sigmoid", activation="relu"), SIGNAL),
    "GRU": lambda: one(layers.GRU(4), SIGNAL),
    "GRU before": lambda: one(layers.GRU(4, reset_after=False), SIGNAL),
    "GRU masked": lambda: masked(layers.GRU(4, return_sequences=True)),
    "GRU state": stateful_start,
    "LSTM states": seq2seq,
    "SimpleRNN": lambda: one(layers.SimpleRNN(4, return_sequences=True), SIGNAL),
    "RNN of a cell": lambda: one(layers.RNN(layers.LSTMCell(4)), SIGNAL),
    "RNN of cells": lambda: one(layers.RNN([layers.GRUCell(4), layers.SimpleRNNCell(3)]), SIGNAL),
    "ConvLSTM2D": lambda: one(layers.ConvLSTM2D(3, 2), (4, 6, 6, 2)),
    "Bidirectional": lambda: one(layers.Bidirectional(layers.LSTM(4, return_sequences=True), merge_mode="sum"), SIGNAL),
    "Bidirectional two kinds": lambda: one(layers.Bidirectional(layers.LSTM(4), backward_layer=layers.GRU(4, go_backwards=True)), SIGNAL),
    "Bidirectional masked": lambda: masked(layers.Bidirectional(layers.GRU(4))),
    "TimeDistributed": lambda: one(layers.TimeDistributed(layers.Dense(4)), SIGNAL),
    "TimeDistributed convolution": lambda: one(layers.TimeDistributed(layers.Conv2D(3, 2)), (3, 6, 6, 2)),
    "TimeDistributed model": lambda: one(layers.TimeDistributed(keras.Sequential([keras.Input((6,)), layers.Dense(4)])), SIGNAL),
    "MultiHeadAttention": lambda: attention(layers.MultiHeadAttention(2, 4)),
    "MultiHeadAttention settings": lambda: attention(layers.MultiHeadAttention(2, 4, value_dim=3, use_bias=False, output_shape=5)),
    "MultiHeadAttention causal": lambda: op(lambda x: layers.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True), SIGNAL),
    "MultiHeadAttention dropout": lambda: attention(layers.MultiHeadAttention(2, 4, dropout=0.3)),
    "MultiHeadAttention masked": lambda: masked(lambda x: layers.MultiHeadAttention(2, 4)(x, x)),
    "MultiHeadAttention given mask": explicit_mask,
    "MultiHeadAttention scores": lambda: attention(layers.MultiHeadAttention(2, 4), return_attention_scores=True),
    "GroupQueryAttention": lambda: attention(layers.GroupQueryAttention(4, 4, 2)),
    "GroupQueryAttention masked": lambda: masked(lambda x: layers.GroupQueryAttention(4, 4, 2)(x, x)),
    "AdditiveAttention masked": lambda: masked(lambda x: layers.AdditiveAttention()([x, x])),
    "Attention": lambda: one(layers.Attention(use_scale=True), (5, 8), (7, 8)),
    "Attention concat": lambda: one(layers.Attention(score_mode="concat"), (5, 8), (7, 8)),
    "AdditiveAttention": lambda: one(layers.AdditiveAttention(), (5, 8), (7, 8)),
}

OPERATIONS = {
    "arithmetic": lambda: op(lambda x, y: (x + 2) * y / 3 - 1.5 + (-x) ** 2, VECTOR, VECTOR),
    "broadcast": lambda: op(lambda x, y: x + y, IMAGE, (1, 1, 4)),
    "reversed": lambda: op(lambda x: 2.0 - 1.0 / (3.0 + ops.abs(x)), VECTOR),
    "constant array": lambda: op(lambda x: x * np.arange(6, dtype="float32"), VECTOR),
    "index": lambda: op(lambda x: [x[:, 0, ::2, None], x[..., 1, :][:, -1], x[:, 2:-1]], IMAGE),
    "reshape": lambda: op(lambda x: ops.reshape(x, (-1, 4, 12)), SIGNAL),
    "transpose": lambda: op(lambda x: ops.transpose(x, (0, 2, 1)), SIGNAL),
    "concatenate": lambda: op(lambda x, y: ops.concatenate([x, y, x], axis=-1), SIGNAL, SIGNAL),
    "stack, split": lambda: op(lambda x, y: ops.split(ops.stack([x, y], axis=1), 2, axis=-1), VECTOR, VECTOR),
    "pad": lambda: op(lambda x: ops.pad(x, [[0, 0], [1, 2], [0, 0]], constant_values=0.5), SIGNAL),
    "reductions": lambda: op(
        lambda x: [ops.mean(x, axis=1), ops.max(x, axis=-1, keepdims=True), ops.sum(x, (1, 2)), ops.var(x, 1)], SIGNAL
    ),
    "matmul": lambda: op(lambda x, y: ops.matmul(x, ops.swapaxes(y, 1, 2)), SIGNAL, SIGNAL),
    "einsum": lambda: op(lambda x, y: ops.einsum("bij,bkj->bik", x, y), SIGNAL, SIGNAL),
    "softmax": lambda: op(lambda x: ops.softmax(x, axis=1), SIGNAL),
    "activations": lambda: op(lambda x: ops.relu6(ops.gelu(x)) + ops.relu(x) + ops.sigmoid(x) + ops.tanh(x) + ops.hard_swish(x), VECTOR),
    "comparison": lambda: op(lambda x: ops.where(x > 0.1, x, ops.zeros_like(x)), VECTOR),
    "clip, sqrt, exp": lambda: op(lambda x: ops.sqrt(ops.clip(ops.exp(x), 0.1, 2.0)), VECTOR),
    "cast": lambda: op(lambda x: ops.cast(ops.cast(x, "int32"), "float32") / 2.0, VECTOR),
    "one_hot": lambda: op(lambda x: ops.one_hot(x, 4), TOKENS, dtype="int32"),
    "normalize": lambda: op(lambda x: ops.normalize(x, axis=-1), VECTOR),
    "expand, squeeze, tile": lambda: op(lambda x: ops.squeeze(ops.tile(ops.expand_dims(x, 1), (1, 1, 2)), 1), VECTOR),
    "pooling, conv": lambda: op(lambda x: ops.average_pool(ops.max_pool(x, 2), 2), IMAGE),
    "image resize": lambda: op(lambda x: ops.image.resize(x, (5, 7)), IMAGE),
    "mixed dtypes": lambda: op(lambda x: x * ops.cast(x > 0, "float16"), VECTOR),
    **{
        f"masked {name}": (lambda act=act: masked_operation(act))
        for name, act in {
            "add": lambda x, y: x + y,
            "subtract": lambda x, y: x - y,
            "multiply": lambda x, y: x * y,
            "maximum": ops.maximum,
            "minimum": ops.minimum,
            "scaled": lambda x, y: 2.0 * x,
            "relu": lambda x, y: ops.relu(x),
            "relu6": lambda x, y: ops.relu6(x),
            "sigmoid": lambda x, y: ops.sigmoid(x),
            "tanh": lambda x, y: ops.tanh(x),
            "Add, whose mask is passed on": lambda x, y: layers.Add()([x, y]),
        }.items()
    },
    "same operation twice": lambda: op(lambda x: ops.relu(ops.relu(x) - 0.1), VECTOR),
}

ACTIVATIONS = sorted(
    name
    for name in dir(keras.activations)
    if callable(getattr(keras.activations, name))
    and name not in ("deserialize", "get", "serialize", "threshold")
    and not name.startswith("_")
)
if hasattr(layers, "AdaptiveAveragePooling2D"):  # newer than Keras 3.12
    LAYERS["AdaptiveAveragePooling2D"] = lambda: one(layers.AdaptiveAveragePooling2D(3), IMAGE)
RANDOM = ("Dropout", "dropout", "Noise", "RandomFlip")
ROWS = {
    **LAYERS,
    **{f"ops {name}": make for name, make in OPERATIONS.items()},
    **{f"activation {name}": (lambda name=name: one(layers.Dense(6, activation=name), VECTOR)) for name in ACTIVATIONS},
}


# Recurrent layers in more than one variant: tf_keras takes seconds to build each.
SLOW = ("LSTM masked", "GRU masked", "LSTM hard", "LSTM backwards unrolled", "GRU before", "Bidirectional two kinds", "LSTM states")
PARAMETERS = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in ROWS]


# Keras warns so of its own GroupQueryAttention.
@pytest.mark.filterwarnings("ignore:[^$]*was passed an input with a mask:UserWarning")
@pytest.mark.parametrize("name", PARAMETERS)
def test_every_layer_there_and_back(name):
    model = ROWS[name]() if "adapted" in name or "Spectral" in name else randomize(ROWS[name]())
    rebuilt = to_tf_keras(model, check=False)
    assert check_parity(model, rebuilt, seed=1).max_abs_error <= BOUND
    if not any(word in name for word in RANDOM):
        check_parity(model, rebuilt, seed=2, training=True, batch_size=4)
    cloned = tf_keras().models.clone_model(rebuilt)  # compression libraries make their models so
    cloned.set_weights(rebuilt.get_weights())
    fresh = to_keras(cloned, model)
    for before, after in zip(model.get_weights(), fresh.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
