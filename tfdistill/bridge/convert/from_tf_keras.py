"""Rebuilds a tf_keras model in Keras 3 from its own graph, layer by layer, where there is no Keras 3 model that it was made from."""

import functools
import inspect

import keras

from tfdistill.bridge import imports
from tfdistill.bridge.adopt.introspection import is_input_quantizer, is_wrapper
from tfdistill.bridge.convert.activations import SAME
from tfdistill.bridge.convert.constructors import constructor_arguments
from tfdistill.bridge.convert.operations import operation_named
from tfdistill.bridge.convert.weights import copy_weights
from tfdistill.bridge.layer_facts import is_graph_network, producer
from tfdistill.bridge.parity.graphs import filled, flat, nodes
from tfdistill.errors import BridgeError
from tfdistill.graph.functional import input_operation

RENAMED = {("LeakyReLU", "alpha"): "negative_slope"}
# Arguments that Keras 3 lacks, with the values under which the layer computes the same without them, besides None and False, which switch a setting off;
# None here stands for any value.
HARMLESS = {
    "batch_input_shape": None,
    "fused": None,
    "groups": (1,),
    "implementation": None,
    "input_dim": None,
    "input_length": None,
    "rng_type": None,
}
# What every layer is given anyway, and what is a weight or a state afterwards.
_OWN = ("name", "trainable", "dtype", "query_shape", "key_shape", "value_shape", "weights")


def from_tf_keras(model):
    """Makes a Keras 3 model of the layers, connections and weights of a tf_keras model.

    Args:
        model: Functional or built Sequential `tf_keras.Model`, without wrappers of TFMOT.

    Returns:
        `keras.Model`: Sequential where `model` is, else functional. Its weights have the values of the tf_keras model's, to the bit.

    Raises:
        BridgeError: if a layer has no counterpart in Keras 3; the message names it.
    """
    rebuilding = _Rebuilding()
    made = rebuilding.model(model, model.name, bool(model.trainable))
    for old, new, path in rebuilding.pairs:
        copy_weights(old.weights, new.weights, path)
        if isinstance(new, keras.layers.Normalization):
            new.finalize_state()
    for layer, trainable in rebuilding.flags:
        layer.trainable = trainable
    return made


