"""A model as one flat list of calls, with what is inside nested models in the place of these models."""

import dataclasses
import inspect
from typing import Any

import keras

from tfdistill.errors import BridgeError
from tfdistill.graph.functional import calls, filled, is_functional, is_sequential, only_calls, own_arguments
from tfdistill.graph.inlining import inlined
from tfdistill.graph.opening import is_foreign, look_inside, origin, stand_in
from tfdistill.graph.tracing import open_model, required_arguments


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
    """A tensor of a flat graph. A nested model that is called twice has two values for each of its tensors.

    Attributes:
        shape: Its shape, None where a size is free.
        dtype: Its type.
    """

    shape: tuple
    dtype: str


@dataclasses.dataclass(frozen=True, eq=False)
class FlatCall:
    """One call of a layer or operation.

    Attributes:
        path: Path of the layer: names joined by "/", from the outermost model in.
        operation: The layer or operation.
        args: Arguments, with a `Value` in place of each tensor.
        kwargs: Keyword arguments that the author of the model gave, likewise.
        outputs: List of `Value`.
    """

    path: str
    operation: Any
    args: tuple
    kwargs: dict
    outputs: list

    def values(self):
        """Lists the values among the arguments."""
        return [x for x in keras.tree.flatten((self.args, self.kwargs)) if isinstance(x, Value)]


@dataclasses.dataclass(frozen=True, eq=False)
class FlatGraph:
    """The flat graph of a model.

    Attributes:
        inputs: Dict of the name of an input to its `Value`, in the order of the model.
        outputs: List of `Value`.
        calls: List of `FlatCall`, in an order in which what each one reads is there.
        views: Dict of id of the model and each nested one to its functional view, whose operations are those of the calls.
        entries: Dict of id of a nested model to the list of its calls, each a list of the values that it is called on.
    """

    inputs: dict
    outputs: list
    calls: list
    views: dict
    entries: dict


def flat_graph(model, inputs=None, open_layers=False, view_of=None):
    """Returns the `FlatGraph` of a model.

    Args:
        model: Built Keras 3 model.
        inputs: `keras.Input`s of other sizes in place of the model's own, flat; None for these.
        open_layers: Whether layers of classes that Keras does not have are opened, too, where their calls work on symbolic tensors.
        view_of: Function (model, its functional view, its path, its only `graph.Call` in the model around it or None) that returns the view to take in its
            place; None takes it as it is.

    Raises:
        ModelError: if the model is not built.
        BridgeError: if the model is a subclassed one whose `call` does not work on symbolic tensors.
    """
    flattening = _Flattening(open_layers, view_of)
    view = flattening.view(model, open_model(model), inputs, model.name, None)
    given = [Value(tuple(x.shape), x.dtype) for x in view.inputs]
    outputs = flattening.run(view, given, "")
    names = [x._keras_history.operation.name for x in view.inputs]
    return FlatGraph(dict(zip(names, given, strict=True)), outputs, flattening.calls, flattening.views, flattening.entries)


def free_sizes(shape):
    """Whether a shape has a free size other than the batch."""
    return None in tuple(shape)[1:]


def _first_in_place(operation, args, kwargs):
    """Returns the arguments of a call with the first one in its place, where it was given by its name."""
    name = next(iter(inspect.signature(operation.call).parameters), None) if kwargs and not args else None
    return ((kwargs[name],), {key: x for key, x in kwargs.items() if key != name}) if name in kwargs else (args, kwargs)


def first_free(graph):
    """Returns the path of the first call of a flat graph with a free size, for which multiply-accumulates are not known; None where there is none."""
    return next((call.path for call in graph.calls if any(free_sizes(x.shape) for x in [*call.values(), *call.outputs])), None)


