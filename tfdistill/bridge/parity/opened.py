"""Checks that the functional view of a subclassed model is that model: while it trains, and whatever values its weights take.

The view comes from one run of `call` on symbolic tensors. What Python decides or computes in that run is fixed from then on: a branch on `training`, or the
value of a weight that is read outside of a layer. A graph with such a value agrees with the model until it is trained, and differs from then on.
"""

import dataclasses
import inspect
import warnings
from collections.abc import Callable

import keras
import numpy as np

from tfdistill.bridge.convert.encoding import encode
from tfdistill.bridge.parity.check import needed_sizes, random_inputs, within
from tfdistill.bridge.parity.run import arrays, difference
from tfdistill.errors import BridgeError
from tfdistill.graph.carriers import HeldWeight, is_itself
from tfdistill.graph.functional import calls
from tfdistill.graph.masks import mask_of
from tfdistill.graph.opening import look_inside, origin
from tfdistill.graph.tracing import traced

# The model and its view run the same operations in the same order.
_TOLERANCE = 1e-5
_OWN_LAYER = (
    "write a layer of your own that owns the weight and computes with it, which is opened; where that is not possible, register it: "
    "tfdistill.bridge.register_bridge(its class, tfdistill.bridge.host)"
)


@dataclasses.dataclass(frozen=True)
class _Subject:
    """A model or layer, and the view of what is inside.

    Attributes:
        what: What the errors call it: `"'net/block' (Block)"`.
        weights: Its variables.
        view: Functional model of what is inside.
        training: The view in training mode; `view` itself where its call does not take the mode.
        again: Function without arguments that opens it once more.
        run: Function `(inputs, values)` that runs it and its view on arrays for the view's inputs, with other values for some weights; returns the two lists
            of arrays.
        remedy: What is to be done where it cannot be opened.
    """

    what: str
    weights: list
    view: keras.Model
    training: keras.Model
    again: Callable
    run: Callable
    remedy: str


def check_opened(model, opened, path):
    """Refuses a subclassed model whose functional view is only a part of it.

    The model is not changed: it runs with other weights in a `keras.StatelessScope`.

    Args:
        model: Built subclassed Keras 3 model.
        opened: What `open_model` made of it.
        path: Name of the model in errors.

    Returns:
        Set of ids: of the first output of each call in `opened` that stays in inference mode while the model trains.

    Raises:
        BridgeError: if `call` computes by another graph in training mode; if a layer is in training mode at inference; if a weight is read as a value; or if
            the view computes something else for another reason.
    """
    return _check(
        _Subject(
            what=f"'{path}' ({type(model).__name__})",
            weights=model.weights,
            view=opened,
            training=traced(model, opened.input, path, training=True) if _takes_training(model) else opened,
            again=lambda: traced(model, opened.input, path),
            run=lambda inputs, values: [_run(lambda one=one: one(inputs, training=False), values) for one in (model, opened)],
            remedy="put what depends on the mode into a layer of your own",
        )
    )


def check_inside(layer, signature, view, path):
    """Refuses a layer whose functional view is only a part of it, as `check_opened` does for a model; the masks of its outputs are compared too.

    Args:
        layer: Built layer of any class.
        signature: `graph.opening.Signature` of the call that is looked at.
        view: What `look_inside` made of it.
        path: Name of the layer in errors.

    Returns:
        Set of ids, as `check_opened`.

    Raises:
        BridgeError: as `check_opened`.
    """

    def called(inputs):
        _, (args, kwargs) = signature.on(inputs)
        return _with_masks(layer(*args, **kwargs, training=False))

    def looked_at(inputs):
        tensors, _ = signature.on(inputs)
        return _with_masks(view(keras.tree.pack_sequence_as(view.input, tensors), training=False))

    def run(inputs, values):
        return [_run(lambda one=one: one(keras.tree.flatten(inputs)), values) for one in (called, looked_at)]

    return _check(
        _Subject(
            what=f"'{path}' ({type(origin(layer)).__name__})",
            weights=layer.weights,
            view=view,
            training=look_inside(layer, signature, path, training=True),
            again=lambda: look_inside(layer, signature, path),
            run=run,
            remedy="put what depends on the mode into a layer inside it",
        )
    )


def check_same(model, opened, path):
    """Refuses the functional view of a model that computes something else than the model.

    Args:
        model: Functional or Sequential Keras 3 model.
        opened: The same model with what is inside its layers in their place.
        path: Name of the model in errors.

    Raises:
        BridgeError: naming the model.
    """
    inputs = random_inputs(opened)
    with needed_sizes(f"The model '{path}'", inputs):
        pairs = list(zip(*(_run(lambda one=one: one(inputs, training=False), []) for one in (model, opened)), strict=True))
    worst = max((difference(*pair) for pair in pairs), key=lambda found: found[0])
    if not within(*worst, _TOLERANCE):
        raise BridgeError(
            f"The layers of '{path}' were opened, but what is inside them computes something else together: the outputs differ by {worst[0]:.3g}.",
            "layers that depend on nothing but their inputs, weights and training mode",
            "tfdistill.bridge.register_bridge(a layer's class, tfdistill.bridge.host) runs the layers of a class as they are",
        )


def _check(subject):
    _refuse_other_graph(subject)
    frozen = _frozen(subject)
    _refuse_fixed_values(subject)
    return frozen


def _takes_training(model):
    return "training" in inspect.signature(model.call).parameters


def _frozen(subject):
    frozen = set()
    for inferring, training in zip(calls(subject.view), calls(subject.training), strict=True):
        if inferring.kwargs.get("training") and is_itself(inferring.operation):
            raise BridgeError(
                f"The call of {subject.what} runs '{inferring.operation.name}' in training mode at inference too.",
                "layers that follow the mode of the model",
                "pass on the mode that call() gets: training=training",
            )
        if training.kwargs.get("training") is False:
            frozen.add(id(inferring.outputs[0]))
    return frozen


