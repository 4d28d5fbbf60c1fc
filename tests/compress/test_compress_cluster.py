"""Weight clustering of every kind of layer: plan, apply, train with a teacher, strip, check, save, and what a later step must keep."""

import dataclasses

import keras
import numpy as np
import pytest
from opened_models import opened
from small import OPTIMIZERS_OF_KERAS
from zoo_models import SMALL, randomize

from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.adopt.adopt import AdoptedModel
from tfdistill.compress import Cluster, Plan, Prune, rebuild
from tfdistill.distill import Tap, Taps
from tfdistill.distill.distiller import Distiller
from tfdistill.errors import ConfigurationError, InvariantError, ModelError

layers = keras.layers
MSE = keras.distillation.LogitsDistillation(1.0, loss=keras.losses.MeanSquaredError())


def images():
    x = inputs = keras.Input((6, 6, 4), name="image")
    x = layers.Conv2D(6, 3, padding="same", name="conv")(x)
    x = layers.BatchNormalization(momentum=0.5, name="norm")(x)
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, activation="relu", name="depthwise")(x)
    x = layers.SeparableConv2D(5, 3, name="separable")(x)
    x = layers.Conv2DTranspose(4, 3, name="transpose")(x)
    again = layers.Conv2D(4, 1, name="several")
    x = again(layers.Dropout(0.3, name="drop")(again(x)))
    x = layers.Flatten(name="flat")(x)
    return keras.Model(inputs, layers.Dense(3, name="logits")(x), name="images")


def sequences():
    x = inputs = keras.Input((8, 6), name="signal")
    x = layers.Conv1D(6, 3, padding="causal", name="conv")(x)
    x = layers.Conv1DTranspose(6, 3, padding="same", name="transpose")(x)
    x = layers.SeparableConv1D(6, 3, padding="same", name="separable")(x)
    x = layers.DepthwiseConv1D(3, padding="same", name="depthwise")(x)
    x = layers.EinsumDense("abc,cd->abd", (8, 6), name="einsum")(x)
    x = layers.MultiHeadAttention(2, 3, dropout=0.2, name="attention")(x, x)
    x = layers.GroupQueryAttention(3, 4, 2, name="grouped")(x, x)
    x = layers.TimeDistributed(layers.Dense(5), name="distributed")(x)
    return keras.Model(inputs, layers.Dense(3, name="logits")(layers.Flatten(name="flat")(x)), name="sequences")


def recurrent():
    x = inputs = keras.Input((5,), dtype="int32", name="tokens")
    x = layers.Embedding(9, 6, mask_zero=True, name="embedding")(x)
    x = layers.Bidirectional(layers.GRU(4, return_sequences=True), name="both")(x)
    x = layers.LSTM(4, return_sequences=True, dropout=0.2, name="lstm")(x)
    x = layers.SimpleRNN(4, name="simple")(x)
    return keras.Model(inputs, layers.Dense(3, name="logits")(x), name="recurrent")


def cells():
    x = inputs = keras.Input((4, 6, 6, 2), name="film")
    x = layers.ConvLSTM2D(2, 3, name="film_lstm", return_sequences=True)(x)
    x = layers.Reshape((4, 32), name="flat")(x)
    x = layers.RNN([layers.LSTMCell(3), layers.GRUCell(4)], name="stacked")(x)
    return keras.Model(inputs, layers.Dense(3, name="logits")(x), name="cells")


def volumes():
    x = inputs = keras.Input((4, 4, 4, 2), name="volume")
    x = layers.Conv3D(3, 2, name="conv")(x)
    x = layers.Conv3DTranspose(2, 2, name="transpose")(x)
    return keras.Model(inputs, layers.Dense(3, name="logits")(layers.Flatten(name="flat")(x)), name="volumes")


def nested():
    inner = keras.Sequential([keras.Input((6, 6, 4)), layers.Conv2D(6, 3, name="conv"), layers.ReLU(name="relu")], name="encoder")
    x = inputs = keras.Input((6, 6, 4), name="image")
    x = layers.Conv2D(4, 1, name="stem", trainable=False)(x)
    return keras.Model(inputs, layers.Dense(3, name="logits")(layers.Flatten(name="flat")(inner(x))), name="nested")


def mixed():
    x = inputs = keras.Input((6, 6, 4), name="image")
    x = layers.Conv2D(4, 3, dtype="mixed_float16", name="conv")(x)
    x = layers.Dense(3, name="logits")(layers.Flatten(name="flat")(x))
    return keras.Model(inputs, x, name="mixed")


def random_nested():
    return randomize(nested())


def random_images():
    return randomize(images())


