"""Sparsity by layer, patterns and what a plan says of them; contradictions are refused when a step is made."""

import keras
import numpy as np
import pytest
from opened_models import opened

from tfdistill.compress import Prune, kernels, rebuild
from tfdistill.errors import ConfigurationError, InvariantError, ModelError

layers = keras.layers


def net():
    x = inputs = keras.Input((6, 6, 3), name="image")
    encoder_input = keras.Input((6, 6, 8))
    encoder = keras.Model(
        encoder_input, layers.Conv2D(8, 1, name="mix")(layers.DepthwiseConv2D(3, name="space")(encoder_input)), name="encoder"
    )
    x = encoder(layers.Conv2D(8, 3, padding="same", name="stem")(x))
    x = layers.Dense(10, name="hidden")(layers.LayerNormalization(name="norm")(layers.Flatten(name="flat")(x)))
    return keras.Model(inputs, layers.Dense(3, name="logits")(x), name="net")


def rows(**settings):
    return {row.name: row for row in Prune(end_step=4, **settings).plan(opened(net)).rows}


def train(model, step):
    rng = np.random.default_rng(0)
    x, y = rng.random((16, 6, 6, 3)).astype("float32"), rng.integers(0, 3, 16)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, batch_size=4, verbose=0, callbacks=step.callbacks())
    return model


BY_LAYER = {"stem": 0.5, "encoder/*": 0.75, "*": 0.9}


def test_each_layer_has_the_share_of_the_first_selector_that_matches():
    step = Prune(BY_LAYER, end_step=4, exclude="logits")
    trained = step.strip(train(step.apply(opened(net)), step))
    step.check(trained)
    found = rebuild.layers_by_name(trained)
    shares = {
        path: 0.75 if "encoder" in path else {"stem": 0.5, "hidden": 0.9}[path]
        for path in ("stem", "encoder/mix", "encoder/space", "hidden")
    }
    for path, share in shares.items():
        (kernel,) = kernels.kernels_of(found[path])
        value = rebuild.effective_weight(found[path], kernel.attribute)
        assert kernels.zeros(value) == value.size - round(value.size * (1 - share)), path
    assert kernels.zeros(np.asarray(trained.get_layer("logits").kernel)) == 0
    kernel = found["encoder/mix"].kernel
    kernel.assign(np.where(kernel == 0, 1e-3, kernel))
    with pytest.raises(InvariantError, match=r"'encoder/mix' kernel: 0\.0 % zeros"):
        step.check(trained)


@pytest.mark.parametrize(
    ("settings", "layer", "action", "words"),
    [
        ({"sparsity": BY_LAYER}, "encoder/mix", "done", "75 % of 64 weights in kernel"),
        ({"sparsity": {"stem": 0.5}}, "hidden", "skipped", "left out by sparsity="),
        ({"sparsity": BY_LAYER, "exclude": "logits"}, "logits", "skipped", "exclude="),
        ({"sparsity": 0.5}, "encoder/space", "skipped", "spared"),
        ({"sparsity": 0.5}, "norm", "skipped", "has no kernel"),
        ({"sparsity": 0.95, "layers": "encoder/space"}, "encoder/space", "done", "every one of 8 channels keeps"),
        ({"n_of_m": (2, 4)}, "stem", "done", "3 inputs are no multiple of 4"),
        ({"n_of_m": (2, 4)}, "hidden", "done", "50 % of 1,280 weights"),
        ({"n_of_m": (2, 4), "layers": "*"}, "encoder/space", "impossible", "depthwise filter"),
        ({"sparsity": 0.5, "block": (4, 1)}, "stem", "done", "27 x 8 is no multiple"),
        ({"sparsity": 0.5, "block": (4, 2)}, "hidden", "done", "50 % of 1,280 weights"),
        ({"sparsity": 0.5, "block": (4, 2), "layers": "encoder"}, "encoder/space", "impossible", "no matrix"),
        ({"sparsity": 0.5, "layers": "norm"}, "norm", "skipped", "has no kernel"),
    ],
)
def test_a_plan_says_what_becomes_of_a_layer(settings, layer, action, words):
    row = rows(**settings)[layer]
    assert row.action == action
    assert words in row.reason