def _refuse_other_graph(subject):
    ours, theirs = _described(subject.view), _described(subject.training)
    if ours == theirs:
        return
    first = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    if _described(subject.again()) != ours:
        raise _stateful(subject, "its graph is another one each time")
    here = [rows[first][0] if first < len(rows) else "the outputs" for rows in (ours, theirs)]
    raise BridgeError(
        f"The call of {subject.what} computes by another graph in training mode: {here[1]} there, where it is {here[0]} at inference.",
        "one graph for both modes",
        f"call the same layers in both modes with training=training (random layers do nothing at inference), or {subject.remedy}",
    )


def _described(model):
    """Returns a row for each call of a functional model: name, layer or operation, and arguments. The last row stands for the outputs."""
    places = {id(tensor): f"input {i}" for i, tensor in enumerate(model.inputs)}
    rows = []
    for number, call in enumerate(calls(model)):
        tensors, variables = [], []
        kwargs = {name: value for name, value in call.kwargs.items() if name != "training"}
        try:
            arguments = encode((call.args, kwargs), tensors, variables)
        except BridgeError:  # the bridge refuses such an operation, or knows the layer
            arguments = None
        read = [places.get(id(tensor)) for tensor in tensors]
        name = f"'{call.operation.name}' ({type(call.operation).__name__})"
        rows.append((name, _identity(call.operation), arguments, read, [id(variable) for variable in variables]))
        places.update({id(tensor): f"{number}, output {i}" for i, tensor in enumerate(call.outputs)})
    outputs = keras.tree.map_structure(lambda tensor: places.get(id(tensor)), model.output)
    return [*rows, ("the outputs", None, outputs, None, None)]


def _identity(operation):
    if isinstance(operation, HeldWeight):
        return id(operation.weight)
    if is_itself(operation):
        return id(origin(operation))
    try:
        config = keras.saving.serialize_keras_object(operation)["config"]
    except (NotImplementedError, TypeError, ValueError):
        return type(origin(operation))
    return type(origin(operation)), repr({key: value for key, value in config.items() if key != "name"})


def _refuse_fixed_values(subject):
    inputs = random_inputs(subject.view)
    changed = [(variable, _moved(variable)) for variable in subject.weights if "float" in variable.dtype]

    def apart(values):
        """Returns the largest difference between the outputs of the subject and its view, and None where it is rounding."""
        found = [difference(*pair) for pair in zip(*subject.run(inputs, values), strict=True)]
        return None if all(within(error, scale, _TOLERANCE) for error, scale in found) else max(found)[0]

    with needed_sizes(subject.what, inputs):
        now, later = apart([]), apart(changed)
    if now is not None:
        raise _stateful(subject, f"the outputs differ by {now:.3g}")
    if later is None:
        return
    if apart([]) is not None:
        raise _stateful(subject, "its outputs are others each time")
    read = [f"'{variable.path}'" for variable, value in changed if apart([(variable, value)]) is not None]
    what = f"the weight {', '.join(read[:3])}" if read else "weights"
    raise BridgeError(
        f"The call of {subject.what} reads {what} as a value, outside of a layer: the graph keeps that value when the weight is trained. "
        f"With other weights the outputs differ by {later:.3g}.",
        "weights that layers compute with, or that meet a tensor in a keras.ops operation",
        f"for tied embeddings use keras.layers.ReversibleEmbedding, called with reverse=True the second time; else {_OWN_LAYER}",
    )


def _stateful(subject, how):
    return BridgeError(
        f"The call of {subject.what} computes something else on data than on symbolic tensors: {how}.",
        "a call that depends on nothing but its inputs, weights and training mode",
        "take counters, conditions on values and other state of Python out of call()",
    )


def _moved(variable):
    """Returns other values of the scale of a weight's; what is positive stays so."""
    value = variable.value.numpy().astype("float64")
    rng = np.random.default_rng(value.size)
    return (value * rng.uniform(1.05, 1.2, value.shape) + 0.05 * rng.uniform(0.5, 1.0, value.shape)).astype(variable.dtype)


def _run(call, values):
    """Returns the outputs of a call as arrays, while some weights have other values."""
    with warnings.catch_warnings(), keras.StatelessScope(state_mapping=values):
        warnings.simplefilter("ignore")  # of layers that drop masks, which were said when the model was built
        return arrays(call())


def _with_masks(outputs):
    """Returns outputs, flat, and a boolean tensor for each: its mask, or a single True where it has none."""
    flat = keras.tree.flatten(outputs)
    return [*flat, *(np.ones(1, bool) if mask_of(x) is None else mask_of(x) for x in flat)]


def refuse_copies(counterparts):
    """Refuses a model in which one weight became two: trained, they would drift apart.

    Args:
        counterparts: List of (Keras 3 variable, its tf_keras variable, path of the layer or operation that uses it).

    Raises:
        BridgeError: naming the weight and its users.
    """
    users = {}
    for variable, made, path in counterparts:
        users.setdefault(id(variable), (variable, {}))[1].setdefault(id(made), path)
    for variable, paths in users.values():
        if len(paths) > 1:
            named = " and ".join(f"'{path}'" for path in paths.values())
            raise BridgeError(
                f"The weight '{variable.path}' is used by {named}; the copies would drift apart.",
                "a weight that one layer owns",
                "use it in one layer that is called twice (keras.layers.ReversibleEmbedding for tied embeddings), or " + _OWN_LAYER,
            )
