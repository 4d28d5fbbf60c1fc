"""Counts what a model costs: parameters, multiply-accumulates and activation memory."""

import dataclasses
import math

import keras

from tfdistill.errors import ConfigurationError, ModelError, nearest
from tfdistill.graph.carriers import HeldWeight
from tfdistill.graph.flat import Value, first_free, flat_graph, free_sizes
from tfdistill.graph.layers import IDLE, loading_of
from tfdistill.graph.macs import Shapes, macs_of
from tfdistill.graph.opening import is_foreign, origin
from tfdistill.graph.tracing import open_model
from tfdistill.records import Record

# What passes a tensor on, or reads it in another shape, at inference: it needs no memory of its own.
_VIEWS = ["Reshape", "ExpandDims", "Squeeze", "Flatten", "WithMask", *IDLE]


@dataclasses.dataclass(frozen=True)
class LayerProfile(Record):
    """What one layer or operation of a model costs, for one example at inference.

    Attributes:
        name: Its path.
        class_name: Its class.
        output_shape: Shape of its first output, without the batch.
        parameters: Number of its weights. Of a layer with several paths, the first one has them.
        macs: Multiply-accumulates of all its calls; None where they are not known.
        activation_bytes: Bytes of all that its calls return; 0 for one that only passes a tensor on or reads it in another shape.

    Example:
        >>> tfdistill.profile(student).layer("conv").macs
        4608
    """

    name: str
    class_name: str
    output_shape: tuple[int, ...]
    parameters: int
    macs: int | None
    activation_bytes: int


@dataclasses.dataclass(frozen=True)
class ProfileRecord(Record):
    """What a model costs, for one example at inference. `print` shows tables.

    Attributes:
        model: Name of the model.
        parameters: Number of weights, those that are not trained included.
        macs: Multiply-accumulates, without those of `uncounted`.
        activation_bytes: Bytes of all tensors between layers and of the inputs.
        peak_activation_bytes: Largest number of bytes of tensors that are needed at one time; see `profile`.
        layers: A `LayerProfile` for each layer and operation.
        uncounted: Paths of the layers and operations whose multiply-accumulates are not known.

    Example:
        >>> record = tfdistill.profile(student)
        >>> record.parameters, record.macs, record.uncounted
        (202, 4688, ())
    """

    model: str
    parameters: int
    macs: int
    activation_bytes: int
    peak_activation_bytes: int
    layers: tuple[LayerProfile, ...]
    uncounted: tuple[str, ...] = ()

    def layer(self, name: str) -> LayerProfile:
        """Returns the `LayerProfile` of the layer or operation with a path."""
        for row in self.layers:
            if row.name == name:
                return row
        raise ModelError(f"'{self.model}' has no layer '{name}'.", fix=nearest(name, [row.name for row in self.layers]))


