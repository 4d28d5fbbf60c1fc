"""Activation functions computed the way an integer file computes them, where TFLite has no integer operation for the whole.

Every form is a function of (function, x, quantize, what): the activation, its rounded input, the `ActivationRounder`, and the name from which those of the
tensors inside are made.
"""


def elu(function, x, quantize, what, alpha=1.0):
    """The exponential linear unit: relu(x) + alpha * (exp(min(x, 0)) - 1)."""
    import tensorflow as tf

    below = quantize(tf.exp(quantize(tf.minimum(x, 0.0), f"{what}_below_zero")), f"{what}_exponential")
    return quantize(tf.nn.relu(x), f"{what}_above_zero") + quantize(alpha * below - alpha, f"{what}_offset")


def hard_sigmoid(function, x, quantize, what):
    """Keras 3's hard sigmoid, relu6(x + 3) / 6, and tf_keras's, which is steeper."""
    import tensorflow as tf

    with tf.init_scope():
        slope = 6.0 * float(function(tf.constant(1.0)) - function(tf.constant(0.0)))
    scaled = x if abs(slope - 1.0) < 1e-6 else quantize(slope * x, f"{what}_scaled")
    return quantize(tf.nn.relu6(scaled + 3.0), f"{what}_shifted") * (1.0 / 6.0)


# Name of an activation function -> its form.
ACTIVATIONS = {"elu": elu, "hard_sigmoid": hard_sigmoid}
