"""The .tflite file of a quantization-aware model: the same outputs, 4-bit tensors, zeros and clusters."""

import functools

import keras
import numpy as np
import pytest
from test_compress_quantize_kept import clustered, fit
from test_compress_steps import convolutions, nested, sequential

from tfdistill.bridge.wrappers.quantization import as_in_the_file
from tfdistill.compress import QuantizeAware
from tfdistill.errors import ExportError, InvariantError, ModelError
from tfdistill.runtime.interpreter import open_file
from tfdistill.tflite import export_tflite
from tfdistill.tflite.inspection.preserved import check_preserved_structure, require_trained_bits
from tfdistill.tflite.inspection.weights import integer_weights

layers = keras.layers


def classes(shape, count=3, samples=256, seed=1):
    """Easy samples: one pattern for each class, and noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, count, samples)
    return (rng.normal(size=(count, *shape))[labels] + 0.3 * rng.normal(size=(samples, *shape))).astype("float32"), labels


def trained(model, step=None, steps=24, dry_run=False):
    """Trains a classifier quantized for a few steps; returns it with the samples. The conversion is not tried first where the test makes a file."""
    keras.utils.set_random_seed(0)
    applied = (step or QuantizeAware()).apply(model, dry_run=dry_run)
    x, labels = classes(model.input_shape[1:], model.output_shape[-1])
    applied.compile(keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    applied.fit(x, labels, batch_size=32, epochs=-(-steps // 8), verbose=0)
    return applied, x


def compare(path, predict, x):
    """Returns the signal-to-noise ratio (dB) of a file's outputs to a model's, and the share of samples for which both predict the same class.

    Samples for which the model's two best classes are close are not counted.
    """
    ours = np.asarray(predict(x), "float64")
    opened = open_file(path)
    theirs = next(iter(opened.run({next(iter(opened.inputs)): x}).values())).reshape(ours.shape)
    noise = np.mean((ours - theirs) ** 2)
    second, first = np.moveaxis(np.sort(ours, axis=-1)[..., -2:], -1, 0)
    decided = first - second > 0.05 * np.ptp(ours)
    return 10 * np.log10(np.mean(ours**2) / max(noise, 1e-30)), np.mean((ours.argmax(-1) == theirs.argmax(-1))[decided])


def chained(*stack, shape=(10, 10, 3)):
    return lambda: keras.Sequential([keras.Input(shape), *(make() for make in stack), layers.Flatten(), layers.Dense(3)])


def unet():
    inputs = keras.Input((8, 8, 2))
    one = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    two = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(one)
    up = layers.Conv2DTranspose(4, 3, strides=2, padding="same")(two)
    x = layers.Concatenate()([one, up, layers.UpSampling2D(2, interpolation="bilinear")(two)])
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(layers.Conv2D(4, 1, activation="hard_swish")(x))))


def inverted_residual():
    x = inputs = keras.Input((8, 8, 4))
    for i in range(2):
        y = layers.BatchNormalization(momentum=0.5)(layers.Conv2D(12, 1, use_bias=False)(x))
        y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(layers.ReLU(6.0)(y))
        y = layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.5)(y))
        y = layers.BatchNormalization(momentum=0.5)(layers.Conv2D(4, 1, use_bias=False, name=f"project_{i}")(y))
        x = layers.Add()([x, y])
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


def transformer():
    x = inputs = keras.Input((6, 8))
    x = layers.LayerNormalization()(layers.Add()([x, layers.MultiHeadAttention(2, 4)(x, x)]))
    y = layers.Dense(8)(layers.Dense(16, activation="gelu")(x))
    x = layers.LayerNormalization()(layers.Add()([x, y]))
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


def grouped():
    inputs = keras.Input((6, 8))
    x = layers.GroupQueryAttention(4, 4, 2)(inputs, inputs, use_causal_mask=True)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


def causal():
    inputs = keras.Input((6, 8))
    x = layers.MultiHeadAttention(2, 4)(inputs, inputs, use_causal_mask=True)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


def sums():
    """Sums of three, of which two are added up elsewhere too."""
    inputs = keras.Input((8, 8, 4))
    a = layers.Conv2D(4, 3, padding="same")(inputs)
    b = layers.Conv2D(4, 3, padding="same", groups=2, name="grouped")(a)
    c = layers.Conv2D(4, 3, padding="same")(b)
    x = layers.Add()([layers.Add()([a, b, c]), layers.Add()([a, b]), layers.Average()([a, b, inputs])])
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(layers.Multiply()([x, a, b]))))


MODELS = {
    "sums of three": sums,
    "causal attention": causal,
    "grouped attention": grouped,
    "sequential": sequential,
    "transformer": transformer,
    "inverted residual": inverted_residual,
    "convolutions": convolutions,
    "nested": nested,
    "unet": unet,
    "conv1d": chained(
        lambda: layers.Conv1D(8, 3, padding="causal", dilation_rate=2),
        lambda: layers.BatchNormalization(momentum=0.5),
        lambda: layers.ReLU(),
        lambda: layers.MaxPooling1D(2),
        lambda: layers.SeparableConv1D(8, 3, activation="relu"),
        shape=(16, 4),
    ),
    "transposed 1d": chained(lambda: layers.Conv1DTranspose(4, 3, strides=2, activation="relu"), shape=(8, 4)),
    "transposed and normalized": chained(
        lambda: layers.Conv2DTranspose(6, 3, strides=2, use_bias=False),
        lambda: layers.BatchNormalization(momentum=0.5),
        lambda: layers.ReLU(),
    ),
    "depthwise 1d": chained(lambda: layers.DepthwiseConv1D(3), lambda: layers.LeakyReLU(), shape=(8, 4)),
    "normalization first": chained(lambda: layers.BatchNormalization(momentum=0.5), lambda: layers.ReLU(), lambda: layers.Conv2D(4, 3)),
    "average pooling": chained(lambda: layers.Conv2D(6, 3, activation="relu"), lambda: layers.AveragePooling2D(2)),
    "padded pooling": chained(lambda: layers.Conv2D(6, 3), lambda: layers.AveragePooling2D(3, padding="same", strides=1)),
    "dense and normalization": chained(
        lambda: layers.Dense(16, use_bias=False), lambda: layers.BatchNormalization(momentum=0.5), lambda: layers.ReLU(), shape=(12,)
    ),
    "silu": chained(lambda: layers.Conv2D(6, 3, activation="silu")),
    "hard silu": chained(lambda: layers.Conv2D(6, 3, activation="hard_silu")),
    "hard sigmoid": chained(lambda: layers.Conv2D(6, 3, activation="hard_sigmoid")),
    "elu": chained(lambda: layers.Conv2D(6, 3, activation="elu")),
    "prelu": chained(lambda: layers.Conv2D(6, 3), lambda: layers.PReLU(shared_axes=[1, 2])),
    "group normalization": chained(lambda: layers.Conv2D(6, 3), lambda: layers.GroupNormalization(2)),
    "einsum": chained(lambda: layers.EinsumDense("abc,cd->abd", (6, 6), activation="relu"), shape=(6, 8)),
    "time distributed": chained(lambda: layers.TimeDistributed(layers.Dense(6, activation="relu")), shape=(6, 8)),
    "lstm": chained(lambda: layers.LSTM(8), shape=(6, 8)),
    "hard lstm": chained(lambda: layers.LSTM(8, recurrent_activation="hard_sigmoid"), shape=(6, 8)),
    "gru": chained(lambda: layers.GRU(8), shape=(6, 8)),
    "gru before": chained(lambda: layers.GRU(8, reset_after=False, return_sequences=True), shape=(6, 8)),
    "simple rnn": chained(lambda: layers.SimpleRNN(8), shape=(6, 8)),
    "bidirectional": chained(lambda: layers.Bidirectional(layers.GRU(6, return_sequences=True)), shape=(6, 8)),
    "bidirectional sum": chained(lambda: layers.Bidirectional(layers.LSTM(6), merge_mode="sum"), shape=(6, 8)),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Function of a model's name: the model trained, its samples, and the record of its file. Each model is made once; tests leave it as it is."""

    @functools.cache
    def make(name):
        applied, x = trained(MODELS[name](), dry_run=name in QUICK)
        # Every range was trained, so nothing is calibrated.
        return applied, x, export_tflite(applied, tmp_path_factory.mktemp("exported") / "a.tflite", "int8")

    return make


