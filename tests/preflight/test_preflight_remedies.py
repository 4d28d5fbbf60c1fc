"""Everything that `check` finds has a remedy that works: the fault is found, its remedy followed, and it is not found again."""

import re
import types
import typing
from collections.abc import Callable, Mapping

import keras
import preflight_models as models
import pytest
from keras import layers, ops
from preflight_models import WEATHER, X, between, chain, recurrent
from remedies_of_source import claimed, pattern, remedies

import tfdistill
from tfdistill.benchmarking import Timing
from tfdistill.compress import QuantizeAware
from tfdistill.preflight.findings import KINDS


class Row(typing.NamedTuple):
    """A fault, and how its remedy is followed.

    Attributes:
        kind: Kind of the finding.
        layers: What it names.
        words: Part of its remedy.
        make: Function that makes the model.
        follow: Functions that do what the remedy says, each way: of no arguments, or of an empty folder. They return a model without the fault, or a model and other
            arguments of `check`; or nothing.
        settings: Arguments of `check`.
        severity: Of the finding.
    """

    kind: str
    layers: tuple[str, ...]
    words: str
    make: Callable
    follow: tuple[Callable, ...]
    settings: Mapping = types.MappingProxyType({})
    severity: str = "fails"


def cumprod():
    return between(lambda x: ops.cumprod(x, axis=-1))


def with_flex():
    record = tfdistill.export_tflite(cumprod(), "flex.tflite", allow_flex=True)
    assert record.census.flex_ops


def without_batch():
    model = chain(layers.Conv1D(8, 3), shape=(None, 4))
    assert tfdistill.export_tflite(model, "free.tflite", batch_size=None).batch_size is None


def on_a_float_input():
    model = models.of_bytes()
    fresh = keras.models.clone_model(model, input_tensors=keras.Input(model.input_shape[1:]))
    fresh.set_weights(model.get_weights())
    return fresh


def after_the_lookup():
    model = models.looked_up()
    return keras.Model(model.get_layer("lookup").output, model.output)


def of_one_argument():
    left, right = keras.Input((8,)), keras.Input((8,))
    return keras.Model([left, right], models.two_arguments()(left, right))


def measured():
    tfdistill.export_tflite(models.first_step(pool=False), "m.tflite", "int8", calibration=models.RNG.normal(size=(16, 6, 8)))
    assert tfdistill.benchmark("m.tflite", timing=Timing(min_seconds=0.01, max_seconds=0.05, warmup_seconds=0, processes=1)).p50_ms > 0


def split():
    record = tfdistill.export_tflite(models.detector(100.0), "split.tflite", "int8", calibration=X, outputs="split")
    assert len({tensor.scale for tensor in record.outputs}) == 2


def listed():
    assert any("SIGN" in row.operations for row in QuantizeAware(target="micro").plan(sign()).rows)


def sign():
    return between(ops.sign)


def tanh():
    return between(ops.tanh)


def softmax():
    return chain(layers.Dense(8), layers.Dense(4, activation="softmax", name="classes"))


def logits():
    return chain(layers.Dense(8), layers.Dense(4, name="classes"))


def freed(model):
    return QuantizeAware(integer_only=False).apply(model, dry_run=False)


def with_data(model, data):
    return model, {"data": data}