class _Rebuilding:
    """One translation of a model: remembers what every layer became, so that shared layers stay shared, across nested models too."""

    def __init__(self):
        self.made = {}  # id of a tf_keras layer or model -> (it, its counterpart)
        self.pairs = []  # (tf_keras layer, counterpart, path) of every layer with weights
        self.flags = []  # (counterpart, whether it is trained) of every layer

    def model(self, model, path, trainable):
        sequential = isinstance(model, imports.tf_keras().Sequential)
        if not model.built or not (is_graph_network(model) or (sequential and model.inputs)):
            raise BridgeError(
                f"The tf_keras model '{path}' ({type(model).__name__}) is not functional: its call is Python code, from which no layers can be read.",
                "a functional or Sequential tf_keras model",
                "give the Keras 3 model that it was made from: to_keras(model, like=keras_model); or adopt it as it is: tfdistill.adopt(model)",
            )
        inputs = [self._input(tensor) for tensor in model.inputs]
        if sequential:
            layers = [self.layer(layer, f"{path}/{layer.name}", trainable) for layer in model.layers]
            made = keras.Sequential([*inputs, *layers], name=_plain_name(model.name))
        else:
            made = self._functional(model, inputs, path, trainable)
        self.made[id(model)] = (model, made)
        return made

    def _input(self, tensor):
        import tensorflow as tf

        if isinstance(tensor.type_spec, tf.RaggedTensorSpec):
            raise BridgeError(f"The input '{tensor.name}' is ragged, which Keras 3 does not have.", fix=_ADOPT)
        return keras.Input(
            batch_shape=tuple(tensor.shape), dtype=tensor.dtype.name, name=_plain_name(producer(tensor).name), sparse=_is_sparse(tensor)
        )

    def _functional(self, model, inputs, path, trainable):
        import tensorflow as tf

        tensors = {id(old): made for old, made in zip(model.inputs, inputs, strict=True)}
        for node in nodes(model):
            where = f"{path}/{node.layer.name}"
            function = self.layer(node.layer, where, trainable)
            args, kwargs = filled(node, tensors)
            try:
                outputs = function(*args, **kwargs)
            except (TypeError, ValueError, NotImplementedError) as error:
                if isinstance(error, BridgeError):
                    raise
                raise BridgeError(
                    f"The layer '{where}' ({type(node.layer).__name__}) was rebuilt in Keras 3, but cannot be called there as it is in tf_keras: "
                    f"{type(error).__name__}: {error}",
                    fix=_ADOPT,
                ) from error
            for old, made in zip(flat(node.outputs), keras.tree.flatten(outputs), strict=True):
                tensors[id(old)] = made
                if not isinstance(function, keras.layers.Layer):
                    input_operation(made).name = _plain_name(node.layer.name)  # one that Keras gives may be a layer's
        structure, outputs = (tf.nest.map_structure(lambda x: tensors[id(x)], s) for s in (model.input, model.output))
        return keras.Model(structure, outputs, name=_plain_name(model.name))

    def layer(self, layer, path, trainable):
        """Returns the counterpart of a layer, nested model or operation, the same one every time."""
        if id(layer) in self.made:
            return self.made[id(layer)][1]
        trainable = trainable and bool(layer.trainable)
        if isinstance(layer, imports.tf_keras().Model):
            made = self.model(layer, path, trainable)
        elif (operation := operation_named(layer, path)) is not None:
            made = operation
        else:
            made = self._same_class(layer, path)
            self.flags.append((made, trainable))
            if layer.weights:
                self.pairs.append((layer, made, path))
        self.made[id(layer)] = (layer, made)
        return made

    def _same_class(self, layer, path):
        kind = type(layer)
        if is_wrapper(layer) or is_input_quantizer(layer):
            raise BridgeError(
                f"The layer '{path}' is a {kind.__name__}: a wrapper of pruning, clustering or quantization.",
                "a model without such wrappers",
                "strip it by the step that made it, or adopt the model as it is: tfdistill.adopt(model)",
            )
        name = _public_names().get(kind)
        target = getattr(keras.layers, name, None) if name else None
        if target is None or name == "Lambda":
            what = "a Python function" if name == "Lambda" else f"the class {kind.__module__}.{kind.__name__}"
            raise BridgeError(f"The layer '{path}' is {what}, which has no counterpart in Keras 3.", "layers of Keras", _ADOPT)
        accepted, arguments = constructor_arguments(target), {}
        for key, value in layer.get_config().items():
            if key in _OWN or key.endswith("_initializer"):
                continue  # weights are copied
            renamed = RENAMED.get((name, key), key)
            if renamed not in accepted:
                if value in (None, False) or (key in HARMLESS and (HARMLESS[key] is None or value in HARMLESS[key])):
                    continue
                raise BridgeError(f"The layer '{path}' ({name}) has the setting {key}={value!r}, which Keras 3 lacks.", fix=_ADOPT)
            arguments[renamed] = self._value(layer, name, key, value, path)
        return target(**arguments, name=_plain_name(layer.name), dtype=layer.dtype_policy.name)

    def _value(self, layer, name, key, value, path):
        if key.endswith("activation"):
            return self._activation(getattr(layer, key, None), path)
        if key.endswith(("regularizer", "constraint")):
            return _object(keras.regularizers if key.endswith("regularizer") else keras.constraints, value, key, path)
        if key == "cells":
            return [self.layer(cell, f"{path}/{cell.name}", True) for cell in layer.cells]
        if key in ("layer", "backward_layer", "cell"):
            return self._inner(layer, key, value, path)
        if name == "BatchNormalization" and key == "axis":
            return int(value[0] if isinstance(value, (list, tuple)) else value)
        return list(value) if isinstance(value, (list, tuple)) else value

    def _inner(self, layer, key, value, path):
        if value is None:
            return None
        # `layer` of a Bidirectional is a template; what runs is its forward layer, renamed.
        inner = getattr(layer, "forward_layer", None) if key == "layer" else None
        inner = getattr(layer, key) if inner is None else inner
        if key == "backward_layer" and "backward_layer" not in layer.get_config():
            return None
        if isinstance(inner, imports.tf_keras().Model):
            return self.model(inner, f"{path}/{inner.name}", True)
        made = self._same_class(inner, f"{path}/{inner.name}")
        if hasattr(layer, "forward_layer"):
            made.name = value["config"]["name"]
        return made

    def _activation(self, activation, path):
        if activation is None:
            return None
        tf_keras = imports.tf_keras()
        if isinstance(activation, tf_keras.layers.Layer):
            return self._same_class(activation, f"{path}/{activation.name}")
        name = getattr(activation, "__name__", None)
        own = name is not None and getattr(tf_keras.activations, name, None) is activation
        if own and name in ("silu", "swish"):
            return "silu"
        if own and name in SAME:
            return name
        if not own and name in vars(keras.activations) and tf_keras.saving.get_registered_name(activation) == f"tfdistill>{name}":
            return name  # Keras 3's own, as `translate_activation` takes it to tf_keras
        raise BridgeError(
            f"The activation {name!r} of the layer '{path}' has no counterpart in Keras 3 that computes the same.",
            f"one of {', '.join(sorted(SAME))}, silu",
            _ADOPT,
        )


_ADOPT = "give the Keras 3 model that it was made from: to_keras(model, like=keras_model); or adopt it as it is: tfdistill.adopt(model)"


def _plain_name(name):
    return name.replace("/", "_")  # Keras 3 takes a slash for a path


def _is_sparse(tensor):
    import tensorflow as tf

    return isinstance(tensor.type_spec, tf.SparseTensorSpec)


def _object(module, value, key, path):
    if value is None:
        return None
    name, config = (value, {}) if isinstance(value, str) else (value["class_name"], value["config"])
    known = getattr(module, name, None)
    if known is None:
        raise BridgeError(
            f"The {key} of the layer '{path}' is of the class {name}, which Keras 3 does not have.",
            "a regularizer or constraint of Keras",
            _ADOPT,
        )
    return known(**config)


@functools.cache
def _public_names():
    layers = imports.tf_keras().layers
    return {value: name for name, value in vars(layers).items() if inspect.isclass(value) and not name.startswith("_")}
