"""Makes the state that layers keep between calls an input and an output of the model, so that whoever calls it carries the state on."""

import dataclasses
import re
import typing

import keras
import numpy as np

from tfdistill.errors import ModelError
from tfdistill.graph.flat import Value, flat_graph
from tfdistill.graph.layers import all_layers
from tfdistill.graph.names import unique_name
from tfdistill.graph.opening import stand_in

# What the states of a cell are called, in the order in which it keeps them.
_NAMES = {"LSTMCell": ("h", "c"), "ConvLSTMCell": ("h", "c"), "GRUCell": ("h",), "SimpleRNNCell": ("h",)}
# A file with more steps written out is large, and takes minutes to convert.
_MOST_STEPS = 128


@dataclasses.dataclass(frozen=True)
class ExplicitState:
    """One state of a layer.

    Attributes:
        name: Name of the input that takes it: the layer's, and `_h` or `_c`.
        output: Name of the output that gives it on: the same, and `_next`.
        layer: Path of the layer.
        shape: Shape without the batch.
        initial: The number that it consists of before the first call: 0 for recurrent layers.
    """

    name: str
    output: str
    layer: str
    shape: tuple[int, ...]
    initial: float


@dataclasses.dataclass(frozen=True)
class ExplicitModel:
    """A model whose states are inputs and outputs.

    Attributes:
        model: Functional Keras 3 model. Its inputs are those of the original, then the states; so are its outputs.
        states: Tuple of `ExplicitState`, in the order of the layers.
    """

    model: keras.Model
    states: tuple[ExplicitState, ...]


def keeps_state(layer):
    """Whether a layer of Keras 3 keeps state from one call to the next: it has `reset_state` and is not built with `stateful=False`. A model does so by its layers."""
    return not isinstance(layer, keras.Model) and hasattr(layer, "reset_state") and getattr(layer, "stateful", True)


def explicit_states(model, batch_size, names_of=None, unroll=False):
    """Returns a model that computes what a stateful one does, with the states as inputs and outputs.

    Recurrent layers become stateless ones with an initial state; other layers with a `reset_state` are called with their variables replaced. The original is not changed,
    and weights are copied.

    Args:
        model: Built Keras 3 model with layers that keep state.
        batch_size: Batch size of the new model.
        names_of: Function of the structure of the original's outputs: returns their names, in flattened order; None takes those of Keras.
        unroll: Whether recurrent layers of up to 128 steps are written out step by step, as TensorFlow's converter makes no integers of a loop.

    Returns:
        `ExplicitModel`.

    Raises:
        ModelError: if no layer keeps state, or a state does not begin as one number.
        BridgeError: if it is a subclassed model whose `call` does not work on symbolic tensors.
    """
    graph = flat_graph(model)
    if not any(keeps_state(call.operation) for call in graph.calls):
        hidden = [layer for layer in all_layers(model) if keeps_state(layer)]
        if hidden:
            raise ModelError(
                f"'{hidden[0].name}' ({type(hidden[0]).__name__}) keeps its state inside of another layer.",
                "layers with states in the model's own graph",
                "call it in the model itself, outside of the layer around it",
            )
        raise ModelError(
            f"No layer of '{model.name}' keeps state between calls.",
            "a model with stateful layers",
            "build its recurrent layers with stateful=True, or leave states= out",
        )
    return _Building(graph, batch_size, unroll).run(model, names_of)


