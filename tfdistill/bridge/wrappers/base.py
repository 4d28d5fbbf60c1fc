"""What the wrappers of all compression steps have in common: they are called like the layer inside, and find its weights by paths."""

import contextlib
import functools
import typing

import numpy as np

from tfdistill.bridge import imports


class WrapperState:
    """What the library reads of a wrapper around a user's layer. The defaults are those of a wrapper that leaves the layer's weights alone.

    This library's wrappers have these methods themselves; `tfdistill.bridge.wrappers.tfmot` has a view with them for each class of TFMOT's.

    Attributes:
        step: What the wrapper is for: `"pruning"`, `"clustering"` or `"quantization"`.
    """

    step = ""

    def own_variables(self):
        """Lists the variables that the wrapper added: masks, thresholds, centroids, ranges; never a weight of the user's."""
        raise NotImplementedError

    def masked_weights(self):
        """Lists the weights that a mask keeps sparse: pairs (weight variable, mask variable)."""
        return []

    def effective_values(self):
        """Returns a dict of id to value of the weights that the layer computes with changed: masked, or clustered."""
        return {id(weight): np.asarray(weight) * np.asarray(mask) for weight, mask in self.masked_weights()}

    def activation_ranges(self):
        """Lists the trained quantization ranges: tuples (what is quantized, minimum variable, maximum variable)."""
        return []

    def held_weights(self):
        """Lists weights of the user's that the wrapper took out of the layer: pairs (attribute name, variable)."""
        return []

    def original_activations(self):
        """Returns a context manager: while it is open, the layer has the activations that the user gave it."""
        return contextlib.nullcontext()


class TransparentWrapper(WrapperState):
    """Mixin for a tf_keras `Wrapper` that is called like the layer inside: same inputs, masks, training mode and attention scores.

    Its constructor ends with a call of `become_like`.
    """

    def own_variables(self):
        return list(self._non_trainable_weights)

    def become_like(self, layer):
        """Copies how `layer` is called: the names of its inputs, and whether it takes masks and the training mode."""
        self._call_spec = layer._call_spec
        self.supports_masking = layer.supports_masking

    def compute_mask(self, inputs, mask=None):
        # A layer that does not support masks drops them; its compute_mask would raise.
        return self.layer.compute_mask(inputs, mask) if self.layer.supports_masking else None

    def compute_output_shape(self, input_shape):
        return self.layer.compute_output_shape(input_shape)

    @property
    def _compute_attention(self):
        # Attention layers have it; those that want attention scores look for it.
        return self.layer._compute_attention

    @classmethod
    def from_config(cls, config, custom_objects=None):
        # tf_keras's Wrapper reads the layer inside as the file format before this one wrote it, which does not know registered classes.
        return cls(**{**config, "layer": imports.tf_keras().layers.deserialize(config["layer"], custom_objects)})


class _Place(typing.NamedTuple):
    container: typing.Any  # a layer's attributes, or the list in which a hosted layer's weights are
    key: typing.Any
    dtype: str | None  # what the layer computes in; None where it casts by itself


def _place(layer, path):
    hosted = getattr(layer, "_hosted", None)
    if hosted is None:
        holder, name = _holder(layer, path)
        return _Place(vars(holder), name, holder.compute_dtype)
    holder, name = _holder(hosted.layer, path)
    variable = getattr(holder, name)
    held = [(hosted.trainable, hosted.layer.trainable_variables), (hosted.fixed, hosted.layer.non_trainable_variables)]
    return next(_Place(kept, i, None) for kept, variables in held for i, v in enumerate(variables) if v is variable)


def _holder(layer, path):
    *parts, name = path.split(".")
    return functools.reduce(inside, parts, layer), name


def inside(held, part):
    """Returns what a part of a path stands for: an attribute of a layer, an item of a list or of a dict; None where a layer has no such attribute."""
    if isinstance(held, dict):
        return held[part]
    return held[int(part)] if part.isdigit() else getattr(held, part, None)


def variable_at(layer, path):
    """Returns the variable of a tf_keras layer that is under a path such as `"kernel"`, `"cell.kernel"` or `"cell.cells.0.kernel"`.

    Where the layer hosts a Keras 3 layer, the path is that layer's.
    """
    place = _place(layer, path)
    return place.container[place.key]


@contextlib.contextmanager
def replaced_weights(layer, tensors):
    """While open, a tf_keras layer computes with other tensors in place of its weights; they stay its weights all the same.

    Args:
        layer: Built tf_keras layer.
        tensors: Dict of a weight's path to a tensor of its shape.
    """
    import tensorflow as tf

    places = [(_place(layer, path), tensor) for path, tensor in tensors.items()]
    kept = [place.container[place.key] for place, _ in places]
    try:
        # Past tf_keras's attribute setter, which would take the weight out of the layer.
        for place, tensor in places:
            place.container[place.key] = tensor if place.dtype is None else tf.cast(tensor, place.dtype)
        yield
    finally:
        for (place, _), variable in zip(places, kept, strict=True):
            place.container[place.key] = variable
