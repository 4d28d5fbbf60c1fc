"""Follows the channels of a model through its graph: which elements of which tensors and weights are removed together."""

from tfdistill.compress.channels.call import ChannelCall, Labels, LeaveWhole, WeightAxes, Written
from tfdistill.compress.channels.rules.table import rule_of
from tfdistill.compress.channels.units import Units
from tfdistill.errors import ModelError
from tfdistill.graph.flat import FlatGraph, flat_graph


class ChannelTrace:
    """The channels of one model.

    Attributes:
        graph: `FlatGraph` of the model.
        units: `Units`.
        axes: Dict of id of each `Value` to a tuple of the labels of its axes.
        weights: Dict of id of a weight to its `WeightAxes`.
        written: List of `Written`.
        settings: Dict of id of a layer or operation to a dict of path in its config to a function of a `Removal` and the old value that returns the new one.
        whole: Dict of path to the reason why a layer or operation is not followed.
        normalized: Set of ids of layers that compute statistics over channels, which are those over what is left.
    """

    def __init__(self, model):
        self.graph: FlatGraph = flat_graph(model)
        self.units = Units()
        self.axes: dict[int, tuple] = {}
        self.weights: dict[int, WeightAxes] = {}
        self.written: list[Written] = []
        self.settings: dict[int, dict] = {}
        self.whole: dict[str, str] = {}
        self.normalized: set[int] = set()
        self.made: dict[tuple, Labels] = {}
        self.sized: dict[tuple, list[Labels]] = {}  # (id of a layer, path in its config) -> the labels that the argument is the number of
        self._left: dict[int, str] = {}  # id of a layer that is left whole -> why
        for value in self.graph.inputs.values():
            self.axes[id(value)] = (None,) * len(value.shape)
        for call in self.graph.calls:
            self._follow(call)
        for model, several in self.graph.entries.items():
            self._couple_calls(self.graph.views[model], several)
        for value in self.graph.outputs:
            for labels in self.axes[id(value)]:
                self.units.keep(labels, "an output of the model")

    def _couple_calls(self, view, several):
        """Couples what a nested model is called on in each of its calls, where it takes one size alone."""
        for values in several[1:]:
            for own, first, other in zip(view.inputs, several[0], values, strict=True):
                for n, a, b in zip(own.shape, self.axes[id(first)], self.axes[id(other)], strict=True):
                    if n is not None:
                        self.units.join(a, b, f"meets channels that are left whole, as inputs of '{view.name}'")

    def _follow(self, call):
        arguments = ChannelCall(self, call)
        try:
            if id(call.operation) in self._left:
                raise LeaveWhole(self._left[id(call.operation)])
            rule = rule_of(call.operation)
            outputs = rule(arguments)
        except LeaveWhole as reason:
            self._left[id(call.operation)] = reason.reason
            self._leave_whole(call, reason.reason)
            return
        if len(outputs) != len(call.outputs):
            raise ModelError(
                f"The channel rule of '{call.path}' ({type(call.operation).__name__}) returned {len(outputs)} tuples of axes.",
                f"one for each of its {len(call.outputs)} outputs",
            )
        for value, axes in zip(call.outputs, outputs, strict=True):
            # An axis without labels has the size that the output has there.
            own = [*value.shape[: len(axes)], *(None for _ in range(len(axes) - len(value.shape)))]
            sizes = tuple(n if labels is None else len(labels) for labels, n in zip(axes, own, strict=True))
            if sizes != tuple(value.shape):
                raise ModelError(
                    f"The channel rule of '{call.path}' ({type(call.operation).__name__}) returned axes of the sizes {sizes}.",
                    f"those of its output: {value.shape}",
                )
            self.axes[id(value)] = tuple(axes)

    def _leave_whole(self, call, reason):
        said = f"'{call.path}' ({type(call.operation).__name__}) is left whole: {reason}"
        touched = [labels for value in call.values() for labels in self.axes[id(value)]]
        touched += [labels for w in getattr(call.operation, "weights", ()) if id(w) in self.weights for labels in self.weights[id(w)].axes]
        touched += [one.labels for one in self.written if one.layer is call.operation]
        if getattr(call.operation, "weights", ()) or any(labels is not None for labels in touched):
            self.whole.setdefault(call.path, reason)
        for labels in touched:
            self.units.keep(labels, said)
        for value in call.outputs:
            self.axes[id(value)] = (None,) * len(value.shape)
