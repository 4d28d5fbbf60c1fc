"""Where a model reads its channels, for derivatives by factors on them."""

import keras
import numpy as np

from tfdistill.compress.replay import in_order, run_calls
from tfdistill.graph.flat import Value
from tfdistill.graph.masks import mask_of, with_mask


class Reads:
    """Where a model reads its channels: the axes of tensors whose channels a call takes in and does not pass on.

    All that depends on a channel is behind these places. So the first-order change of the loss when the channel is removed is the sum, over these places, of value
    times gradient. Places before them, as a kernel in front of BatchNormalization, would count it again, and what the statistics take off as well.

    Args:
        trace: `ChannelTrace` of the model.
    """

    def __init__(self, trace):
        self.trace, self.places = trace, {}  # id of a call -> list of (place among its arguments, axis, labels)
        for call in trace.graph.calls:
            made = [one.labels for one in trace.written if one.layer is call.operation]
            own = set(np.concatenate([labels.ravel() for labels in made]).tolist()) if made else set()
            outputs = [labels for value in call.outputs for labels in trace.axes[id(value)] if labels is not None]
            passed = [trace.units.find(labels).ravel() for labels in outputs if not set(labels.ravel().tolist()) <= own]
            for place, value in enumerate(keras.tree.flatten((call.args, call.kwargs))):
                if isinstance(value, Value) and keras.backend.is_float_dtype(value.dtype):
                    for axis, labels in enumerate(trace.axes[id(value)]):
                        if labels is not None and not any(np.isin(trace.units.find(labels), one).any() for one in passed):
                            self.places.setdefault(id(call), []).append((place, axis, labels))
        self._units = np.unique(
            [unit for several in self.places.values() for *_, labels in several for unit in trace.units.find(labels).ravel()]
        )

    def holds(self, group):
        """Whether the channels of a group are read from tensors; those that a layer has inside, as heads of attention, are not."""
        return bool(np.isin(group.units, self._units).all())

    def run(self, x, watch):
        """Returns the outputs for a batch, and a list of pairs of labels and a tensor of ones that multiplies these channels, example by example."""
        ones = []

        def compute(call, args, kwargs):
            # Of the arguments by name those of the graph alone: others would shift the places.
            named = {name: kwargs[name] for name in call.kwargs}
            flat = keras.tree.flatten((args, named))
            for place, axis, labels in self.places.get(id(call), ()):
                tensor = flat[place]
                one = keras.ops.ones([n if number in (0, axis) else 1 for number, n in enumerate(tensor.shape)], tensor.dtype)
                watch(one)
                ones.append((labels, one))
                flat[place] = with_mask(tensor * one, mask_of(tensor))
            args, named = keras.tree.pack_sequence_as((args, named), flat)
            return keras.tree.flatten(call.operation(*args, **{**kwargs, **named}))

        return run_calls(self.trace.graph, in_order(self.trace.graph, x), compute), ones
