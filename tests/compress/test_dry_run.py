"""What a plan says of the export is what the export does: the conversion is tried before the training."""

import collections
import contextlib
import functools

import keras
import numpy as np
import pytest

from tfdistill.bridge import adopt, host, register_bridge, to_tf_keras
from tfdistill.bridge.adopt.rewire import replay
from tfdistill.compress import Cluster, Prune, QuantizeAware, dry_run
from tfdistill.convert import dry_run as dry_run_of_files
from tfdistill.errors import ExportError, ModelError
from tfdistill.tflite import Tolerances, export_tflite

layers = keras.layers


@keras.saving.register_keras_serializable("tests")
class Operation(layers.Layer):
    """Runs one function of `keras.ops`."""

    def __init__(self, operation, arguments=(), **kwargs):
        super().__init__(**kwargs)
        self.operation, self.arguments = operation, tuple(arguments)

    def call(self, inputs):
        return getattr(keras.ops, self.operation)(inputs, *self.arguments)

    def get_config(self):
        return {**super().get_config(), "operation": self.operation, "arguments": list(self.arguments)}


register_bridge(Operation, host)


def chain(*stack, shape=(8, 8, 4)):
    return lambda: keras.Sequential([keras.Input(shape), *(make() for make in stack)], name="chain")


def conv(name="conv", **settings):
    return lambda: layers.Conv2D(4, 3, name=name, **settings)


def operation(kind, *arguments):
    return lambda: Operation(kind, arguments, name="culprit")


def twice():
    """A culprit that is called twice, behind a layer whose name is that of its second call."""
    inputs = keras.Input((6,))
    culprit = Operation("erf", name="culprit")
    x = layers.Dense(6, name="culprit_1")(inputs)
    return keras.Model(inputs, layers.Dense(3)(culprit(layers.Dense(6)(culprit(x)))))


def nested():
    inner = keras.Input((6,))
    inside = keras.Model(inner, Operation("erf", name="culprit")(layers.Dense(6, name="dense")(inner)), name="inside")
    inputs = keras.Input((6,))
    return keras.Model(inputs, layers.Dense(3, name="dense")(inside(inputs)))


def split():
    inputs = keras.Input((8, 8, 4))
    one, other = keras.ops.split(layers.Conv2D(8, 1, activation="relu")(inputs), 2, axis=-1)
    y = layers.Conv2D(4, 3, padding="same", activation="relu")(other)
    y = layers.Conv2D(4, 1)(layers.Concatenate()([y, other]))
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(layers.Concatenate()([y, one]))))


def one_activation_often():
    x = inputs = keras.Input((8,))
    activation = layers.Activation("relu")
    for _ in range(3):
        x = activation(layers.Dense(8)(x))
    return keras.Model(inputs, x)


def sine_of_a_product():
    inputs = keras.Input((6,))
    return keras.Model(inputs, layers.Dense(3)(keras.ops.sin(2.0 * layers.Dense(6)(inputs))))


def itself_often():
    inputs = keras.Input((8,))
    same = layers.Activation("linear")
    return keras.Model(inputs, layers.Dense(3)(same(same(same(inputs)))))


def dense_often():
    inputs = keras.Input((4,), dtype="int32")
    dense = layers.Dense(8)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(dense(dense(layers.Embedding(10, 8)(inputs))))))


def reversible():
    inputs = keras.Input((4,), dtype="int32")
    embedding = layers.ReversibleEmbedding(10, 8)
    return keras.Model(inputs, embedding(layers.Dense(8)(embedding(inputs)), reverse=True))


def twins():
    """Two layers that compute the same until they are trained, and what is behind them: the converter computes each once."""
    inputs = keras.Input((8,))
    one, other = (layers.Dense(8, kernel_initializer=keras.initializers.GlorotUniform(seed=1))(inputs) for _ in range(2))
    first, second = keras.ops.split(one, 2, axis=-1)[0], keras.ops.split(other, 2, axis=-1)[1]
    return keras.Model(inputs, layers.Dense(3)(first * second))


