"""One way to name layers: what taps, warm starts and compression steps find by a full path or the end of one."""

import keras
import pytest

from tfdistill.compress.selection import select, selectors
from tfdistill.errors import ModelError
from tfdistill.graph.names import find_layer, named_layers, resolve_path


def block(name):
    inner = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(4, name="proj"), keras.layers.Dense(4, name=f"out_{name}")], name="inner"
    )
    return keras.Sequential([keras.Input((4,)), inner, keras.layers.Dense(4, name="norm")], name=name)


def nested():
    """Layers: head; left and right, each with inner/proj, inner/out_NAME and norm; left also as an own path `proj_like`."""
    x = inputs = keras.Input((4,))
    for name in ("left", "right"):
        x = block(name)(x)
    return keras.Model(inputs, keras.layers.Dense(2, name="head")(x), name="nested")


# Name -> the path that is meant, or words of the error.
NAMES = {
    "head": "head",
    "left/norm": "left/norm",
    "left/inner/proj": "left/inner/proj",
    "out_left": "left/inner/out_left",
    "inner/out_right": "right/inner/out_right",
    "norm": ["2 layers called 'norm'", "left/norm, right/norm", "full path"],
    "inner/proj": ["2 layers called 'inner/proj'", "left/inner/proj, right/inner/proj"],
    "inner": ["2 layers called 'inner'", "left/inner, right/inner"],
    "heat": ["no layer 'heat'", "Nearest: 'head'"],
    "ead": ["no layer 'ead'"],
    "left/proj": ["no layer 'left/proj'"],
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_means_the_same_to_taps_and_to_the_selection(name):
    model, expected = nested(), NAMES[name]
    layers = named_layers(model)
    with_weights = {path: layer for path, layer in layers.items() if isinstance(layer, keras.layers.Dense)}
    selection = selectors(name, "layers")
    if isinstance(expected, str):
        assert find_layer(model, name) is layers[expected]
        assert select(with_weights, selection) == ({expected}, {expected})
        return
    for look_up in (lambda: find_layer(model, name, "student"), lambda: select(with_weights, selection)):
        with pytest.raises(ModelError) as caught:
            look_up()
        assert [words for words in expected if words not in str(caught.value)] == []


def test_the_end_of_the_path_of_a_nested_model_selects_what_is_in_it():
    layers = {"left/outer/dense": 1, "left/outer/more": 2, "right/dense": 3}
    assert select(layers, selectors("outer", "layers")) == ({"left/outer/dense", "left/outer/more"}, set())


def test_several_paths_of_one_layer_are_no_ambiguity():
    assert resolve_path("dense", {"a/dense": 1, "b/dense": 1}, "The model") == "a/dense"