class _Building:
    def __init__(self, graph, batch_size, unroll):
        self._graph, self._batch, self._unroll = graph, batch_size, unroll
        self._copies, self._weights, self._names = {}, [], set()
        self._inputs, self._states, self._current = [], {}, {}

    def run(self, model, names_of):
        graph = self._graph
        view = graph.views[id(model)]
        given = [keras.Input(batch_shape=(self._batch, *x.shape[1:]), dtype=x.dtype, name=name) for name, x in graph.inputs.items()]
        tensors = dict(zip(graph.inputs.values(), given, strict=True))
        for call in graph.calls:
            args, kwargs = keras.tree.map_structure(lambda x: tensors[x] if isinstance(x, Value) else x, (call.args, call.kwargs))
            outputs = self._stateful(call, args, kwargs) if keeps_state(call.operation) else self._copy(call)(*args, **kwargs)
            tensors.update(zip(call.outputs, keras.tree.flatten(outputs), strict=True))
        for copied, layer in self._weights:
            copied.set_weights(layer.get_weights())
        states = tuple(state for several in self._states.values() for state in several)
        after = [x for several in self._current.values() for x in several]
        after = {state.output: keras.layers.Identity(name=state.output)(x) for state, x in zip(states, after, strict=True)}
        outputs = [tensors[value] for value in graph.outputs]
        begins: typing.Any = [*given, *self._inputs]
        ends: typing.Any = [*_named(outputs, names_of(view.output) if names_of else model.output_names), *after.values()]
        if isinstance(view.output, dict):
            ends = {**keras.tree.pack_sequence_as(view.output, outputs), **after}
        if isinstance(view.input, dict):
            own = dict(zip(map(id, view.inputs), given, strict=True))
            begins = {**{key: own[id(x)] for key, x in view.input.items()}, **{x.name: x for x in self._inputs}}
        return ExplicitModel(keras.Model(begins, ends, name=model.name), states)

    def _copy(self, call, config=None):
        """Returns a layer like that of a call, with weights of its own, so that the user's is not called; one that cannot be made anew shares its weights."""
        layer, key = call.operation, id(call.operation)
        if key not in self._copies:
            name = unique_name(call.path.replace("/", "_"), self._names)
            self._names.add(name)
            try:
                made = type(layer).from_config({**layer.get_config(), **(config or {}), "name": name})
                self._weights += [(made, layer)] if isinstance(layer, keras.layers.Layer) else []
            except Exception:  # an operation, or a class that does not say how it is made
                made = stand_in(layer, name)
            self._copies[key] = made, layer  # which keeps the layer, and with it its id
        return self._copies[key][0]

    def _stateful(self, call, args, kwargs):
        layer, key = call.operation, id(call.operation)
        own = keras.tree.flatten(getattr(layer, "states", None))
        recurrent = hasattr(layer, "return_state") and all(hasattr(x, "assign") for x in own)
        variables = own if recurrent else layer.non_trainable_variables
        if key not in self._current:
            self._current[key] = self._begin(call, variables)
        states = self._current[key]
        if recurrent:
            length = args[0].shape[1]
            made = self._copy(call, _stateless(layer, self._unroll and length is not None and length <= _MOST_STEPS))
            initial = states if isinstance(layer, keras.layers.Bidirectional) else keras.tree.pack_sequence_as(layer.states, states)
            kwargs = {name: value for name, value in kwargs.items() if name != "initial_state"}
            flat = keras.tree.flatten(made(*args[:1], initial_state=initial, **kwargs))
        else:
            self._require_batch(call, variables)
            if key not in self._copies:
                self._copies[key] = _WithStates(layer, variables, name=unique_name(call.path.replace("/", "_"), self._names)), layer
            made = self._copies[key][0]
            flat = keras.tree.flatten(made([*keras.tree.flatten((args, kwargs))[:1], *states]))
        self._current[key] = flat[-len(states) :]
        return flat if recurrent and layer.return_state else flat[: -len(states)]

    def _require_batch(self, call, variables):
        for variable in variables:
            if variable.shape[0] != self._batch:
                raise ModelError(
                    f"The state of '{call.path}' ({type(call.operation).__name__}) was built for a batch of {variable.shape[0]}, and the file has one of "
                    f"{self._batch}.",
                    "one batch, as only the states of recurrent layers are made for another",
                    f"give the export that batch_size, or build the model on keras.Input(batch_shape=({self._batch}, ...))",
                )

    def _begin(self, call, variables):
        """Makes the inputs for the states of a layer."""
        prefix, made = re.sub(r"\W", "_", call.path, flags=re.ASCII), []
        prefix = prefix if prefix[:1].isalpha() else f"layer_{prefix}"
        self._states[id(call.operation)] = []
        beginnings = _at_the_beginning(call.operation, variables)
        for name, variable, numbers in zip(_names(call.operation, variables), variables, beginnings, strict=True):
            if numbers.min() != numbers.max():
                raise ModelError(
                    f"A state of '{call.path}' begins with different numbers, from {numbers.min():.4g} to {numbers.max():.4g}.",
                    "a state that begins as one number, such as 0",
                )
            shape = tuple(int(n) for n in variable.shape[1:])
            state = ExplicitState(f"{prefix}_{name}", f"{prefix}_{name}_next", call.path, shape, float(numbers.max()))
            made.append(keras.Input(batch_shape=(self._batch, *shape), dtype="float32", name=state.name))
            self._states[id(call.operation)].append(state)
        self._inputs += made
        return made


class _WithStates(keras.layers.Layer):
    """Calls a layer with tensors in place of the variables that it keeps its state in, and returns what they become."""

    def __init__(self, layer, variables, **kwargs):
        super().__init__(**kwargs)
        self.inner, self._kept = layer, list(variables)
        self.built = True

    def call(self, inputs):
        x, *states = inputs
        casts = [keras.ops.cast(state, variable.dtype) for state, variable in zip(states, self._kept, strict=True)]
        with keras.StatelessScope(state_mapping=list(zip(self._kept, casts, strict=True))) as scope:
            outputs = self.inner(x)
            after = [scope.get_current_value(variable) for variable in self._kept]
        return [*keras.tree.flatten(outputs), *after]


def _stateless(layer, unroll):
    """Returns the settings of a recurrent layer without a state of its own."""
    settings = {"stateful": False, "return_state": True}
    if unroll and hasattr(getattr(layer, "forward_layer", layer), "unroll"):
        settings["unroll"] = True
    if not isinstance(layer, keras.layers.Bidirectional):
        return settings
    config, changed = layer.get_config(), {}
    for name in ("layer", "backward_layer"):
        if config.get(name):
            changed[name] = {**config[name], "config": {**config[name]["config"], **settings}}
    return changed


def _names(layer, variables):
    """Returns the names of a layer's states: `h` and `c` where these are all, or else a number for each."""
    names = _NAMES.get(type(getattr(layer, "cell", None)).__name__, ())
    return names if len(names) == len(variables) else [f"state_{i}" for i in range(len(variables))]


def _at_the_beginning(layer, variables):
    """Returns what the states are before the first call, as arrays; the layer's state stays as it is."""
    kept = [np.array(variable) for variable in variables]
    if hasattr(layer, "return_state"):  # Keras cannot reset the states of stacked cells; all of them are 0
        return [np.zeros_like(value) for value in kept]
    layer.reset_state()
    found = [np.array(variable) for variable in variables]
    for variable, value in zip(variables, kept, strict=True):
        variable.assign(value)
    return found


def _named(tensors, names):
    """Returns the outputs of a model under the names that they have had: Keras names an output after its layer."""
    names = names if len(names) == len(tensors) else [f"output_{i}" for i in range(len(tensors))]
    return [
        x if x._keras_history.operation.name == name and sum(x is other for other in tensors) == 1 else keras.layers.Identity(name=name)(x)
        for x, name in zip(tensors, names, strict=True)
    ]
