"""Channels are removed from models of every kind: what is left computes what the original does without them, and is a model like any other."""

import functools

import channel_models
import keras
import numpy as np
import pytest
from channel_models import MODELS, randomized

import tfdistill
from tfdistill.compress import Prune, PruneChannels, QuantizeAware
from tfdistill.graph.flat import flat_graph

STEP = PruneChannels(keep_channels=0.7, divisor=1, scope="layer")


@functools.cache
def original(name):
    return randomized(MODELS[name]())


@functools.cache
def pruned(name):
    return STEP.apply(original(name))


@functools.cache
def plan(name):
    return STEP.plan(original(name))


def inputs_of(model, samples=4):
    rng = np.random.default_rng(1)

    def array(x):
        shape = (samples, *x.shape[1:])
        return rng.integers(0, 12, shape) if "int" in x.dtype else rng.normal(size=shape).astype("float32")

    graph = flat_graph(model)
    made = {name: array(value) for name, value in graph.inputs.items()}
    return made if len(made) > 1 else next(iter(made.values()))


@pytest.mark.parametrize("name", MODELS)
def test_channels_are_removed_as_planned(name):
    """`apply` itself compares the outputs with those of the original with zeroed channels."""
    model, small, rows = original(name), pruned(name), plan(name)
    counted = tfdistill.profile(small)
    assert counted.parameters == rows.expected_parameters < rows.parameters == model.count_params()
    assert counted.macs == rows.expected_macs < rows.macs
    total, left = (sum(sum(getattr(row, name).values()) for row in rows.rows) for name in ("channels", "expected_channels"))
    assert 0.5 * total < left <= 0.7 * total
    STEP.check(small, rows)
    for row in rows.rows:
        assert {key: n - len(row.removed.get(key, ())) for key, n in row.channels.items()} == row.expected_channels
    assert keras.tree.map_structure(np.shape, small(inputs_of(small))) == keras.tree.map_structure(np.shape, model(inputs_of(model)))