MODELS = {f.__name__: f for f in (images, sequences, recurrent, cells, volumes, nested, mixed)}
WITHOUT_KERNELS = {"norm", "flat", "drop", "relu"}
PER_CHANNEL = Cluster(4, per_channel=True, initialization="linear")
ROWS = [
    ("images", Cluster(4)),
    ("sequences", Cluster(4)),
    ("nested", PER_CHANNEL),
    ("recurrent", Cluster(4)),
    ("images", Cluster({"conv": 8, "*transpose": 2}, initialization="density")),
    ("nested", Cluster({"encoder/*": 4, "logits": 6}, initialization="random")),
    ("images", PER_CHANNEL),
    ("sequences", PER_CHANNEL),
    ("recurrent", PER_CHANNEL),
    ("cells", Cluster(4)),
    ("volumes", Cluster(4)),
    ("volumes", PER_CHANNEL),
    ("mixed", Cluster(4)),
]
FAST = 3


def data(model, samples=16, seed=0):
    rng = np.random.default_rng(seed)
    shape = model.input_shape[1:]
    x = rng.integers(0, 9, (samples, *shape)) if model.name == "recurrent" else rng.random((samples, *shape)).astype("float32")
    return x, rng.integers(0, 3, samples)


def train(model, student, optimizer=None, epochs=1):
    x, y = data(student)
    model.compile(optimizer or keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, batch_size=8, epochs=epochs, shuffle=False, verbose=0)
    return student


def distilled(student, teacher):
    """Two steps under a teacher."""
    return train(Distiller(teacher, student, MSE), student)


def kernels_of(layer):
    """The weights of a Keras 3 layer that can be clustered: those of more than one axis that are no bias of a GRU or of attention."""
    return [np.asarray(w) for w in layer.weights if w.name in ("kernel", "recurrent_kernel", "embeddings") or "wise_kernel" in w.name]


def largest_difference(one, other):
    return max(np.max(np.abs(np.array(a) - np.array(b)), initial=0) for a, b in zip(one.weights, other.weights, strict=True))


@pytest.mark.parametrize(("name", "step"), [pytest.param(*row, marks=pytest.mark.slow if i >= FAST else ()) for i, row in enumerate(ROWS)])
def test_plan_apply_train_strip_and_check(name, step):
    model = randomize(MODELS[name]())
    before = [np.array(w) for w in model.weights]
    plan = step.plan(model)
    done = set(plan.names("done"))
    if not isinstance(step.number_of_clusters, dict):
        assert done == {row.name for row in plan.rows} - WITHOUT_KERNELS - {"encoder/relu"}
    with pytest.raises(InvariantError, match="distinct values"):
        step.check(model)
    applied = step.apply(model)
    assert isinstance(applied, AdoptedModel)
    assert applied.count_params() == model.count_params()
    assert {row.name for row in plan.rows} <= set(applied.named_layers())
    start = {path: [np.array(w) for w in introspection.own_variables(layer)] for path, layer in applied.named_layers().items()}
    distilled(applied, randomize(MODELS[name](), seed=1))
    step.check(applied)
    stripped = step.strip(applied)
    step.check(stripped)
    x, _ = data(applied)
    np.testing.assert_allclose(applied.predict(x, verbose=0), stripped.predict(x, verbose=0), atol=2e-2 if name == "mixed" else 2e-5)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.weights, strict=True))
    for path in done:
        layer = rebuild.layers_by_name(stripped)[path]
        most = 8 if isinstance(step.number_of_clusters, dict) else 4
        assert kernels_of(layer)
        assert step.per_channel or all(len(np.unique(kernel)) <= most for kernel in kernels_of(layer))
        moved = [np.any(a != b) for a, b in zip(start[path], introspection.own_variables(applied.get_layer(path)), strict=True)]
        assert all(moved) == layer.trainable, path  # the centroids of a frozen layer stay


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_every_small_model(name):
    step, model = Cluster(4), randomize(SMALL[name]())
    stripped = step.strip(step.apply(model))
    step.check(stripped)
    for layer in stripped._flatten_layers():
        if isinstance(layer, (layers.Conv1D, layers.Conv2D, layers.DepthwiseConv2D, layers.EinsumDense, layers.Embedding)) or (
            type(layer) is layers.Dense
        ):
            assert all(len(np.unique(kernel)) <= 4 for kernel in kernels_of(layer)), layer.name


