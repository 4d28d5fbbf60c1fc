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


def trained(model, x):
    model.compile(keras.optimizers.SGD(0.05), "mse", run_eagerly=True)
    targets = keras.tree.map_structure(lambda y: np.ones(y.shape, "float32"), model(x))
    for _ in range(2):
        model.train_on_batch(x, targets)
    return model


@pytest.mark.parametrize("name", ROWS)
def test_pruned_trained_and_given_back(name):
    model = custom_layers.build(name)
    x, ours = inputs_of(model), outputs(model, inputs_of(model))
    plan = PRUNE.plan(model)
    adopted = trained(PRUNE.apply(model), x)
    for callback in PRUNE.callbacks():
        callback.set_model(adopted)
        callback.on_train_batch_end(0)
    back = PRUNE.strip(adopted)
    PRUNE.check(back)
    assert plan.names(DONE)
    assert type(back) is type(model)
    assert [type(layer).__name__ for layer in back.layers] == [type(layer).__name__ for layer in model.layers]
    for one, other, before in zip(outputs(adopted, x), outputs(back, x), ours, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5)
        assert np.abs(other - before).max() > 1e-4
    for one, other in zip(ours, outputs(model, x), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ROWS)
def test_quantized(name):
    model = custom_layers.build(name)
    x = inputs_of(model)
    step = QuantizeAware()
    plan = step.plan(model)
    assert {"head"} <= set(plan.names(DONE)) or name == "called with other arguments"
    adopted = trained(step.apply(model), x)
    assert all(np.isfinite(y).all() for y in outputs(adopted, x))
    assert [row.name for row in plan.rows if "/" in row.name] or all("/" not in path for path in ROWS[name][1])
