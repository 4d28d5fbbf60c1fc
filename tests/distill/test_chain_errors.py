"""Bad input to the chains: each row is a mistake, and words that the error must have. All of them come before any training."""

import keras
import pytest
from small import CLASSES, data, mlp
from test_chain import settings

from tfdistill.distill.chains.average import many_to_one
from tfdistill.distill.chains.blockwise import blockwise
from tfdistill.distill.chains.mutual import mutual
from tfdistill.distill.chains.sequential import assistants, born_again
from tfdistill.errors import ConfigurationError, DataError, ModelError


def relu_pair():
    first = mlp(6, name="first")
    inputs = keras.Input((8,))
    x = keras.layers.Dense(6, activation="tanh", name="hidden_0")(inputs)
    return first, keras.Model(inputs, keras.layers.Dense(CLASSES, name="logits")(x), name="second")


def run(function, *args, **kwargs):
    x, y = data(32)
    return function(*args, kwargs.pop("settings", None) or settings(epochs=1), x, y, **kwargs)


SAME = mlp(4, name="same")
REFUSED = {
    "no student": (lambda: run(assistants, mlp(8), []), ConfigurationError, "at least 1"),
    "a model twice": (lambda: run(assistants, mlp(8), [SAME, SAME]), ModelError, "stands twice"),
    "teacher among students": (lambda: run(assistants, SAME, [mlp(4), SAME]), ModelError, "among its students"),
    "no model": (lambda: run(assistants, mlp(8), ["student"]), ModelError, "a keras.Model"),
    "settings of assistants": (lambda: run(assistants, mlp(8), [mlp(4)], settings={"epochs": 1}), ConfigurationError, "ChainSettings"),
    "settings of generations": (lambda: run(born_again, lambda: mlp(4), 1, settings={"epochs": 1}), ConfigurationError, "ChainSettings"),
    "settings of peers": (
        lambda: run(mutual, [mlp(4, name="a"), mlp(4, name="b")], settings={"epochs": 1}),
        ConfigurationError,
        "ChainSettings",
    ),
    "settings of blocks": (
        lambda: blockwise(mlp(8), mlp(4), [("hidden_0", "hidden_0")], {"epochs": 1}, *data()),
        ConfigurationError,
        "ChainSettings",
    ),
    "iterator": (
        lambda: assistants(mlp(8), [mlp(4)], settings(), iter([data(32)])),
        DataError,
        "can be read once",
    ),
    "block misspelt": (lambda: run_blocks([("hiden_0", "hidden_0")]), ModelError, "Nearest: 'hidden_0'"),
    "block of the teacher misspelt": (lambda: run_blocks([("hidden_0", "hiden_0")]), ModelError, "(?s)The teacher.*Nearest: 'hidden_0'"),
    "blocks in the wrong order": (
        lambda: run_blocks([("hidden_1", "hidden_1"), ("hidden_0", "hidden_0")]),
        ModelError,
        "nothing to train between",
    ),
    "block twice": (lambda: run_blocks([("hidden_0", "hidden_0"), ("hidden_0", "hidden_1")]), ConfigurationError, "each layer once"),
    "blocks are no pairs": (lambda: run_blocks(["hidden_0"]), ConfigurationError, "a list of"),
    "generations": (lambda: run(born_again, lambda: mlp(4), 0), ConfigurationError, "generations=0"),
    "one model again and again": (lambda: run(born_again, lambda: SAME, 2), ModelError, "stands twice"),
    "no labels, no teacher": (
        lambda: born_again(lambda: mlp(4), 1, settings(student_loss_weight=0, loss=None), data()[0]),
        ConfigurationError,
        "no teacher",
    ),
    "one peer": (lambda: run(mutual, [mlp(4)]), ConfigurationError, "at least 2"),
    "peers of one name": (lambda: run(mutual, [mlp(4), mlp(4)]), ConfigurationError, "a name of its own"),
    "peers of different outputs": (
        lambda: run(mutual, [mlp(4, name="a"), mlp(4, name="b", classes=3)]),
        ModelError,
        "output shapes do not match",
    ),
    "peers with moving averages": (
        lambda: run(
            mutual, [mlp(4, name="a"), mlp(4, name="b")], settings=settings(optimizer=lambda: keras.optimizers.SGD(0.1, use_ema=True))
        ),
        ConfigurationError,
        "use_ema",
    ),
    "how": (lambda: many([mlp(4), mlp(4)], mlp(4), how="sum"), ConfigurationError, "how is 'sum'"),
    "one small student": (lambda: many([mlp(4)], mlp(4), how="average"), ConfigurationError, "at least 3"),
    "averages of different widths": (
        lambda: many([mlp(4), mlp(5)], mlp(4), how="average"),
        ModelError,
        r"architectures differ.*\(8, 4\).*\(8, 5\)",
    ),
    "averages of different depths": (lambda: many([mlp(4), mlp(4, 5)], mlp(4), how="average"), ModelError, "architectures differ"),
    "averages of other activations": (lambda: many([*relu_pair()], mlp(6), how="average"), ModelError, "different layers"),
}


def run_blocks(blocks):
    x, y = data(32)
    return blockwise(mlp(16, 12, name="teacher"), mlp(8, 6, name="student"), blocks, settings(epochs=1), x, y)


def many(students, student, **kwargs):
    x, y = data(32)
    return many_to_one(students, student, settings(epochs=1), x, y, **kwargs)


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused(case):
    act, kind, words = case
    with pytest.raises(kind, match=words):
        act()


BAD_SETTINGS = {
    "optimizer object": (dict(optimizer=keras.optimizers.Adam()), "a function that makes a new optimizer"),
    "optimizer name": (dict(optimizer="adam"), "a function that makes a new optimizer"),
    "share": (dict(student_loss_weight=1.5), "between 0 and 1"),
    "no loss": (dict(loss=None), "loss is None"),
    "epochs": (dict(epochs=0), "at least 1"),
    "metrics": (dict(metrics="accuracy"), "a list of metrics"),
    "data in fit": (dict(fit={"x": 1, "epochs": 2}), r"\['epochs', 'x'\]"),
    "callbacks": (dict(fit={"callbacks": [keras.callbacks.History()]}), "a function that makes a new list"),
    "loss in compile": (dict(compile={"loss": "mse"}), "further arguments only"),
    "losses": (dict(losses="kl"), "A distillation loss is 'kl'"),
    "weights": (dict(weights=[1.0, 2.0]), "must match"),
}


@pytest.mark.parametrize("case", BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_settings_refuse_contradictions(case):
    changes, words = case
    with pytest.raises(ConfigurationError, match=words):
        settings(**changes)