def profile(model: keras.Model, shapes: dict[str, tuple[int, ...]] | None = None) -> ProfileRecord:
    """Counts parameters, multiply-accumulates and activation memory of a model, by layer and in all. Nothing is run.

    All figures are for one example (a batch of 1) at inference. A multiply-accumulate is a product that is summed: those of convolutions, dense, recurrent and
    attention layers, `keras.ops.matmul` and `einsum`. Biases, activations, normalizations, pooling and arithmetic between tensors count nothing, as in the
    figures of papers (MobileNetV2 at 224 x 224: 300 million); an embedding is looked up. A transposed convolution multiplies every input by its whole kernel.

    Activation memory is that of the graph as it is written: layers run in the order of the graph, a tensor is kept from the layer that returns it to the last
    one that reads it, outputs and inputs of a layer exist at the same time, and none is overwritten. What only passes a tensor on (dropout) or reads it in
    another shape (`Flatten`, `Reshape`) needs no memory of its own. Tensors inside a layer, such as the scores of attention, are not counted. A converter that fuses an activation into a convolution, or adds in place, needs less.

    Nested and subclassed models and layers of other classes than Keras's are opened. A layer that is called several times has its parameters once, and
    multiply-accumulates for every call.

    Args:
        model: A built Keras 3 model.
        shapes: Name of an input -> its shape with the batch in front, for inputs with free sizes: `{"tokens": (1, 128)}`.

    Returns:
        A `ProfileRecord`.

    Raises:
        ModelError: if it is no Keras 3 model or not built, or a size is free that `shapes` does not give.
        ConfigurationError: if `shapes` names no input, or does not fit it.
        BridgeError: if the `call` of a subclassed model does not work on symbolic tensors.

    Example:
        >>> record = tfdistill.profile(student)
        >>> print(record)
        ProfileRecord
         model            student
         parameters       202
         macs             4,688
        ...
        >>> record.layer("logits").macs
        80
    """
    if not isinstance(model, keras.Model):
        raise ModelError(f"profile got a {type(model).__name__}.", "a built Keras 3 model", loading_of(model))
    graph = flat_graph(model, _sized_inputs(model, {} if shapes is None else shapes), open_layers=True)
    _require_sizes(model, graph)
    rows: dict[str, LayerProfile] = {}
    counted: set[int] = set()
    for name, value in graph.inputs.items():
        rows[name] = LayerProfile(name, "InputLayer", tuple(value.shape[1:]), 0, 0, bytes_of(value))
    for call in graph.calls:
        row = _row(call, counted)
        before = rows.get(call.path)
        if before is not None:
            both = None if None in (row.macs, before.macs) else row.macs + before.macs
            row = dataclasses.replace(before, macs=both, activation_bytes=before.activation_bytes + row.activation_bytes)
        rows[call.path] = row
    # Weights of layers that the graph does not show, such as a subclassed model's own.
    count = sum(math.prod(w.shape) for w in model.weights)
    return ProfileRecord(
        model=model.name,
        parameters=count,
        macs=sum(row.macs or 0 for row in rows.values()),
        activation_bytes=sum(row.activation_bytes for row in rows.values()),
        peak_activation_bytes=peak_bytes(graph),
        layers=tuple(rows.values()),
        uncounted=tuple(row.name for row in rows.values() if row.macs is None),
    )


def _row(call, counted):
    operation = origin(call.operation)
    weights = [operation.weight] if isinstance(operation, HeldWeight) else getattr(operation, "weights", [])
    new = [w for w in weights if id(w) not in counted]
    counted.update(map(id, new))
    own = 0 if _is_view(call) else sum(bytes_of(x) for x in call.outputs)
    macs = macs_of(operation, own_shapes(call))
    return LayerProfile(
        call.path, type(operation).__name__, tuple(call.outputs[0].shape[1:]), sum(math.prod(w.shape) for w in new), macs, own
    )


def macs_inside(model, graph):
    """Returns a dict of path of each layer of a class that Keras does not have to a pair: the multiply-accumulates inside it in all of its calls, and whether these are
    all.

    Args:
        model: Built Keras 3 model.
        graph: Its `FlatGraph`, in which these layers are not opened.

    Returns:
        The dict, without layers that cannot be opened; empty for a model with free sizes.
    """
    paths = {call.path for call in graph.calls if is_foreign(call.operation)}
    if not paths or first_free(graph) is not None:
        return {}
    found: dict[str, tuple[int, bool]] = {}
    for call in flat_graph(model, open_layers=True).calls:
        outer = next((call.path[:end] for end in _ends(call.path) if call.path[:end] in paths), None)
        if outer is not None and call.path not in paths:
            known = not any(free_sizes(x.shape) for x in [*call.values(), *call.outputs])
            macs = macs_of(origin(call.operation), own_shapes(call)) if known else None
            before, all_known = found.get(outer, (0, True))
            found[outer] = (before + (macs or 0), all_known and macs is not None)
    return found


def _ends(path):
    return [place for place, letter in enumerate(path) if letter == "/"]


def own_shapes(call):
    """Returns the `Shapes` of a call as they are."""
    return shapes_at(call, lambda x: x.shape, lambda variable: tuple(variable.shape))


