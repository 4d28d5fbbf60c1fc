"""What a channel rule sees of a call, and says about its layer."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from tfdistill.compress.channels.units import NONE, Units
from tfdistill.errors import ModelError
from tfdistill.graph.flat import Value

# Labels of one axis of a tensor or weight: an array of units, or None where the axis stays as it is.
Labels = Any


class LeaveWhole(Exception):
    """Raised by a rule that cannot say how a call passes channels on. All that the call reads and writes is left as it is.

    Args:
        reason: Why, for the plan.

    Example:
        >>> def rule(call):
        ...     if call.layer.data_format == "channels_first":
        ...         raise tfdistill.compress.LeaveWhole("its channels are first")
        ...     return [call.inputs[0]]
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclasses.dataclass(frozen=True, eq=False)
class Written:
    """Channels that a layer makes.

    Attributes:
        path: Path of the layer.
        layer: The layer.
        key: What they are: `"channels"`, `"heads"`.
        labels: Their labels.
        aligned: Whether their number is brought to a multiple of the divisor. That of attention heads is not.
    """

    path: str
    layer: Any
    key: str
    labels: Labels
    aligned: bool


@dataclasses.dataclass(eq=False)
class WeightAxes:
    """A weight and the labels of its axes.

    Attributes:
        variable: The weight.
        path: Path of its layer.
        axes: List of labels, None for an axis that stays as it is.
        kernel: Whether it multiplies channels, and so has a magnitude that tells how much they count.
        gate: Whether it has a number for each channel that scales it, as gamma of BatchNormalization.
        scale: Labels of what a sum over this weight is divided by the square root of, by the layer itself; None where it is not.
    """

    variable: Any
    path: str
    axes: list
    kernel: bool
    gate: bool = False
    scale: Any = None