@pytest.mark.parametrize("name", ["nested", *(pytest.param(n, marks=pytest.mark.slow) for n in ("sequences", "images", "recurrent"))])
def test_a_model_saved_during_training_trains_on_alike(name, tmp_path):
    applied = train(applied := Cluster(4).apply(randomize(MODELS[name]())), applied)
    applied.save(tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras")
    x, _ = data(applied)
    np.testing.assert_array_equal(applied.predict(x, verbose=0), loaded.predict(x, verbose=0))
    for model in (applied, loaded):
        x, y = data(model)
        model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    assert largest_difference(applied, loaded) == 0
    Cluster(4).check(Cluster(4).strip(loaded))


def test_a_checkpoint_holds_all_of_it(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    def run(*callbacks):
        model = opened(pruned)
        keras.utils.set_random_seed(1)
        applied = Cluster(4).apply(model)
        x, y = data(applied)
        applied.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        applied.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0, callbacks=list(callbacks))
        return applied

    whole = run()
    with pytest.raises(KeyboardInterrupt):
        run(keras.callbacks.BackupAndRestore(tmp_path), Stop())
    assert largest_difference(whole, run(keras.callbacks.BackupAndRestore(tmp_path))) == 0


def pruned(share=0.6):
    """A net whose kernels have a share of zeros."""
    model = randomize(nested())
    for weight in model.weights:
        if weight.name == "kernel":
            value = np.array(weight)
            weight.assign(np.where(np.abs(value) < np.quantile(np.abs(value), share), 0, value))
    return model


@pytest.mark.parametrize("optimizer", OPTIMIZERS_OF_KERAS)
def test_zeros_stay_zero_and_are_one_of_the_values(optimizer):
    model, step = pruned(), Cluster(4, preserve_sparsity=True)
    row = step.plan(model).row("encoder/conv")
    kernel = np.array(model.get_layer("encoder").get_layer("conv").kernel)
    assert f"{np.sum(kernel == 0)} zeros kept" in row.reason
    assert row.expected_nonzero == row.parameters - np.sum(kernel == 0)
    applied = step.apply(model)
    train(applied, applied, getattr(keras.optimizers, optimizer)(0.01, weight_decay=0.1), epochs=3)
    step.check(applied)
    stripped = step.strip(applied)
    step.check(stripped)
    clustered = np.array(stripped.get_layer("encoder").get_layer("conv").kernel)
    np.testing.assert_array_equal(clustered == 0, kernel == 0)
    assert not np.any(np.signbit(clustered[kernel == 0]))
    assert len(np.unique(clustered)) == 4


@pytest.mark.slow
def test_pruned_then_clustered_it_is_both():
    prune, cluster = Prune(0.6, end_step=4, frequency=1), Cluster(4)
    model = prune.apply(randomize(nested()))
    x, y = data(model)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, batch_size=4, verbose=0, callbacks=prune.callbacks())
    applied = cluster.apply(prune.strip(model))
    distilled(applied, randomize(nested(), seed=1))
    for one in (applied, cluster.strip(applied)):
        prune.check(one)
        cluster.check(one)


def test_zeros_that_are_not_kept_and_zeros_that_are_missing():
    applied = train(applied := Cluster(4, preserve_sparsity=False).apply(opened(pruned)), applied)
    assert not introspection.masks_of(applied.get_layer("logits"))
    with pytest.raises(ModelError, match="has a zero"):
        Cluster(4, preserve_sparsity=True).apply(opened(random_nested))
    stripped = Cluster(4, preserve_sparsity=True).strip(Cluster(4, preserve_sparsity=True).apply(opened(pruned)))
    for layer in (stripped.get_layer("stem"), stripped.get_layer("encoder").get_layer("conv"), stripped.get_layer("logits")):
        layer.kernel.assign(np.where(np.array(layer.kernel) == 0, 1, layer.kernel))
    with pytest.raises(InvariantError, match="has a zero"):
        Cluster(4, preserve_sparsity=True).check(stripped)


@pytest.mark.parametrize(("step", "where"), [(Cluster(4), ""), (Cluster(4, per_channel=True), " in a channel")])
def test_check_fails_on_purpose(step, where):
    stripped = step.strip(step.apply(opened(random_nested)))
    step.check(stripped)
    kernel = stripped.get_layer("logits").kernel
    value = np.array(kernel)
    value[0, 0] += 1
    kernel.assign(value)
    with pytest.raises(InvariantError, match=f"'logits' kernel: 5 distinct values{where}, not 4"):
        step.check(stripped)
    dataclasses.replace(step, exclude="logits").check(stripped)


def test_each_channel_has_values_of_its_own():
    stripped = Cluster(4, per_channel=True).strip(Cluster(4, per_channel=True).apply(opened(random_images)))
    conv = np.array(stripped.get_layer("conv").kernel).reshape(-1, 6)
    transpose = np.moveaxis(np.array(stripped.get_layer("transpose").kernel), 2, -1).reshape(-1, 4)
    depthwise = np.array(stripped.get_layer("depthwise").kernel).reshape(9, 12)
    for kernel in (conv, transpose, depthwise):
        assert all(len(np.unique(channel)) == 4 for channel in kernel.T)
        assert len(np.unique(kernel)) > 4
    assert len(np.unique(np.array(stripped.get_layer("several").kernel))) == 4  # no more weights in a channel than clusters


