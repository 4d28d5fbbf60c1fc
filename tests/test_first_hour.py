"""What a new user does in the first hour, each in several ways: what is exported, calibrated, verified, timed, and what is said."""

import functools
import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfdistill
from tfdistill.benchmarking import Cpu, Timing
from tfdistill.compress import Cluster, Prune, PruneChannels, Quantize, QuantizeAware
from tfdistill.convert.variants import VARIANTS
from tfdistill.errors import ConfigurationError, ModelError, VerificationError
from tfdistill.losses import SoftTargets

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 6)).astype("float32")


@functools.cache
def net():
    parts = [layers.Dense(8, activation="relu", name="hidden"), layers.Dense(3, name="logits")]
    return keras.Sequential([keras.Input((6,), name="x"), *parts], name="net")


PRUNE, CLUSTER = Prune(0.5, end_step=1, frequency=1), Cluster(4)


def distiller(student=None):
    return tfdistill.Distiller(keras.models.clone_model(net()), student or net(), SoftTargets())


def saved(folder, name):
    net().save(folder / name)
    return folder / name


EXPORTED = {
    "a Distiller": lambda f: distiller(),
    "the path of a .keras file": lambda f: str(saved(f, "m.keras")),
    "a pathlib.Path": lambda f: saved(f, "m.keras"),
    "an .h5 file": lambda f: saved(f, "m.h5"),
    "a stripped model": lambda f: PRUNE.strip(PRUNE.apply(net())),
}


@pytest.mark.parametrize("kind", EXPORTED)
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_what_is_not_a_plain_model_is_exported(kind, tmp_path):
    record = tfdistill.export_tflite(EXPORTED[kind](tmp_path), tmp_path / "m.tflite", verify_on=X)
    assert record.variant == "float32"


NEEDS_STRIP = {
    "in pruning": lambda f: PRUNE.apply(net()),
    "in clustering": lambda f: CLUSTER.apply(net()),
    "a Distiller of a student in pruning": lambda f: distiller(PRUNE.apply(net())),
    "in pruning, from a file": lambda f: (PRUNE.apply(net()).save(f / "p.keras"), keras.saving.load_model(f / "p.keras"))[1],
}


@pytest.mark.parametrize("kind", NEEDS_STRIP)
def test_a_model_that_is_still_wrapped_is_told_the_line(kind, tmp_path):
    with pytest.raises(ModelError) as error:
        tfdistill.export_tflite(NEEDS_STRIP[kind](tmp_path), tmp_path / "m.tflite", verify_on=X)
    assert error.value.fix == "give step.strip(model), where step.apply returned the model"


STEPS = {"Prune": PRUNE, "Cluster": CLUSTER, "QuantizeAware": QuantizeAware(), "Quantize": Quantize()}
NOT_APPLIED = {
    "a plain model": (net, "needs no strip: use it as it is"),
    "a stripped model": (lambda: PRUNE.strip(PRUNE.apply(net())), "needs no strip: use it as it is"),
    "a Distiller": (lambda: distiller(), "give its student: distiller.student"),
    "nothing": (lambda: None, "the model that"),
    "a path": (lambda: "m.keras", "the model that"),
}


@pytest.mark.parametrize("kind", NOT_APPLIED)
@pytest.mark.parametrize("step", STEPS)
def test_what_a_step_was_not_applied_to_is_told_what_to_do(step, kind):
    make, words = NOT_APPLIED[kind]
    with pytest.raises(ModelError) as error:
        STEPS[step].strip(make())
    assert words in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("act", ["apply", "plan"])
@pytest.mark.parametrize("step", [*STEPS, "PruneChannels"])
def test_a_distiller_is_no_model_to_compress(step, act):
    made = {**STEPS, "PruneChannels": PruneChannels(keep_macs=0.5)}[step]
    with pytest.raises(ModelError) as error:
        getattr(made, act)(distiller(), *([X] if step == "Quantize" and act == "apply" else []))
    assert error.value.fix == "give its student: distiller.student"


