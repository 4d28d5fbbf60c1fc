"""Masks, ranges and variables of wrappers are read through methods: of a view for TFMOT's wrappers, of the wrapper itself for this library's."""

import keras
import numpy as np
import pytest
from test_adopt import clustered, plain, pruned, quantized

import tfdistill
from tfdistill.bridge import imports
from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.wrappers.base import TransparentWrapper


def applied(step):
    layers = keras.layers
    return step.apply(
        keras.Sequential([keras.Input((6, 6, 2)), layers.Conv2D(4, 3, name="conv"), layers.Flatten(), layers.Dense(3, name="logits")])
    ).legacy


# Model -> (the step of its wrapped layer, whether that layer has masks, whether it has ranges).
WRAPPED = {
    "TFMOT's pruning": (pruned, "pruning", True, False),
    "TFMOT's clustering": (clustered, "clustering", False, False),
    "TFMOT's quantization": (quantized, "quantization", False, True),
    "Prune": (lambda: applied(tfdistill.compress.Prune(0.5, schedule="constant")), "pruning", True, False),
    "Cluster": (lambda: applied(tfdistill.compress.Cluster(4)), "clustering", False, False),
    "QuantizeAware": (lambda: applied(tfdistill.compress.QuantizeAware()), "quantization", False, True),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_every_wrapper_has_a_state(name):
    make, step, masks, ranges = WRAPPED[name]
    layer = tfdistill.adopt(make()).get_layer("conv")
    assert introspection.is_wrapper(layer)
    assert [kind for kind in ("pruning", "clustering", "quantization") if introspection.is_wrapper_for(layer, kind)] == [step]
    assert bool(introspection.masks_of(layer)) == masks
    assert bool(introspection.ranges_of(layer)) == ranges
    own = {id(variable) for variable in introspection.own_variables(layer)}
    assert own
    assert not own & {id(weight) for weight in introspection.weights_of(layer)}
    assert introspection.weight_named(layer, "kernel") is not None


def test_a_layer_that_is_not_wrapped_has_none():
    layer = plain().get_layer("conv")
    assert introspection.state_of(layer) is None
    assert (introspection.own_variables(layer), introspection.masks_of(layer), introspection.ranges_of(layer)) == ([], [], [])
    assert introspection.effective_values(layer) == {}
    assert introspection.unwrap(layer) is layer


def test_a_wrapper_of_a_new_step_needs_its_methods_only():
    class Doubling(TransparentWrapper, imports.tf_keras().layers.Wrapper):
        step = "doubling"

        def effective_values(self):
            return {id(self.layer.kernel): 2.0 * self.layer.kernel}

    layer = plain().get_layer("conv")
    wrapper = Doubling(layer)
    assert introspection.unwrap(wrapper) is layer
    assert introspection.is_wrapper_for(wrapper, "doubling")
    np.testing.assert_array_equal(introspection.effective_values(wrapper)[id(layer.kernel)], 2.0 * layer.kernel)


def test_a_traced_wrapper_shows_the_original_activation_while_the_scope_is_open():
    model = quantized()
    model(np.zeros((1, 6, 6, 2), "float32"))
    layer = next(layer for layer in model._flatten_layers() if introspection.is_quantized(layer) and layer._quantize_activations)
    traced = layer.layer.activation
    with introspection.original_activations(model):
        assert layer.layer.activation is not traced
    assert layer.layer.activation is traced
