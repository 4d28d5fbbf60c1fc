"""Inputs and dtypes of every kind, through every step to the integer file."""

import functools

import keras
import numpy as np
import pytest

from tfdistill.bridge import imports
from tfdistill.bridge.adopt.precision import in_float32
from tfdistill.compress import Cluster, Prune, QuantizeAware
from tfdistill.errors import BridgeError, ModelError
from tfdistill.graph.layers import all_layers
from tfdistill.tflite import Tolerances, export_tflite

layers = keras.layers


@keras.saving.register_keras_serializable("tests")
class Tokens(keras.Model):
    """A subclassed model of token ids, whose types Keras does not record."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.embedding, self.pool, self.head = layers.Embedding(10, 8), layers.GlobalAveragePooling1D(), layers.Dense(3)

    def call(self, inputs):
        return self.head(self.pool(self.embedding(inputs)))

    def get_config(self):
        return super().get_config()


def tokens():
    model = Tokens()
    model(np.zeros((2, 4), "int32"))
    return model


def of_policy(policy):
    """A model whose layers have one dtype policy, but for its last."""

    def make():
        stack = [
            layers.Conv2D(4, 3, padding="same", dtype=policy),
            layers.BatchNormalization(dtype=policy),
            layers.ReLU(dtype=policy),
            layers.Conv2D(4, 3, activation="relu", dtype=policy),
            layers.GlobalAveragePooling2D(dtype=policy),
            layers.Dense(3),
        ]
        return keras.Sequential([keras.Input((8, 8, 3)), *stack])

    return make


def augmented():
    inputs = [layers.RandomFlip(), layers.RandomRotation(0.1), layers.RandomZoom(0.1), layers.RandomTranslation(0.1, 0.1)]
    inputs += [layers.RandomContrast(0.1), layers.RandomBrightness(0.1, value_range=(0, 1)), layers.RandomCrop(8, 8)]
    inputs += [layers.Resizing(12, 12), layers.CenterCrop(8, 8)]
    return keras.Sequential([keras.Input((8, 8, 3)), *inputs, layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(3)])


def augmented_by_keras_3():
    """Layers that tf_keras lacks."""
    names = ["RandomHue", "RandomSaturation", "RandomSharpness", "RandomColorDegeneration", "RandomErasing"]
    inputs = [getattr(layers, name)(factor=0.1, value_range=(0, 1)) for name in names]
    inputs += [layers.RandomGrayscale(0.1), layers.RandomPerspective(0.1)]
    return keras.Sequential([keras.Input((8, 8, 3)), *inputs, layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(3)])


def spectrum():
    """Loudness over time in each of eight bands of a waveform, by convolutions and a matrix product."""
    inputs = keras.Input((256, 1))
    x = layers.STFTSpectrogram(mode="real", frame_length=32, frame_step=16, fft_length=32)(inputs)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(layers.Dense(8, activation="relu")(x))))


def sparse():
    inputs = keras.Input((8,), sparse=True)
    return keras.Model(inputs, layers.Dense(3)(layers.Dense(4, activation="relu")(inputs)))


def narrow():
    inputs = keras.Input((6, 1))
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(layers.MultiHeadAttention(2, 4)(inputs, inputs))))


def reloaded(folder):
    """A tf_keras model that tf_keras saved and loaded as .h5."""
    tf_keras = imports.tf_keras()
    stack = [tf_keras.layers.Conv2D(4, 3, activation="relu"), tf_keras.layers.BatchNormalization(), tf_keras.layers.Flatten()]
    model = tf_keras.Sequential([tf_keras.layers.InputLayer((8, 8, 3)), *stack, tf_keras.layers.Dense(3)])
    model.save_weights(folder / "model.weights.h5")
    with pytest.warns(UserWarning, match="legacy"):
        model.save(folder / "model.h5")
    return tf_keras.models.load_model(folder / "model.h5", compile=False)


MODELS = {
    "mixed_float16": of_policy("mixed_float16"),
    "mixed_bfloat16": of_policy("mixed_bfloat16"),
    "float16": of_policy("float16"),
    "tokens": tokens,
    "augmented": augmented,
    "augmented by Keras 3": augmented_by_keras_3,
    "spectrum": spectrum,
    "sparse": sparse,
    "attention of width 1": narrow,
    "h5": reloaded,
}
STEPS = {"prune": Prune(0.5, end_step=1), "cluster": Cluster(4), "quantize": QuantizeAware()}
SLOW = {(model, step) for model in MODELS for step in STEPS} - {
    ("mixed_float16", "quantize"),
    ("tokens", "quantize"),
    ("sparse", "quantize"),
}


@functools.cache
def made(name):
    keras.utils.set_random_seed(0)
    return MODELS[name]()


def samples(model, count=16):
    rng = np.random.default_rng(0)
    return rng.integers(0, 10, (count, 4)).astype("int32") if isinstance(model, Tokens) else rng.random((count, *model.input_shape[1:]))


@pytest.mark.parametrize(
    ("name", "step"),
    [pytest.param(m, s, marks=[pytest.mark.slow] if (m, s) in SLOW else []) for m in MODELS for s in STEPS],
)
def test_each_goes_through_each_step_to_an_integer_file(name, step, tmp_path):
    model, step = reloaded(tmp_path) if name == "h5" else made(name), STEPS[step]
    assert step.plan(model).names("impossible") == []
    applied, x = step.apply(model), samples(model)
    applied.compile("sgd", "mse")
    applied.fit(x, np.zeros((len(x), 3)), verbose=0, callbacks=step.callbacks())
    stripped = step.strip(applied)
    step.check(stripped)
    record = export_tflite(stripped, tmp_path / "model.tflite", "int8", calibration=x)
    assert not record.census.stray_floats()


@pytest.mark.parametrize("variant", ["float32", "int8"])
@pytest.mark.parametrize("name", ["mixed_float16", pytest.param("mixed_bfloat16", marks=pytest.mark.slow)])
def test_a_file_of_a_model_of_mixed_precision_computes_in_float32(name, variant, tmp_path):
    model = made(name)
    policies = [layer.dtype_policy.name for layer in all_layers(model)]
    record = export_tflite(
        model, tmp_path / "model.tflite", variant, calibration=samples(model) if variant == "int8" else None, verify_on=samples(model)
    )
    assert "float16" not in record.dtypes
    assert [layer.dtype_policy.name for layer in all_layers(model)] == policies


def test_in_float32_every_layer_of_both_keras_computes_in_float32():
    model = made("mixed_float16")
    applied = STEPS["prune"].apply(model)
    x = samples(model).astype("float32")
    for one in (model, applied):
        mixed = np.asarray(one(x), "float32")
        with in_float32(one):
            layers_now = all_layers(applied.legacy if one is applied else one)
            assert {layer.compute_dtype for layer in layers_now} == {"float32"}
            exact = np.asarray(one(x))
        assert exact.dtype == np.float32
        np.testing.assert_array_equal(np.asarray(one(x), "float32"), mixed)
        assert 0 < np.abs(exact - mixed).max() < 0.05


def test_ids_of_a_subclassed_model_stay_integers(tmp_path):
    record = export_tflite(tokens(), tmp_path / "model.tflite", "float32", tolerances=Tolerances())
    assert record.census.dtypes["int32"] >= 1
    assert not [t for t in record.census.float_tensors if t.made_by == "input"]


class Pairs(keras.Model):
    """The match of two ids, which stand in two columns of one input."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.left, self.right, self.out = keras.layers.Embedding(9, 4), keras.layers.Embedding(9, 4), keras.layers.Dense(2)

    def call(self, inputs):
        left = keras.ops.expand_dims(inputs, axis=1)[:, 0, 0]
        return self.out(self.left(left) * self.right(inputs[:, 1]))