@pytest.fixture(scope="module")
def preserved(tmp_path_factory):
    """Function of a share of zeros and of `per_channel`: `clustered` trained quantized, its samples, and the record of its file. Made once each."""

    @functools.cache
    def make(share, per_channel):
        applied = QuantizeAware().apply(clustered(share=share, per_channel=per_channel), dry_run=False)
        x = fit(applied)
        return applied, x, export_tflite(applied, tmp_path_factory.mktemp("preserved") / "a.tflite", "int8", calibration=x)

    return make


QUICK = ("sequential", "transformer", "inverted residual", "gru")


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in MODELS])
def test_the_outputs_of_the_file_are_those_of_the_model(name, exported):
    applied, x, record = exported(name)
    assert not record.census.stray_floats()
    ratio, agreement = compare(record.path, applied.predict, x)
    assert ratio > 25, ratio
    assert agreement >= 0.99, agreement


@pytest.mark.parametrize("exclude", ["project_1", *(pytest.param(p, marks=pytest.mark.slow) for p in ("project_*", "*conv2d*", "batch_*"))])
def test_a_model_with_layers_left_out_is_exported_without_calibration(exclude, tmp_path):
    applied, x = trained(inverted_residual(), QuantizeAware(exclude=exclude), steps=8)
    # The converter's calibrator would leave float tensors wherever its range is another than the one next to it.
    record = export_tflite(applied, tmp_path / "a.tflite", "int8")
    assert not record.census.stray_floats()
    with as_in_the_file():
        assert compare(record.path, lambda x: applied(x, training=False), x)[0] > 25
    assert compare(record.path, applied.predict, x)[0] > 12