def _sized_outputs(call, args, kwargs):
    """Returns the outputs of a call, as symbolic tensors; of known sizes where only the layer leaves them free, as EinsumDense may."""
    if not any(free_sizes(x.shape) for x in call.outputs):
        return call.outputs
    structure = keras.tree.map_structure(lambda x: keras.KerasTensor(x.shape, x.dtype) if isinstance(x, Value) else x, (args, kwargs))
    if any(free_sizes(x.shape) for x in keras.tree.flatten(structure) if isinstance(x, keras.KerasTensor)):
        return call.outputs
    operation = stand_in(call.operation, call.operation.name)
    return keras.tree.flatten(operation.compute_output_spec(*structure[0], **structure[1]))


class _Flattening:
    def __init__(self, open_layers, view_of):
        self.open_layers, self.view_of = open_layers, view_of
        self.calls, self.views, self.entries = [], {}, {}
        self.written = {}  # id of a view -> the view before its layers were opened
        self.paths = {}  # path -> the layer that has it

    def view(self, model, opened, inputs, path, alone):
        written = opened
        if self.view_of is not None:
            opened = self.view_of(model, opened, path, alone)
        elif inputs is not None or (self.open_layers and any(is_foreign(call.operation) for call in calls(opened))):
            opened = inlined(opened, self._inside, set(), inputs)
        self.views[id(model)] = opened
        self.written[id(opened)] = written
        return opened

    def _inside(self, layer, signature, path):
        if not self.open_layers:
            return None
        try:
            return look_inside(layer, signature, path)
        except BridgeError:
            return None

    def run(self, view, given, prefix, sized=None):
        """Lists the calls of a view, and returns the values of its outputs. `sized` is the view with the sizes of one call, None where these are its own."""
        tensors = dict(zip(map(id, (sized or view).inputs), given, strict=True))
        # Each call with sizes of its own has stand-ins, of which the new graph knows nothing.
        own = {id(origin(call.operation)): call.operation for call in calls(view)} if sized is not None else {}
        alone = only_calls(sized or view)
        for call in calls(sized or view):
            operation = own.get(id(origin(call.operation)), call.operation)
            args, kwargs = _first_in_place(operation, *filled((call.args, own_arguments(call)), tensors))
            path = self._path(prefix + operation.name, operation)
            nested = self._nested(operation, path, alone.get(id(call.operation)))
            if nested is None:
                outputs = [Value(tuple(x.shape), x.dtype) for x in _sized_outputs(call, args, kwargs)]
                self.calls.append(FlatCall(path, operation, args, kwargs, outputs))
            else:
                values = [x for x in keras.tree.flatten((args, kwargs)) if isinstance(x, Value)]
                self.entries.setdefault(id(origin(operation)), []).append(values)
                outputs = self.run(nested, values, f"{path}/", self._sized(nested, values))
            tensors.update(zip(map(id, call.outputs), outputs, strict=True))
        return [tensors[id(x)] for x in (sized or view).outputs]

    def _path(self, path, operation):
        """Returns the path of a layer; another one where a layer before has it."""
        source, unique, number = origin(operation), path, 0
        while self.paths.setdefault(unique, source) is not source:
            number += 1
            unique = f"{path}_{number}"
        return unique

    def _nested(self, operation, path, alone):
        """Returns the functional view of a nested model; None for a layer, and for a model that cannot be opened."""
        source = origin(operation)
        if id(source) in self.views:
            return self.views[id(source)]
        if not isinstance(source, keras.Model) or isinstance(source, keras.layers.InputLayer):
            return None
        if not (is_functional(source) or is_sequential(source)) and len(required_arguments(source)) > 1:
            return None
        try:
            return self.view(source, open_model(source, path=path), None, path, alone)
        except BridgeError:
            return None

    def _sized(self, view, values):
        """Returns the view with the sizes of one call where the model itself leaves them free; None where it does not, or they stay free."""
        if not any(map(free_sizes, (x.shape for x in view.inputs))) or any(map(free_sizes, (x.shape for x in values))):
            return None
        inputs = [keras.Input(batch_shape=x.shape, dtype=x.dtype) for x in values]
        # What is inside a layer that is opened for free sizes may have kept them.
        return inlined(self.written[id(view)], self._inside, set(), inputs)
