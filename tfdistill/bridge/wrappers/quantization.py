"""A tf_keras wrapper under which a layer trains quantized: its forward pass rounds what the integer file will round.

tensorflow-model-optimization's own wrapper, `QuantizeWrapperV2`, is not used. It takes a closed list of layers, one input and one output; it puts tensors into the
layer's attributes for good, so that the kernel leaves the layer's weights, and trains it even where the layer is frozen; its ranges start at -6 to 6 and
forget that at 0.1 % a batch. The rounding is the same: TensorFlow's fake quantization, symmetric without the lowest integer for weights, affine for
activations (Jacob et al., 2018, https://arxiv.org/abs/1712.05877).

The class derives from tf_keras's, so it is made at first use.
"""

import contextlib
import contextvars
import copy
import functools
import types

from tfdistill.bridge import imports
from tfdistill.bridge.integer.layers import FORMS
from tfdistill.bridge.integer.recognize import Watched, activated, rounded_input
from tfdistill.bridge.integer.rescaled import added_bias, source_of
from tfdistill.bridge.integer.rounding import ActivationRounder, cluster_means, round_weights
from tfdistill.bridge.wrappers.all_in_float import is_left_in_float
from tfdistill.bridge.wrappers.base import TransparentWrapper, replaced_weights, variable_at
from tfdistill.bridge.wrappers.given_weights import given_weight
from tfdistill.bridge.wrappers.other_settings import settings_instead
from tfdistill.bridge.wrappers.quantization_settings import Quantization, read_settings
from tfdistill.bridge.wrappers.tfmot import quantize_layer_class

# How many settings beside the weights every file has.
_FIRST_SETTINGS = 4
# Argument of a quantized layer's call: which of the calls of its model this is. It is part of the model's graph, and so of its config.
_NUMBER = "number_of_call"

# Name scope of what layers with activations of 16 bits compute, by which their tensors are found in the file.
WIDE_SCOPE = "tfdistill_wide"

_in_the_file = contextvars.ContextVar("_in_the_file", default=False)


@contextlib.contextmanager
def as_in_the_file():
    """While open, layers that are only observed round as well: this is how an integer file is traced."""
    token = _in_the_file.set(True)
    try:
        yield
    finally:
        _in_the_file.reset(token)


_assumed = contextvars.ContextVar("_assumed", default=None)


@contextlib.contextmanager
def assumed_ranges(range_of):
    """While open, quantized layers take their ranges from a function, and make no variables for them.

    Args:
        range_of: Function of (wrapper, name of a tensor in it) that returns its range, `(minimum, maximum)`.
    """
    token = _assumed.set(range_of)
    try:
        yield
    finally:
        _assumed.reset(token)


_measuring = contextvars.ContextVar("_measuring", default=None)


@contextlib.contextmanager
def measured_by(measuring):
    """While open, quantized layers measure their ranges on what they are called with, in inference too.

    Args:
        measuring: `Widest` or `Histograms` of `tfdistill.bridge.integer.measuring`.
    """
    token = _measuring.set(measuring)
    try:
        yield
    finally:
        _measuring.reset(token)


def is_quantized_layer(layer):
    """Whether `layer` is the quantization wrapper of this library. Does not import tf_keras when it was never used."""
    return isinstance(layer, TransparentWrapper) and layer.step == "quantization"


def numbered(layer, kwargs, number):
    """Returns the keyword arguments of one call of a layer, with what tells a quantized one that this call has ranges of its own.

    A layer that is called again may see other values: normalized ones where the first call saw embeddings. One range for both would leave the smaller few steps.

    Args:
        layer: What is called.
        kwargs: Keyword arguments, perhaps with the number that an earlier graph gave to the call.
        number: How many other calls of the layer go before; the ranges of the first one have plain names.
    """
    own = {_NUMBER: number} if number and is_quantized_layer(layer) else {}
    return {name: value for name, value in kwargs.items() if name != _NUMBER} | own


def quantize_layer(layer, quantization):
    """Wraps a tf_keras layer so that it trains quantized.

    Args:
        layer: tf_keras layer; it need not be built.
        quantization: `Quantization`.

    Returns:
        A `QuantizedLayer`. Its masks are ones and its clusters unknown until `keep_structure` is called.
    """
    return quantized_layer_class()(layer, quantization)


