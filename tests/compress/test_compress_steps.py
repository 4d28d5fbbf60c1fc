"""Every step on small models: plan, apply, train, strip, check, and what must hold after a later step."""

import keras
import numpy as np
import pytest
from opened_models import opened

from tfdistill import compress
from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.adopt.adopt import AdoptedModel
from tfdistill.compress import Cluster, Plan, Prune, QuantizeAware
from tfdistill.distill.distiller import Distiller
from tfdistill.errors import ConfigurationError, InvariantError, ModelError

layers = keras.layers


def convolutions():
    """3x3, 1x1, depthwise and separable convolutions, normalizations folded and alone, and layers that TFMOT refuses."""
    x = inputs = keras.Input((6, 6, 2), name="image")
    x = layers.Rescaling(2.0, name="rescale")(x)
    x = layers.Conv2D(6, 3, padding="same", use_bias=False, name="conv3")(x)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(momentum=0.5, name="norm")(x))
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.ReLU(name="relu1")(layers.Conv2D(8, 1, name="conv1")(x))
    x = layers.Activation("gelu", name="gelu")(layers.SeparableConv2D(8, 3, padding="same", name="separable")(x))
    x = layers.BatchNormalization(momentum=0.5, name="alone")(layers.Add(name="add")([x, x]))
    x = layers.Dense(6, activation="elu", name="hidden")(layers.GlobalAveragePooling2D(name="pool")(x))
    return keras.Model(inputs, layers.Dense(3, name="logits")(x), name="convolutions")


def sequential():
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(6, 3, name="conv3"),
            layers.BatchNormalization(momentum=0.5, name="norm"),
            layers.Activation("relu", name="relu"),
            layers.Conv2D(8, 1, name="conv1", activation="relu"),
            layers.Flatten(name="flat"),
            layers.Dropout(0.2, name="drop"),
            layers.Dense(3, name="logits"),
        ],
        name="sequential",
    )


def nested():
    x = inputs = keras.Input((6, 6, 2), name="image")
    encoder = keras.Sequential([keras.Input((6, 6, 2)), layers.Conv2D(6, 3, name="conv3"), layers.ReLU(name="relu")], name="encoder")
    x = layers.Flatten(name="flat")(encoder(x))
    return keras.Model(inputs, layers.Dense(3, name="logits")(x), name="nested")


MODELS = {f.__name__: f for f in (convolutions, sequential, nested)}
STEPS = {
    "prune": Prune(0.6, end_step=10, frequency=2),
    "prune constant": Prune(0.5, schedule="constant", frequency=1),
    "prune some": Prune(0.75, end_step=8, layers=["*conv3", "logits"]),
    "qat": QuantizeAware(),
    "qat but": QuantizeAware(exclude="*conv3"),
}
FAST = [("sequential", "prune constant"), ("nested", "prune some"), ("sequential", "qat"), ("nested", "qat but")]
CASES = [
    pytest.param(model, step, marks=() if (model, step) in FAST else pytest.mark.slow, id=f"{model}-{step}")
    for model in MODELS
    for step in STEPS
]


def images(samples=24, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((samples, 6, 6, 2)).astype("float32"), rng.integers(0, 3, samples)


def train(model, steps, step=None, optimizer="adam"):
    x, y = images()
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    epochs = -(-steps // 3)
    model.fit(x, y, batch_size=8, epochs=epochs, verbose=0, callbacks=step.callbacks() if step else [])
    return model


def values(model):
    return [np.array(v) for v in model.weights]


def sparsity(array):
    return 1 - np.count_nonzero(array) / array.size


@pytest.mark.parametrize(("model", "step"), CASES)
def test_plan_apply_train_strip_and_check(model, step):
    model, step = MODELS[model](), STEPS[step]
    before, config = values(model), model.get_config()
    plan = step.plan(model)
    applied = step.apply(model)
    assert isinstance(applied, AdoptedModel)
    assert applied.original is model
    assert applied.count_params() == model.count_params()
    with pytest.raises(InvariantError):
        step.check(applied)
    train(applied, 12, step)
    step.check(applied)
    stripped = step.strip(applied)
    step.check(stripped)
    x, _ = images()
    np.testing.assert_allclose(applied.predict(x, verbose=0), stripped.predict(x, verbose=0), atol=1e-5)
    assert all(np.array_equal(a, b) for a, b in zip(before, values(model), strict=True))
    assert model.get_config() == config
    assert {row.name for row in plan.rows} <= set(applied.named_layers())
    assert step.plan(model) == plan
    if isinstance(step, Prune):
        assert type(stripped) is type(model)
        for row in plan.rows:
            if row.action == "done" and "/" not in row.name and row.class_name in ("Conv2D", "Dense"):
                assert np.count_nonzero(stripped.get_layer(row.name).kernel) <= row.expected_nonzero


SHOWN = (
    "Prune(sparsity=0.5, end_step=4, layers=('a*',))",
    "Cluster()",
    "Cluster(number_of_clusters=4, per_channel=True)",
    "QuantizeAware(exclude=('b',), weight_bits=4)",
    "Quantize(bias_correction=False)",
    "PruneChannels(keep_macs=0.7, divisor=1)",
    "LowRank(rank={'a': 4}, method='svd')",
)


@pytest.mark.parametrize("shown", SHOWN)
def test_a_step_is_shown_as_it_was_written(shown):
    assert repr(eval(shown, {name: getattr(compress, name) for name in compress.__all__})) == shown


def test_every_plan_names_the_users_class():
    inputs = keras.Input((6, 8))
    model = keras.Model(inputs, layers.GroupQueryAttention(3, 4, 2, name="grouped")(inputs, inputs))
    steps = (Prune(0.5, end_step=4), Cluster(4), QuantizeAware())
    assert {step.plan(model).row("grouped").class_name for step in steps} == {"GroupedQueryAttention"}


def test_a_row_that_a_plan_does_not_have_is_said_with_the_nearest():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2, name="logits")])
    with pytest.raises(ConfigurationError, match=r"(?s)no row of a layer 'logit'.*one of logits") as caught:
        Cluster(4).plan(model).row("logit")
    assert "logits" in caught.value.fix


