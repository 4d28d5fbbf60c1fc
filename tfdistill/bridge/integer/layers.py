"""Layers computed the way an integer file computes them: what is one layer to Keras is several integer tensors there, and each needs a range.

Every form is a function of (layer, quantize, args, kwargs): the tf_keras layer, with rounded weights in place of its own; `quantize(x, what)`, an
`ActivationRounder`, which rounds a tensor to the range that is trained under the name `what`; and what the layer is called with.
"""

from tfdistill.bridge import layer_facts
from tfdistill.bridge.integer import normalizations, traced
from tfdistill.bridge.integer.activations import PRELU, PRELU_OF_PRODUCTS, RELU, RELU_OF_PRODUCT, above_zero, elu
from tfdistill.bridge.integer.attention import attention, grouped_attention, masked_softmax
from tfdistill.bridge.integer.pixels import ENLARGING, average_pooling, enlarging
from tfdistill.bridge.integer.recognize import activated, name_of
from tfdistill.bridge.integer.recurrent import recurrent
from tfdistill.bridge.integer.rescaled import rescaling_folded
from tfdistill.bridge.integer.rounding import ONE
from tfdistill.bridge.wrappers.base import variable_at


def separable(layer, quantize, args, kwargs):
    """SeparableConv1D and SeparableConv2D: a depthwise convolution, its output rounded, and a pointwise one."""
    import tensorflow as tf

    x, depthwise, pointwise = args[0], layer.depthwise_kernel, layer.pointwise_kernel
    strides, dilations, padding = layer.strides, layer.dilation_rate, layer.padding
    flat = layer.rank == 1
    if padding == "causal":
        x, padding = tf.pad(x, layer._compute_causal_padding(x)), "valid"
    if flat:
        x, depthwise, pointwise = tf.expand_dims(x, 1), depthwise[None], pointwise[None]
        strides, dilations = strides * 2, (1, *dilations)
    x = tf.nn.depthwise_conv2d(x, depthwise, (1, *strides, 1), padding.upper(), dilations=dilations)
    x = tf.nn.conv2d(quantize(x, "depthwise"), pointwise, 1, "VALID")
    if layer.use_bias:
        x = tf.nn.bias_add(x, layer.bias)
    x = tf.squeeze(x, [1]) if flat else x
    return x if layer.activation is None else layer.activation(x)


def masking(layer, quantize, args, kwargs):
    """A Masking: the hidden steps become zeros by selection, where a product would make floats of the mask."""
    import tensorflow as tf

    x = args[0]
    value = tf.constant(layer.mask_value, x.dtype)
    if layer.mask_value:
        x, value = quantize(x, "input"), quantize(value, "input")  # on one grid, or none would be equal
    else:
        value = tf.quantization.fake_quant_with_min_max_args(value, -1.0, 127 / 128)  # any range will do, but the file needs one
    # TFLite compares integers for equality; its operation for the opposite has floats only.
    hidden = tf.reduce_all(tf.equal(x, value), axis=-1, keepdims=True)
    outputs = tf.where(hidden, tf.zeros_like(x), x)
    outputs._keras_mask = tf.squeeze(tf.logical_not(hidden), -1)
    return outputs


def average_of_steps(layer, quantize, args, kwargs):
    """A GlobalAveragePooling1D; under a mask, the mean over all steps by N / n, which is looked up for the number n of the N steps that are not masked.

    TFLite has no integer division, and 256 steps are too few for N / n itself: its square root is multiplied by, twice.
    """
    import tensorflow as tf

    mask = kwargs.get("mask")
    if mask is None:
        return layer(*args, **kwargs)
    x, steps = args[0], args[0].shape[1]
    mask = tf.cast(mask, "bool")
    mean = quantize(tf.reduce_mean(tf.where(mask[..., None], x, tf.zeros_like(x)), 1, keepdims=layer.keepdims), "masked_mean")
    roots = tf.constant([0.0, *((steps / n) ** 0.5 for n in range(1, steps + 1))], x.dtype)
    root = quantize(tf.gather(roots, tf.reduce_sum(tf.cast(mask, "int32"), 1, keepdims=True)), "root")
    root = root[..., None] if layer.keepdims else root
    return quantize(mean * root, "half") * root


def merge_of_several(layer, quantize, args, kwargs):
    """An Add or Multiply of several tensors, or an Average: two at a time, what they make together rounded before the next one. A file has no operation for more."""
    import tensorflow as tf

    kind, inputs = type(layer).__name__, args[0]
    if len({x.shape.rank for x in inputs}) > 1 or inputs[0].shape.rank is None:
        return layer(*args, **kwargs)  # which gives them axes first
    combine, averages = tf.multiply if kind == "Multiply" else tf.add, kind == "Average"
    # From the last one on: the first ones are often what another layer adds up too, over a range of its own. The converter makes one sum of both, in float.
    total, *others = reversed(inputs)
    for left, x in reversed([*enumerate(reversed(others))]):
        total = combine(total, x)
        if averages or left:
            total = quantize(total, f"of_{len(inputs) - left}")
    return total / len(inputs) if averages else total


def elu_layer(layer, quantize, args, kwargs):
    """An ELU layer."""
    return elu(args[0], quantize, "input", float(layer.alpha))


