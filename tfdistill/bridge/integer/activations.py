"""Activation functions computed the way an integer file computes them.

TFLite computes a function of one int8 tensor from a table of 256 entries (LOGISTIC, TANH, EXP, LOG, SQRT, GELU): it is rounded once. Where it has no operation for
the whole function, the form here is made of such tables and of sums and products whose ranges are short, so that each of their 256 steps is fine.

A form is a function of (x, quantize, what): the rounded input; the `ActivationRounder`; and the name from which those of the tensors inside are made. Its last
operation is left unrounded: that is done by whoever calls it.
"""

import functools

# TFLite clamps what is below or above the range of a product's result, which costs nothing, where RELU would be computed by a second copy of the convolution before it.
from tfdistill.bridge.integer.rounding import ONE

GELU_OF_PRODUCTS, HARD_SWISH, QUICK_GELU, RELU_OF_PRODUCT = "gelu_of_products", "hard_swish", "quick_gelu", "relu_of_product"
# Forms of a ReLU or ReLU6 that is an operation of its own, and of a PReLU.
RELU, PRELU, PRELU_OF_PRODUCTS = "relu alone", "prelu", "prelu_of_products"
_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


def above_zero(x, quantize, what, factor=ONE):
    """Returns the rounded `max(factor * x, 0)`."""
    return quantize(factor * x, what, low=0.0)


def _exponential_below_one(x, quantize):
    """Returns the rounded `min(exp(x), 1)`."""
    import tensorflow as tf

    return quantize.within(tf.exp(x if quantize.in_the_file else tf.minimum(x, 0.0)), 0.0, 1.0)


def elu(x, quantize, what, alpha=1.0, scale=1.0):
    """The exponential linear unit: scale * (max(x, 0) + alpha * (exp(min(x, 0)) - 1))."""
    below = quantize.within(_exponential_below_one(x, quantize) - 1.0, -1.0, 0.0)
    factor = scale * alpha
    if factor != 1.0:
        below = quantize(factor * below, f"{what}_below_zero")
    return above_zero(x, quantize, f"{what}_above_zero", ONE if scale == 1.0 else scale) + below


def selu(x, quantize, what):
    """The scaled exponential linear unit."""
    return elu(x, quantize, what, _SELU_ALPHA, _SELU_SCALE)


def _log_sigmoid_of_magnitude(x, quantize, what):
    """Returns the rounded `log(sigmoid(|x|))`, between -log(2) and 0."""
    import tensorflow as tf

    gate = quantize.fixed(tf.sigmoid(quantize(tf.abs(x), f"{what}_magnitude")), "sigmoid")
    # At least one half, which no rounding makes zero.
    return quantize(tf.math.log(gate), f"{what}_logarithm")


def softplus(x, quantize, what):
    """log(1 + exp(x)) = max(x, 0) - log(sigmoid(|x|))."""
    return above_zero(x, quantize, f"{what}_above_zero") - _log_sigmoid_of_magnitude(x, quantize, what)


def log_sigmoid(x, quantize, what):
    """log(sigmoid(x)) = log(sigmoid(|x|)) - max(-x, 0)."""
    return _log_sigmoid_of_magnitude(x, quantize, what) - above_zero(x, quantize, f"{what}_below_zero", -1.0)


def mish(x, quantize, what):
    """x * tanh(softplus(x)) = x * (1 - s) / (1 + s) with s = sigmoid(-x) ** 2."""
    import tensorflow as tf

    gate = quantize.fixed(tf.sigmoid(quantize(-1.0 * x, f"{what}_negative")), "sigmoid")
    square = quantize.within(gate * gate, 0.0, 1.0)
    return x * quantize.within(quantize.within(1.0 - square, 0.0, 1.0) / quantize.within(1.0 + square, 0.0, 2.0), 0.0, 1.0)


