"""Makes a second layer like a Keras 3 layer, with weights of its own."""

import types

import keras

from tfdistill.bridge.convert.constructors import config_of, not_taken
from tfdistill.bridge.convert.layers import is_registered
from tfdistill.errors import BridgeError
from tfdistill.graph.functional import is_functional
from tfdistill.graph.keras_internals import is_keras_own
from tfdistill.graph.layers import all_layers
from tfdistill.graph.opening import is_foreign

# What a layer was when it was made, and who has called it: never copied.
_OF_GRAPHS = ("build", "quantize", "_inbound_nodes", "_outbound_nodes", "_losses", "_loss_ids")


def again(layer, clone, made):
    """Makes a layer like another one: from its `get_config()`, or, where a class of the user's has none that makes it, as a copy of its attributes.

    A class with a builder of its own (`register_bridge`) is not copied: what its counterpart computes is not known to be what its attributes say.

    Args:
        layer: Built Keras 3 layer that is no model.
        clone: Function of an inner layer or model: returns the one that takes its place in a copy, the same one every time.
        made: Dict of id of layer to what `clone` has returned for it. The layers inside those of the user's classes are added: they may be called elsewhere, too.

    Raises:
        BridgeError: if neither is possible.
    """
    if not is_foreign(layer):
        return _from_config(layer, clone)
    may_be_copied = layer.built and not is_registered(type(layer))
    inside = all_layers(layer)[1:]
    if may_be_copied and any(id(one) in made for one in inside):
        return _copied(layer, clone)
    found = _from_config(layer, clone)
    fresh = all_layers(found)[1:]
    # Of layers that it makes when it is built nothing is known yet.
    if may_be_copied and not _is_like(fresh, inside):
        return _copied(layer, clone)
    if len(fresh) == len(inside):
        made.update(zip(map(id, inside), fresh, strict=True))
    return found


def _is_like(fresh, inside):
    """Whether the layers inside a layer that was made from a config may be those inside the other one: of the same classes in the same order, and those of Keras
    without weights with the same settings. What a Sequential adds to its layers when it is built is left out."""
    fresh, inside = (
        [one for one in layers if not (isinstance(one, keras.layers.InputLayer) or is_functional(one))] for layers in (fresh, inside)
    )
    return len(fresh) == len(inside) and all(
        type(other) is type(one) and (other.weights or not is_keras_own(type(one)) or _settings(other) == _settings(one))
        for one, other in zip(fresh, inside, strict=True)
    )


def _settings(layer):
    try:
        config = layer.get_config()
    except NotImplementedError:  # of arguments that Keras cannot serialize
        return None
    return {key: value for key, value in config.items() if key not in ("name", "seed")}


def _from_config(layer, clone):
    kind = type(layer)
    try:
        config = config_of(layer)
        left_out = not_taken(kind, config)
        made = kind.from_config({name: value for name, value in config.items() if name not in left_out})
    except Exception as error:  # whatever the user's class raises
        if is_foreign(layer) and layer.built and not is_registered(kind):
            return _copied(layer, clone)
        raise BridgeError(
            f"A second layer like '{layer.name}' ({kind.__name__}) cannot be made from its get_config(): {error}",
            "a layer that Keras can save and load",
            "give the class a get_config that holds its constructor's arguments, and decorate classes and functions of your own with "
            "@keras.saving.register_keras_serializable()",
        ) from error
    if "name" in left_out:
        made.name = layer.name
    if "dtype" in left_out:
        made.dtype_policy = layer.dtype_policy
    return made


def _copied(layer, clone):
    """Returns a copy of a layer of the user's without calling its constructor or its `build`: what they made is copied."""
    made = type(layer).__new__(type(layer))
    keras.layers.Layer.__init__(
        made, name=layer.name, trainable=layer.trainable, dtype=layer.dtype_policy, activity_regularizer=layer.activity_regularizer
    )
    variables = {}
    own = {name: value for name, value in vars(layer).items() if name not in vars(made) and name not in _OF_GRAPHS}

    def copied(value):
        if isinstance(value, keras.layers.Layer):
            return _inner(value, clone)
        if isinstance(value, keras.Variable):
            if id(value) not in variables:
                variables[id(value)] = _variable(value)
            return variables[id(value)]
        if isinstance(value, keras.random.SeedGenerator):
            generator = keras.random.SeedGenerator(0)
            generator.state.assign(value.state)
            return generator
        if isinstance(value, dict):
            return {key: copied(item) for key, item in value.items()}
        if type(value) is tuple or isinstance(value, list):
            return tuple(map(copied, value)) if type(value) is tuple else list(map(copied, value))
        if isinstance(value, types.MethodType) and value.__self__ is layer:
            return types.MethodType(value.__func__, made)
        return value

    with keras.name_scope(layer.name):
        for name, value in own.items():
            setattr(made, name, copied(value))
    vars(made)["_auto_config"] = vars(layer).get("_auto_config")
    made.supports_masking, made.autocast, made.built = layer.supports_masking, layer.autocast, layer.built
    return made


def _inner(layer, clone):
    # A layer of Keras's own may hold a function that nobody registered: a config has its name alone.
    with keras.saving.custom_object_scope(
        {value.__name__: value for value in vars(layer).values() if isinstance(value, types.FunctionType)}
    ):
        made = clone(layer)
    if not made.built and layer.built:
        made.build_from_config(layer.get_build_config())
    return made


def _variable(variable):
    made = keras.Variable(
        variable.numpy(), dtype=variable.dtype, trainable=variable.trainable, autocast=variable._autocast, name=variable.name
    )
    made.regularizer, made.constraint = variable.regularizer, variable.constraint
    return made