# Name -> (function that makes the model, the layer that export would stumble on or None, settings of the step).
MODELS = {
    "convolution": (chain(conv(), layers.ReLU), None, {}),
    "excluded": (chain(conv(), layers.Flatten, lambda: layers.Dense(3)), None, {"exclude": "conv"}),
    "16 bits": (chain(conv(), layers.Flatten, lambda: layers.Dense(3)), None, {"activation_bits": 16}),
    "calibrated": (chain(lambda: layers.LSTM(4), lambda: layers.Dense(3), shape=(6, 4)), None, {"unroll": False}),
    "split": (split, None, {}),
    "one activation often": (one_activation_often, None, {}),
    "an activation of itself": (itself_often, None, {}),
    "dense behind an embedding": (dense_often, None, {}),
    "reversible embedding": (reversible, None, {}),
    "twins": (twins, None, {}),
    "lacking": (chain(conv(), operation("erf"), layers.Flatten, lambda: layers.Dense(3)), "culprit", {}),
    "lacking behind a Conv1D": (
        chain(lambda: layers.Conv1D(4, 3), operation("erf"), lambda: layers.Conv1D(4, 3), shape=(8, 4)),
        "culprit",
        {},
    ),
    "lacking, excluded": (chain(conv(), operation("erf")), "culprit", {"exclude": "culprit"}),
    "lacking, 16 bits": (chain(conv(), operation("erf")), "culprit", {"activation_bits": 16}),
    "called twice": (twice, "culprit", {}),
    "nested": (nested, "inside/culprit", {}),
    "float only": (chain(conv(), operation("cumsum", 1), layers.Flatten, lambda: layers.Dense(3)), "culprit", {}),
    "float only behind what is not": (sine_of_a_product, "sin", {}),
    "float only, then moved": (chain(conv(), operation("cumsum", 1), layers.Flatten), "culprit", {}),
    "float only behind what is calibrated": (
        chain(lambda: layers.LSTM(4), operation("cumsum", 1), lambda: layers.Dense(3), shape=(6, 4)),
        "culprit",
        {"unroll": False},
    ),
    "floats beside what is calibrated": (
        chain(lambda: layers.LSTM(4, name="culprit"), layers.LayerNormalization, lambda: layers.Dense(3), shape=(6, 4)),
        "culprit",
        {"unroll": False, "integer_only": False},
    ),
    "3d": (chain(lambda: layers.Conv3D(4, 3, name="culprit"), layers.Flatten, lambda: layers.Dense(3), shape=(4, 4, 4, 2)), "culprit", {}),
    "loop": (chain(lambda: layers.GRU(4, name="culprit"), lambda: layers.Dense(3), shape=(6, 4)), "culprit", {"unroll": False}),
}
SLOW = {
    "calibrated",
    "floats beside what is calibrated",
    "float only behind what is calibrated",
    "split",
    "reversible embedding",
    "excluded",
}


@functools.cache
def made(name):
    keras.utils.set_random_seed(0)
    return MODELS[name][0]()


def samples(model, count=16):
    tensor, rng = model.inputs[0], np.random.default_rng(0)
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    numbers = rng.random((count, *tensor.shape[1:]))
    return numbers.astype(dtype) if "float" in dtype else np.round(numbers).astype(dtype)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in MODELS])
def test_a_plan_refuses_what_export_refuses_and_nothing_else(name, tmp_path):
    _, culprit, settings = MODELS[name]
    model, step = made(name), QuantizeAware(**settings)
    plan = step.plan(model)
    assert plan.names("impossible") == ([] if culprit is None else [culprit])
    assert plan.findings == ()
    with contextlib.nullcontext() if culprit is None else pytest.raises(ModelError, match=rf"'{culprit}'.*|finds nothing"):
        step.apply(model)
    if culprit is not None and not plan.names("done"):
        return  # there is nothing to train
    applied, x = step.apply(model, dry_run=False), samples(model)
    applied(x, training=True)  # sets every range
    with contextlib.nullcontext() if culprit is None else pytest.raises((ExportError, ModelError)):
        variant = "int16x8" if step.activation_bits == 16 else "int8"
        export_tflite(applied, tmp_path / "model.tflite", variant, calibration=x, tolerances=Tolerances())


