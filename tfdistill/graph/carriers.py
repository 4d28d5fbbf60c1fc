"""Layers that stand in an opened layer's graph for what no layer of Keras does: its own weights, its constants, and the masks that it puts on its outputs."""

import keras
import numpy as np
import tensorflow as tf

from tfdistill.graph.keras_internals import is_keras_own


@keras.saving.register_keras_serializable(package="tfdistill")
class HeldWeight(keras.layers.Layer):
    """Returns a weight that it holds, whatever it is called with: a weight of an opened layer, as a tensor of the graph.

    Args:
        shape: Shape of the weight.
        weight_dtype: Type of the weight.
        weight_name: Name of the weight.
        regularizer: Penalty on the weight, as Keras serializes it, or None.
    """

    def __init__(self, shape, weight_dtype="float32", weight_name="weight", regularizer=None, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.shape, self.weight_dtype, self.weight_name = tuple(shape), weight_dtype, weight_name
        self.regularizer = keras.regularizers.get(regularizer)
        self.weight = None

    @classmethod
    def of(cls, variable, layer):
        """Returns a new one around a variable of a layer, which the two then share.

        Args:
            variable: `keras.Variable`.
            layer: The layer that computes with it; its dtype policy says what the weight is cast to.
        """
        dtype = keras.backend.standardize_dtype(variable.dtype)
        made = cls(variable.shape, dtype, variable.name, variable.regularizer, dtype=layer.dtype_policy, trainable=variable.trainable)
        made.weight, made.built = variable, True
        return made

    def build(self, input_shape=None):
        if self.weight is None:
            self.weight = self.add_weight(
                name=self.weight_name, shape=self.shape, dtype=self.weight_dtype, initializer="zeros", regularizer=self.regularizer
            )

    def call(self, inputs):
        return tf.identity(keras.ops.convert_to_tensor(self.weight))

    def compute_output_spec(self, inputs):
        cast = keras.backend.is_float_dtype(self.weight_dtype) and self.weight is not None and self.weight._autocast
        return keras.KerasTensor(self.shape, dtype=self.compute_dtype if cast else self.weight_dtype)

    def compute_mask(self, inputs, previous_mask=None):
        return None

    def get_config(self):
        return {
            **super().get_config(),
            "shape": list(self.shape),
            "weight_dtype": self.weight_dtype,
            "weight_name": self.weight_name,
            "regularizer": keras.regularizers.serialize(self.regularizer) if self.regularizer else None,
        }


@keras.saving.register_keras_serializable(package="tfdistill")
class WithMask(keras.layers.Layer):
    """Puts a mask on a tensor. It is called on both, in a list: the tensor, and the mask as a boolean tensor."""

    def __init__(self, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True

    def build(self, input_shape=None):
        pass

    def call(self, inputs):
        return tf.identity(inputs[0])  # a tensor of its own: the mask must not reach others who read the first one

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs[0].shape, dtype=inputs[0].dtype)

    def compute_mask(self, inputs, previous_mask=None):
        return inputs[1]


@keras.saving.register_keras_serializable(package="tfdistill")
class HeldConstant(keras.layers.Layer):
    """Returns an array, whatever it is called with: what an opened layer calls another layer on, where that is no input, such as the positions of tokens.

    Args:
        value: The array, or nested lists of its numbers.
        value_dtype: Type of the array.
    """

    def __init__(self, value, value_dtype, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.value, self.value_dtype = np.asarray(value), value_dtype

    def build(self, input_shape=None):
        pass

    def call(self, inputs):
        return keras.ops.convert_to_tensor(self.value, dtype=self.value_dtype)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(self.value.shape, dtype=self.value_dtype)

    def compute_mask(self, inputs, previous_mask=None):
        return None

    def get_config(self):
        return {**super().get_config(), "value": self.value.tolist(), "value_dtype": self.value_dtype}


CARRIERS = (HeldConstant, HeldWeight, WithMask)


def is_itself(operation):
    """Whether an operation of a graph is a layer that no other one can stand for. Without weights and state, one of Keras's with the same settings does the same."""
    if not isinstance(operation, keras.layers.Layer) or isinstance(operation, (HeldConstant, WithMask)):
        return False
    return bool(operation.variables) or isinstance(operation, keras.layers.Lambda) or not is_keras_own(type(operation))