def softsign(x, quantize, what):
    """x / (1 + |x|)."""
    import tensorflow as tf

    # Up to 255, so that 1 is at least one of the 255 steps: TFLite refuses to divide by zero.
    return x / quantize(quantize(tf.abs(x), f"{what}_magnitude") + 1.0, f"{what}_divisor", high=255.0)


def root(x, quantize, what, quantize_divisor):
    """sqrt(x), by one step of Newton's method from TFLite's SQRT, which does not round to the nearest step but down.

    Args:
        x: Rounded tensor of numbers above 0.
        quantize: The `ActivationRounder`.
        what: Beginning of the names of the ranges.
        quantize_divisor: Function like `quantize` for the root, by which is divided.
    """
    import tensorflow as tf

    low = quantize_divisor(tf.sqrt(x), f"{what}_root")
    return 0.5 * quantize(low + quantize(x / low, f"{what}_quotient"), f"{what}_roots")


def squareplus(x, quantize, what, b=4.0):
    """(x + sqrt(x ** 2 + b)) / 2."""
    # Up to 510, so that the root of b is at least one of the 255 steps.
    divisor = functools.partial(quantize, high=510.0)
    radicand = quantize(quantize(x * x, f"{what}_square") + b, f"{what}_radicand")
    return 0.5 * quantize(x + quantize(root(radicand, quantize, what, divisor), f"{what}_deviation"), f"{what}_sum")


def hard_sigmoid(x, quantize, what, slope=1.0):
    """relu6(slope * x + 3) / 6."""
    scaled = x if slope == 1.0 else quantize(slope * x, f"{what}_scaled")
    return (1.0 / 6.0) * quantize(scaled + 3.0, f"{what}_shifted", low=0.0, high=6.0)


def hard_silu(x, quantize, what):
    """x * (relu6(x + 3) / 6).

    The converter makes no HARD_SWISH of this. XNNPACK does not take that operation: it would split the graph. Of these three it makes one table.
    """
    return x * quantize.within((1.0 / 6.0) * quantize.within(x + 3.0, 0.0, 6.0), 0.0, 1.0)


def native_hard_silu(x, quantize, what):
    """x * relu6(x + 3) / 6, of which the converter makes HARD_SWISH."""
    import tensorflow as tf

    return x * tf.nn.relu6(x + 3.0) * (1.0 / 6.0)


def quick_gelu(x, quantize, what):
    """x * sigmoid(1.702 x), which differs from GELU by 0.021 at most (Hendrycks & Gimpel, 2016, https://arxiv.org/abs/1606.08415)."""
    import tensorflow as tf

    scaled = quantize(1.702 * x, f"{what}_scaled", low=-1024.0 / 127.0, high=8.0)
    return x * quantize.fixed(tf.sigmoid(scaled), "sigmoid")


def gelu_of_products(x, quantize, what):
    """x * sigmoid(x * (1.6003 + 0.0694 x ** 2)), which differs from GELU by 0.0003 at most."""
    import tensorflow as tf

    # Not x * x: where both are reshaped, as behind a dense layer, the converter fails.
    clipped = quantize(ONE * x, f"{what}_clipped", low=-512.0 / 127.0, high=4.0)
    square = quantize.within(0.06940178 * quantize.within(x * clipped, 0.0, 16.0), 0.0, 16.0 * 0.06940178)
    factor = quantize.within(square + 1.60031414, 0.0, 2.711)
    return x * quantize.fixed(tf.sigmoid(quantize(x * factor, f"{what}_scaled", low=-1024.0 / 127.0, high=8.0)), "sigmoid")


def soft_shrink(x, quantize, what, threshold=0.5):
    """max(x - threshold, 0) - max(-threshold - x, 0)."""
    return quantize(x - threshold, f"{what}_above", low=0.0) - quantize(-threshold - x, f"{what}_below", low=0.0)


