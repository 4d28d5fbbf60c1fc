"""The graphs of a Keras 3 model and of its tf_keras copy, as the comparison of their layers walks over them."""

import collections
import typing

import keras
import numpy as np
import tensorflow as tf

from tfdistill.bridge.parity.run import arrays, run_keras
from tfdistill.graph.functional import calls, input_operation


class SeenCalls(typing.NamedTuple):
    """What a Keras 3 model computes on some inputs.

    Attributes:
        named: Dict of a layer's name to its calls.
        values: Dict of a symbolic tensor (its id) to its value, which carries its mask.
        outputs: The model's outputs, flat.
    """

    named: dict
    values: dict
    outputs: list


def run_every_call(model, inputs, training):
    """Runs a functional Keras 3 model and keeps the tensors between its layers; returns `SeenCalls`."""
    every = list(calls(model))
    symbolic = [tensor for call in every for tensor in call.outputs]
    found = run_keras(keras.Model(model.input, [*symbolic, *model.outputs]), inputs, training)
    named = collections.defaultdict(list)
    for call in every:
        named[call.operation.name].append(call)
    values = zip([*model.inputs, *symbolic], [*keras.tree.flatten(inputs), *found[: len(symbolic)]], strict=True)
    return SeenCalls(named, {id(tensor): value for tensor, value in values}, found[len(symbolic) :])


def has_graph(tf_keras_model):
    """Whether a tf_keras model is functional, or a Sequential one that is built."""
    return getattr(tf_keras_model, "_nodes_by_depth", None) is not None


def nodes(model):
    """Yields the nodes of a tf_keras model, one for each call of a layer, in an order in which each one's inputs are there."""
    for depth in sorted(model._nodes_by_depth, reverse=True):
        yield from (node for node in model._nodes_by_depth[depth] if not node.is_input)


def filled(node, values):
    """Returns the arguments (args, kwargs) of a tf_keras call with values in place of its symbolic tensors, by their ids."""
    return tf.nest.map_structure(lambda x: values.get(id(x), x), (tuple(node.call_args), dict(node.call_kwargs)))


def foreign_reads(node, call):
    """Returns names of the layers that a tf_keras call reads and a Keras 3 call does not."""
    sources = {input_operation(tensor).name for tensor in call.tensors()}
    names = [tensor._keras_history.layer.name for tensor in node.keras_inputs]
    return tuple(dict.fromkeys(name for name in names if name not in sources))


def conformed(model, fed):
    """Returns a dict of input tensor (its id) to value, as tf_keras itself assigns what a model is called with: by order, or by name from a dict."""
    flat = model._flatten_to_reference_inputs(tf.nest.map_structure(tf.convert_to_tensor, fed))
    return {id(symbolic): model._conform_to_reference_input(x, ref_input=symbolic) for symbolic, x in zip(model.inputs, flat, strict=True)}


def flat(structure):
    """Returns the tensors of a structure in the order in which tf_keras flattens it."""
    return tf.nest.flatten(structure)


def same_order(model, counterpart):
    """Whether the inputs of the two models have the same names in the same order."""
    names = [[tensor._keras_history[0].name for tensor in one.inputs] for one in (model, counterpart)]
    return names[0] == names[1]


def values_of(call, seen):
    """Returns the outputs of a Keras 3 call as arrays.

    Args:
        call: `graph.Call`.
        seen: Dict of a symbolic tensor (its id) to its value.
    """
    return arrays([seen[id(tensor)] for tensor in call.outputs])


def constant(value, mask_of):
    """Returns an array as a tensor that carries the mask of another one."""
    tensor = tf.constant(value)
    tensor._keras_mask = getattr(mask_of, "_keras_mask", None)
    return tensor


def unmasked(ours, theirs):
    """Returns tensors of a tf_keras layer with Keras 3's values where their masks hide them, as the two Keras differ where all scores are masked.

    Args:
        ours: Arrays of the Keras 3 layer.
        theirs: Tensors of the tf_keras layer, as many.
    """
    found = []
    for one, tensor in zip(ours, theirs, strict=True):
        mask, (other,) = getattr(tensor, "_keras_mask", None), arrays([tensor])
        if mask is not None and one.shape == other.shape and tuple(mask.shape) == other.shape[: len(mask.shape)]:
            other = np.where(np.asarray(mask).reshape(*mask.shape, *[1] * (other.ndim - len(mask.shape))), other, one)
        found.append(constant(other, mask_of=tensor))
    return found
