"""Recognizes an activation function by its values: a user's own mish, or a lambda around one of Keras's, is computed like Keras's."""

import functools

import keras
import numpy as np

from tfdistill.bridge.integer import traced
from tfdistill.bridge.integer.activations import ACTIVATIONS, REPLACEMENTS, range_of_change

# Functions that TFLite computes by one integer operation, or fuses into the operation before them.
_PLAIN = ("exponential", "linear", "relu", "relu6", "sigmoid", "softmax", "tanh")
# Functions of other names than those of keras.activations.
_OTHERS = {
    "gelu_tanh": lambda x: keras.activations.gelu(x, approximate=True),
    "hard_sigmoid_steep": lambda x: keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0),  # tf_keras's hard_sigmoid
}
_TOLERANCE = 1e-5


class Watched:
    """An activation function whose input is looked at, and may be changed, before it is computed or rounded.

    Args:
        function: None, or the callable in whose place it stands: it has its name, and is computed in its form.
        look: Function of the input; returns what takes its place.
    """

    def __init__(self, function, look):
        self.function, self.look = function, look

    def __call__(self, x):
        x = self.look(x)
        return x if self.function is None else self.function(x)


def name_of(function):
    """Returns the name of a known activation function with the same values.

    Args:
        function: None, or a callable of a float32 tensor: an activation of Keras 3 or tf_keras, a function of the user's, or a layer.

    Returns:
        A name of `keras.activations`, `"gelu_tanh"` or `"hard_sigmoid_steep"`; `"linear"` for None; None for a function that is not known.
    """
    if isinstance(function, Watched):
        function = function.function
    if function is None:
        return "linear"
    try:
        return _recognized(function)
    except TypeError:  # it cannot be hashed
        return _recognized.__wrapped__(function)


def rounded_input(function, x, quantize, what):
    """Rounds the input of an activation function, over no more than the range in which the function changes.

    Args:
        function: None, or a callable of a tensor.
        x: Its input.
        quantize: The `ActivationRounder`.
        what: Name of the range.
    """
    low, high = range_of_change(name_of(function))
    return quantize(x, what, low=low, high=high)


def activated(function, x, quantize, what):
    """Computes an activation function the way an integer file computes it.

    Args:
        function: None, or a callable of a tensor.
        x: Its input, rounded.
        quantize: The `ActivationRounder`.
        what: Beginning of the names of the ranges inside.

    Returns:
        Its result, not rounded yet.
    """
    name = name_of(function)
    if quantize.is_float(name):
        return _reference(name)(quantize.unrounded(x))
    form = REPLACEMENTS.get(quantize.form_of(name)) or ACTIVATIONS.get(name)
    if form:
        return form(x, quantize, what)
    return function(x) if name else traced.compute(function, [x], quantize, what)


@functools.lru_cache(maxsize=256)
def _recognized(function):
    import tensorflow as tf

    with tf.init_scope():
        try:
            found = np.asarray(function(tf.constant(_samples())))
        except Exception:  # a function of the user's may want tensors of other shapes
            return None
        for name, values in _known().items():
            if found.shape == values.shape and np.all(np.abs(found - values) <= _TOLERANCE * (1.0 + np.abs(values))):
                return name
    return None


def _samples():
    """Returns float32 samples (32, 48): rows of values from -9 to 9 in no order, and rows of values from -0.9 to 0.9."""
    values = np.random.default_rng(0).permutation(np.linspace(-9.0, 9.0, 32 * 48, dtype="float32")).reshape(32, 48)
    values[1::2] *= 0.1
    return values


@functools.cache
def _known():
    x = keras.ops.convert_to_tensor(_samples())
    return {name: keras.ops.convert_to_numpy(_reference(name)(x)) for name in (*_PLAIN, *ACTIVATIONS)}


def _reference(name):
    """Returns the known function of that name."""
    return _OTHERS.get(name) or getattr(keras.activations, name)
