"""A tf_keras model adopted by Keras 3: it trains, saves and loads as its own, to the bit."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small import mlp

from tfdistill.bridge import imports
from tfdistill.bridge.adopt.adopt import AdoptedModel, adopt
from tfdistill.bridge.convert.to_tf_keras import to_tf_keras
from tfdistill.compress import Cluster, Prune, QuantizeAware
from tfdistill.distill.distiller import Distiller
from tfdistill.errors import ConfigurationError, ModelError

tfk, tfmot = imports.tf_keras, imports.tfmot


def images(samples=24, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((samples, 6, 6, 2)).astype("float32"), rng.integers(0, classes, samples)


def plain():
    layers = tfk().layers
    return tfk().Sequential(
        [
            tfk().Input((6, 6, 2)),
            layers.Conv2D(4, 3, name="conv", use_bias=False),
            layers.BatchNormalization(name="norm", momentum=0.5),
            layers.ReLU(name="relu"),
            layers.Flatten(name="flat"),
            layers.Dense(3, name="logits"),
        ],
        name="plain",
    )


def regularized():
    layers = tfk().layers
    x = inputs = tfk().Input((6, 6, 2), name="image")
    x = layers.Conv2D(4, 3, name="conv", kernel_regularizer="l2", activity_regularizer="l2")(x)
    x = layers.Flatten(name="flat")(x)
    return tfk().Model(inputs, layers.Dense(3, name="logits", bias_regularizer="l1")(x), name="regularized")


def nested():
    layers = tfk().layers
    inner_input = tfk().Input((4,), name="inner_input")
    inner = tfk().Model(inner_input, layers.Dense(4, name="block")(layers.Dropout(0.3, name="drop")(inner_input)), name="encoder")
    x = inputs = tfk().Input((6, 6, 2), name="image")
    x = layers.Dense(4, name="front")(layers.Flatten(name="flat")(x))
    return tfk().Model(inputs, layers.Dense(3, name="logits")(inner(x)), name="outer")


def pruned():
    model = tfmot().sparsity.keras.prune_low_magnitude(plain(), tfmot().sparsity.keras.ConstantSparsity(0.5, begin_step=1, frequency=1))
    for layer in model.layers:
        layer.pruning_step.assign(0)
    return model


def clustered():
    kind = tfmot().clustering.keras.CentroidInitialization.LINEAR
    return tfmot().clustering.keras.cluster_weights(plain(), number_of_clusters=4, cluster_centroids_init=kind)


def quantized():
    return tfmot().quantization.keras.quantize_model(plain())


MODELS = {f.__name__: f for f in (plain, regularized, nested, pruned, clustered, quantized)}
DETERMINISTIC = ["plain", "regularized", "pruned", "quantized"]
EVERY = pytest.mark.parametrize("make", MODELS.values(), ids=list(MODELS))


def twin(make, source):
    made = make()
    made.set_weights(source.get_weights())
    for own, other in zip(made.weights, source.weights, strict=True):
        own.assign(other)  # a pruning wrapper's set_weights leaves its masks out
    return made


def compiled(model, optimizer="sgd"):
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


def values(model):
    return [np.asarray(v) for v in model.weights]


def largest_difference(one, other):
    return max(np.abs(a.astype("float64") - b).max() for a, b in zip(values(one), values(other), strict=True))


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_the_same_gradient_steps_give_the_same_weights(name):
    legacy = MODELS[name]()
    by_hand = twin(MODELS[name], legacy)
    x, y = images()
    compiled(adopt(legacy), keras.optimizers.SGD(0.1)).fit(x, y, batch_size=8, shuffle=False, verbose=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def step(inputs, labels):
        with tf.GradientTape() as tape:
            total = loss(labels, by_hand(inputs, training=True)) + sum(by_hand.losses)
        weights = by_hand.trainable_weights
        for weight, gradient in zip(weights, tape.gradient(total, weights), strict=True):
            weight.assign_sub(0.1 * gradient)

    for i in range(0, len(x), 8):
        step(x[i : i + 8], y[i : i + 8])
    assert largest_difference(legacy, by_hand) < 1e-6


@EVERY
def test_variables_are_wrapped_not_copied(make):
    legacy = make()
    adopted = adopt(legacy)
    theirs = {id(v) for v in legacy.weights}
    assert theirs <= {id(v.value) for v in adopted.weights}
    trainable = {id(v.value) for v in adopted.trainable_weights}
    assert trainable == {id(v) for v in legacy.trainable_weights}
    adopted.trainable_weights[0].assign(adopted.trainable_weights[0] * 0 + 7)
    assert np.all(legacy.trainable_weights[0].numpy() == 7)


@EVERY
def test_it_computes_what_the_tf_keras_model_computes(make):
    legacy = make()
    x, _ = images()
    adopted = adopt(legacy)
    np.testing.assert_array_equal(adopted(x), legacy(x, training=False))
    np.testing.assert_allclose(adopted.predict(x, verbose=0), legacy(x, training=False), atol=1e-6)
    assert adopted.output_shape == legacy.output_shape
    assert adopted.input_shape == legacy.input_shape
    assert tuple(adopted.output_spec_structure().shape) == (None, 3)
    assert adopted.input_spec_structure().dtype == "float32"


@EVERY
def test_the_user_finds_the_layers_by_the_names_given(make):
    adopted, reference = adopt(make()), (nested() if make is nested else plain() if make is not regularized else regularized())
    expected = {layer.name for layer in reference.layers} | ({"encoder/block", "encoder/drop"} if make is nested else set())
    assert expected <= set(adopted.named_layers())
    assert adopted.output_names == ["logits"]
    live = adopted.get_layer("logits")
    assert live in adopted.legacy.layers
    assert adopted.get_layer(index=-1) is live
    with pytest.raises(ModelError, match="'logits'"):
        adopted.get_layer("logit")


@EVERY
def test_count_params_counts_the_users_parameters(make):
    plain_count = {"regularized": regularized, "nested": nested}.get(make.__name__, plain)().count_params()
    centroids = sum(v.shape.num_elements() for v in make().trainable_weights if "centroids" in v.name) if make is clustered else 0
    assert adopt(make()).count_params() == plain_count + centroids


def test_summary_shows_the_layers():
    lines = []
    adopt(quantized()).summary(print_fn=lambda line, *_, **__: lines.append(line))
    assert "\nconv (Conv2D, quantization)" in "\n".join(lines)


def test_moving_statistics_move_in_training_only():
    adopted = compiled(adopt(plain()))
    x, y = images()
    before = adopted.legacy.get_layer("norm").moving_mean.numpy()
    adopted.evaluate(x, y, verbose=0)
    adopted.predict(x, verbose=0)
    np.testing.assert_array_equal(before, adopted.legacy.get_layer("norm").moving_mean.numpy())
    adopted.fit(x, y, verbose=0)
    assert np.abs(adopted.legacy.get_layer("norm").moving_mean.numpy() - before).max() > 0


def test_losses_of_the_layers_are_the_models():
    legacy = regularized()
    x, y = images()
    adopted = compiled(adopt(legacy))
    adopted(x)
    activity = float(np.mean(np.sum(0.01 * np.square(legacy.get_layer("conv")(x)), axis=(1, 2, 3))))
    kernel = float(0.01 * np.sum(np.square(legacy.get_layer("conv").kernel)))
    assert sum(float(v) for v in adopted.losses) == pytest.approx(activity + kernel, rel=1e-4)
    assert adopted.evaluate(x, y, verbose=0)[0] > keras.losses.SparseCategoricalCrossentropy(from_logits=True)(y, adopted(x))


@pytest.mark.parametrize("make", [plain, pruned, quantized], ids=lambda f: f.__name__)
def test_a_frozen_layer_stays_frozen(make):
    layers = {"plain": plain, "pruned": pruned, "quantized": quantized}[make.__name__]()
    adopt(layers).get_layer("conv").trainable = False
    adopted = compiled(adopt(layers))
    kernel = next(v for v in adopted.weights if v.name == "conv_kernel")
    before = kernel.numpy()
    adopted.fit(*images(), verbose=0)
    if make is not pruned:  # pruning sets weights to zero, frozen or not
        np.testing.assert_array_equal(before, kernel.numpy())
    assert not kernel.trainable


def test_trainable_can_be_set_for_the_whole():
    adopted = adopt(plain())
    count = len(adopted.trainable_weights)
    adopted.trainable = False
    assert adopted.trainable_weights == []
    assert not adopted.legacy.get_layer("conv").trainable
    adopted.trainable = True
    assert len(adopted.trainable_weights) == count


@pytest.mark.parametrize("make", [nested, pruned, clustered, quantized], ids=lambda f: f.__name__)
def test_weights_go_through_a_checkpoint_to_the_bit(make, tmp_path):
    x, y = images()
    trained = compiled(adopt(make()))
    trained.fit(x, y, verbose=0)
    trained.save_weights(tmp_path / "a.weights.h5")
    fresh = adopt(make())
    assert largest_difference(trained, fresh) > 0
    fresh.load_weights(tmp_path / "a.weights.h5")
    assert largest_difference(trained, fresh) == 0


def unnamed(units=(4, 3)):
    """A net whose layers tf_keras names and numbers through the process."""
    layers = tfk().layers
    inputs = x = tfk().Input((6, 6, 2))
    for filters in (3, 3):
        x = layers.Activation("relu")(layers.BatchNormalization()(layers.Conv2D(filters, 3, padding="same")(x)))
    x = layers.Flatten()(x)
    for width in units:
        x = layers.Dense(width)(x)
    return tfk().Model(inputs, x)


@pytest.mark.parametrize("others", [1, 6])
def test_layers_that_are_numbered_otherwise_are_matched_by_their_order(others, tmp_path):
    trained = compiled(adopt(unnamed()))
    trained.fit(*images(), verbose=0)
    trained.save_weights(tmp_path / "a.weights.h5")
    for _ in range(others):  # past the tenth, where the order of names is not that of numbers
        unnamed()
    fresh = adopt(unnamed())
    assert [v.name for v in fresh.variables] != [v.name for v in trained.variables]
    fresh.load_weights(tmp_path / "a.weights.h5")
    assert largest_difference(trained, fresh) == 0
    for units in ((4, 4, 3), (3,), (5, 3)):
        with pytest.raises((ModelError, ValueError), match="does not fit"):
            adopt(unnamed(units)).load_weights(tmp_path / "a.weights.h5")


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    adopt(plain()).save_weights(tmp_path / "a.weights.h5")
    with pytest.raises((ModelError, ValueError), match="does not fit"):
        adopt(quantized()).load_weights(tmp_path / "a.weights.h5")


class StopAfter(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize("make", [pytest.param(nested, id="nested"), pytest.param(quantized, id="quantized", marks=pytest.mark.slow)])
def test_an_interrupted_training_goes_on_as_if_it_had_not_been(make, tmp_path):
    x, y = images()
    start = make()

    def run(legacy, *callbacks):
        for layer in legacy._flatten_layers():
            if hasattr(layer, "_random_generator"):
                layer._random_generator._seed = 5
        adopted = compiled(adopt(legacy), "adam")
        adopted.fit(x, y, epochs=4, batch_size=8, shuffle=False, verbose=0, callbacks=list(callbacks))
        return adopted

    whole = run(twin(make, start))
    with pytest.raises(KeyboardInterrupt):
        run(twin(make, start), keras.callbacks.BackupAndRestore(tmp_path), StopAfter())
    resumed = run(twin(make, start), keras.callbacks.BackupAndRestore(tmp_path))
    assert largest_difference(whole, resumed) == 0


@pytest.mark.parametrize("make", [pytest.param(f, id=n, marks=() if n == "quantized" else pytest.mark.slow) for n, f in MODELS.items()])
def test_saved_and_loaded_it_trains_on(make, tmp_path):
    x, y = images()
    adopted = compiled(adopt(make()), "adam")
    adopted.fit(x, y, batch_size=8, verbose=0)
    adopted.save(tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras")
    assert isinstance(loaded, AdoptedModel)
    assert largest_difference(adopted, loaded) == 0
    np.testing.assert_array_equal(adopted.predict(x, verbose=0), loaded.predict(x, verbose=0))
    for model in (adopted, loaded):
        model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    assert largest_difference(adopted, loaded) == 0


@pytest.mark.parametrize("make", [plain, nested, quantized], ids=lambda f: f.__name__)
def test_a_layers_call_is_called_in_every_trace(make):
    adopted = compiled(adopt(make()))
    path = "encoder/block" if make is nested else "conv"
    layer = adopted.get_layer(path)
    own, seen = layer.call, []

    def recording(*args, **kwargs):
        seen.append(own(*args, **kwargs))
        return seen[-1]

    layer.call = recording
    try:
        adopted.fit(*images(), verbose=0)
    finally:
        layer.call = own
    assert seen
    assert all(tf.is_tensor(value) for value in seen)


@pytest.mark.parametrize("make", [plain, quantized], ids=lambda f: f.__name__)
def test_a_distiller_trains_saves_and_loads_it(make, tmp_path):
    x, y = images()
    teacher = keras.Sequential([keras.Input((6, 6, 2)), keras.layers.Flatten(), keras.layers.Dense(3)], name="teacher")
    student = adopt(make())
    distiller = Distiller(teacher, student, keras.distillation.LogitsDistillation(2.0, loss=keras.losses.KLDivergence()))
    compiled(distiller)
    before = values(student)
    distiller.fit(x, y, batch_size=8, verbose=0)
    assert any(np.any(a != b) for a, b in zip(before, values(student), strict=True))
    distiller.save(tmp_path / "d.keras")
    loaded = keras.models.load_model(tmp_path / "d.keras")
    assert largest_difference(student, loaded.student) == 0


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: adopt(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])), ModelError),
        (lambda: adopt(tfk().Sequential([tfk().layers.Dense(1)])), ModelError),
        (lambda: adopt(plain(), original=plain()), ConfigurationError),
        (lambda: adopt(plain()).get_layer(), ConfigurationError),
        (lambda: adopt(plain()).get_layer(index=99), ModelError),
    ],
    ids=["keras 3", "unbuilt", "original", "no name", "index"],
)
def test_bad_input(call, error):
    with pytest.raises(error):
        call()


@pytest.mark.parametrize("step", [None, Prune(0.5, end_step=9), Cluster(4), QuantizeAware()])
def test_layers_and_summary_are_the_users(step):
    original = mlp(6, 5)
    adopted = adopt(to_tf_keras(original), original=original) if step is None else step.apply(original)
    assert [layer.name for layer in adopted.layers] == [layer.name for layer in original.layers]
    assert adopted.layers[1].units == 6
    lines = []
    adopted.summary(print_fn=lines.append, show_trainable=True)
    kind = (
        "Dense"
        if step is None
        else f"Dense, {dict(Prune='pruning', Cluster='clustering', QuantizeAware='quantization')[type(step).__name__]}"
    )
    assert [line.partition(" (")[0] for line in lines[2:-1]] == [layer.name for layer in original.layers]
    assert f"hidden_0 ({kind})" in lines[3]
    assert " 54 " in lines[3]
    assert lines[-1] == f"Parameters: {original.count_params():,}"