# How a loop without a fixed length, and one of too many steps, are mended.
FIXED, WRITTEN_OUT = "give the model a fixed number of steps, keras.Input((steps, ...))", "writes its 130 steps out in the file"
FLOATS = "or take a variant of floats: 'dynamic_range', 'float16' or 'float32'"
ROW_BY_ROW = "replace it by what TFLite computes in integers, "
ROWS = {
    "an operation of TensorFlow's": Row(
        "tensorflow_only",
        ("cumprod",),
        "replace it by operations that TFLite has; a float variant can also be exported with allow_flex=True",
        cumprod,
        (tanh, with_flex),
    ),
    "a function of Python": Row(
        "custom_operation",
        ("python",),
        "write it with keras.ops: no interpreter has Python functions",
        lambda: between(models.PythonTanh(name="python")),
        (tanh,),
    ),
    "an operation on floats": Row(
        "float_only",
        ("volume",),
        ROW_BY_ROW + FLOATS,
        lambda: chain(layers.Conv3D(8, 3, name="volume"), layers.Flatten(), shape=(4, 4, 4, 2)),
        (
            lambda: chain(layers.Reshape((4, 4, 8)), layers.Conv2D(8, 3, name="volume"), layers.Flatten(), shape=(4, 4, 4, 2)),
            lambda: (chain(layers.Conv3D(8, 3, name="volume"), layers.Flatten(), shape=(4, 4, 4, 2)), {"variant": "float32"}),
        ),
    ),
    "a loop": Row(
        "loop",
        ("settling",),
        "replace the loop by layers that take all steps at once, " + FLOATS,
        lambda: between(models.Settling(name="settling")),
        (tanh, lambda: (between(models.Settling(name="settling")), {"variant": "dynamic_range"})),
    ),
    "a loop of any length": Row("loop", ("loop",), FIXED, recurrent, (lambda: recurrent(steps=5),)),
    "a fused loop of any length": Row("loop", ("loop",), FIXED, lambda: recurrent(layers.LSTM), (lambda: recurrent(layers.LSTM, steps=5),)),
    "a long loop": Row(
        "loop",
        ("loop",),
        WRITTEN_OUT + "; or give the model at most 128 steps",
        lambda: recurrent(layers.SimpleRNN, steps=130),
        (
            lambda: QuantizeAware(unroll=True).apply(recurrent(layers.SimpleRNN, steps=130), dry_run=False),
            lambda: recurrent(layers.SimpleRNN, steps=5),
        ),
    ),
    "a long loop that is fused": Row(
        "loop", ("loop",), WRITTEN_OUT, lambda: recurrent(layers.LSTM, steps=130), (lambda: recurrent(layers.LSTM, steps=5),), {}, "inexact"
    ),
    "a loop in floats": Row(
        "loop",
        ("loop",),
        "write its steps out in the file: by unroll=True of a recurrent layer of fixed length",
        lambda: recurrent(steps=5),
        (lambda: recurrent(steps=5, unroll=True),),
        {"variant": "float32"},
        "slow",
    ),
    "a loop of one's own in floats": Row(
        "loop",
        ("settling",),
        "or by a Python loop in a call of your own",
        lambda: between(models.Settling(name="settling")),
        (lambda: between(models.Settling(written_out=True, name="settling")),),
        {"variant": "float32"},
        "slow",
    ),
    "numbers without a range": Row(
        "not_finite",
        ("log",),
        "keep it finite: add a small number to what is divided by, or of which a logarithm or root is taken",
        lambda: models.log(floor=0.0),
        (lambda: models.log(floor=0.01),),
        {"variant": "int16x8"},
    ),
    "weights that are NaN": Row(
        "not_finite",
        ("broken",),
        "begin with finite weights, those of the last epoch that had a finite loss",
        lambda: models.weights_of(float("nan")),
        (lambda: models.weights_of(0.5),),
    ),
    "no batch of one": Row(
        "not_converted",
        (),
        "replace it by others that compute the same, of layers and keras.ops that take a batch of 1",
        models.pairs,
        (lambda: between(lambda x: ops.reshape(x, (-1, 8))),),
    ),
    "a Python function": Row(
        "bridge",
        (),
        "write the function with keras.ops on the tensors themselves",
        lambda: between(layers.Lambda(lambda x: ops.tanh(x), name="function")),
        (tanh,),
    ),
    "bytes": Row("cast_input", ("image",), "rebuild it on a float input: fresh = ", models.of_bytes, (on_a_float_input,)),
    "any length": Row(
        "free_axes",
        ("x",),
        "build the model on a keras.Input of fixed shape, or export with batch_size=None",
        lambda: chain(layers.Conv1D(8, 3), shape=(None, 4)),
        (lambda: chain(layers.Conv1D(8, 3), shape=(6, 4)), without_batch),
        {"variant": "float32"},
    ),
    "a table": Row("lookup", ("lookup",), "look up before the model, in the data pipeline", models.looked_up, (after_the_lookup,)),
    "two arguments": Row("arguments", (), "make a functional model of it: left, right = ", models.two_arguments, (of_one_argument,)),
    "functions that are fast in float": Row(
        "left_by_target",
        ("attention", "norm", "wide"),
        "QuantizeAware(target='xnnpack', integer_only=False) computes it in float within its partitions, which is faster",
        models.attending,
        (lambda: freed(models.attending()),),
        {},
        "slow",
    ),
    "a function at the end": Row(
        "left_by_target",
        ("classes",),
        "end in logits, and apply the function to the few numbers of the output on the device",
        softmax,
        (logits,),
        {},
        "note",
    ),
    "what the target takes in floats": Row(
        "left_by_target",
        ("largest",),
        "replace it by layers of operations that xnnpack takes, or take variant='float32', in which it takes these",
        lambda: models.largest(layers.Maximum(name="largest")),
        (
            lambda: models.largest(layers.Add(name="largest")),
            lambda: (models.largest(layers.Maximum(name="largest")), {"variant": "float32"}),
        ),
        {},
        "slow",
    ),
    "what the target takes in integers": Row(
        "left_by_target",
        ("dense",),
        "or take variant='int8', in which it takes these",
        lambda: chain(layers.Dense(8, name="dense")),
        (lambda: (chain(layers.Dense(8, name="dense")), {"variant": "int8"}),),
        {"variant": "float32", "target": "edgetpu"},
        "slow",
    ),
    "what nothing else runs": Row(
        "left_by_target",
        ("sign",),
        "replace it by layers of operations that micro has; QuantizeAware(target='micro').plan(model) lists those of each layer",
        sign,
        (tanh, listed),
        {"variant": "float32", "target": "micro"},
    ),
    "what moves elements": Row(
        "left_by_target",
        ("get_item",),
        "replace it by layers of operations that the target takes; tfdistill.benchmark(path) measures what it costs",
        lambda: models.first_step(pool=False),
        (lambda: models.first_step(pool=True), measured),
        {},
        "note",
    ),
    "probabilities": Row(
        "fixed_scale",
        ("classes",),
        "end in logits: leave the softmax or sigmoid out, and train with from_logits=True; the largest logit is the largest probability",
        softmax,
        (logits,),
        {},
        "inexact",
    ),
    "boxes beside scores": Row(
        "mixed_units",
        ("heads",),
        "export with outputs='split', which gives each branch an output, a scale and a name of its own; or bring the branches to one scale: divide the larger by a "
        "constant",
        lambda: models.detector(100.0),
        (split, lambda: models.detector(100.0, joined=False), lambda: with_data(models.detector(0.2), X)),
        {},
        "inexact",
    ),
    "boxes beside logits": Row(
        "mixed_units",
        ("heads",),
        "or bring the branches to one scale: divide the larger by a constant",
        lambda: models.detector(100.0, activation=None),
        (lambda: models.detector(activation=None),),
        {"data": X},
        "inexact",
    ),
    "features of other scales": Row(
        "input_scales",
        ("x",),
        "normalize each feature before it reaches the model, (x - mean) / deviation, or give the features of one unit an input of their own",
        lambda: chain(layers.Dense(8)),
        (
            lambda: with_data(chain(layers.Dense(8)), (WEATHER - WEATHER.mean(0)) / WEATHER.std(0)),
            lambda: with_data(models.apart(), {"others": WEATHER[:, [0, 1, 3, 4, 5, 6, 7]], "third": WEATHER[:, 2:3]}),
        ),
        {"data": WEATHER},
        "inexact",
    ),
    "features of other scales that a layer has seen": Row(
        "input_scales",
        ("x",),
        "normalize each feature before it reaches the model",
        lambda: models.normalizing([0.0, 500.0], [1.0, 1e6]),
        (lambda: models.normalizing([0.0, 0.5], [1.0, 1.2]),),
        {},
        "inexact",
    ),
    "channels": Row(
        "unaligned_channels",
        ("wide", "loop"),
        "take the next multiple, for 'wide' 16 in place of 12, which costs about the same time",
        lambda: chain(layers.Dense(12, name="wide"), layers.GRU(6, name="loop"), layers.Dense(3), shape=(2, 4)),
        (lambda: chain(layers.Dense(16, name="wide"), layers.GRU(8, name="loop"), layers.Dense(3), shape=(2, 4)),),
        {},
        "note",
    ),
}
SLOW = {"a long loop", "a long loop that is fused", "a fused loop of any length", "a loop in floats"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in ROWS])
def test_a_fault_is_found_and_its_remedy_works(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    row = ROWS[name]
    found = [finding for finding in tfdistill.check(row.make(), **row.settings).of_kind(row.kind) if row.words in finding.fix]
    # Keras numbers the names of operations.
    assert [(one.severity, tuple(re.sub(r"_\d+$", "", layer) for layer in one.layers)) for one in found] == [(row.severity, row.layers)]
    assert all(f"'{layer}'" in found[0].happened for layer in found[0].layers)
    taken = claimed(row.words, remedies())
    assert taken is None or pattern(taken).search(found[0].fix), f"'{row.words}' is taken for '{taken}'"
    for follow in row.follow:
        if (followed := follow()) is not None:
            model, settings = followed if isinstance(followed, tuple) else (followed, {})
            left = tfdistill.check(model, **{**row.settings, **settings}).of_kind(row.kind)
            assert [finding for finding in left if row.words in finding.fix] == []


def test_every_kind_has_a_row():
    assert {row.kind for row in ROWS.values()} == set(KINDS)
