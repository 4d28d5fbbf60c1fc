"""Whether layers are called more than once, or merge several tensors."""

import keras
import pytest

from tfdistill.graph.functional import is_reused, merges


def layers():
    inputs = keras.Input((3,))
    shared = keras.layers.Dense(3, name="shared")
    plain = keras.layers.Dense(3, name="plain")(shared(inputs))
    added = keras.layers.Add(name="added")([shared(plain), plain])
    return {layer.name: layer for layer in keras.Model(inputs, added).layers}


@pytest.mark.parametrize(("name", "reused", "merging"), [("shared", True, False), ("plain", False, False), ("added", False, True)])
def test_calls_of_a_layer(name, reused, merging):
    layer = layers()[name]
    assert (is_reused(layer), merges(layer)) == (reused, merging)