def test_an_error_names_the_layer_the_reason_and_a_remedy_that_works():
    model, step = made("lacking"), QuantizeAware()
    with pytest.raises(ModelError, match="could not be exported as int8 after training") as caught:
        step.apply(model)
    assert "'culprit'" in caught.value.happened
    assert "ERF" in caught.value.happened
    assert "dry_run=False" in caught.value.fix
    applied = step.apply(model, dry_run=False)
    applied.compile("sgd", "mse")
    x = samples(model)
    applied.fit(x, np.zeros((len(x), 3)), verbose=0)
    step.check(applied)


def test_the_dry_run_can_be_turned_off(monkeypatch):
    def tried(*_):
        raise RuntimeError("tried")

    monkeypatch.setattr("tfdistill.compress.quantize.quantize_aware.try_conversion", tried)
    step, model = QuantizeAware(), made("convolution")
    step.plan(model, dry_run=False)
    step.apply(model, dry_run=False)
    for call in (step.plan, step.apply):
        with pytest.raises(RuntimeError, match="tried"):
            call(model)


def test_a_finding_that_is_of_no_layer_is_printed_above_the_table():
    plan = QuantizeAware().plan(made("convolution"))
    text = str(type(plan)(plan.step, plan.model, plan.rows, ("no int8 file can be made of the model: x",)))
    assert text.splitlines()[1] == "no int8 file can be made of the model: x"


def test_what_was_tried_once_is_not_tried_again():
    step = QuantizeAware()

    def tried(model):
        before = len(dry_run._FOUND)
        step.plan(model)
        return len(dry_run._FOUND) - before

    def model(name, activation="relu", width=4, seed=0):
        keras.utils.set_random_seed(seed)
        return keras.Sequential([keras.Input((5, 3)), layers.Dense(width, activation, name=name), layers.Dense(2)])

    assert tried(model("first")) == 1
    assert tried(model("first", seed=1)) == 0
    assert tried(model("relu")) == 0
    assert tried(model("first", width=5)) == 1
    assert tried(model("first", activation="linear")) == 1
    assert tried(model("linear", activation="relu")) == 0


@pytest.mark.parametrize("structure", ["plain", "zeros", "clusters"])
def test_the_graph_is_traced_once(structure, monkeypatch):
    inputs = [keras.Input((4,)), keras.Input((4,))]
    model = keras.Model(inputs, layers.Dense(3, "relu")(layers.Concatenate()(inputs)))
    model.layers[-1].kernel.assign(
        {"plain": np.arange(24), "zeros": np.arange(24) % 2, "clusters": np.arange(24) % 4 + 1}[structure].reshape(8, 3)
    )
    traced = []
    monkeypatch.setattr(dry_run, "replay", lambda *args: traced.append(args) or replay(*args))
    monkeypatch.setattr(dry_run, "_FOUND", collections.OrderedDict())
    assert QuantizeAware().plan(model).names("impossible") == []
    assert len(traced) == 1


def test_a_dry_run_leaves_an_adopted_model_as_it_was():
    adopted = Prune(0.5, end_step=1).apply(made("convolution"))
    model = QuantizeAware().apply(made("convolution"))
    x = samples(made("convolution"))
    for one in (adopted, model):
        before, outputs = [w.numpy() for w in one.weights], np.asarray(one(x))
        assert QuantizeAware().plan(one).names("impossible") == []
        np.testing.assert_array_equal(np.asarray(one(x)), outputs)
        for weight, value in zip(one.weights, before, strict=True):
            np.testing.assert_array_equal(weight.numpy(), value)


def looked_up():
    inputs = keras.Input((4,), dtype="int32")
    x = layers.Embedding(22, 5)(layers.IntegerLookup(vocabulary=list(range(20)), name="culprit")(inputs))
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


def any_function():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(3)(layers.Lambda(keras.ops.erf, name="culprit")(layers.Dense(5)(inputs))))
    return adopt(to_tf_keras(model, allow_lambda=True))