def regression(width=2):
    return keras.Sequential([keras.Input((6,)), layers.Dense(width, name="numbers")])


TASKS = {
    "a regression": (regression, X[:, :2], "mean absolute error"),
    "several labels": (lambda: of_sigmoids(3), (X[:, :3] > 0).astype("float32"), "accuracy"),
    "one yes or no": (lambda: of_sigmoids(1), (X[:, :1] > 0).astype("float32"), "accuracy"),
    "classes": (net, (X[:, 0] > 0).astype("int32"), "accuracy"),
}


def of_sigmoids(width):
    return keras.Sequential([keras.Input((6,)), layers.Dense(width, activation="sigmoid", name="scores")])


@pytest.mark.parametrize("task", TASKS)
def test_the_metric_of_the_task_is_shown_of_file_and_model(task, tmp_path):
    make, y, metric = TASKS[task]
    printed = str(tfdistill.export_tflite(make(), tmp_path / "m.tflite", verify_on=(X, y)))
    for name in (metric, f"keras {metric}"):
        assert re.search(rf"^{name}\s+[\d.]+$", printed, re.MULTILINE), printed


def classifier(mean, spread):
    """A model that was trained on inputs of that scale: it is sure of its classes there."""
    inputs = keras.Input((6,), name="x")
    model = keras.Model(inputs, layers.Dense(3, name="logits")(layers.Dense(8, activation="relu", name="hidden")(inputs)))
    kernel, bias = model.get_layer("hidden").get_weights()
    model.get_layer("hidden").set_weights([kernel * 4.0 / spread, bias - (4.0 * mean / spread) * kernel.sum(0)])
    return model


# (mean, spread) of the model's inputs -> what the calibration data is made of them by.
SCALES = {
    "0..255 for 0..1": ((0.5, 0.3), lambda x: 255.0 * x),
    "0..255 for -1..1": ((0.0, 0.6), lambda x: 127.5 * (x + 1.0)),
    "0..1 for standardized values": ((0.0, 1.0), lambda x: (x + 3.0) / 600.0),
    "millivolts for volts": ((1.0, 0.5), lambda x: 1000.0 * x),
}


@pytest.mark.parametrize("kind", SCALES)
@pytest.mark.filterwarnings("ignore:.*reaches from", "ignore:Keras decides clearly", "ignore:.*outside", "ignore:.*scale")
def test_calibration_on_another_scale_says_both_ranges_and_the_accuracy_first(kind, tmp_path):
    (mean, spread), other = SCALES[kind]
    x = (mean + spread * RNG.normal(size=(200, 6))).astype("float32")
    model = classifier(mean, spread)
    y = model.predict(x, verbose=0).argmax(-1)
    with pytest.raises(VerificationError) as error:
        tfdistill.export_tflite(model, tmp_path / "m.tflite", "int8", calibration=other(x), verify_on=(x, y))
    assert "accuracy" in error.value.happened.splitlines()[0]
    said = re.search(r"reaches from (\S+) to (\S+) in these samples, but the file reads (\S+) to ([^\s,]+),", error.value.happened)
    ranges = [float(number) for number in said.groups()]
    np.testing.assert_allclose(ranges[:2], [x.min(), x.max()], rtol=1e-3)
    # The file's have a zero in them, and are of 255 steps.
    values = np.append(other(x), 0.0)
    np.testing.assert_allclose(ranges[2:], [values.min(), values.max()], atol=0.01 * (values.max() - values.min()))
    assert error.value.fix.startswith("scale calibration and verification data alike")
    record = tfdistill.export_tflite(model, tmp_path / "m.tflite", "int8", calibration=x, verify_on=(x, y))
    assert record.accuracy > 0.9


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_file_is_held_to_the_tolerances_of_its_own_kind(variant, tmp_path):
    # Only kernels of some size are integers in a file of dynamic range.
    stack = [
        layers.Dense(width, activation="relu") for width in (200, 12)
    ]  # of those between the first and the last, the mixed variant makes 4 bits
    model = keras.Sequential([keras.Input((6,)), *stack, layers.Dense(3)])
    path = tfdistill.export_tflite(model, tmp_path / "m.tflite", variant, calibration=X, verify_on=X).path
    assert tfdistill.verify(path, model, X).variant == variant
    if variant in ("int8", "dynamic_range"):
        with pytest.raises(VerificationError, match="at most"):
            tfdistill.verify(path, model, X, variant="float32")


