"""The way back: the weights of a tf_keras model in a fresh Keras 3 model."""

import keras

from tfdistill.errors import BridgeError, nearest
from tfdistill.legacy.graph import as_functional, calls, is_functional, is_sequential
from tfdistill.legacy.parity import check_parity
from tfdistill.legacy.tracing import open_model, symbolic_inputs
from tfdistill.legacy.weights import copy_weights


def to_keras(tf_keras_model, like, *, check=True, seed=0, inputs=None):
    """Makes a Keras 3 model of the architecture of `like` with the weights of a tf_keras model.

    Args:
        tf_keras_model: `tf_keras.Model` of the same layer names as `like`: what `to_tf_keras(like)` gave, trained, and stripped of the wrappers that
            pruning or clustering put around its layers.
        like: Built `keras.Model`. It is not changed. A subclassed one whose class cannot be made again from its config comes back functional.
        check: Whether both are compared on random input before the new model is returned.
        seed: Seed of that input.
        inputs: As in `to_tf_keras`, for a subclassed `like`.

    Returns:
        `keras.Model`, with the names, trainable flags and dtype policies of `like`.

    Raises:
        BridgeError: if a layer is missing, has other weights, or the result computes something else.
    """
    view = like if is_sequential(like) else open_model(like, inputs)
    fresh = clone(like, view, inputs)
    opened = fresh if is_sequential(fresh) else open_model(fresh, inputs)
    _copy(view, opened, tf_keras_model, like.name, set())
    if check:
        check_parity(opened, tf_keras_model, seed=seed)
    return fresh


def clone(like, view, inputs=None):
    """Returns a new model of the same architecture, names, trainable flags and dtype policies, with weights of its own.

    Args:
        like: Built Keras 3 model.
        view: The functional model of its layers, for a subclassed one.
        inputs: What a subclassed one is built with.
    """
    if is_functional(like) or is_sequential(like):
        fresh = opened = _cloner()(like)
    else:
        fresh = _same_class(like, inputs)
        opened = fresh if is_functional(fresh) else open_model(fresh, inputs)
    for kept, made in zip(_flat(view), _flat(opened), strict=True):
        made.name = kept.name  # layers without a given name got the next free one
        made.trainable = kept.trainable
    _refuse_shared(view, opened, like.name)
    if [w.shape for w in fresh.weights] != [w.shape for w in like.weights]:
        raise BridgeError(
            f"A new model made like '{like.name}' has other weights: {len(fresh.weights)} of them, {fresh.count_params():,} numbers, where "
            f"'{like.name}' has {len(like.weights)}, {like.count_params():,}.",
            "layers whose get_config says all that their weights' shapes follow from",
        )
    return fresh


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
                made[id(layer)] = _again(layer)
        return made[id(layer)]

    return clone_one


def _again(layer):
    try:
        return type(layer).from_config(layer.get_config())
    except (NotImplementedError, TypeError, ValueError) as error:
        raise BridgeError(
            f"A second layer like '{layer.name}' ({type(layer).__name__}) cannot be made from its get_config(): {error}",
            "a layer that Keras can save and load",
            "give the class a get_config that holds its constructor's arguments, and decorate classes and functions of your own with "
            "@keras.saving.register_keras_serializable()",
        ) from error


def _same_class(like, inputs):
    """Makes a subclassed model again from its config, or a functional one of clones of its layers where its class cannot be."""
    try:
        fresh = type(like).from_config(like.get_config())
    except (NotImplementedError, TypeError):  # the constructor's arguments are not in the config
        return _cloner()(open_model(like, inputs))
    fresh(symbolic_inputs(like) if inputs is None else inputs)
    return fresh


def _flat(model):
    """Lists a model, its layers, and those of nested models, every model before its layers."""
    found = [model]
    for layer in model.layers:
        found.extend(_flat(layer) if isinstance(layer, keras.Model) else [layer])
    return found


def _copy(kept, fresh, tf_keras_model, path, done):
    """Fills `fresh`, a clone of `kept`, from the layers of the tf_keras model that have the names of `kept`'s."""
    _refuse_shared(kept, fresh, path)
    counterparts = {layer.name: layer for layer in tf_keras_model.layers}
    for (old, _), (new, variables) in zip(_holders(kept), _holders(fresh), strict=True):
        where = f"{path}/{old.name}"
        if id(new) in done:
            continue
        done.add(id(new))
        if old.name not in counterparts:
            raise BridgeError(
                f"The tf_keras model '{tf_keras_model.name}' has no layer for '{where}' ({type(old).__name__}). "
                + nearest(old.name, counterparts),
                "a model with the layer names of the Keras 3 model",
                "strip the wrappers of pruning or clustering first",
            )
        counterpart = counterparts[old.name]
        if isinstance(old, keras.layers.Wrapper) and isinstance(old.layer, keras.Model):
            old, new, counterpart = old.layer, new.layer, counterpart.layer
        if isinstance(old, keras.Model):
            _copy(_opened(old), _opened(new), counterpart, where, done)
        elif isinstance(old, keras.layers.Normalization):
            copy_weights(old.weights, variables, where)
            new.finalize_state()
        else:
            copy_weights(counterpart.weights, variables, where)


def _refuse_shared(kept, fresh, path):
    """Refuses a clone whose operations still use the variables of the original: filling it would change the original."""
    for (old, olds), (_, news) in zip(_holders(kept), _holders(fresh), strict=True):
        if any(a is b for a, b in zip(olds, news, strict=True)):
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