@pytest.mark.parametrize("step", [s for s in STEPS if s != "qat but"])
def test_applying_changes_no_output_but_by_rounding(step):
    applied, x = STEPS[step].apply(opened(sequential)), images()[0]
    model = opened(sequential).original
    if isinstance(STEPS[step], Prune):
        np.testing.assert_allclose(applied(x), model(x), atol=1e-5)
    kernel = introspection.weight_named(applied.get_layer("conv1"), "kernel")
    np.testing.assert_array_equal(kernel, model.get_layer("conv1").kernel)


def test_an_opened_model_is_shared_and_stays_as_it_was():
    model = opened(sequential)
    before = [values(model), values(model.original)]
    for step in (STEPS["prune constant"], Cluster(4), STEPS["qat"]):
        step.plan(model)
        applied = step.apply(model)
        for weight in applied.trainable_weights:
            weight.assign(weight + 1)
        step.strip(applied)
    assert opened(sequential) is model
    for kept, now in zip(before, [values(model), values(model.original)], strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(kept, now, strict=True))


def test_a_plan_says_what_is_done_skipped_and_why(tmp_path):
    plan = Prune(0.5, end_step=4).plan(opened(convolutions))
    rows = {row.name: row for row in plan.rows}
    assert {n for n, row in rows.items() if row.action == "done"} == {"conv3", "conv1", "separable", "hidden", "logits"}
    assert rows["conv3"].parameters == 108
    assert rows["conv3"].expected_nonzero == 54
    assert rows["conv3"].macs == 36 * 108
    assert rows["separable"].macs == 16 * (9 * 8 + 64)
    assert rows["logits"].macs == 18
    assert "depthwise" in rows["depthwise"].reason
    assert "conv3" in str(plan)
    assert Plan.load(plan.save(tmp_path / "plan.json")) == plan


@pytest.mark.slow
def test_zeros_are_not_kept_with_false():
    prune, qat = STEPS["prune"], QuantizeAware(preserve_sparsity=False)
    sparse = prune.strip(train(prune.apply(sequential()), 12, prune))
    applied = train(qat.apply(sparse), 6)
    qat.check(applied)
    with pytest.raises(InvariantError, match="conv3"):
        prune.check(applied)


