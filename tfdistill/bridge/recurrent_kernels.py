"""Which of its computations a recurrent tf_keras layer puts into a graph.

An LSTM or a GRU with the usual activations puts two there, cuDNN's and a loop of steps, each with its gradient, and TensorFlow chooses when it knows the device. Without a
GPU that is never cuDNN's, and tracing both takes three times as long: of a bidirectional GRU half a minute before the first training step. The loop alone computes
the same numbers.

The TFLite converter however knows an LSTM by the mark of the pair, and makes one operation of it.
"""

import contextlib
import typing
import weakref

# Layers that compute their steps only, and could be computed by cuDNN.
_STEPS_ONLY: weakref.WeakSet[typing.Any] = weakref.WeakSet()


def copy_layer(layer):
    """Returns a tf_keras layer of the same config, which computes its steps only."""
    made = type(layer).from_config(layer.get_config())
    leave_out_cudnn(made)
    return made


def leave_out_cudnn(layer):
    """Lets a tf_keras LSTM or GRU, or both of a Bidirectional, compute the loop of steps only, where there is no GPU. Other layers stay as they are."""
    import tensorflow as tf

    for one in [getattr(layer, name, layer) for name in ("forward_layer", "backward_layer")]:
        if getattr(one, "_could_use_gpu_kernel", False) and not tf.config.list_physical_devices("GPU"):
            one._could_use_gpu_kernel = False
            _STEPS_ONLY.add(one)


def is_standard_lstm(layer):
    """Returns whether a tf_keras LSTM has the activations and settings of cuDNN's, which are those of TFLite's own LSTM too."""
    return bool(layer._could_use_gpu_kernel) or layer in _STEPS_ONLY


@contextlib.contextmanager
def marked_for_the_converter():
    """While open, graphs of recurrent layers are traced with the marks that the TFLite converter makes one operation of."""
    changed = list(_STEPS_ONLY)
    for layer in changed:
        layer._could_use_gpu_kernel = True
    try:
        yield
    finally:
        for layer in changed:
            layer._could_use_gpu_kernel = False
