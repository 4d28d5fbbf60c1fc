"""Makes a new Keras 3 model with the weights of a tf_keras model."""

from __future__ import annotations

import typing

import keras

from tfdistill.bridge import imports
from tfdistill.bridge.convert.again import again
from tfdistill.bridge.convert.from_tf_keras import from_tf_keras
from tfdistill.bridge.convert.weights import copy_weights
from tfdistill.bridge.parity.check import check_parity
from tfdistill.errors import BridgeError, ModelError, nearest
from tfdistill.graph.functional import as_functional, calls, is_functional, is_sequential, only_calls
from tfdistill.graph.inlining import inlined_as
from tfdistill.graph.keras_internals import is_keras_own
from tfdistill.graph.layers import all_layers, child_layers
from tfdistill.graph.opening import is_foreign, origin
from tfdistill.graph.tracing import open_model, symbolic_inputs

if typing.TYPE_CHECKING:
    import tf_keras


def to_keras(
    tf_keras_model: tf_keras.Model,
    like: keras.Model | None = None,
    *,
    check: bool = True,
    seed: int = 0,
    inputs: typing.Any = None,
    by_place: bool = False,
) -> keras.Model:
    """Makes a Keras 3 model with the weights of a tf_keras model: of the architecture of `like`, or of the tf_keras model's own without it.

    Without `like`, the model must be functional or Sequential, of Keras's own layers and common TensorFlow operations. Otherwise layers are matched by
    name, and their weights by name and shape: the order in which a model lists its weights does not matter. A model of a
    user's class is made by that class from its config. Where that gives other layers or another computation, the result is a functional model of
    new layers instead.

    Args:
        tf_keras_model: `tf_keras.Model` of the same layers as `like`: what `to_tf_keras(like)` returned, trained, without the wrappers that pruning
            or clustering put around its layers.
        like: Built `keras.Model`, or None for a model that was made in Keras 2. It is not changed. Weights that none of its calls use keep the values that they have in it, or are left out where
            its class cannot be made from its config.
        check: Whether the models are compared on random input before the new model is returned; see `check_parity`.
        seed: Seed of that input.
        inputs: As in `to_tf_keras`, for a subclassed `like`.
        by_place: Whether layers that are not found by name are matched by their order, as for a `like` whose layers were renamed since.

    Returns:
        `keras.Model`, with the names, trainable flags and dtype policies of `like`, or else of the tf_keras model.

    Raises:
        ModelError: if `tf_keras_model` is no tf_keras model.
        BridgeError: if a layer has no counterpart in Keras 3, is missing or has other weights, or if the result computes something else.

    Example:
        >>> copy = tfdistill.to_tf_keras(student)
        >>> copy.compile("sgd", "mse")
        >>> history = copy.fit(x, np.eye(10)[y], verbose=0)
        >>> trained = tfdistill.to_keras(copy, like=student)
        >>> np.allclose(trained(x), copy(x), atol=1e-5), np.allclose(trained(x), student(x), atol=1e-5)
        (True, False)
        >>> plain = tfdistill.to_keras(copy)
        >>> np.allclose(plain(x), copy(x), atol=1e-5), isinstance(plain, keras.Model)
        (True, True)
    """
    if not isinstance(tf_keras_model, imports.tf_keras().Model):
        raise ModelError(
            f"{type(tf_keras_model).__module__}.{type(tf_keras_model).__name__} was given as the tf_keras model.",
            "a tf_keras.Model",
            "a Keras 3 model needs no bridge: use it as it is" if isinstance(tf_keras_model, keras.Model) else None,
        )
    if like is None:
        made = from_tf_keras(tf_keras_model)
        if check:
            check_parity(made, tf_keras_model, seed=seed)
        return made
    view = like if is_sequential(like) else open_model(like, inputs)

    def filled(fresh):
        if fresh is None:
            return None
        opened = fresh if is_functional(fresh) or is_sequential(fresh) else open_model(fresh, inputs)
        _take_over_names(view, opened, like.name)
        _copy(view, opened, tf_keras_model, like.name, set(), by_place)
        if check:
            check_parity(opened, tf_keras_model, seed=seed)
        return fresh

    failure = None
    try:
        if (made := filled(_same_class(like, inputs))) is not None:
            return made
    except BridgeError as error:
        failure = error
    try:
        return filled(_same_layers(like, view))
    except BridgeError as error:
        # The first failure is that of a class whose config is incomplete: it is shown as the cause.
        error.__cause__ = error.__cause__ or failure
        raise


def _same_class(like, inputs):
    """Makes a model of a class of the user's own again from its config; None where the class is Keras's own, or cannot be made so."""
    if is_keras_own(type(like)):
        return None
    try:
        fresh = type(like).from_config(like.get_config())
        if not is_functional(fresh) and not is_sequential(fresh):
            fresh(symbolic_inputs(like) if inputs is None else inputs)
    except Exception:  # whatever the user's constructor or call raises: the layers by themselves may still be made again
        return None
    if [(w.shape, w.dtype) for w in fresh.weights] == [(w.shape, w.dtype) for w in like.weights]:
        for kept, made in zip(like.weights, fresh.weights, strict=True):
            made.assign(kept.value)  # for the weights that no call uses; all others are filled from the tf_keras model
    return fresh


def _same_layers(like, view):
    """Makes a functional or Sequential model of clones of the layers."""
    return _cloner()(like if is_functional(like) else view)


