"""Facts about layers and graphs that Keras 3 and tf_keras keep in private attributes, each read by one function."""

import functools

from tfdistill.graph.functional import is_functional, is_sequential
from tfdistill.graph.keras_internals import is_keras_own

_MAKING = ("__new__", "__init__", "get_config", "from_config")


def is_graph_network(model):
    """Returns whether a tf_keras model was built functionally, so that its graph says what it computes.

    Args:
        model: `tf_keras.Model`; for a Sequential one, whether its input shape is known.
    """
    return bool(model._is_graph_network)


def graph_nodes(model):
    """Lists the nodes of a functional tf_keras model: one for each call of a layer, and one for each input (`node.is_input`).

    Args:
        model: Functional or built Sequential `tf_keras.Model`.
    """
    return [node for nodes in model._nodes_by_depth.values() for node in nodes]


def producer(tensor):
    """Returns the layer whose output a symbolic tf_keras tensor is."""
    return tensor._keras_history.layer


def carries_mask(tensor):
    """Returns whether a mask travels with a symbolic tf_keras tensor."""
    return getattr(tensor, "_keras_mask", None) is not None


def with_mask_of(tensor, made, change):
    """Lets the mask that travels with one tf_keras tensor travel with another one that was made of it.

    Args:
        tensor: The one that has the mask, if there is one.
        made: The other one, which is returned.
        change: Function of the mask that returns that of the other one.
    """
    if (mask := getattr(tensor, "_keras_mask", None)) is not None:
        made._keras_mask = change(mask)
    return made


def is_called_with(layer, place, name):
    """Returns whether a call of a tf_keras layer gives an argument, be it a tensor or a constant.

    Args:
        layer: A tf_keras layer.
        place: Place of the argument among those without names.
        name: Its name.
    """
    given = [node.call_args[place : place + 1] or (node.call_kwargs.get(name),) for node in layer.inbound_nodes]
    return any(argument is not None for (argument,) in given)


def standardized_axes(layer):
    """Lists the axes along which a built tf_keras `Normalization` has a mean and a variance for each index, counted from 0."""
    return list(layer._keep_axis)


def is_reversed(layer, source):
    """Returns whether a tf_keras layer reads the output of another one in a call with `reverse=True`, as an embedding that gives logits.

    Args:
        layer: A tf_keras layer.
        source: The other one.
    """
    calls = [node for node in layer.inbound_nodes if node.call_kwargs.get("reverse")]
    return any(producer(tensor) is source for node in calls for tensor in node.keras_inputs)


def as_function(layer, call=0):
    """Returns a tf_keras layer as a function of the tensors of one of its calls.

    Args:
        layer: A tf_keras layer.
        call: Number of the call.

    Returns:
        Tuple of the function, the list of the tensors' specs, and the function as it is in training, None for the same. The list is empty if the layer was never
        called.
    """
    import tensorflow as tf

    if not layer.inbound_nodes:
        return layer, [], None
    node = layer.inbound_nodes[call]
    flat = tf.nest.flatten((node.call_args, node.call_kwargs))
    positions = [i for i, x in enumerate(flat) if hasattr(x, "_keras_history")]

    def function(*tensors, **settings):
        filled = list(flat)
        for i, tensor in zip(positions, tensors, strict=True):
            filled[i] = tensor
        args, kwargs = tf.nest.pack_sequence_as((node.call_args, node.call_kwargs), filled)
        return layer(*args, **{**kwargs, **settings})

    specs = [tf.TensorSpec(flat[i].shape, flat[i].dtype) for i in positions]
    return function, specs, functools.partial(function, training=True) if layer._expects_training_arg else None


def function_of_one(layer):
    """Returns what a layer that stands for an operation computes, as a function of one tensor of floats; None where it needs others or has weights.

    Args:
        layer: A tf_keras layer for an operation of `keras.ops`, or for a TensorFlow operation on tensors of Keras.
    """
    import tensorflow as tf

    if layer.inbound_nodes and not all(tensor.dtype.is_floating for tensor in layer.inbound_nodes[0].keras_inputs):
        return None
    if hasattr(layer, "compute"):
        return layer.compute if layer.is_unary else None
    if not hasattr(layer, "function") or not layer.inbound_nodes:
        return None
    node = layer.inbound_nodes[0]
    return layer.function if len(tf.nest.flatten((node.call_args, node.call_kwargs))) == 1 else None


def activation_as_function(layer):
    """Returns the activation of a tf_keras layer, and the list of the one spec of the layer's output; the list is empty if the layer was never called."""
    import tensorflow as tf

    if not layer.inbound_nodes:
        return layer.activation, []
    output = tf.nest.flatten(layer.inbound_nodes[0].outputs)[0]
    return layer.activation, [tf.TensorSpec(output.shape, output.dtype)]


def is_remade_from_graph(model):
    """Returns whether a Keras 3 model's class makes it again from the config of its layers and their connections, as Keras's own classes do.

    That is so for a functional or Sequential model whose class overrides neither its constructor nor its config, such as one with only a `train_step`.
    A copy then computes what copies of the layers compute.

    Args:
        model: Built `keras.Model`.
    """
    definers = [next(kind for kind in type(model).__mro__ if name in vars(kind)) for name in _MAKING]
    return (is_functional(model) or is_sequential(model)) and all(is_keras_own(kind) for kind in definers)