def shapes_at(call, shape_of_value, shape_of_variable):
    """Returns the `Shapes` of a call.

    Args:
        call: `FlatCall`.
        shape_of_value: Function of a `Value`.
        shape_of_variable: Function of a variable.
    """
    args = [
        tuple(shape_of_value(x) if isinstance(x, Value) else x.shape)
        for x in keras.tree.flatten(call.args)
        if isinstance(x, Value) or len(getattr(x, "shape", ()))
    ]
    kwargs = {name: tuple(shape_of_value(x)) for name, x in call.kwargs.items() if isinstance(x, Value)}
    return Shapes(args, kwargs, [tuple(shape_of_value(x)) for x in call.outputs], shape_of_variable)


def bytes_of(value):
    """Returns the number of bytes of a value for one example."""
    width = {"bool": 8, "string": 8}.get(value.dtype) or int("".join(c for c in value.dtype.partition("_")[0] if c.isdigit()))
    return math.prod(value.shape[1:]) * width // 8


def _is_view(call):
    kind = type(origin(call.operation)).__name__
    return kind in _VIEWS or isinstance(call.operation, HeldWeight)


def peak_bytes(graph):
    """Returns the largest number of bytes of tensors that are needed at one time; see `profile`."""
    stored = {id(value): value for value in graph.inputs.values()}  # id of a value -> the value whose memory it uses
    last: dict[int, int] = {}
    for number, call in enumerate(graph.calls):
        read = call.values()
        for value in read:
            last[id(stored[id(value)])] = number
        for value in call.outputs:
            stored[id(value)] = stored[id(read[0])] if _is_view(call) and read and len(call.outputs) == 1 else value
    for value in graph.outputs:
        last[id(stored[id(value)])] = len(graph.calls)
    live = {id(value): bytes_of(value) for value in graph.inputs.values()}
    peak = sum(live.values())
    for number, call in enumerate(graph.calls):
        for value in call.outputs:
            owner = stored[id(value)]
            live.setdefault(id(owner), 0 if isinstance(call.operation, HeldWeight) else bytes_of(owner))
        peak = max(peak, sum(live.values()))
        live = {key: size for key, size in live.items() if last.get(key, -1) > number}
    return peak


def _sized_inputs(model, shapes):
    """Returns inputs of the sizes that are given, None where none is."""
    if not isinstance(shapes, dict) or not all(isinstance(shape, (tuple, list)) for shape in shapes.values()):
        raise ConfigurationError(f"shapes={shapes!r}.", "a dict of name of an input to its shape, with the batch in front")
    if not shapes:
        return None
    view = open_model(model)
    names = [x._keras_history.operation.name for x in view.inputs]
    for name, shape in shapes.items():
        if name not in names:
            raise ConfigurationError(f"shapes={shapes!r} names the input '{name}'.", f"inputs of '{model.name}'", nearest(name, names))
        own = tuple(view.inputs[names.index(name)].shape)
        if len(own) != len(shape) or any(n not in (None, given) for n, given in zip(own[1:], tuple(shape)[1:], strict=True)):
            raise ConfigurationError(f"shapes={shapes!r} does not fit the input '{name}'.", f"a shape like {own}, None being free")
    wanted = [tuple(shapes.get(name, x.shape)) for name, x in zip(names, view.inputs, strict=True)]
    return [
        keras.Input(batch_shape=(x.shape[0], *shape[1:]), dtype=x.dtype, name=name)
        for shape, x, name in zip(wanted, view.inputs, names, strict=True)
    ]


def _require_sizes(model, graph):
    free = {name: value.shape for name, value in graph.inputs.items() if free_sizes(value.shape)}
    if free:
        name, shape = next(iter(free.items()))
        raise ModelError(
            f"The model '{model.name}' has free sizes, so that its cost is not known: input '{name}' {shape}.",
            "a size for each",
            f"give them: tfdistill.profile(model, shapes={{{name!r}: {tuple(1 if n is None else n for n in shape)}}}), with your own numbers",
        )
    for call in graph.calls:
        if any(free_sizes(value.shape) for value in [*call.values(), *call.outputs]):
            raise ModelError(
                f"The model '{model.name}' computes sizes from values at '{call.path}' ({type(call.operation).__name__}), so that its cost is not known.",
                "sizes that follow from the shapes of the inputs",
            )