def _take_over_names(view, opened, path):
    """Gives the layers of a model that was made again the names and trainable flags of the original's."""
    ours, theirs = _flat(view), _flat(opened)
    if _classes(ours) != _classes(theirs):
        raise BridgeError(
            f"A new model made like '{path}' from its get_config() has other layers: {', '.join(_classes(theirs))}.",
            ", ".join(_classes(ours)),
            "give the class a get_config that holds all arguments of its constructor",
        )
    for kept, made in zip(ours, theirs, strict=True):
        made.name = kept.name  # layers without a given name got the next free one
        made.trainable = kept.trainable
    _refuse_shared(view, opened, path)


def _classes(layers):
    # A functional model inside another one may come back without its class.
    return ["Model" if isinstance(layer, keras.Model) else type(layer).__name__ for layer in layers]


def _cloner():
    """Returns a function that clones layers and models, each one once, so that a layer shared across nested models stays shared."""
    made = {}

    def clone_one(layer):
        if id(layer) not in made:
            if is_functional(layer) or is_sequential(layer):
                made[id(layer)] = keras.models.clone_model(layer, clone_function=clone_one)
            elif type(layer) is keras.layers.TimeDistributed:
                config = {key: value for key, value in layer.get_config().items() if key != "layer"}
                made[id(layer)] = keras.layers.TimeDistributed(clone_one(layer.layer), **config)
            else:
                made[id(layer)] = again(layer, clone_one, made)
        return made[id(layer)]

    return clone_one


def _flat(model):
    """Lists a model, its layers, and those of nested models and of layers of classes that Keras does not have, each of these before its layers."""
    found = [model]
    for layer in model.layers if isinstance(model, keras.Model) else child_layers(model):
        found.extend(_flat(layer) if isinstance(layer, keras.Model) or is_foreign(layer) else [layer])
    return found


def _copy(kept, fresh, tf_keras_model, path, done, by_place, called=(None, None)):
    """Fills `fresh`, a clone of `kept`, from the layers of the tf_keras model that stand for `kept`'s; `called` are the only calls of the two in other models."""
    names = {layer.name for layer in tf_keras_model.layers}
    kept, fresh = (inlined_as(as_functional(one), names, call) for one, call in zip((kept, fresh), called, strict=True))
    here = {**only_calls(kept), **only_calls(fresh)}
    _refuse_shared(kept, fresh, path)
    # Nested models first: a layer that is inside one of them and is called out here too has its name from there.
    pairs = sorted(zip(_holders(kept), _holders(fresh), strict=True), key=lambda pair: not isinstance(_held(pair[0][0]), keras.Model))
    inside = {id(layer) for (old, _), _ in pairs if isinstance(_held(old), keras.Model) for layer in all_layers(_held(old))[1:]}
    counterparts = _counterparts([old for (old, _), _ in pairs if id(origin(old)) not in inside], tf_keras_model, path, by_place)
    for (old, _), (new, variables) in pairs:
        where = f"{path}/{old.name}"
        if id(origin(new)) in done:
            continue
        done.add(id(origin(new)))
        counterpart = counterparts[id(old)]
        if old is not _held(old):
            old, new, counterpart = old.layer, new.layer, counterpart.layer
        if isinstance(old, keras.Model):
            _copy(_opened(old), _opened(new), counterpart, where, done, by_place, (here.get(id(old)), here.get(id(new))))
        elif isinstance(old, keras.layers.Normalization):
            copy_weights(old.weights, variables, where)
            new.finalize_state()
        else:
            copy_weights(counterpart.weights, variables, where)


def _held(layer):
    """Returns the model that a wrapper such as TimeDistributed is around; any other layer itself."""
    return layer.layer if isinstance(layer, keras.layers.Wrapper) and isinstance(layer.layer, keras.Model) else layer


def _counterparts(holders, tf_keras_model, path, by_place):
    """Returns a dict from what holds weights (its id) to the tf_keras layer of the same name, or else of the same place among those that are left."""
    named = {layer.name: layer for layer in tf_keras_model.layers}
    found = {id(old): named.pop(old.name) for old in dict.fromkeys(holders) if old.name in named}
    lost = [old for old in dict.fromkeys(holders) if id(old) not in found]
    left = [layer for layer in named.values() if layer.weights]
    if lost and not (by_place and len(lost) == len(left)):
        raise BridgeError(
            f"The tf_keras model '{tf_keras_model.name}' has no layer for '{path}/{lost[0].name}' ({type(lost[0]).__name__}). "
            + nearest(lost[0].name, (layer.name for layer in tf_keras_model.layers)),
            "a model with the layer names of the Keras 3 model",
            "strip the wrappers of pruning or clustering first",
        )
    return {**found, **{id(old): layer for old, layer in zip(lost, left, strict=True)}} if lost else found


def _refuse_shared(kept, fresh, path):
    """Refuses a clone whose operations still use the variables of the original: filling it would change the original."""
    for (old, olds), (_, news) in zip(_holders(kept), _holders(fresh), strict=True):
        if {id(v) for v in olds} & {id(v) for v in news}:
            raise BridgeError(
                f"The operation '{path}/{old.name}' ({type(old).__name__}) uses the variable '{olds[0].path}', which a clone of the graph would share.",
                "variables that belong to layers, or to a model that can be made again from its get_config()",
                "make it the weight of a layer (add_weight), or give the model's class a get_config with its constructor's arguments",
            )


def _opened(model):
    return model if is_sequential(model) else open_model(model)


def _holders(model):
    """Lists what holds weights in a model, with its variables: layers, nested models, and operations on variables."""
    found = [(layer, layer.weights) for layer in model.layers if layer.weights]
    for call in calls(as_functional(model)):
        if not isinstance(call.operation, keras.layers.Layer):
            variables = [x for x in keras.tree.flatten((call.args, call.kwargs)) if isinstance(x, keras.Variable)]
            found += [(call.operation, variables)] if variables else []
    return found
