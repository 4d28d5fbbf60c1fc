"""What this library adds to TFMOT's quantization, and how TFMOT's wrappers are seen through.

TFMOT wraps and renames layers (`quant_conv`), keeps its masks and ranges among the weights, and writes no quantizer into its configs. Here are the
functions that find the user's layer, kernel and mask again, and the classes that a rebuilt model needs.
"""

import contextlib
import functools
import json
import types

import keras

from tfdistill.legacy import door
from tfdistill.legacy.activations import translate_activation
from tfdistill.legacy.hosted import layer_class, operation_class

MASK = "sparsity_mask"


@functools.cache
def wrapper_classes():
    """Returns the tuple of TFMOT classes that wrap one layer: pruning, clustering, quantization."""
    door.tfmot()
    from tensorflow_model_optimization.python.core.clustering.keras.cluster_wrapper import ClusterWeights
    from tensorflow_model_optimization.python.core.quantization.keras.quantize_wrapper import QuantizeWrapper
    from tensorflow_model_optimization.python.core.sparsity.keras.pruning_wrapper import PruneLowMagnitude

    return PruneLowMagnitude, ClusterWeights, QuantizeWrapper


@functools.cache
def quantize_layer_class():
    """Returns TFMOT's `QuantizeLayer`, which it puts behind every input."""
    door.tfmot()
    from tensorflow_model_optimization.python.core.quantization.keras.quantize_layer import QuantizeLayer

    return QuantizeLayer


def _from_tfmot(layer):
    return type(layer).__module__.startswith("tensorflow_model_optimization.")


def is_wrapper(layer):
    """Says whether `layer` is one of TFMOT's wrappers around a user's layer. Does not import TFMOT when it was never used."""
    return _from_tfmot(layer) and isinstance(layer, wrapper_classes())


def is_input_quantizer(layer):
    """Says whether `layer` is the quantizer that TFMOT puts behind an input: no layer of the user's."""
    return _from_tfmot(layer) and isinstance(layer, quantize_layer_class())


def is_pruned(layer):
    """Says whether `layer` is TFMOT's pruning wrapper."""
    return _from_tfmot(layer) and isinstance(layer, wrapper_classes()[0])


def is_quantized(layer):
    """Says whether `layer` is TFMOT's quantization wrapper."""
    return _from_tfmot(layer) and isinstance(layer, wrapper_classes()[2])


def unwrap(layer):
    """Returns the user's own layer inside TFMOT's wrappers, or `layer` itself."""
    while is_wrapper(layer):
        layer = layer.layer
    return layer


def own_variables(layer):
    """Returns the variables that TFMOT added around `layer`: masks, thresholds, steps and ranges; never a weight of the user's."""
    if is_input_quantizer(layer):
        return list(layer.weights)
    return list(layer._non_trainable_weights) if is_wrapper(layer) else []


