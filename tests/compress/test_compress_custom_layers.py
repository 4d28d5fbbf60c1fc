"""Models of layers that others wrote go through the steps: planned by the paths inside, trained, and given back as they were."""

import custom_layers
import keras
import numpy as np
import pytest
from test_custom_layers import inputs_of, outputs

from tfdistill.compress import Prune, QuantizeAware
from tfdistill.compress.plan import DONE

ROWS = custom_layers.MODELS
PRUNE = Prune(0.5, schedule="constant", frequency=1)


# The others are more of the same kinds.
QUICK = (
    "keras.io's transformer",
    "around stochastic depth",
    "attention by keywords",
    "called with other arguments",
    "in a subclassed model",
)
PARAMETERS = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in ROWS]


def trained(step, model, x):
    model.compile(keras.optimizers.SGD(0.05), "mse", run_eagerly=True)
    targets = keras.tree.map_structure(lambda y: np.ones(y.shape, "float32"), model(x))
    model.fit(x, targets, epochs=1, verbose=0, batch_size=3, callbacks=step.callbacks())
    return model


@pytest.mark.parametrize("name", PARAMETERS)
def test_pruned_trained_and_given_back(name):
    model = custom_layers.build(name)
    x = inputs_of(model)
    ours = outputs(model, x)
    adopted = trained(PRUNE, PRUNE.apply(model), x)
    back = PRUNE.strip(adopted)
    PRUNE.check(back)
    assert type(back) is type(model)
    assert [type(layer).__name__ for layer in back.layers] == [type(layer).__name__ for layer in model.layers]
    for one, other, before in zip(outputs(adopted, x), outputs(back, x), ours, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5)
        assert np.abs(other - before).max() > 1e-4
    for one, other in zip(ours, outputs(model, x), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", PARAMETERS)
def test_quantized_by_the_paths_inside(name):
    model, step = custom_layers.build(name), QuantizeAware()
    # Some of these models cannot become integer files, as they cast masks or repeat a layer in a loop: tests/compress/test_dry_run.py is about that.
    x, plan = inputs_of(model), step.plan(model, dry_run=False)
    assert set(ROWS[name][1]) <= {"/".join(row.name.split("/")[:end]) for row in plan.rows for end in range(1, row.name.count("/") + 2)}
    adopted = trained(step, step.apply(model, dry_run=False), x)
    assert all(np.isfinite(y).all() for y in outputs(adopted, x))
    assert plan.names(DONE)


def test_a_path_inside_selects_layers_and_what_is_given_back_is_checked():
    model = custom_layers.build("nested")
    step = Prune(0.5, schedule="constant", frequency=1, layers="outer/mlp", exclude="outer/mlp/up")
    assert step.plan(model).names(DONE) == ["outer/mlp/gate", "outer/mlp/down"]
    back = step.strip(trained(step, step.apply(model), inputs_of(model)))
    step.check(back)
    zeros = {layer.name: float(np.mean(np.asarray(layer.kernel) == 0)) for layer in (back.layers[0].mlp.gate, back.layers[0].mlp.up)}
    assert zeros == {"gate": 0.5, "up": 0.0}


def tied(x):
    embed = keras.layers.ReversibleEmbedding(custom_layers.WORDS, custom_layers.WIDTH, name="embed")
    return embed(keras.layers.Dense(custom_layers.WIDTH)(embed(x)), reverse=True)


def one_activation(x):
    x, relu = keras.layers.Embedding(custom_layers.WORDS, 4)(x), keras.layers.Activation("relu", name="relu")
    for _ in range(3):
        x = relu(keras.layers.Dense(4)(x))
    return x


def one_dense(x):
    dense = keras.layers.Dense(4, name="dense")
    return dense(dense(keras.layers.Embedding(custom_layers.WORDS, 4)(x)))


CIRCLES = {"one activation": one_activation, "one dense layer": one_dense}
CIRCLES |= {"tied embeddings": tied} if hasattr(keras.layers, "ReversibleEmbedding") else {}


@pytest.mark.parametrize("name", CIRCLES)
def test_a_layer_that_reads_what_it_made_itself_is_planned(name):
    inputs = keras.Input((custom_layers.STEPS,), dtype="int32")
    plan = QuantizeAware().plan(keras.Model(inputs, CIRCLES[name](inputs)))
    assert len(plan.names(DONE)) == len(plan.rows)
