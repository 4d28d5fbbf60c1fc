"""Attention computed the way an integer file computes it: projections, scaled query, scores and weighted values are integer tensors of their own."""

import contextlib
import math

from tfdistill.bridge.integer.hiding import HIDING


def attention(layer, quantize, args, kwargs):
    """MultiHeadAttention."""
    import tensorflow as tf

    def compute(query, key, value, attention_mask=None, training=None):
        return _attention_outputs(
            quantize,
            (query, key, value),
            scale=1.0 / math.sqrt(float(layer._key_dim)),
            score=lambda query, key: tf.einsum(layer._dot_product_equation, key, query),
            mask=attention_mask,
            mask_axis=-2 * len(layer._attention_axes) - 1,
            softmax=layer._softmax,
            combine=lambda scores, value: tf.einsum(layer._combine_equation, layer._dropout_layer(scores, training=training), value),
        )

    with _attention_computed_by(layer, compute):
        return layer(*args, **kwargs)


def grouped_attention(layer, quantize, args, kwargs):
    """GroupQueryAttention, which tf_keras does not have: the Keras 3 layer inside."""
    import tensorflow as tf

    hosted = layer._hosted.layer

    def compute(query, key, value, attention_mask=None, training=None, use_causal_mask=False):
        if use_causal_mask:
            causal = hosted._compute_causal_mask(query, value)
            attention_mask = causal if attention_mask is None else tf.logical_and(tf.cast(attention_mask, "bool"), causal)

        def combine(scores, value):
            dropped = hosted._dropout_layer(scores, training=training) if hosted.dropout > 0 else scores
            return tf.einsum(hosted._combine_equation, dropped, value)

        return _attention_outputs(
            quantize,
            (query, key, value),
            scale=1.0 / math.sqrt(float(hosted.head_dim)),
            score=lambda query, key: tf.einsum(hosted._dot_product_equation, query, key),
            mask=attention_mask,
            mask_axis=-3,
            softmax=tf.nn.softmax,
            combine=combine,
        )

    with _attention_computed_by(hosted, compute):
        return layer(*args, **kwargs)


def masked_softmax(layer, quantize, args, kwargs):
    """A Softmax of scores, some of which a mask hides: these get a score of their own in the range, where adding -1e9 would take all of it."""
    import tensorflow as tf

    scores = _rounded_scores(args[0], args[1] if len(args) > 1 else kwargs.get("mask"), quantize)
    (axis,) = (layer.axis,) if isinstance(layer.axis, int) else layer.axis
    if quantize.is_float("softmax"):
        return quantize.fixed(tf.nn.softmax(quantize.unrounded(scores), axis=axis), "softmax")
    return tf.nn.softmax(scores, axis=axis)


def _attention_outputs(quantize, operands, scale, score, mask, mask_axis, softmax, combine):
    import tensorflow as tf

    query, key, value = operands
    # Symmetric, as XNNPACK of TensorFlow 2.21 forgets the zero point of a matrix that is no constant.
    query, key, value = quantize(query, "query"), quantize(key, "key", symmetric=True), quantize(value, "value", symmetric=True)
    scores = score(quantize(query * scale, "scaled_query", symmetric=True), key)
    if mask is not None:
        for _ in range(scores.shape.rank - mask.shape.rank):
            mask = tf.expand_dims(mask, mask_axis)
    scores = _rounded_scores(scores, mask, quantize)
    scores = quantize.fixed(softmax(quantize.unrounded(scores) if quantize.is_float("softmax") else scores), "softmax")
    return quantize(combine(scores, value), "weighted_values"), scores


def _rounded_scores(scores, mask, quantize):
    import tensorflow as tf

    if mask is None:
        return quantize(scores, "scores")
    shown = tf.cast(mask, "bool")
    return quantize(tf.where(shown, scores, tf.cast(-HIDING, scores.dtype)), "scores", hidden=tf.logical_not(shown))


@contextlib.contextmanager
def _attention_computed_by(layer, compute):
    vars(layer)["_compute_attention"] = compute
    try:
        yield
    finally:
        del vars(layer)["_compute_attention"]