def test_ids_that_are_moved_about_before_the_lookup_stay_integers(tmp_path):
    model = Pairs()
    ids = np.random.default_rng(0).integers(0, 9, (32, 2)).astype("int32")
    model(ids)
    record = export_tflite(model, tmp_path / "model.tflite", "int8", calibration=ids)
    (output,) = record.verification.outputs.values()
    assert output.mean_abs_error / output.scale < 0.03


def test_sparse_samples_train_as_dense_ones_do():
    import tensorflow as tf

    model = made("sparse")
    applied, x = QuantizeAware().apply(model), samples(model).astype("float32")
    np.testing.assert_array_equal(applied(tf.sparse.from_dense(x)), applied(x))


def test_text_is_refused_by_name(tmp_path):
    inputs = keras.Input((), dtype="string", name="sentence")
    model = keras.Model(inputs, layers.Dense(3)(layers.TextVectorization(vocabulary=["a", "b"], output_mode="multi_hot")(inputs)))
    with pytest.raises(ModelError, match=r"looks up tables in 'text_vectorization'"):
        export_tflite(model, tmp_path / "model.tflite")
    for step in STEPS.values():
        with pytest.raises(BridgeError, match="'sentence' is text"):
            step.plan(model)


def deeplab(size=32, width=16):
    """DeepLabV3+ as keras.io's tutorial builds it, on a few convolutions: dilated ones, an image pooling and bilinear upsampling."""

    def block(x, kernel=3, rate=1, filters=width, bias=False):
        x = layers.Conv2D(filters, kernel, dilation_rate=rate, padding="same", use_bias=bias, kernel_initializer="he_normal")(x)
        return keras.ops.nn.relu(layers.BatchNormalization(momentum=0.5)(x))

    inputs = keras.Input((size, size, 3))
    low = layers.MaxPooling2D(2)(block(block(keras.applications.resnet50.preprocess_input(inputs))))
    x = block(layers.MaxPooling2D(2)(block(low)))
    side = size // 4
    pooled = block(layers.AveragePooling2D((side, side))(x), kernel=1, bias=True)
    parts = [layers.UpSampling2D((side, side), interpolation="bilinear")(pooled), block(x, kernel=1)]
    x = block(layers.Concatenate()([*parts, *(block(x, rate=rate) for rate in (6, 12, 18))]), kernel=1)
    x = layers.Concatenate()([layers.UpSampling2D(2, interpolation="bilinear")(x), block(low, kernel=1, filters=8)])
    x = layers.UpSampling2D(2, interpolation="bilinear")(block(block(x)))
    return keras.Model(inputs, layers.Conv2D(4, 1, padding="same")(x))


@pytest.mark.slow
def test_deeplab_computes_in_the_file_what_it_was_trained_to(tmp_path):
    rng = np.random.default_rng(0)
    x = 40 * np.kron(rng.normal(size=(64, 8, 8, 3)), np.ones((1, 4, 4, 1))).astype("float32") + 120
    labels = x[..., [0, 1, 2, 0]].argmax(-1)
    applied = QuantizeAware().apply(deeplab(), dry_run=False)
    applied.compile(keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    applied.fit(x, labels, batch_size=16, epochs=2, verbose=0)
    record = export_tflite(applied, tmp_path / "deeplab.tflite", "int8", verify_on=x[:16])
    assert record.verification.mean_abs_error < 0.05 * np.asarray(applied(x[:16])).std()