NO_FILES = {
    "a model": net,
    "a Distiller": distiller,
    "bytes": lambda: b"TFL3",
    "a list of files": lambda: ["a.tflite", "b.tflite"],
    "a folder": lambda: pathlib.Path("."),
    "nothing": lambda: None,
}


@pytest.mark.parametrize("kind", NO_FILES)
def test_what_cannot_be_timed_is_told_what_to_pass(kind):
    with pytest.raises(ConfigurationError) as error:
        tfdistill.benchmark(NO_FILES[kind]())
    assert error.value.expected or error.value.fix


ARGUMENTS = {
    "threads": (dict(threads=2), "Cpu(threads=2)"),
    "num_threads": (dict(num_threads=2), "Cpu(threads=2)"),
    "runs": (dict(runs=50), "Timing(min_runs=200)"),
    "input_shapes": (dict(input_shapes={}), "shapes={name: shape}"),
    "misspelt": (dict(timming=Timing()), "'timing'"),
    "unknown": (dict(accelerator="gpu"), "the arguments path, target, timing"),
    "none at all": (dict(), "the arguments path"),
}


@pytest.mark.parametrize("kind", ARGUMENTS)
def test_arguments_of_benchmark_are_told_what_to_write(kind):
    arguments, words = ARGUMENTS[kind]
    with pytest.raises(ConfigurationError) as error:
        tfdistill.benchmark(*([] if kind == "none at all" else ["m.tflite"]), **arguments)
    assert words in str(error.value)


ADOPTED = {
    "pruning": lambda: PRUNE.apply(net()),
    "clustering": lambda: CLUSTER.apply(net()),
    "quantization-aware": lambda: QuantizeAware().apply(net()),
    "without a wrapper": lambda: tfdistill.adopt(tfdistill.to_tf_keras(net())),
}