@pytest.mark.parametrize(
    ("settings", "nonzero"),
    [
        ({"sparsity": 0.5}, 128 * 10 // 2),
        ({"sparsity": 0.999}, 10),
        ({"n_of_m": (1, 4)}, 128 * 10 // 4),
        ({"sparsity": 0.75, "block": (8, 1)}, 128 * 10 // 4),
    ],
)
def test_the_expected_number_of_weights_is_what_stays(settings, nonzero):
    step = Prune(end_step=4, layers="hidden", **settings)
    assert step.plan(opened(net)).row("hidden").expected_nonzero == nonzero + 10
    trained = step.strip(train(step.apply(opened(net)), step))
    step.check(trained)
    assert np.count_nonzero(trained.get_layer("hidden").kernel) == nonzero


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sparsity": {}}, "sparsity="),
        ({"sparsity": {3: 0.5}}, "names, paths or patterns"),
        ({"sparsity": {"a": 1.0}}, "above 0 and below 1"),
        ({"sparsity": True}, "above 0 and below 1"),
        ({"sparsity": "0.5"}, "above 0 and below 1"),
        ({"sparsity": {"a": 0.5}, "layers": "a"}, "leave out layers="),
        ({"sparsity": {"a": 0.5, "b": 0.2}, "initial_sparsity": 0.3}, "initial_sparsity"),
        ({"n_of_m": (2, 4), "sparsity": 0.8}, "0.5, which the pattern leaves"),
        ({"n_of_m": (2, 4), "sparsity": {"a": 0.8}}, "0.5, which the pattern leaves"),
        ({"n_of_m": (4, 4)}, "fewer"),
        ({"n_of_m": (0, 4)}, "two whole numbers"),
        ({"n_of_m": 2}, "two whole numbers"),
        ({"block": (1, 4), "n_of_m": (2, 4)}, "one pattern"),
        ({"block": (1, 4, 1)}, "two whole numbers"),
        ({"block": (1, 2.5)}, "two whole numbers"),
        ({"block": (2, 2), "block_pooling": "sum"}, "'avg' or 'max'"),
        ({"block_pooling": "max"}, "of a block"),
    ],
    ids=str,
)
def test_contradictory_settings_are_refused(settings, words):
    with pytest.raises(ConfigurationError, match=words):
        Prune(end_step=4, **settings)


def test_defaults():
    assert Prune(end_step=4).sparsity == 0.5
    assert Prune(end_step=4, n_of_m=(1, 4)).sparsity == 0.75
    given = {"a": 0.5}
    step = Prune(given, end_step=4)
    given["a"] = 0.9
    assert step.sparsity == {"a": 0.5}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sparsity": 0.5, "block": (2, 2), "layers": ["stem", "encoder/space"]}, r"'encoder/space'.*depthwise filter"),
        ({"n_of_m": (2, 4), "sparsity": {"encoder/space": 0.5}}, r"'encoder/space'.*depthwise filter"),
        ({"sparsity": {"flat": 0.5}}, "finds nothing to do"),
        ({"sparsity": {"stemm": 0.5}}, "Nearest: 'stem'"),
    ],
    ids=str,
)
def test_what_cannot_be_pruned_is_refused(settings, words):
    with pytest.raises(ModelError, match=words):
        Prune(end_step=4, **settings).apply(opened(net))


def test_an_emptied_channel_is_seen():
    step = Prune(0.5, end_step=4, layers="encoder/mix")
    trained = step.strip(train(step.apply(opened(net)), step))
    step.check(trained)
    kernel = rebuild.layers_by_name(trained)["encoder/mix"].kernel
    kernel.assign(kernel * (np.arange(8) != 2))
    with pytest.raises(InvariantError, match="no weight left: 'encoder/mix' kernel: 1 of 8"):
        step.check(trained)