def test_a_plan_says_what_is_done_skipped_and_why(tmp_path):
    plan = Cluster({"conv": 16, "*": 4}, per_channel=True, exclude="logits").plan(opened(random_images))
    assert plan.row("conv").reason == "kernel: 216 weights of at most 16 values per channel, 4 bits each, 492 bytes with the values"
    assert "in all channels together" in plan.row("several").reason
    assert plan.row("logits").reason.startswith("left out")
    assert plan.row("norm").reason == plan.row("flat").reason == "has no kernel"
    few = Cluster(256).plan(opened(random_images)).row("several")
    assert few.action == "skipped"
    assert few.reason == "kernel: no more weights (16) than clusters (256)"
    assert Plan.load(plan.save(tmp_path / "plan.json")) == plan


def test_the_same_model_clustered_twice_is_the_same():
    model = opened(random_nested)
    one, other, third = (Cluster(4, initialization="random", seed=seed).apply(model) for seed in (0, 0, 1))
    assert largest_difference(one, other) == 0
    assert largest_difference(one, third) > 0


def test_a_clustered_model_is_tapped_by_the_users_names():
    model = randomize(sequences())
    applied = Cluster(16, layers=["conv", "attention", "logits"]).apply(model)
    stripped = Cluster(16).strip(applied)
    x, _ = data(applied)
    for one, other in zip(*(Taps(m, ["conv", "attention"])(x)[1].values() for m in (applied, stripped)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert Taps(applied, [Tap("attention", "attention_scores")])(x)[1][Tap("attention", "attention_scores")].shape == (16, 2, 8, 8)


def test_masks_and_the_training_mode_reach_the_layer_inside():
    tokens = keras.Input((5,), dtype="int32")
    x = layers.Embedding(9, 4, mask_zero=True, name="embedding")(tokens)
    model = randomize(keras.Model(tokens, layers.LSTM(3, dropout=0.5, name="lstm")(x), name="recurrent"))
    applied = Cluster(4).apply(model)
    x = np.array([[3, 5, 1, 2, 4], [3, 5, 0, 0, 0]])
    longer = np.array([[3, 5, 1, 2, 4], [3, 5, 7, 8, 1]])
    short = np.array(applied(x))[1]
    assert np.all(short != np.array(applied(longer))[1])
    np.testing.assert_allclose(short, Cluster(4).strip(applied)(x)[1], atol=1e-6)
    weight = introspection.weight_named(applied.get_layer("embedding"), "embeddings")
    weight[0].assign(10 * weight[1])  # what a mask hides
    np.testing.assert_array_equal(short, applied(x)[1])
    assert np.any(np.array(applied(x, training=True)) != np.array(applied(x, training=True)))
    np.testing.assert_array_equal(applied(x), applied(x))


@pytest.mark.parametrize(
    "settings",
    [
        {"number_of_clusters": 1},
        {"number_of_clusters": 257},
        {"number_of_clusters": 4.0},
        {"number_of_clusters": True},
        {"number_of_clusters": {}},
        {"number_of_clusters": {"conv": 1}},
        {"number_of_clusters": {3: 4}},
        {"number_of_clusters": {"conv": 4}, "layers": "conv"},
        {"initialization": "k-means"},
        {"preserve_sparsity": "yes"},
        {"preserve_sparsity": 0},
        {"per_channel": 1},
        {"seed": -1},
        {"layers": []},
        {"exclude": 3},
    ],
    ids=str,
)
def test_contradictory_settings_are_refused(settings):
    with pytest.raises(ConfigurationError):
        Cluster(**settings)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: Cluster(layers="logit").plan(m), "Nearest: 'logits'"),
        (lambda m: Cluster({"logit": 4}).plan(m), "Nearest: 'logits'"),
        (lambda m: Cluster({"*": 4, "logits": 8}).plan(m), "an earlier selector matches: logits"),
        (lambda m: Cluster(layers="flat*").apply(m), "finds nothing to do"),
        (lambda m: Cluster(layers=["stem", "flat"]).apply(m), "'flat' .has no kernel"),
        (lambda m: Cluster({"stem": 16, "*": 4}).apply(m), "'stem' .kernel: no more weights .16. than clusters .16."),
        (lambda m: Cluster().strip(m), "carries no clustering"),
        (lambda m: Cluster(4).apply(Cluster(4).apply(m)), "still wrapped"),
        (lambda m: Cluster().apply("a model"), "cannot be compressed"),
    ],
    ids=["misspelt", "misspelt key", "hidden", "no kernel", "named without", "named too small", "strip plain", "wrapped", "no model"],
)
def test_a_model_that_does_not_fit_is_refused(call, words):
    with pytest.raises(ModelError, match=words):
        call(opened(random_nested))