def padded(kind):
    """Ids of tokens, or steps of a signal, the last ones of which are padding."""
    rng = np.random.default_rng(0)
    x = rng.integers(1, 20, (64, 8)).astype("int32") if kind == "tokens" else rng.normal(size=(64, 8, 5)).astype("float32")
    for i, row in enumerate(x):
        row[3 + i % 6 :] = 0
    return x


MASKED = {
    "attention": ("tokens", lambda x: layers.MultiHeadAttention(2, 4)(x, x)[:, 0]),
    "average": ("tokens", lambda x: layers.GlobalAveragePooling1D()(x)),
    "bidirectional": ("tokens", lambda x: layers.Bidirectional(layers.GRU(4, return_sequences=True))(x)[:, 0]),
    "lstm": ("signal", lambda x: layers.LSTM(6)(x)),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n == "average" else pytest.mark.slow) for n in MASKED])
def test_padded_steps_stay_masked(name, tmp_path):
    kind, body = MASKED[name]
    x = padded(kind)
    keras.utils.set_random_seed(0)
    inputs = keras.Input(x.shape[1:], dtype=x.dtype.name)
    masked = layers.Embedding(20, 8, mask_zero=True)(inputs) if kind == "tokens" else layers.Masking()(inputs)
    model = keras.Model(inputs, layers.Dense(3)(body(masked)))
    applied = QuantizeAware().apply(model, dry_run=False)
    applied.compile("sgd", "mse", run_eagerly=True)  # four steps, which take less time than a graph of them
    applied.fit(x, np.zeros((64, 3)), batch_size=16, verbose=0)
    QuantizeAware().check(applied)
    record = export_tflite(applied, tmp_path / "a.tflite", "int8")
    assert not record.census.stray_floats()
    assert compare(record.path, applied.predict, x)[0] > 25


@pytest.mark.slow
def test_an_lstm_that_is_not_written_out_is_one_operation(tmp_path):
    made = chained(lambda: layers.Dense(8, activation="relu"), lambda: layers.LSTM(8, name="whole"), shape=(6, 8))()
    step = QuantizeAware(unroll=False)
    for kernel in (made.layers[0].kernel, made.get_layer("whole").cell.kernel):
        kernel.assign(np.where(np.random.default_rng(0).random(kernel.shape) < 0.5, 0.0, kernel))
    assert "calibrated" in step.plan(made).row("whole").reason
    applied, x = trained(made, step)
    record = export_tflite(applied, tmp_path / "a.tflite", "int8", calibration=x)
    assert ("UNIDIRECTIONAL_SEQUENCE_LSTM", 1) in [(op.name, op.count) for op in record.census.ops]
    check_preserved_structure(record.path, applied)  # the grid of the LSTM's weights is the converter's own
    assert not record.census.stray_floats()
    assert compare(record.path, applied.predict, x)[0] > 25