def relu_layer(layer, quantize, args, kwargs):
    """A ReLU layer with a slope, a threshold or a largest value: what is above the threshold, less what is below it."""
    import tensorflow as tf

    x, threshold, slope = args[0], float(layer.threshold), float(layer.negative_slope)
    most = None if layer.max_value is None else float(layer.max_value)
    if threshold == 0.0 and most is None:
        return tf.nn.leaky_relu(x, slope)
    if threshold == 0.0:
        # The range ends at the largest value. A product by one leaves the second rounding, over what training saw of that range, to an operation.
        above = quantize.within(ONE * x, 0.0, most)
        above = above if slope else ONE * above
    else:
        above = tf.where(x >= threshold, x if most is None else quantize(tf.minimum(x, most), "clipped"), tf.zeros_like(x))
        above = quantize(above, "above") if slope else above
    if not slope:
        return above
    below = -slope * x if threshold == 0.0 else slope * quantize(threshold - x, "below_threshold", low=0.0)
    return above - quantize(below, "below", low=0.0)


def relu_alone(layer, quantize, args, kwargs):
    """A ReLU or ReLU6 that no operation before it computes: an operation of its own, or a product by one, of which the converter makes one with the ReLU in it."""
    import tensorflow as tf

    product = quantize.in_the_file and quantize.form_of(RELU) == RELU_OF_PRODUCT
    x = ONE * args[0] if product else args[0]
    return tf.nn.relu6(x) if _is_relu6(layer) else tf.nn.relu(x)


def prelu(layer, quantize, args, kwargs):
    """A PReLU: an operation of its own, or what is above zero, less the product of what is below it and the slopes."""
    if quantize.form_of(PRELU) != PRELU_OF_PRODUCTS:
        return layer(*args, **kwargs)
    x = args[0]
    below = above_zero(x, quantize, "below", -1.0)
    return above_zero(x, quantize, "above") - quantize(below * variable_at(layer, "alpha"), "sloped")


def _is_relu6(layer):
    most = getattr(layer, "max_value", None)
    return most == 6 or name_of(getattr(layer, "activation", None) or layer_facts.function_of_one(layer)) == "relu6"


def category_encoding(layer, quantize, args, kwargs):
    """A CategoryEncoding: comparisons with every number, of which the largest or the sum is taken. TFLite cannot count."""
    import tensorflow as tf

    equal = tf.equal(tf.cast(args[0], "int32")[..., None], tf.range(layer.num_tokens))
    one = quantize.within(tf.ones((1,) * equal.shape.rank), 0.0, 1.0)
    hot = tf.where(equal, one, tf.zeros_like(one))
    if layer.output_mode == "one_hot":
        return tf.reshape(hot, (-1, layer.num_tokens))
    return tf.reduce_sum(hot, -2) if layer.output_mode == "count" else tf.reduce_max(hot, -2)


def discretization(layer, quantize, args, kwargs):
    """A Discretization: the number of boundaries that are not above the input. TFLite finds the place among them in float only."""
    import tensorflow as tf

    boundaries = tf.constant(list(layer.bin_boundaries), args[0].dtype)
    return tf.reduce_sum(tf.cast(args[0][..., None] >= boundaries, "int32"), -1)


def reversible_embedding(layer, quantize, args, kwargs):
    """A ReversibleEmbedding: what it looks up has the range of its table, its logits have one of their own."""
    import tensorflow as tf

    if not kwargs.get("reverse"):
        return quantize.looked_up(layer(*args, **kwargs), variable_at(layer, "embeddings"))
    hosted, x = layer._hosted.layer, args[0]
    tied = getattr(hosted, "tie_weights", True)
    logits = tf.matmul(x, tf.cast(variable_at(layer, "embeddings" if tied else "reverse_embeddings"), x.dtype), transpose_b=tied)
    cap = getattr(hosted, "logit_soft_cap", None)
    if cap is None:
        return quantize(logits, "output")
    bent = quantize.fixed(tf.tanh(quantize(quantize(logits, "logits") * (1.0 / cap), "capped")), "tanh")
    return quantize(bent * cap, "output")


def activation(layer, quantize, args, kwargs):
    """An Activation layer."""
    return activated(layer.activation, args[0], quantize, "input")


def operation(layer, quantize, args, kwargs):
    """A layer around an operation or a function, or around a layer of Keras 3: each of its TensorFlow operations rounded."""
    import tensorflow as tf

    function = layer_facts.function_of_one(layer)
    if function is not None and args[0].dtype.is_floating and name_of(function):
        return activated(function, args[0], quantize, "inner")
    flat = tf.nest.flatten((args, kwargs))
    positions = [i for i, x in enumerate(flat) if tf.is_tensor(x)]

    def call(*tensors):
        filled = list(flat)
        for i, tensor in zip(positions, tensors, strict=True):
            filled[i] = tensor
        inner_args, inner_kwargs = tf.nest.pack_sequence_as((args, kwargs), filled)
        return layer(*inner_args, **inner_kwargs)

    return traced.compute(call, [flat[i] for i in positions], quantize, "inner")


FORMS = {
    "activation": activation,
    "attention": attention,
    "average of steps": average_of_steps,
    "average pooling": average_pooling,
    "category encoding": category_encoding,
    "discretization": discretization,
    "elu": elu_layer,
    ENLARGING: enlarging,
    "group normalization": normalizations.group_normalization,
    "grouped attention": grouped_attention,
    "layer normalization": normalizations.layer_normalization,
    "masked_softmax": masked_softmax,
    "masking": masking,
    "merge of several": merge_of_several,
    PRELU: prelu,
    "normalization alone": normalizations.normalization_alone,
    "operation": operation,
    "recurrent": recurrent,
    "relu": relu_layer,
    RELU: relu_alone,
    "rescaling": normalizations.rescaling,
    "rescaling folded": rescaling_folded,
    "root mean square normalization": normalizations.root_mean_square_normalization,
    "reversible embedding": reversible_embedding,
    "resizing": lambda layer, quantize, args, kwargs: layer(*args, **kwargs),
    "separable": separable,
    "standardization": normalizations.standardization,
    "unit normalization": normalizations.unit_normalization,
}