@functools.cache
def quantized_layer_class():
    """Returns the class `QuantizedLayer`: a tf_keras wrapper around one layer."""
    import tensorflow as tf

    tfk = imports.tf_keras()

    @tfk.utils.register_keras_serializable("tfdistill")
    class QuantizedLayer(TransparentWrapper, tfk.layers.Wrapper):
        """Runs a layer with rounded weights, and rounds its activations. The layer keeps its own weights.

        Args:
            layer: tf_keras layer; it need not be built.
            quantization: `Quantization`, or a list of its fields.
        """

        step = "quantization"

        def __init__(self, layer, quantization, **kwargs):
            super().__init__(
                layer, autocast=False, **{"name": f"quant_{layer.name}", "trainable": layer.trainable, "dtype": "float32", **kwargs}
            )
            settings = read_settings(quantization, layer.name)
            # In a namespace, or tf_keras would wrap the tuples and dicts.
            self._quantizing = types.SimpleNamespace(settings=settings, ranges={}, masks={}, members={}, complete=False)
            self.become_like(layer)
            # Ranges move in training, whatever the layer does.
            self._call_spec = copy.copy(layer._call_spec)
            self._call_spec.expects_training_arg = True
            self._call_spec.expected_context_args = {*self._call_spec.expected_context_args, "training"}

        @property
        def quantization(self):
            """The layer's `Quantization`, or the one that `other_settings` has for it."""
            return settings_instead(self) or self._quantizing.settings

        @property
        def ranges(self):
            """Dict of what is quantized (`"output"`, the path of an activation) to its variables `(minimum, maximum, batches)`; `"output@1"` in the second call."""
            return self._quantizing.ranges

        @property
        def masks(self):
            """Dict of a sparse weight's path to the variable that is 0 where the weight is to be 0, and 1 elsewhere."""
            return self._quantizing.masks

        @property
        def members(self):
            """Dict of a clustered weight's path to the int32 variable that holds the index of each weight's cluster."""
            return self._quantizing.members

        def masked_weights(self):
            return [(variable_at(self.layer, path), mask) for path, mask in self.masks.items()]

        def effective_values(self):
            kept = [weight for weight in self.quantization.weights if weight.sparse or weight.clusters]
            return {id(variable_at(self.layer, weight.path)): self.effective(weight) for weight in kept}

        def activation_ranges(self):
            return [(what, low, high) for what, (low, high, _) in self.ranges.items()]

        def build(self, input_shape=None):
            # The layer is built by its own first call, which alone knows all of its inputs; masks and ranges come with that.
            self.built = True

        def call(self, *args, **kwargs):
            number, training = kwargs.pop(_NUMBER, 0), bool(tf.get_static_value(kwargs.get("training", False)))
            if not self.layer._expects_training_arg:
                kwargs.pop("training", None)
            if not self._quantizing.complete:
                if not self.layer.built or any(not hasattr(self.layer, w.path.partition(".")[0]) for w in self.quantization.weights):
                    self.layer(*args, **kwargs)  # attention has no kernels before
                self.add_structure()
            measuring = _measuring.get()
            in_float = is_left_in_float()
            left_float = (
                in_float or self.quantization.observed or (measuring is not None and not measuring.rounding and not self.quantization.form)
            )
            rounding = _in_the_file.get() or not left_float
            now = self.quantization
            ranges = functools.partial(self._range, number=number)
            quantize = ActivationRounder(
                ranges, training, rounding, _in_the_file.get(), measuring, now.positive, now.scores, now.replaced, now.hides, now.wide
            )
            weight_of = self.quantized if rounding else self.effective
            weights = {w.path: weight_of(w) for w in self.quantization.weights}
            if source := source_of(args):
                args, weights = self._before_rescaling(source, args, self.effective if in_float else None)
            with tf.name_scope(WIDE_SCOPE) if now.wide and _in_the_file.get() else contextlib.nullcontext():
                with replaced_weights(self.layer, weights), self._quantized_activation_inputs(quantize):
                    compute = FORMS.get(now.form)
                    outputs = compute(self.layer, quantize, args, kwargs) if compute else self.layer(*args, **kwargs)
                return self._quantize_outputs(outputs, quantize) if now.output else outputs

        def _before_rescaling(self, source, args, unrounded):
            """Returns the arguments and weights with which the file computes this layer on what a Rescaling before it reads."""
            x, scale, offset = source
            (weight,) = self.quantization.weights
            kernel = scale * unrounded(weight) if unrounded else self.quantized(weight, scale)
            weights = {weight.path: kernel}
            if offset:
                weights["bias"] = self.layer.bias + added_bias(kernel, weight.path == "depthwise_kernel", offset / scale)
            return (x, *args[1:]), weights

        def add_structure(self):
            """Makes the variables of masks and clusters, as the first call does. The layer inside has to be built."""
            with tf.init_scope():
                for weight in self.quantization.weights:
                    name, shape = weight.path.replace(".", "_"), variable_at(self.layer, weight.path).shape
                    if weight.sparse:
                        self.masks[weight.path] = self.add_weight(f"{name}_sparsity_mask", shape, initializer="ones", trainable=False)
                    if weight.clusters:
                        self.members[weight.path] = self.add_weight(
                            f"{name}_clusters", shape, dtype="int32", initializer="zeros", trainable=False
                        )
            self._quantizing.complete = True

        def effective(self, weight):
            """Returns a weight, one of `quantization.weights`, with its zeros and clusters, before any rounding: a float32 tensor."""
            value = tf.cast(tf.convert_to_tensor(variable_at(self.layer, weight.path)), "float32")
            if weight.clusters:
                value = cluster_means(value, self.members[weight.path], weight.clusters)
            # Not a product, which makes a zero of a negative one.
            return tf.where(self.masks[weight.path] > 0, value, 0.0) if weight.sparse else value

        def quantized(self, weight, scale=1.0):
            """Returns a weight, one of `quantization.weights`, times a number, as the file holds it: a float32 tensor."""
            if (given := given_weight(self, weight.path)) is not None:
                return given
            value = self.effective(weight)
            return round_weights(value if scale == 1.0 else scale * value, weight.bits, weight.axes)

        @contextlib.contextmanager
        def _quantized_activation_inputs(self, quantize):
            """While open, what goes into the layer's activation functions is quantized."""
            places = []
            for path in self.quantization.activations:
                *parts, name = path.split(".")
                holder = functools.reduce(getattr, parts, self.layer)
                function = getattr(holder, name)
                places.append((vars(holder), name, function))
                # Past tf_keras's attribute setter, as the layer's own function comes back at once.
                vars(holder)[name] = functools.partial(self._activated, function=function, path=path, quantize=quantize)
            try:
                yield
            finally:
                for attributes, name, function in places:
                    attributes[name] = function

        def _activated(self, x, function, path, quantize):
            if isinstance(function, Watched):
                x, function = function.look(x), function.function
            return activated(function, rounded_input(function, x, quantize, path), quantize, path)

        def _quantize_outputs(self, outputs, quantize):
            flat = tf.nest.flatten(outputs)
            if hasattr(self, "_compute_attention"):
                flat[0] = quantize(flat[0], "output")  # attention scores, where the call returns them, are no tensor of the file
            else:
                ready = set(map(id, quantize.ready))
                kept = [not x.dtype.is_floating or id(x) in ready for x in flat]
                flat = [x if kept[i] else quantize(x, f"output_{i}" if i else "output") for i, x in enumerate(flat)]
            return tf.nest.pack_sequence_as(outputs, flat)

        def _range(self, what, number):
            what = f"{what}@{number}" if number else what
            if (range_of := _assumed.get()) is not None:
                return (*map(tf.constant, range_of(self, what)), None)
            if what not in self.ranges:
                name = what.replace(".", "_").replace("@", "_at_")
                first = tf.VariableAggregation.ONLY_FIRST_REPLICA
                with tf.init_scope():
                    self.ranges[what] = tuple(
                        self.add_weight(
                            f"{name}_{part}",
                            (),
                            initializer=tfk.initializers.Constant(start),
                            trainable=False,
                            # Each replica moves its own, as BatchNormalization does: to wait for the others amid a layer's call, while its weights are
                            # replaced, would let them see these.
                            synchronization=tf.VariableSynchronization.ON_READ,
                            aggregation=first if part == "batches" else tf.VariableAggregation.MEAN,
                        )
                        for part, start in (("min", -6.0), ("max", 6.0), ("batches", 0.0))
                    )
            return self.ranges[what]

        def _should_use_autograph(self):
            return False  # there is nothing to convert here, and the search takes a third of the time; the layer inside decides for itself

        def get_config(self):
            weights, *rest = self.quantization
            # As files were written before there were the last ones of the settings.
            while len(rest) > _FIRST_SETTINGS and rest[-1] == Quantization()[len(rest)]:
                rest.pop()
            return {**super().get_config(), "quantization": [[list(weight) for weight in weights], *rest]}

    return QuantizedLayer


def input_quantizer(name):
    """Returns TFMOT's layer that rounds an input to 256 steps over the range of all values that training has seen."""
    quantization = imports.tfmot().quantization.keras
    quantizer = quantization.quantizers.AllValuesQuantizer(num_bits=8, per_axis=False, symmetric=False, narrow_range=False)
    return quantize_layer_class()(quantizer, name=name)
