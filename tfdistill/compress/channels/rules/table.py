"""Which rule a layer or operation has."""

from collections.abc import Callable
from typing import Any

import keras

from tfdistill.compress.channels.call import ChannelCall, LeaveWhole
from tfdistill.compress.channels.rules import carriers, convolutions, dense, normalizations, operations, passing, sequences, shapes
from tfdistill.errors import ConfigurationError
from tfdistill.graph.batches import SizedOperation
from tfdistill.graph.carriers import CARRIERS
from tfdistill.graph.keras_internals import is_keras_operation, is_keras_own

# A rule of a call returns the labels of its outputs: a tuple for each of them, with the labels of every axis.
Rule = Callable[[ChannelCall], list[tuple[Any, ...]]]

_LAYERS: dict[str, Rule] = {**convolutions.RULES, **dense.RULES, **normalizations.RULES, **passing.RULES, **sequences.RULES, **shapes.RULES}
_OPERATIONS: dict[str, Rule] = operations.RULES
_CARRIERS: dict[str, Rule] = carriers.RULES
_REGISTERED: dict[type, Rule] = {}


def register_channels(layer_class: type, rule: Rule) -> None:
    """Says how layers of a class pass channels on, so that `PruneChannels` can remove channels through them.

    Without a rule, a layer of a class that Keras does not have is left whole, with all channels that go in and come out. What the rule says is held to
    account: `PruneChannels.apply` compares the pruned model with the original.

    Args:
        layer_class: The class of the layers; classes that derive from it need a rule of their own.
        rule: Function of a `ChannelCall` that returns a list with a tuple for each output of the layer: the labels of each axis, the batch first. Labels come
            from the inputs of the call, or are new; None is an axis that stays as it is. The rule tells the call which weights have which labels, and which
            arguments of the constructor are numbers of channels. It may raise `tfdistill.compress.LeaveWhole("why")`.

    Raises:
        ConfigurationError: if `layer_class` is no class of layers or one that has a rule in this library, or `rule` is not callable.

    Example:
        >>> @keras.saving.register_keras_serializable("docs")
        ... class Widen(keras.layers.Layer):
        ...     def __init__(self, width, **kwargs):
        ...         super().__init__(**kwargs)
        ...         self.width = width
        ...
        ...     def build(self, shape):
        ...         self.kernel = self.add_weight(shape=(shape[-1], self.width))
        ...
        ...     def call(self, x):
        ...         return x @ self.kernel
        ...
        ...     def get_config(self):
        ...         return {**super().get_config(), "width": self.width}
        >>> def rule(call):
        ...     width = call.new(call.layer.width)
        ...     call.weight(call.layer.kernel, {0: call.inputs[0][-1], 1: width}, kernel=True)
        ...     call.setting("width", width)
        ...     return [(*call.inputs[0][:-1], width)]
        >>> tfdistill.compress.register_channels(Widen, rule)
        >>> model = keras.Sequential([keras.Input((4,)), Widen(16, name="widen"), keras.layers.Dense(2)])
        >>> tfdistill.compress.PruneChannels(keep_channels=0.6).apply(model).get_layer("widen").width
        8
    """
    if not (isinstance(layer_class, type) and issubclass(layer_class, keras.layers.Layer)):
        named = f"'{layer_class}'" if isinstance(layer_class, str) else f"a {type(layer_class).__name__}"
        raise ConfigurationError(
            f"register_channels got {named}.",
            "a class that derives from keras.layers.Layer",
            "give the class itself: not its name, and not one of its layers",
        )
    if is_keras_own(layer_class) and layer_class.__name__ in _LAYERS:
        raise ConfigurationError(
            f"register_channels got keras.layers.{layer_class.__name__}, which has a rule already.",
            "a class of your own, or one of Keras's that has none",
            "to leave some of its layers whole, give PruneChannels(exclude=...); for another rule, derive a class from it and register that",
        )
    if not callable(rule):
        raise ConfigurationError(
            f"register_channels got the rule {rule!r}.",
            "a function of a ChannelCall",
            "for a layer that changes no axis write lambda call: [call.inputs[0]]",
        )
    _REGISTERED[layer_class] = rule


def rule_of(operation):
    """Returns the rule of a layer or operation.

    Raises:
        LeaveWhole: if there is none.
    """
    kind = type(operation)
    if kind in _REGISTERED:
        return _REGISTERED[kind]
    if getattr(operation, "quantization_mode", None) or getattr(operation, "lora_enabled", False):
        raise LeaveWhole("its weights are quantized, or have LoRA adapters")
    if is_keras_operation(kind):
        found = _OPERATIONS.get(kind.__name__)
    elif is_keras_own(kind):
        found = _LAYERS.get(kind.__name__)
    elif kind in (*CARRIERS, SizedOperation):
        found = _CARRIERS[kind.__name__]
    else:
        raise LeaveWhole(
            f"{kind.__name__} is no class of Keras's: tfdistill.compress.open_layers puts what is inside in its place, or "
            "tfdistill.compress.register_channels tells how it passes channels on"
        )
    if found is None:
        raise LeaveWhole(f"no rule is known for a {kind.__name__}")
    return found