@functools.cache
def _own_classes():
    tfmot = door.tfmot()
    import tensorflow as tf
    from tensorflow_model_optimization.python.core.quantization.keras import quantize_config, utils

    keras_base = tfmot.quantization.keras

    class SparseWeightsQuantizer(keras_base.quantizers.Quantizer):
        """Quantizes a weight under a fixed mask, so that its zeros stay zero.

        The mask is a variable of the wrapper: unlike TFMOT's own sparsity-preserving quantizer, whose mask is a constant of one process, it is in
        every checkpoint. It multiplies the weight before the fake quantization, so the gradient of a masked weight is zero as well.
        """

        def __init__(self, quantizer):
            self.quantizer = quantizer

        def build(self, tensor_shape, name, layer):
            mask = layer.add_weight(f"{name}_{MASK}", shape=tensor_shape, initializer="ones", trainable=False)
            return {**self.quantizer.build(tensor_shape, name, layer), MASK: mask}

        def __call__(self, inputs, training, weights, **kwargs):
            return self.quantizer(tf.multiply(inputs, tf.cast(weights[MASK], inputs.dtype)), training, weights=weights, **kwargs)

        def get_config(self):
            return {"quantizer": utils.serialize_keras_object(self.quantizer)}

        @classmethod
        def from_config(cls, config):
            return cls(utils.deserialize_keras_object(config["quantizer"]))

    class PromptRangeQuantizer(keras_base.quantizers.Quantizer):
        """Quantizes activations to a moving average of their range that starts from the first batch.

        TFMOT's own starts from -6 to 6 and forgets that at 0.1 % a batch: after 500 batches, 60 % of it is still there. This one is the plain mean of
        the ranges of the first 100 batches, and a moving average with a momentum of 0.99 from there on.
        """

        def __init__(self, quantizer):
            self.quantizer = quantizer

        def build(self, tensor_shape, name, layer):
            batches = layer.add_weight(
                f"{name}_batches", shape=(), initializer="zeros", trainable=False, aggregation=tf.VariableAggregation.MEAN
            )
            return {**self.quantizer.build(tensor_shape, name, layer), "batches": batches}

        def __call__(self, inputs, training, weights, **kwargs):
            if training:
                momentum = tf.minimum(weights["batches"] / (weights["batches"] + 1.0), 0.99)
                # An integer zero point needs a range that holds zero.
                low = tf.minimum(tf.cast(tf.reduce_min(inputs), tf.float32), 0.0)
                high = tf.maximum(tf.cast(tf.reduce_max(inputs), tf.float32), 0.0)
                move = tf.__internal__.train.assign_moving_average
                moved = [move(weights["min_var"], low, momentum, zero_debias=False), move(weights["max_var"], high, momentum, zero_debias=False)]
                with tf.control_dependencies([tf.convert_to_tensor(value) for value in moved]):
                    weights["batches"].assign_add(1.0)
            return self.quantizer(inputs, False, weights=weights, **kwargs)

        def get_config(self):
            return {"quantizer": utils.serialize_keras_object(self.quantizer)}

        @classmethod
        def from_config(cls, config):
            return cls(utils.deserialize_keras_object(config["quantizer"]))

    def prompt(quantizer):
        return PromptRangeQuantizer(quantizer) if isinstance(quantizer, keras_base.quantizers.MovingAverageQuantizer) else quantizer

    class PromptQuantizeConfig(keras_base.QuantizeConfig):
        """Another `QuantizeConfig` with ranges that start from the first batch and, if `masked`, with every weight quantized under a mask."""

        def __init__(self, config, masked=False):
            self.config, self.masked = config, masked

        def get_weights_and_quantizers(self, layer):
            pairs = self.config.get_weights_and_quantizers(layer)
            return [(weight, SparseWeightsQuantizer(quantizer)) for weight, quantizer in pairs] if self.masked else pairs

        def get_activations_and_quantizers(self, layer):
            return [(activation, prompt(quantizer)) for activation, quantizer in self.config.get_activations_and_quantizers(layer)]

        def set_quantize_weights(self, layer, quantize_weights):
            self.config.set_quantize_weights(layer, quantize_weights)

        def set_quantize_activations(self, layer, quantize_activations):
            self.config.set_quantize_activations(layer, quantize_activations)

        def get_output_quantizers(self, layer):
            return [prompt(quantizer) for quantizer in self.config.get_output_quantizers(layer)]

        def get_config(self):
            return {"config": utils.serialize_keras_object(self.config), "masked": self.masked}

        @classmethod
        def from_config(cls, config):
            return cls(utils.deserialize_keras_object(config["config"]), config["masked"])

    class SerializableOutputOnlyConfig(quantize_config.OutputOnlyConfig):
        """TFMOT's config for a layer that only has to give its output's range to the next one, in a form that can be written down."""

        def get_config(self):
            return {"config": utils.serialize_keras_object(self.quantize_config)}

        @classmethod
        def from_config(cls, config):
            return cls(utils.deserialize_keras_object(config["config"]))

    return {
        "SparseWeightsQuantizer": SparseWeightsQuantizer,
        "PromptRangeQuantizer": PromptRangeQuantizer,
        "PromptQuantizeConfig": PromptQuantizeConfig,
        "SerializableOutputOnlyConfig": SerializableOutputOnlyConfig,
    }


def prompt_quantize_config(config, masked):
    """Returns a TFMOT `QuantizeConfig` that does what `config` does, with ranges from the first batch on, and weights under a mask if `masked`."""
    kind = _own_classes()["PromptQuantizeConfig"]
    return config if isinstance(config, kind) else kind(config, masked)


def output_only_config():
    """Returns a TFMOT `QuantizeConfig` that quantizes a layer's output and nothing else of it."""
    door.tfmot()
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import default_8bit_quantize_configs

    return default_8bit_quantize_configs.Default8BitOutputQuantizeConfig()