@pytest.mark.slow
def test_masks_and_zeros_are_in_the_file(tmp_path):
    prune, qat = STEPS["prune"], QuantizeAware()
    sparse = prune.strip(train(prune.apply(convolutions()), 12, prune))
    applied = train(qat.apply(sparse), 6)
    applied.save(tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras")
    x, _ = images()
    np.testing.assert_array_equal(applied.predict(x, verbose=0), loaded.predict(x, verbose=0))
    prune.check(train(loaded, 12))
    qat.check(loaded)


def test_check_fails_on_purpose():
    prune = STEPS["prune"]
    applied = prune.apply(opened(sequential))
    train(applied, 3, prune)
    with pytest.raises(InvariantError, match=r"'conv3' kernel: .* % zeros.*step 3 of 10"):
        prune.check(applied)
    train(applied, 12, prune)
    stripped = prune.strip(applied)
    kernel = stripped.get_layer("conv1").kernel
    kernel.assign(kernel + 1)
    with pytest.raises(InvariantError, match=r"'conv1' kernel: 0\.0 % zeros"):
        prune.check(stripped)


def test_pruned_weights_stay_zero_after_every_batch():
    seen = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            weight, mask = introspection.masks_of(applied.get_layer("conv3"))[0]
            seen.append((sparsity(weight.numpy()), sparsity(mask.numpy())))

    step = Prune(0.5, end_step=6, frequency=2)
    applied = step.apply(opened(sequential))
    x, y = images()
    applied.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    applied.fit(x, y, batch_size=4, epochs=2, verbose=0, callbacks=[*step.callbacks(), Look()])
    assert all(weight >= mask for weight, mask in seen)
    expected = [0.5 * (1 - (1 - t / 6) ** 3) for t in (2, 4, 6)]
    size = 3 * 3 * 2 * 6
    np.testing.assert_allclose([seen[1][1], seen[3][1], seen[5][1]], expected, atol=1 / size)
    assert seen[-1] == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize("settings", [{"end_step": 7, "frequency": 3}, {"end_step": 11, "frequency": 4, "begin_step": 2}, {"end_step": 5}])
def test_the_last_mask_falls_on_the_end_of_the_schedule(settings):
    step = Prune(0.5, **settings)
    applied = step.apply(opened(sequential))
    x, y = images(samples=settings["end_step"])
    applied.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    applied.fit(x, y, batch_size=1, verbose=0, callbacks=step.callbacks())
    step.check(applied)


@pytest.mark.parametrize("step", [pytest.param("prune", id="prune"), pytest.param("qat", id="qat", marks=pytest.mark.slow)])
def test_a_distiller_trains_it(step):
    step = STEPS[step]
    student, teacher = step.apply(opened(sequential)), sequential()
    distiller = Distiller(teacher, student, keras.distillation.LogitsDistillation(2.0, loss=keras.losses.KLDivergence()))
    train(distiller, 12, step)
    step.check(student)


@pytest.mark.parametrize(
    "settings",
    [
        {"sparsity": 0.0, "end_step": 5},
        {"sparsity": 1.0, "end_step": 5},
        {"sparsity": 0.5, "end_step": 5, "initial_sparsity": 0.5},
        {"sparsity": 0.5, "end_step": 5, "initial_sparsity": -0.1},
        {"sparsity": 0.5},
        {"sparsity": 0.5, "begin_step": 5, "end_step": 5},
        {"sparsity": 0.5, "begin_step": -1, "end_step": 5},
        {"sparsity": 0.5, "end_step": 5, "frequency": 6},
        {"sparsity": 0.5, "end_step": 5, "frequency": 0},
        {"sparsity": 0.5, "end_step": 5.5},
        {"sparsity": 0.5, "end_step": 5, "schedule": "cosine"},
        {"sparsity": 0.5, "initial_sparsity": 0.1, "schedule": "constant"},
        {"sparsity": 0.5, "end_step": 5, "power": 0},
        {"sparsity": 0.5, "end_step": 5, "layers": []},
        {"sparsity": 0.5, "end_step": 5, "exclude": 3},
    ],
    ids=str,
)
def test_contradictory_settings_are_refused(settings):
    with pytest.raises(ConfigurationError):
        Prune(**settings)


def test_other_settings_are_refused():
    with pytest.raises(ConfigurationError, match="ramp"):
        Prune.for_training(10, 2, ramp=1.5)
    assert Prune.for_training(10, 5, sparsity=0.8).end_step == 30


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: Prune(0.5, end_step=4, layers="conv33").plan(m), "Nearest: 'conv3'"),
        (lambda m: Prune(0.5, end_step=4, layers="relu").apply(m), "finds nothing to do"),
        (lambda m: QuantizeAware(exclude="*").apply(m), "finds nothing to do"),
        (lambda m: QuantizeAware(preserve_sparsity=True).apply(m), "no kernel"),
        (lambda m: Prune(0.5, end_step=4).strip(m), "carries no pruning"),
        (lambda m: QuantizeAware().strip(m), "not quantization-aware"),
        (lambda m: QuantizeAware().apply(Prune(0.5, end_step=4).apply(m)), "still wrapped"),
        (lambda m: Prune(0.5, end_step=4).apply("a model"), "cannot be compressed"),
        (lambda m: train(sequential(), 1, Prune(0.5, end_step=4)), "holds no pruned model"),
    ],
    ids=["misspelt", "no kernel", "all excluded", "no zeros", "strip plain", "strip unquantized", "wrapped", "no model", "callback"],
)
def test_a_model_that_does_not_fit_is_refused(call, words):
    with pytest.raises(ModelError, match=words):
        call(opened(sequential))


def test_a_layer_that_was_named_but_cannot_be_pruned_is_refused():
    with pytest.raises(ModelError, match=r"'depthwise'.*depthwise filter"):
        Prune(0.5, end_step=4, block=(2, 2), layers=["conv3", "depthwise"]).apply(opened(convolutions))