def hard_shrink(x, quantize, what, threshold=0.5):
    """x where |x| > threshold, else 0."""
    import tensorflow as tf

    return tf.where(quantize(tf.abs(x), f"{what}_magnitude") > threshold, x, tf.zeros_like(x))


def tanh_shrink(x, quantize, what):
    """x - tanh(x)."""
    import tensorflow as tf

    return x - quantize.fixed(tf.tanh(x), "tanh")


def sparse_plus(x, quantize, what):
    """((clip(x, -1, 1) + 1) / 2) ** 2 + max(x - 1, 0)."""
    half = quantize.within(quantize(0.5 * x, f"{what}_half") + 0.5, 0.0, 1.0)
    return quantize.within(half * half, 0.0, 1.0) + quantize(x - 1.0, f"{what}_above_one", low=0.0)


def sparse_sigmoid(x, quantize, what):
    """clip((x + 1) / 2, 0, 1)."""
    return 0.5 * quantize.within(x + 1.0, 0.0, 2.0)


def silu(x, quantize, what):
    """x * sigmoid(x)."""
    import tensorflow as tf

    return x * quantize.fixed(tf.sigmoid(x), "sigmoid")


def log_softmax(x, quantize, what):
    """x - max(x) - log(sum(exp(x - max(x)))) along the last axis. TFLite's own LOG_SOFTMAX has steps of 1/16."""
    import tensorflow as tf

    # The largest has a range of its own, or the converter would make LOG_SOFTMAX of it all. The rounding of the largest cancels.
    below = quantize(x - quantize(tf.reduce_max(x, -1, keepdims=True), f"{what}_largest"), f"{what}_below_largest", high=0.0)
    total = quantize(tf.reduce_sum(_exponential_below_one(below, quantize), -1, keepdims=True), f"{what}_sum", positive=True)
    return below - quantize(tf.math.log(total), f"{what}_logarithm")


def hard_tanh(x, quantize, what):
    """clip(x, -1, 1), which TFLite has as one operation."""
    import tensorflow as tf

    return tf.clip_by_value(x, -1.0, 1.0)


def _gelu(approximate):
    def gelu(x, quantize, what):
        import tensorflow as tf

        return tf.nn.gelu(x, approximate=approximate)

    return gelu


# Name of a function -> its form.
ACTIVATIONS = {
    "elu": elu,
    "gelu": _gelu(False),
    "gelu_tanh": _gelu(True),
    "hard_shrink": hard_shrink,
    "hard_sigmoid": hard_sigmoid,
    "hard_sigmoid_steep": functools.partial(hard_sigmoid, slope=1.2),
    "hard_silu": hard_silu,
    "hard_tanh": hard_tanh,
    "log_sigmoid": log_sigmoid,
    "log_softmax": log_softmax,
    "mish": mish,
    "selu": selu,
    "silu": silu,
    "soft_shrink": soft_shrink,
    "softplus": softplus,
    "softsign": softsign,
    "sparse_plus": sparse_plus,
    "sparse_sigmoid": sparse_sigmoid,
    "squareplus": squareplus,
    "tanh_shrink": tanh_shrink,
}

# Names of forms that take the place of others -> form.
REPLACEMENTS = {GELU_OF_PRODUCTS: gelu_of_products, HARD_SWISH: native_hard_silu, QUICK_GELU: quick_gelu}

# Name of a function -> how far from 0 it changes, to within a step of its result. Its input need not have a range beyond that.
_CHANGES_UP_TO = {"hard_sigmoid": 3.0, "hard_sigmoid_steep": 2.5, "hard_tanh": 1.0, "sigmoid": 8.0, "sparse_sigmoid": 1.0, "tanh": 4.0}


def range_of_change(name):
    """Returns the bounds between which an activation changes, both on one grid with 0; (None, None) for a function that changes everywhere."""
    most = _CHANGES_UP_TO.get(name)
    return (None, None) if most is None else (-128.0 / 127.0 * most, most)