@pytest.mark.slow
def test_a_loop_is_refused_before_the_converter_crashes_on_it(tmp_path):
    model = keras.Sequential([keras.Input((200, 3)), layers.GRU(2, name="long"), layers.Dense(2)])
    row = QuantizeAware().plan(model).row("long")
    assert row.action == "impossible"
    assert "unroll=True writes it out" in row.reason
    with pytest.raises(ModelError, match="'long'"):
        QuantizeAware().apply(model)
    applied, x = QuantizeAware().apply(model, dry_run=False), np.random.default_rng(0).random((16, 200, 3), "float32")
    applied.compile("sgd", "mse")
    applied.fit(x, np.zeros((16, 2)), verbose=0)
    with pytest.raises(ModelError, match="holds a loop"):
        export_tflite(applied, tmp_path / "a.tflite", "int8", calibration=x)


# Bits


def test_weights_of_four_bits_are_four_bits_in_the_file(tmp_path):
    applied, x = trained(clustered(), QuantizeAware(weight_bits=4, preserve_clusters=False))
    record = export_tflite(applied, tmp_path / "a.tflite", "int8", calibration=x)
    found = integer_weights(record.path)
    assert {weights.bits for weights in found} == {4}
    assert len(found) == 6
    assert max(np.abs(weights.values).max() for weights in found) == 7
    ratio, agreement = compare(record.path, applied.predict, x)
    assert ratio > 25
    assert agreement >= 0.99
    eight, x = trained(clustered(), QuantizeAware(preserve_clusters=False), steps=2)
    other = export_tflite(eight, tmp_path / "b.tflite", "int8", calibration=x)
    assert other.census.weights_bytes > record.census.weights_bytes
    with pytest.raises(ExportError, match="made none of those of 'conv3' kernel"):
        require_trained_bits(other.path, applied)


@pytest.mark.slow
def test_activations_of_sixteen_bits(tmp_path):
    applied, x = trained(sequential(), QuantizeAware(activation_bits=16))
    record = export_tflite(applied, tmp_path / "a.tflite", "int16x8", calibration=x)
    assert record.dtypes["int16"]
    ratio, agreement = compare(record.path, applied.predict, x)
    assert ratio > 40
    assert agreement >= 0.99


# Zeros and clusters


@pytest.mark.parametrize(
    ("share", "per_channel"),
    [
        pytest.param(0.0, False, id="CQAT", marks=pytest.mark.slow),
        pytest.param(0.5, False, id="PCQAT"),
        pytest.param(0.5, True, id="per channel", marks=pytest.mark.slow),
    ],
)
def test_zeros_and_clusters_are_in_the_file(share, per_channel, preserved):
    applied, x, record = preserved(share, per_channel)
    check_preserved_structure(record.path, applied)
    ratio, agreement = compare(record.path, applied.predict, x)
    assert ratio > 25
    assert agreement >= 0.99
    if share:
        # The kernel of "hidden" is the largest of the file.
        hidden = max(integer_weights(record.path), key=lambda weights: weights.values.size)
        assert 0.4 < np.mean(hidden.values == 0) < 0.6
        assert len(np.unique(hidden.values)) <= 5 or per_channel


def test_a_file_that_lost_them_is_found(exported, preserved):
    applied, _, record = preserved(0.5, False)
    wrapper = applied.get_layer("hidden")
    mask, members = wrapper.masks["kernel"], wrapper.members["kernel"]
    scattered = np.arange(mask.shape.num_elements()).reshape(mask.shape) % 50 == 0
    # As if more had to be zero, or in one cluster, than is in the file.
    for variable, value, words in (
        (mask, np.where(scattered, 0, mask), "'hidden' kernel has .* zeros that are not zero"),
        (members, np.where(np.equal(members, 2), 1, members), "'hidden' kernel has 5 integers where there are 4 values"),
    ):
        before = variable.numpy()
        variable.assign(value)
        with pytest.raises(InvariantError, match=words):
            check_preserved_structure(record.path, applied)
        variable.assign(before)
    check_preserved_structure(record.path, applied)
    other, _, plain = exported("sequential")
    path = plain.path
    with pytest.raises(InvariantError, match="is not there"):
        check_preserved_structure(path, applied)
    with pytest.raises(ModelError, match="no zeros and no clusters"):
        check_preserved_structure(path, other)
