"""What this library adds to TFMOT's quantizers: masks that are saved, ranges that start from the data, configs that can be written down.

The classes derive from TFMOT's, so they are made at first use.
"""

import functools
import typing

from tfdistill.legacy import door

MASK = "sparsity_mask"


class QuantizeParts(typing.NamedTuple):
    """What a quantization scheme of one's own is made of: TFMOT's classes, and the module `registry` of its configs."""

    layout: type
    registry: typing.Any
    scheme: type
    separable: type
    transformer: type


@functools.cache
def quantize_parts():
    """Returns TFMOT's `QuantizeParts`."""
    door.tfmot()
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
        default_8bit_quantize_layout_transform,
        default_8bit_quantize_registry,
        default_8bit_quantize_scheme,
        default_8bit_transforms,
    )
    from tensorflow_model_optimization.python.core.quantization.keras.graph_transformations import model_transformer

    return QuantizeParts(
        layout=default_8bit_quantize_layout_transform.Default8BitQuantizeLayoutTransform,
        registry=default_8bit_quantize_registry,
        scheme=default_8bit_quantize_scheme.Default8BitQuantizeScheme,
        separable=default_8bit_transforms.SeparableConvQuantize,
        transformer=model_transformer.ModelTransformer,
    )


@functools.cache
def own_classes():
    """Returns a dict of name to class: TFMOT quantizers and `QuantizeConfig`s that a rebuilt model needs."""
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
                f"{name}_batches", shape=(), initializer="zeros", trainable=False, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
            )
            return {**self.quantizer.build(tensor_shape, name, layer), "batches": batches}

        def __call__(self, inputs, training, weights, **kwargs):
            if training:
                momentum = tf.minimum(weights["batches"] / (weights["batches"] + 1.0), 0.99)
                # An integer zero point needs a range that holds zero.
                low = tf.minimum(tf.cast(tf.reduce_min(inputs), tf.float32), 0.0)
                high = tf.maximum(tf.cast(tf.reduce_max(inputs), tf.float32), 0.0)
                move = tf.__internal__.train.assign_moving_average
                moved = [
                    move(weights["min_var"], low, momentum, zero_debias=False),
                    move(weights["max_var"], high, momentum, zero_debias=False),
                ]
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
    kind = own_classes()["PromptQuantizeConfig"]
    return config if isinstance(config, kind) else kind(config, masked)


def output_only_config():
    """Returns a TFMOT `QuantizeConfig` that quantizes a layer's output and nothing else of it."""
    door.tfmot()
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import default_8bit_quantize_configs

    return default_8bit_quantize_configs.Default8BitOutputQuantizeConfig()


def make_serializable(layer):
    """Replaces a quantization wrapper's config by an equal one that can be written down, where TFMOT's own cannot."""
    if type(layer.quantize_config).__name__ == "OutputOnlyConfig":
        layer.quantize_config = own_classes()["SerializableOutputOnlyConfig"](layer.quantize_config.quantize_config)