class ChannelCall:
    """One call of a layer, as a channel rule sees it: the labels of what goes in, and what the rule says about the layer.

    The labels of an axis say which channels its elements belong to; None is an axis that stays as it is. A rule passes labels on, makes new ones, and says which
    axes of which weights have them. `PruneChannels` makes one for each call of a layer.

    Args:
        trace: What is known of the channels so far.
        call: The call in the graph of the model.
        layer: The layer inside a wrapper that the rule is about; None for the layer that is called.
        prefix: Where the config of the wrapper has the config of that layer.

    Attributes:
        layer: The layer.
        inputs: List with one entry for each tensor among the positional arguments, in their order: a tuple with the labels of each axis, the batch first.
        arguments: Dict of name to a list of such tuples, for the tensors in each argument that is given by name.
        input_shapes: Shapes of `inputs`.
        output_shapes: Shapes of the outputs.

    Example:
        >>> class Scale(keras.layers.Layer):
        ...     def build(self, shape):
        ...         self.factor = self.add_weight(shape=(shape[-1],), initializer="ones")
        ...
        ...     def call(self, x):
        ...         return x * self.factor
        >>> def rule(call):
        ...     call.weight(call.layer.factor, {0: call.inputs[0][-1]})
        ...     return [call.inputs[0]]
        >>> tfdistill.compress.register_channels(Scale, rule)
    """

    def __init__(self, trace: Any, call: Any, layer: Any = None, prefix: tuple[str, ...] = ()) -> None:
        self._trace, self.call, self._prefix = trace, call, prefix
        self.layer = call.operation if layer is None else layer
        values = [x for x in keras.tree.flatten(call.args) if isinstance(x, Value)]
        self.inputs = [trace.axes[id(x)] for x in values]
        self.input_shapes = [x.shape for x in values]
        self.arguments = {
            name: [trace.axes[id(x)] for x in keras.tree.flatten(given) if isinstance(x, Value)] for name, given in call.kwargs.items()
        }
        self.output_shapes = [x.shape for x in call.outputs]

    @property
    def path(self) -> str:
        """Path of the layer."""
        return self.call.path

    def new(self, size: int, key: str = "channels", aligned: bool = True) -> Labels:
        """Returns the labels of channels that the layer makes; of a layer that is called again, those of its first call.

        Args:
            size: Their number.
            key: Name for them, where the layer makes several kinds.
            aligned: Whether their number is brought to a multiple of the divisor.
        """
        place = (id(self.layer), key)
        if place not in self._trace.made:
            self._trace.made[place] = labels = self._trace.units.new(size)
            self._trace.written.append(Written(self.path, self.call.operation, key, labels, aligned))
        return self._trace.made[place]

    def join(self, first: Labels, second: Labels) -> Labels:
        """Couples the elements of two axes of one size one by one, and returns their labels. If one axis stays as it is, the other one does, too."""
        if first is None and second is None:
            return None
        self._trace.units.join(first, second, f"meets channels that are left whole in '{self.path}'")
        return None if first is None or second is None else first

    def keep(self, labels: Labels, reason: str) -> None:
        """Leaves channels as they are.

        Args:
            labels: Labels of an axis.
            reason: Why, for the plan.
        """
        self._trace.units.keep(labels, f"{reason}, in '{self.path}'")

    def only(self, axes: tuple[Labels, ...], *allowed: int) -> tuple[Labels, ...]:
        """Returns the axes of a tensor with those left as they are that are not among `allowed`."""
        allowed = tuple(axis % len(axes) for axis in allowed)
        for axis, labels in enumerate(axes):
            if axis not in allowed:
                self.keep(labels, f"axis {axis} of its input is no axis of channels")
        return tuple(labels if axis in allowed else None for axis, labels in enumerate(axes))

    def weight(self, variable: Any, axes: Mapping[int, Labels], kernel: bool = False, gate: bool = False, scale: Labels = None) -> None:
        """Says which channels a weight has.

        Args:
            variable: Weight of the layer; None is passed over.
            axes: Axis -> labels.
            kernel: Whether it multiplies channels, so that its magnitude tells how much they count.
            gate: Whether it has a number for each channel that scales it, as gamma of BatchNormalization.
            scale: Labels of an axis whose size the layer divides by the square root of; the weight is multiplied to make up for it.
        """
        if variable is None:
            return
        found = [None] * len(variable.shape)
        for axis, labels in axes.items():
            if labels is not None and len(labels) != variable.shape[axis]:
                raise ModelError(
                    f"The channel rule of '{self.path}' gave {len(labels)} labels for axis {axis} of a weight of the shape {tuple(variable.shape)}.",
                    f"{variable.shape[axis]} labels",
                )
            found[axis] = labels
        before = self._trace.weights.get(id(variable))
        if before is None:
            self._trace.weights[id(variable)] = WeightAxes(variable, self.path, found, kernel, gate, scale)
        else:  # the layer is called again
            before.axes = [self.join(a, b) for a, b in zip(before.axes, found, strict=True)]

    def setting(self, name: str, labels: Labels, convert: Callable[[int], Any] = int) -> None:
        """Says which argument of the layer's constructor is a number of channels.

        Args:
            name: Name of the argument in the layer's `get_config()`.
            labels: Labels whose number it is.
            convert: Function of that number that returns the argument.
        """
        self.same_sizes(name, [labels])
        if labels is not None:
            self.set_config(name, lambda removal, _: convert(removal.size(labels, len(labels))))

    def set_config(self, name: str, function: Callable[[Any, Any], Any]) -> None:
        """Says how an argument of the layer's constructor changes.

        Args:
            name: Name of the argument in the layer's `get_config()`.
            function: Function of what is removed, which has `size(labels, size)`, and of the old value; returns the new one.
        """
        self._trace.settings.setdefault(id(self.call.operation), {})[(*self._prefix, name)] = function

    def same_sizes(self, name: str, axes: list[Labels]) -> None:
        """Couples the axes that an argument gives the sizes of with those of an earlier call of the layer: it has one number for both.

        Args:
            name: Name of the argument.
            axes: Labels of each axis.
        """
        place = (id(self.call.operation), *self._prefix, name)
        before = self._trace.sized.setdefault(place, axes)
        self._trace.sized[place] = [self.join(a, b) for a, b in zip(before, axes, strict=True)]

    def normalizes_over(self) -> None:
        """Says that the layer computes statistics over channels: when some are removed, over those that are left."""
        self._trace.normalized.add(id(self.call.operation))

    def inside(self, layer: Any, prefix: tuple[str, ...], skip: int = 0) -> "ChannelCall":
        """Returns the call of a layer inside a wrapper.

        Args:
            layer: The inner layer.
            prefix: Where the wrapper's config has that of the inner layer.
            skip: How many positional arguments are the wrapper's alone; the inner layer gets those behind them.
        """
        call = dataclasses.replace(self.call, args=self.call.args[skip:]) if skip else self.call
        return ChannelCall(self._trace, call, layer, (*self._prefix, *prefix))

    def together(self, labels: Labels, reason: str) -> None:
        """Couples all elements of an axis with each other, or leaves them as they are if one of them stays.

        Args:
            labels: Labels of an axis, or of a part of it.
            reason: Why they stay then, for the plan.
        """
        if (labels == NONE).all(1).any():
            self.keep(labels, reason)
        self.units.join_all(labels)

    def axes_of(self, value: Value) -> tuple[Labels, ...]:
        """Returns the labels of a `Value` among the arguments."""
        return self._trace.axes[id(value)]

    @property
    def units(self) -> Units:
        """The `Units`, for rules that rearrange labels."""
        return self._trace.units


def repeated(labels, times):
    """Returns labels with every element several times in a row; None for None."""
    return None if labels is None else np.repeat(labels, times, 0)


def tiled(labels, times):
    """Returns labels several times one after the other; None for None."""
    return None if labels is None else np.tile(labels, (times, 1))


def label_array(labels, size):
    """Returns labels as an array, one that depends on no unit for None."""
    return np.full((size, 1), NONE) if labels is None else labels


def is_elementwise(function):
    """Whether a function of a tensor computes each channel of its own and without weights, unlike a softmax. It is tried on a few numbers."""
    x = np.random.default_rng(0).normal(size=(3, 6)).astype("float32")
    others = [np.where(np.arange(6) == i, x + 1, x).astype("float32") for i in range(6)]
    try:
        if isinstance(function, keras.layers.Layer):
            # A copy: the first call would build the layer of the model, for six channels.
            function = type(function).from_config(function.get_config())
        found = [keras.ops.convert_to_numpy(function(keras.ops.convert_to_tensor(values))) for values in (x, *others)]
    except Exception:  # whatever a function of the user's raises on such a tensor
        return False
    if getattr(function, "weights", ()):
        return False
    # A change of one channel changes no other.
    return found[0].shape == x.shape and all(
        np.allclose(np.delete(changed, i, 1), np.delete(found[0], i, 1), atol=1e-6) for i, changed in enumerate(found[1:])
    )
