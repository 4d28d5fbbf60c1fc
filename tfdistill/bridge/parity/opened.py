"""Checks that the functional view of a subclassed model is that model: while it trains, and whatever values its weights take.

The view comes from one run of `call` on symbolic tensors. What Python decides or computes in that run is fixed from then on: a branch on `training`, or the
value of a weight that is read outside of a layer. A graph with such a value agrees with the model until it is trained, and differs from then on.
"""

import inspect

import keras
import numpy as np

from tfdistill.bridge.convert.encoding import encode
from tfdistill.bridge.parity.check import random_inputs, within
from tfdistill.bridge.parity.run import arrays, difference
from tfdistill.errors import BridgeError
from tfdistill.graph.functional import calls
from tfdistill.graph.tracing import traced

# The model and its view run the same operations in the same order.
_TOLERANCE = 1e-5
_OWN_LAYER = "write a layer of your own that owns the weight and computes with it, and register it: tfdistill.bridge.register_bridge(its class, tfdistill.bridge.host)"


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
    _refuse_other_graph(model, opened, path)
    frozen = _frozen(model, opened, path)
    _refuse_fixed_values(model, opened, path)
    return frozen


def _takes_training(model):
    return "training" in inspect.signature(model.call).parameters


def _in_training(model, opened, path):
    """Returns the graph of the model's training mode; `opened` itself where its call does not take `training`."""
    return traced(model, opened.input, path, training=True) if _takes_training(model) else opened


def _frozen(model, opened, path):
    frozen = set()
    for inferring, training in zip(calls(opened), calls(_in_training(model, opened, path)), strict=True):
        if inferring.kwargs.get("training"):
            raise BridgeError(
                f"The call of '{path}' ({type(model).__name__}) runs '{inferring.operation.name}' in training mode at inference too.",
                "layers that follow the mode of the model",
                "pass on the mode that call() gets: training=training",
            )
        if training.kwargs.get("training") is False:
            frozen.add(id(inferring.outputs[0]))
    return frozen


def _refuse_other_graph(model, opened, path):
    ours, theirs = _described(opened), _described(_in_training(model, opened, path))
    if ours == theirs:
        return
    first = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    if _described(traced(model, opened.input, path)) != ours:
        raise _stateful(model, path, "its graph is another one each time")
    here = [rows[first][0] if first < len(rows) else "the outputs" for rows in (ours, theirs)]
    raise BridgeError(
        f"The call of '{path}' ({type(model).__name__}) computes by another graph in training mode: {here[1]} there, where it is {here[0]} at inference.",
        "one graph for both modes",
        "call the same layers in both modes with training=training (random layers do nothing at inference), or put what depends on the mode into a layer of"
        " your own, and register it: tfdistill.bridge.register_bridge(its class, tfdistill.bridge.host)",
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
    if isinstance(operation, keras.layers.Layer):
        return id(operation)
    try:
        config = keras.saving.serialize_keras_object(operation)["config"]
    except (NotImplementedError, TypeError, ValueError):
        return type(operation)
    return type(operation), repr({key: value for key, value in config.items() if key != "name"})


def _refuse_fixed_values(model, opened, path):
    inputs = random_inputs(opened)
    changed = [(variable, _moved(variable)) for variable in model.weights if "float" in variable.dtype]

    def apart(values):
        """Returns the largest difference between the outputs of model and view, and None where it is rounding."""
        pairs = list(zip(_run(model, inputs, values), _run(opened, inputs, values), strict=True))
        found = [difference(ours, theirs) for ours, theirs in pairs]
        return None if all(within(error, scale, _TOLERANCE) for error, scale in found) else max(found)[0]

    try:
        now, later = apart([]), apart(changed)
    except (TypeError, ValueError) as error:
        raise BridgeError(
            f"The model '{path}' ({type(model).__name__}) was opened, but its layers cannot be run one by one: {error}",
            "a call that passes everything but tensors by keyword",
            "write layer(x, training=training), not layer(x, training)",
        ) from error
    if now is not None:
        raise _stateful(model, path, f"the outputs differ by {now:.3g}")
    if later is None:
        return
    read = [f"'{variable.path}'" for variable, value in changed if apart([(variable, value)]) is not None]
    what = f"the weight {', '.join(read[:3])}" if read else "weights"
    raise BridgeError(
        f"The call of '{path}' ({type(model).__name__}) reads {what} as a value, outside of a layer: the graph keeps that value when the weight is trained. "
        f"With other weights the outputs differ by {later:.3g}.",
        "weights that layers compute with, or that meet a tensor in a keras.ops operation",
        f"for tied embeddings use keras.layers.ReversibleEmbedding, called with reverse=True the second time; else {_OWN_LAYER}",
    )


def _stateful(model, path, how):
    return BridgeError(
        f"The call of '{path}' ({type(model).__name__}) computes something else on data than on symbolic tensors: {how}.",
        "a call that depends on nothing but its inputs, weights and training mode",
        "take counters, conditions on values and other state of Python out of call()",
    )


def _moved(variable):
    """Returns other values of the scale of a weight's; what is positive stays so."""
    value = variable.value.numpy().astype("float64")
    rng = np.random.default_rng(value.size)
    return (value * rng.uniform(1.05, 1.2, value.shape) + 0.05 * rng.uniform(0.5, 1.0, value.shape)).astype(variable.dtype)


def _run(model, inputs, values):
    with keras.StatelessScope(state_mapping=values):
        return arrays(model(inputs, training=False))


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
