"""Outputs, inputs and states that are no batch of class scores: each compared as what it is."""

import keras
import numpy as np
import pytest

from tfdistill.bridge.adopt.adopt import adopt
from tfdistill.bridge.imports import tf_keras, tfmot
from tfdistill.convert.layer_operations import layer_operations
from tfdistill.errors import ConfigurationError, DataError, InvariantError, VerificationError
from tfdistill.tflite import Tolerances, export_tflite, verify
from tfdistill.tflite.verification.comparison import compare

L, ops = keras.layers, keras.ops
X = np.random.default_rng(0).standard_normal((40, 6)).astype("float32")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Exports a model once for each key, with the seed that every test begins with: a new model of that key has the weights of the file."""
    folder, paths = tmp_path_factory.mktemp("exported"), {}

    def export(key, model):
        if key not in paths:
            paths[key] = export_tflite(model, folder / f"{len(paths)}.tflite").path
        return paths[key]

    return export


IMAGES = np.random.default_rng(1).standard_normal((40, 5, 5, 2)).astype("float32")


@keras.saving.register_keras_serializable(package="test_tflite_outputs")
class ArgMax(L.Layer):
    """TensorFlow's own: Keras's argmax looks at the sign of zero, by an operation that TFLite lacks."""

    def call(self, x):
        import tensorflow as tf

        return tf.argmax(x, axis=-1, output_type="int32")

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape[:-1], "int32")


def class_map():
    x = keras.Input((5, 5, 2), name="image")
    return keras.Model(x, ArgMax(name="map")(L.Conv2D(3, 1, name="scores")(x))), IMAGES


def above_zero():
    x = keras.Input((6,), name="x")
    return keras.Model(x, L.Dense(4)(x) > 0), X


def counts():
    x = keras.Input((6,), name="x")
    return keras.Model(x, ops.cast(ops.round(L.Dense(3)(x) * 10), "int32")), X


def class_index():
    x = keras.Input((6,), name="x")
    return keras.Model(x, ArgMax()(L.Dense(4)(x))), X


INTEGERS = [(build, variant) for build in (class_map, above_zero, class_index) for variant in ("float32", "int8")]


@pytest.mark.parametrize(("build", "variant"), [*INTEGERS, (counts, "float32"), (counts, "dynamic_range")])
@pytest.mark.filterwarnings("ignore:The integers of")  # the converter takes the layer that finds the largest
def test_whole_numbers_are_compared_element_by_element(build, variant, tmp_path):
    model, x = build()
    true = np.asarray(model(x))
    wrong = np.random.default_rng(2).random(true.shape) < 0.25
    labels = np.where(wrong, ~true if true.dtype == bool else true + 1, true)
    limits = Tolerances(min_argmax_agreement=0.0) if build is counts and variant != "float32" else None
    record = export_tflite(model, tmp_path / "m.tflite", variant, calibration=x, verify_on=(x, labels), tolerances=limits)
    (output,) = record.verification.outputs.values()
    assert record.argmax_agreement is None
    assert output.keras_accuracy == pytest.approx(1 - wrong.mean())
    assert output.equal_share == 1 if variant == "float32" else output.equal_share > 0.8 or build is counts
    if variant == "float32":
        assert record.accuracy == output.keras_accuracy


def test_whole_numbers_against_numpy():
    rng = np.random.default_rng(0)
    expected, actual, labels = (rng.integers(0, 4, (30, 6, 6)) for _ in range(3))
    found = compare(expected, actual, labels)
    assert found.equal_share == np.mean(expected == actual)
    assert (found.accuracy, found.keras_accuracy) == (np.mean(actual == labels), np.mean(expected == labels))
    assert found == compare(expected, actual, labels[..., None])
    assert found.worst_samples[0] == np.argmax(np.abs(expected - actual).mean((1, 2)))
    with pytest.raises(DataError, match="one for each whole number"):
        compare(expected, actual, labels[:, 0])
    assert compare(expected, actual, task="regression").equal_share is None


def test_file_whose_whole_numbers_differ_fails(tmp_path):
    model, x = class_map()
    path = export_tflite(model, tmp_path / "m.tflite").path
    other, _ = class_map()
    with pytest.raises(VerificationError, match=r"equals Keras's in \d+\.\d+% of its whole numbers \(the fewest at samples \["):
        verify(path, other, x)


def autoencoder(compiled):
    model = keras.Sequential([keras.Input((6,), name="x"), L.Dense(6, name="rebuilt")])
    if compiled:
        model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("labelled", [True, False])
def test_a_reconstruction_has_no_classes(compiled, labelled, exported):
    model = autoencoder(compiled)
    record = verify(exported("autoencoder", model), model, (X, X) if labelled else X)
    (output,) = record.outputs.values()
    assert (output.task, output.argmax_agreement, output.accuracy) == ("regression", None, None)
    assert (output.metric == "mean_absolute_error") is labelled


def head(units, activation=None, loss=None):
    model = keras.Sequential([keras.Input((6,), name="x"), L.Dense(units, activation=activation, name="out")])
    if loss:
        model.compile("sgd", loss)
    return model


SIX_DIMS = np.random.default_rng(3)
TASKS = [
    # units, activation, loss, labels, task=, found task, metric
    (3, None, "mse", SIX_DIMS.standard_normal((40, 3)), None, "regression", "mean_absolute_error"),
    (3, None, None, SIX_DIMS.standard_normal((40, 3)), None, "regression", "mean_absolute_error"),
    (1, None, keras.losses.Huber(), SIX_DIMS.standard_normal(40), None, "regression", "mean_absolute_error"),
    (4, "sigmoid", "binary_crossentropy", SIX_DIMS.integers(0, 2, (40, 4)), None, "multilabel", "binary_accuracy"),
    (4, None, keras.losses.BinaryCrossentropy(from_logits=True), SIX_DIMS.integers(0, 2, (40, 4)), None, "multilabel", "binary_accuracy"),
    (1, "sigmoid", None, SIX_DIMS.integers(0, 2, 40), None, "binary", "binary_accuracy"),
    (1, None, keras.losses.BinaryCrossentropy(from_logits=True), SIX_DIMS.integers(0, 2, (40, 1)), None, "binary", "binary_accuracy"),
    (3, "softmax", None, SIX_DIMS.integers(0, 3, 40), None, "multiclass", "accuracy"),
    (3, None, "mse", np.eye(3)[SIX_DIMS.integers(0, 3, 40)], None, "multiclass", "accuracy"),
    (3, None, None, np.eye(3)[SIX_DIMS.integers(0, 3, 40)], "regression", "regression", "mean_absolute_error"),
    (3, None, None, SIX_DIMS.integers(0, 2, (40, 3)), {"out": "multilabel"}, "multilabel", "binary_accuracy"),
]


@pytest.mark.parametrize(("units", "activation", "loss", "labels", "given", "task", "metric"), TASKS)
def test_metric_of_the_task_against_keras(units, activation, loss, labels, given, task, metric, exported):
    model = head(units, activation, loss)
    record = verify(exported((units, activation), model), model, X, labels, task=given)
    output = record.outputs["out"]
    assert (output.task, output.metric) == (task, metric)
    out, column = model(X).numpy(), labels.reshape(40, -1)
    threshold = 0.5 if activation == "sigmoid" else 0.0
    expected = {
        "regression": lambda: np.abs(out - column).mean(),
        "binary": lambda: np.mean((out > threshold) == column),
        "multilabel": lambda: np.mean((out > threshold) == column),
        "multiclass": lambda: np.mean(out.argmax(-1) == (column.argmax(-1) if column.shape[1] > 1 else column[:, 0])),
    }[task]()
    assert output.keras_metric_value == pytest.approx(expected, rel=1e-5)
    assert output.metric_value == pytest.approx(expected, rel=1e-5)
    assert (record.accuracy is None) is (task == "regression")
    if task == "regression":
        true = column if column.shape[1] > 1 else column[:, :1]
        lowest = min(1 - np.sum((true - out) ** 2, 0) / np.sum((true - true.mean(0)) ** 2, 0))
        assert (output.r_squared, output.keras_r_squared) == (pytest.approx(lowest, rel=1e-4), pytest.approx(lowest, rel=1e-4))


def test_export_passes_the_task_on(tmp_path):
    labels = SIX_DIMS.integers(0, 2, (40, 3))
    record = export_tflite(head(3), tmp_path / "m.tflite", verify_on=(X, labels), task={"out": "multilabel"})
    assert record.verification.outputs["out"].metric == "binary_accuracy"
    with pytest.raises(ConfigurationError, match="task='classes' is unknown"):
        export_tflite(head(3), tmp_path / "other.tflite", verify_on=(X, labels), task="classes")


def test_segmentation_has_a_mean_iou(tmp_path):
    x = keras.Input((5, 5, 2), name="image")
    model = keras.Model(x, L.Conv2D(3, 1, activation="softmax", name="map")(x))
    labels = np.random.default_rng(0).integers(0, 3, (40, 5, 5))
    output = export_tflite(model, tmp_path / "m.tflite", verify_on=(IMAGES, labels)).verification.outputs["map"]
    metric = keras.metrics.MeanIoU(3, sparse_y_pred=False)
    metric.update_state(labels, model(IMAGES))
    assert (output.task, output.metric) == ("segmentation", "mean_iou")
    assert output.keras_metric_value == pytest.approx(float(metric.result()))
    assert output.keras_accuracy == pytest.approx(np.mean(model(IMAGES).numpy().argmax(-1) == labels))


BAD_TASKS = [
    ("classes", ConfigurationError, "task='classes' is unknown"),
    ({"other": "binary"}, DataError, "tasks for the outputs"),
    ("binary", ConfigurationError, "3 scores for each sample"),
    ("segmentation", ConfigurationError, "no positions to label"),
    ("multilabel", DataError, "have the shape"),
    ("regression", DataError, "have the shape"),
]


@pytest.mark.parametrize(("task", "error", "match"), BAD_TASKS)
def test_a_task_that_does_not_fit_is_refused(task, error, match, exported):
    model = head(3)
    with pytest.raises(error, match=match):
        verify(exported((3, None), model), model, X, np.zeros(40, int), task=task)


def whole_batch_mean(x):
    return ops.mean(x, axis=0)


def whole_scalar(x):
    return ops.mean(x)


def merged_axes(x):
    return ops.reshape(x, (-1, 2))


def one_row_for_each_of_five(x):
    return ops.max(x) * ops.arange(5, dtype="float32")


WHOLE_OUTPUTS = [(whole_batch_mean, 1), (whole_batch_mean, 7), (whole_scalar, 1), (whole_scalar, 7), (merged_axes, 1), (merged_axes, 5)]


@pytest.mark.parametrize(("function", "batch_size"), [*WHOLE_OUTPUTS, (one_row_for_each_of_five, 1), (one_row_for_each_of_five, 5)])
def test_output_without_a_batch_axis_is_compared_whole(function, batch_size, tmp_path):
    """Of 40 samples the last batch of 7 is filled up, in the file as in Keras."""
    x = keras.Input((6,), name="x")
    model = keras.Model(x, {"whole": function(x), "rows": L.Dense(2)(x)})
    output = export_tflite(model, tmp_path / "m.tflite", verify_on=X, batch_size=batch_size)
    assert output.verification.max_abs_error < 1e-5
    changed = keras.Model(x, {"whole": function(x) + ops.cast(1e-2, "float32"), "rows": model.output["rows"]})
    with pytest.raises(VerificationError, match="Output 'whole'"):
        verify(output.path, changed, X)


def any_length(dense):
    x = keras.Input((None, 4), name="steps")
    return keras.Model(x, L.GlobalAveragePooling1D()(dense(x)))


@pytest.mark.parametrize("variant", ["float32", "dynamic_range", "int8"])
@pytest.mark.parametrize("shape", [(9, 4), (1, 4)])
def test_inputs_without_fixed_size(variant, shape, tmp_path):
    x = np.random.default_rng(0).standard_normal((20, *shape)).astype("float32")
    record = export_tflite(any_length(L.Dense(3)), tmp_path / "m.tflite", variant, calibration=x, batch_size=None)
    assert record.verification.samples == 20
    assert record.verification.outputs[next(iter(record.verification.outputs))].judged_indices == 3


def test_images_of_any_size(tmp_path):
    x = keras.Input((None, None, 2), name="image")
    model = keras.Model(x, L.Conv2D(3, 3)(x))
    record = export_tflite(model, tmp_path / "m.tflite", verify_on=IMAGES, batch_size=None)
    other = np.random.default_rng(0).standard_normal((3, 8, 7, 2)).astype("float32")
    assert verify(record.path, model, other).samples == 3
    assert record.max_abs_error < 1e-5


@keras.saving.register_keras_serializable(package="test_tflite_outputs")
class Average(L.Layer):
    """A running mean with a state of its own."""

    def build(self, shape):
        self.mean = self.add_weight(shape=shape, initializer="zeros", trainable=False, name="mean")

    def call(self, x):
        self.mean.assign(0.9 * self.mean + 0.1 * x)
        return self.mean + 0.0

    def reset_state(self):
        self.mean.assign(ops.zeros_like(self.mean))


def recurrent(layer):
    return keras.Sequential([keras.Input(batch_shape=(1, 5, 3)), layer, L.Dense(2)])


STATEFUL = [
    lambda: recurrent(L.LSTM(4, stateful=True, unroll=True)),
    lambda: recurrent(L.GRU(4, stateful=True, unroll=True)),
    lambda: recurrent(L.SimpleRNN(4, stateful=True)),
    lambda: recurrent(L.Bidirectional(L.GRU(4, stateful=True, unroll=True))),
    lambda: keras.Sequential([keras.Input(batch_shape=(1, 5, 3)), Average(), L.Flatten(), L.Dense(2)]),
    lambda: adopt(
        tf_keras().Sequential(
            [
                tf_keras().layers.Input(batch_shape=(1, 5, 3)),
                tf_keras().layers.GRU(4, stateful=True, unroll=True),
                tf_keras().layers.Dense(2),
            ]
        )
    ),
    lambda: adopt(
        tf_keras().Sequential(
            [tf_keras().layers.Input(batch_shape=(1, 5, 3)), tf_keras().layers.LSTM(4, stateful=True), tf_keras().layers.Dense(2)]
        )
    ),
]


def states(model):
    return [np.array(v) for v in getattr(model, "legacy", model).non_trainable_variables] + [
        np.array(s)
        for layer in getattr(model, "legacy", model)._flatten_layers()
        for s in getattr(layer, "states", None) or []
        if hasattr(s, "assign")
    ]


NAMES = ["lstm", "gru", "simple", "bidirectional", "own_layer", "tf_keras", "tf_keras_lstm"]
SLOW = {"gru", "bidirectional", "tf_keras"}


@pytest.mark.parametrize(
    "build", [pytest.param(b, id=n, marks=pytest.mark.slow if n in SLOW else ()) for b, n in zip(STATEFUL, NAMES, strict=True)]
)
def test_stateful_models_are_exported_from_their_initial_state(build, tmp_path):
    from tfdistill.runtime.interpreter import open_file

    model = build()
    x = np.random.default_rng(0).standard_normal((6, 5, 3)).astype("float32")
    fresh = np.asarray(model(x[:1]))  # from zeros
    for i in range(3):
        model(x[i : i + 1])
    left_over = states(model)
    assert any(np.abs(s).max() > 0 for s in left_over)
    record = export_tflite(model, tmp_path / "m.tflite", verify_on=x)
    assert record.max_abs_error < 1e-5
    for before, after in zip(left_over, states(model), strict=True):
        np.testing.assert_array_equal(before, after)
    (output,) = open_file(record.path).run(x[:1]).values()
    np.testing.assert_allclose(output, fresh, atol=1e-5)
    # What assigns to a state has no result.
    assert len(layer_operations((tmp_path / "m.tflite").read_bytes())) == sum(op.count for op in record.census.ops)


def quantization_aware():
    from tfdistill.compress import QuantizeAware

    return QuantizeAware().apply(keras.Sequential([keras.Input((6,)), L.Dense(8, activation="relu"), L.Dense(3)]))


def quantized_by_tfmot():
    tfk = tf_keras()
    plain = tfk.Sequential([tfk.layers.Input((6,)), tfk.layers.Dense(8, activation="relu"), tfk.layers.Dense(3)])
    return adopt(tfmot().quantization.keras.quantize_model(plain))


def trained_but_for_one(model=None):
    model = model or quantization_aware()
    model.compile("sgd", "mse")
    model.fit(X, np.zeros((40, 3)), epochs=1, verbose=0)
    from tfdistill.bridge.adopt.introspection import ranges_of
    from tfdistill.bridge.adopt.trained_ranges import quantized_layers

    _, low, high = ranges_of(quantized_layers(model.legacy)[-1])[0]
    low.assign(-6 * np.ones(low.shape)), high.assign(6 * np.ones(high.shape))
    return model


UNTRAINED = [(quantization_aware, "int8"), (quantized_by_tfmot, "float32"), (trained_but_for_one, "int8")]


@pytest.mark.parametrize(("build", "variant"), UNTRAINED)
def test_untrained_ranges_are_not_exported(build, variant, tmp_path):
    model = build()
    with pytest.raises(InvariantError, match=r"were never trained: .* is -6 to 6, as it began"):
        export_tflite(model, tmp_path / "m.tflite", variant, calibration=X)
    assert list(tmp_path.iterdir()) == []
    model.compile("sgd", "mse")
    model.fit(X, np.zeros((40, 3)), epochs=1, verbose=0)  # what the message advises
    assert export_tflite(model, tmp_path / "m.tflite", "int8", calibration=X).verification is not None