@pytest.mark.parametrize("name", MODELS)
def test_it_is_saved_and_loaded(name, tmp_path):
    small = pruned(name)
    small.save(tmp_path / "small.keras")
    loaded, x = keras.saving.load_model(tmp_path / "small.keras"), inputs_of(small)
    for ours, theirs in zip(*(keras.tree.flatten(each(x, training=False)) for each in (loaded, small)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def paths_of(model):
    return [path for path, layer in tfdistill.named_layers(model).items() if getattr(layer, "weights", None)]


@pytest.mark.parametrize("name", MODELS)
def test_names_classes_and_sharing_stay(name):
    model, small = original(name), pruned(name)
    if name not in ("subclassed", "twins"):
        assert [(layer.name, type(layer)) for layer in small.layers] == [(layer.name, type(layer)) for layer in model.layers]
        assert paths_of(small) == paths_of(model)
    assert len(small.weights) == len(model.weights)
    assert {id(w) for w in small.weights}.isdisjoint({id(w) for w in model.weights})


def fit_under_a_teacher(name):
    model, small = original(name), STEP.apply(original(name))
    distiller = tfdistill.Distiller(model, small, tfdistill.losses.SoftTargets(2.0))
    distiller.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = distiller.fit(inputs_of(model, 8), np.arange(8) % 3, batch_size=8, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


ONE_OUTPUT = [name for name in MODELS if name != "several"]
QUICK = ("residual", "subclassed")


@pytest.mark.parametrize("name", QUICK)
def test_it_is_taught(name):
    fit_under_a_teacher(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ONE_OUTPUT if name not in QUICK])
def test_each_is_taught(name):
    fit_under_a_teacher(name)


@pytest.mark.parametrize("name", ["residual", "depthwise", "attention"])
def test_later_steps_take_it(name):
    small = pruned(name)
    assert Prune(0.5, end_step=2).plan(small).names("done")
    assert QuantizeAware().plan(small, dry_run=False).names("done")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["residual", "depthwise", "attention", "sequential"])
def test_it_is_exported(name, tmp_path):
    small = STEP.apply(MODELS[name]())
    record = tfdistill.export_tflite(small, tmp_path / "small.tflite", "int8", calibration=inputs_of(small, 32))
    assert record.size_bytes > 0


@pytest.mark.slow
def test_it_is_a_step_under_the_teacher():
    teacher, student = original("residual"), randomized(MODELS["residual"](), 1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    settings = tfdistill.distill.ChainSettings(tfdistill.losses.SoftTargets(4.0), loss=loss, epochs=1, fit={"batch_size": 8})
    x, y = inputs_of(teacher, 16), np.arange(16) % 3
    road = tfdistill.under_teacher(teacher, student, [STEP, functools.partial(Prune.for_training, sparsity=0.5)], settings, x, y)
    assert [generation.role for generation in road.record.generations] == ["student", "PruneChannels", "Prune"]
    assert road.model.count_params() < student.count_params()


def test_nothing_of_the_original_is_changed():
    model = original("depthwise")
    before = [w.numpy().copy() for w in model.weights]
    STEP.apply(model)
    for w, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(w.numpy(), value)


def test_settings_of_layers_stay():
    def doubled(x):
        return keras.ops.relu(x) * 2.0

    inputs = keras.Input((8, 8, 3))
    penalty = keras.regularizers.L2(0.5)
    x = keras.layers.Conv2D(16, 3, name="first", kernel_regularizer=penalty, activation=doubled, trainable=False)(inputs)
    x = keras.layers.Conv2D(16, 3, name="second", dtype="mixed_float16")(x)
    x = keras.layers.GlobalAveragePooling2D(dtype="float32")(x)
    model = keras.Model(inputs, keras.layers.Dense(3, name="logits")(x), name="net")
    with pytest.warns(UserWarning, match="PruneChannels removes channels in frozen layers of 'net'.*'first'"):
        small = PruneChannels(keep_channels=0.6).apply(model)
    first, second = small.get_layer("first"), small.get_layer("second")
    assert (first.filters, second.filters, small.name) == (8, 8, "net")
    assert not first.trainable
    assert second.trainable
    assert second.dtype_policy.name == "mixed_float16"
    assert float(first.kernel_regularizer(np.ones(2, "float32"))) == 1.0
    assert first.activation is doubled
    assert not small.compiled


def test_numpy_agrees_on_what_zeroing_means():
    """The same comparison without the library: channels are zeroed in a copy of the original by hand."""
    model, rows = original("residual"), plan("residual")
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    norm = next(layer for layer in copy.layers if isinstance(layer, keras.layers.BatchNormalization))
    inner, trunk = list(rows.row("inner").removed["channels"]), list(rows.row("outer").removed["channels"])
    assert rows.row("stem").removed["channels"] == tuple(trunk)
    for layer, gone in ((copy.get_layer("stem"), trunk), (copy.get_layer("outer"), trunk), (copy.get_layer("inner"), inner)):
        kernel = layer.kernel.numpy()
        kernel[..., gone] = 0
        layer.kernel.assign(kernel)
        if layer.bias is not None:
            layer.bias.assign(np.where(np.isin(np.arange(len(layer.bias.numpy())), gone), 0, layer.bias.numpy()))
    for weight in (norm.gamma, norm.beta):
        weight.assign(np.where(np.isin(np.arange(12), inner), 0, weight.numpy()))
    x = inputs_of(model)
    assert rows.row("inner").groups != rows.row("stem").groups == rows.row("outer").groups
    np.testing.assert_allclose(pruned("residual")(x), copy(x), rtol=1e-4, atol=1e-4)


def test_a_normalization_is_over_what_is_left():
    inputs = keras.Input((5,))
    x = keras.layers.LayerNormalization(name="norm", epsilon=0.001)(keras.layers.Dense(8, name="dense")(inputs))
    model = randomized(keras.Model(inputs, keras.layers.Dense(3, name="logits")(x)))
    step = PruneChannels(keep_channels=0.7, divisor=1)
    small, gone = step.apply(model), step.plan(model).row("dense").removed["channels"]
    stay = np.setdiff1d(np.arange(8), gone)
    x = inputs_of(model)
    dense, norm, logits = (model.get_layer(name) for name in ("dense", "norm", "logits"))
    hidden = (x @ dense.kernel.numpy() + dense.bias.numpy())[:, stay]
    hidden = (hidden - hidden.mean(-1, keepdims=True)) / np.sqrt(hidden.var(-1, keepdims=True) + 0.001)
    hidden = hidden * norm.gamma.numpy()[stay] + norm.beta.numpy()[stay]
    np.testing.assert_allclose(small(x), hidden @ logits.kernel.numpy()[stay] + logits.bias.numpy(), rtol=1e-4, atol=1e-5)


def test_the_rows_have_every_rule():
    """Each rule of a layer is tried by a row."""
    from tfdistill.compress.channels.rules.table import _LAYERS

    used = set()
    for name in MODELS:
        for call in flat_graph(original(name)).calls:
            inner = getattr(call.operation, "layer", None)
            used |= {type(call.operation).__name__, type(inner).__name__}
    spared = {
        "Masking",
        "Normalization",
        "Rescaling",
        "LayerScale",
        "CustomScaleLayer",
        "ActivityRegularization",
        "Identity",
        "AlphaDropout",
    }
    spared |= {
        name for name in _LAYERS if name.startswith(("Adaptive", "Gaussian", "SpatialDropout", "UpSampling", "ZeroPadding", "Cropping"))
    }
    spared |= {name for name in _LAYERS if "Pooling" in name or name.endswith(("3D", "1D"))}
    spared |= {name for name in _LAYERS if not hasattr(keras.layers, name)}  # of a later release of Keras
    assert sorted(set(_LAYERS) - used - spared) == []
    assert channel_models.IMAGES