def make_serializable(layer):
    """Replaces a quantization wrapper's config by an equal one that can be written down, where TFMOT's own cannot."""
    if type(layer.quantize_config).__name__ == "OutputOnlyConfig":
        layer.quantize_config = _own_classes()["SerializableOutputOnlyConfig"](layer.quantize_config.quantize_config)


def masks_of(layer):
    """Lists the weights of one live layer that a mask holds: pairs of (weight variable, mask variable), from pruning or from sparse QAT."""
    if is_pruned(layer):
        return [(weight, mask) for weight, mask, _ in layer.pruning_vars]
    if is_quantized(layer):
        return [(weight, variables[MASK]) for weight, _, variables in layer._weight_vars if MASK in variables]
    return []


def weight_named(layer, attribute):
    """Returns the variable behind an attribute such as `"kernel"` or `"cell.kernel"` of a live layer, through TFMOT's wrappers.

    A quantization wrapper replaces the attribute by the quantized tensor of its last trace, so there the variable is taken from the wrapper.

    Returns:
        The variable, or None when the layer has none under that attribute.
    """
    if is_quantized(layer):
        last = attribute.rpartition(".")[2]
        for weight, _, _ in layer._weight_vars:
            if layer._weight_name(weight.name) == last:
                return weight
    value = unwrap(layer)
    for part in attribute.split("."):
        value = getattr(value, part, None)
    return value


@functools.cache
def _register_bridge_classes():
    # A new process that only loads a file has converted nothing yet.
    operation_class()
    layer_class()
    for name in dir(keras.activations):
        activation = getattr(keras.activations, name)
        if isinstance(activation, types.FunctionType) and name not in ("get", "serialize", "deserialize"):
            translate_activation(activation)


@contextlib.contextmanager
def legacy_scope(custom_objects=None):
    """The scope in which a model with TFMOT's and this library's classes can be rebuilt from its config."""
    tfmot = door.tfmot()
    from tensorflow_model_optimization.python.core.clustering.keras import cluster

    _register_bridge_classes()

    with (
        tfmot.sparsity.keras.prune_scope(),
        cluster.cluster_scope(),
        tfmot.quantization.keras.quantize_scope({**_own_classes(), **(custom_objects or {})}),
    ):
        yield


def config_of(legacy):
    """Returns the JSON text from which `legacy_model` rebuilds a tf_keras model, TFMOT's wrappers included."""
    with plain_activations(legacy):
        return json.dumps(_without_build_config(json.loads(legacy.to_json())))


def legacy_model(text, custom_objects=None):
    """Rebuilds the tf_keras model that `config_of` described, with fresh weights."""
    with legacy_scope(custom_objects):
        return door.tf_keras().models.model_from_json(text)


def _without_build_config(config):
    # Building from a build_config makes some of TFMOT's layers build twice, and their ranges twice with them.
    if isinstance(config, dict):
        return {key: _without_build_config(value) for key, value in config.items() if key != "build_config"}
    return [_without_build_config(value) for value in config] if isinstance(config, list) else config


@contextlib.contextmanager
def plain_activations(legacy):
    """While open, quantization wrappers show the activations that they were made with.

    A traced wrapper has put its own fake-quantizing activation into the layer. Written into a config as it stands, that would come back as one
    more quantizer in the rebuilt model.
    """
    replaced = []
    for layer in legacy._flatten_layers():
        if is_quantized(layer) and layer.built and layer._quantize_activations:
            own = [activation.activation for activation in layer._quantize_activations]
            layer.quantize_config.set_quantize_activations(layer.layer, own)
            replaced.append(layer)
    try:
        yield
    finally:
        for layer in replaced:
            layer.quantize_config.set_quantize_activations(layer.layer, layer._quantize_activations)


def ranges_of(layer):
    """Lists the quantization ranges of one quantization wrapper: tuples of (what, minimum variable, maximum variable)."""
    found = [(layer._weight_name(weight.name), variables) for weight, _, variables in layer._weight_vars]
    for activation in layer._quantize_activations:
        for kind in ("pre_activation", "post_activation"):
            variables = getattr(activation, f"_{kind}_vars", None)
            if variables is not None:
                found.append((kind.replace("_", " "), variables))
    if layer._output_quantizers:
        found.append(("output", layer._output_quantizer_vars))
    return [(what, variables["min_var"], variables["max_var"]) for what, variables in found]