# Name -> (function that makes the model, the layer for which there is no file of any variant, or None).
FILES = {
    "convolution": (MODELS["convolution"][0], None),
    "lacking": (MODELS["lacking"][0], "culprit"),
    "nested": (nested, "culprit"),
    "any function": (any_function, "culprit"),
    "looked up": (looked_up, "culprit"),
    "float only": (MODELS["float only"][0], None),
    "3d": (MODELS["3d"][0], None),
    "3d, averaged": (
        chain(lambda: layers.AveragePooling3D(2, name="culprit"), layers.Flatten, lambda: layers.Dense(3), shape=(4, 4, 4, 2)),
        "culprit",
    ),
    "loop": (MODELS["loop"][0], None),
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] if name in ("loop", "nested") else []) for name in FILES])
def test_pruning_and_clustering_say_before_training_that_there_is_no_file(name, tmp_path):
    make, culprit = FILES[name]
    model = make()
    for step in (Prune(0.5, end_step=1), Cluster(4)):
        (found,) = step.plan(model).findings or (None,)
        assert (found is None) is (culprit is None)
        assert found is None or f"{culprit}' (" in found
        with (
            contextlib.nullcontext()
            if culprit is None
            else pytest.warns(UserWarning, match=f"is trained, but export_tflite would refuse.*{culprit}")
        ):
            applied = step.apply(model)
        assert step.plan(model, dry_run=False).findings == ()
        step.apply(model, dry_run=False)
    with contextlib.nullcontext() if culprit is None else pytest.raises((ExportError, ModelError)):
        export_tflite(step.strip(applied), tmp_path / "model.tflite")


no_number_of_64 = chain(conv(), lambda: layers.Reshape((-1, 7, 4)), operation("erf"), layers.GlobalAveragePooling2D, shape=(None, None, 4))
FREE = {
    "steps": (chain(lambda: layers.GRU(4), lambda: layers.Dense(3), shape=(None, 4)), ()),
    "steps with what is lacking": (chain(lambda: layers.LSTM(4), operation("erf"), lambda: layers.Dense(3), shape=(None, 4)), ("culprit",)),
    "pixels that 64 is no number of": (lambda: adopt(to_tf_keras(no_number_of_64(), check=False)), ()),
}


@pytest.mark.parametrize("name", FREE)
def test_a_model_of_any_length_is_tried_at_one(name):
    make, culprits = FREE[name]
    found = Cluster(4).plan(make()).findings
    assert len(found) == len(culprits)
    assert all(f"'{culprit}' (" in found[0] for culprit in culprits)


def test_what_runs_in_no_batch_of_one_is_found():
    inputs = keras.Input((4,))
    pairs = layers.Lambda(lambda x: keras.ops.reshape(x, (2, 8)))(layers.Dense(4)(inputs))
    model = adopt(to_tf_keras(keras.Model(inputs, layers.Dense(3)(pairs)), allow_lambda=True, check=False))
    (found,) = Cluster(4).plan(model).findings
    assert "the converter fails" in found


def test_the_remedy_for_what_no_file_has_works(tmp_path):
    model = made("lacking")
    with pytest.warns(UserWarning, match="allow_flex=True"):
        applied = Cluster(4).apply(model)
    assert export_tflite(Cluster(4).strip(applied), tmp_path / "model.tflite", allow_flex=True).census.flex_ops == ("FlexErf",)


def test_nothing_is_converted_for_layers_that_are_in_every_file(monkeypatch):
    def tried(*_):
        raise RuntimeError("tried")

    monkeypatch.setattr("tfdistill.compress.dry_run.refusals", tried)
    for name in ("convolution", "split", "one activation often"):
        assert Prune(0.5, end_step=1).plan(made(name)).findings == ()


def test_what_cannot_be_put_down_to_a_layer_is_a_row_of_the_model(monkeypatch):
    refusal = dry_run_of_files.Refusal((), "the converter fails")
    monkeypatch.setattr("tfdistill.compress.dry_run.refusals", lambda *_, **__: (refusal,))
    model = chain(lambda: layers.Dense(7), shape=(13,))()
    plan = QuantizeAware().plan(model)
    assert plan.names("impossible") == ["chain"]
    assert plan.row("chain").reason == "no int8 file can be made of it: the converter fails"
    with pytest.raises(ModelError, match=r"'chain' \(no int8 file can be made of it: the converter fails\)"):
        QuantizeAware().apply(model)