@pytest.mark.parametrize("kind", ADOPTED)
def test_an_adopted_model_has_the_layers_of_the_user(kind):
    model, lines = ADOPTED[kind](), []
    names = [layer.name for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    assert names == ["hidden", "logits"]
    model.summary(print_fn=lambda line, *_, **__: lines.append(line))
    assert all(name in "\n".join(lines) for name in names)


def recurrent():
    return keras.Sequential([keras.Input((4, 3)), layers.GRU(4), layers.Dense(3)])


WITHOUT_XLA = {
    "pruning": lambda: PRUNE.apply(net()),
    "clustering": lambda: CLUSTER.apply(net()),
    "a recurrent layer, quantization-aware": lambda: QuantizeAware().apply(recurrent()),
    "a Distiller of a student in pruning": lambda: distiller(PRUNE.apply(net())),
}


@pytest.mark.parametrize("kind", WITHOUT_XLA)
def test_xla_is_left_out_with_a_warning_where_it_cannot_compile(kind):
    model = WITHOUT_XLA[kind]()
    with pytest.warns(UserWarning, match="Model doesn't support `jit_compile=True`"):
        model.compile("sgd", "mse", jit_compile=True)
    assert not model.jit_compile


def checkpoint_of(first, second):
    """A net whose layers have the names that Keras gave them, the numbers of this process."""
    parts = [layers.Dense(8, activation="relu", name=first), layers.Dense(3, name=second)]
    return keras.Sequential([keras.Input((6,)), *parts], name="net")


BY_PLACE = {
    "a pruned model": PRUNE,
    "a clustered model": CLUSTER,
    "a quantization-aware model": QuantizeAware(),
    "a quantization-aware model of 16 bits": QuantizeAware(activation_bits=16),
}


@pytest.mark.parametrize("kind", BY_PLACE)
def test_a_checkpoint_goes_by_the_place_of_layers_with_automatic_names(kind, tmp_path):
    one, other = (BY_PLACE[kind].apply(checkpoint_of(*names)) for names in (("dense", "dense_1"), ("dense_2", "dense_3")))
    one.save_weights(tmp_path / "w.weights.h5")
    other.load_weights(tmp_path / "w.weights.h5")
    np.testing.assert_array_equal(one(X), other(X))
    assert all(np.array_equal(a, b) for a, b in zip(one.get_weights(), other.get_weights(), strict=True))


def after_a_mask(join):
    tokens = keras.Input((6,), dtype="int32")
    x = layers.Embedding(9, 16, mask_zero=True)(tokens)
    x = join(x, layers.Dense(16)(x))
    return keras.Model(tokens, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


JOINED = {
    "+": lambda a, b: a + b,
    "keras.ops.add": keras.ops.add,
    "keras.ops.multiply": keras.ops.multiply,
    "Add": lambda a, b: layers.Add()([a, b]),
    "-": lambda a, b: a - b,
}


@pytest.mark.parametrize("kind", JOINED)
def test_what_is_joined_after_a_mask_crosses_the_bridge(kind):
    model, tokens = after_a_mask(JOINED[kind]), np.array([[1, 2, 3, 0, 0, 0], [4, 5, 6, 7, 8, 1]])
    np.testing.assert_allclose(tfdistill.to_tf_keras(model)(tokens), model(tokens), atol=1e-5)


def representative_of(values):
    def representative_dataset():
        for row in values:
            yield [row[None]]

    return representative_dataset


FUNCTIONS = {
    "TensorFlow's idiom": representative_of(X),
    "arrays": lambda: X,
    "a dataset": lambda: tf.data.Dataset.from_tensor_slices(X).batch(8),
    "a dict": lambda: {"x": X},
    "a generator of dicts": lambda: ({"x": row[None]} for row in X),
}


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_a_function_that_makes_the_calibration_data_is_called(kind, tmp_path):
    record = tfdistill.export_tflite(net(), tmp_path / "m.tflite", "int8", calibration=FUNCTIONS[kind], verify_on=X)
    assert record.calibration_samples == len(X)
    assert tfdistill.benchmark(record.path, Cpu(), timing=Timing(min_seconds=0.01, max_seconds=0.05, warmup_seconds=0)).p50_ms > 0


# What comes after a Rescaling -> the operations of the file that compute it.
RESCALED = {
    "a convolution": (lambda x: layers.Conv2D(4, 3)(x), {"CONV_2D"}),
    "a strided convolution": (lambda x: layers.Conv2D(4, 3, strides=2, activation="relu")(x), {"CONV_2D"}),
    "a depthwise convolution": (lambda x: layers.DepthwiseConv2D(3)(x), {"DEPTHWISE_CONV_2D"}),
    # Past a Flatten it is an operation of its own, as in a calibrated file.
    "a dense layer": (lambda x: layers.Dense(4)(layers.Flatten()(x)), {"DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}),
}


@pytest.mark.parametrize("name", RESCALED)
def test_a_rescaling_costs_a_trained_file_no_operation_more_than_a_calibrated_one(name, tmp_path):
    body, computes = RESCALED[name]
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, layers.Flatten()(body(layers.Rescaling(1 / 255)(inputs))))
    x = RNG.uniform(0, 255, (32, 8, 8, 3)).astype("float32")
    trained = QuantizeAware().apply(model, dry_run=False)
    trained.compile("sgd", "mse", run_eagerly=True)
    trained.fit(x, model.predict(x, verbose=0), batch_size=16, verbose=0)
    files = (trained, {}), (model, {"road": "converter"})
    counts = []
    for i, (of, how) in enumerate(files):
        record = tfdistill.export_tflite(of, tmp_path / f"{i}.tflite", "int8", calibration=x, **how)
        counts.append({op.name: op.count for op in record.census.ops})
    assert sum(counts[0].values()) <= sum(counts[1].values())
    assert set(counts[0]) - {"QUANTIZE", "DEQUANTIZE"} <= computes | {"RESHAPE"}
