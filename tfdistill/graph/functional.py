"""Reads the graph of a Keras 3 model."""

import collections
import contextlib
import dataclasses

import keras

from tfdistill.errors import ModelError
from tfdistill.graph.keras_internals import is_keras_own
from tfdistill.graph.layers import all_layers


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a layer or operation in a functional model, with the symbolic tensors that went in and came out."""

    operation: object
    args: tuple
    kwargs: dict
    outputs: list

    def tensors(self):
        """Returns the symbolic tensors among the arguments, flat."""
        return [x for x in keras.tree.flatten((self.args, self.kwargs)) if isinstance(x, keras.KerasTensor)]


def has_own_call(model):
    """Whether `call` of a functional or Sequential model is the author's, so that its graph does not say what it computes."""
    definer = next(c for c in type(model).__mro__ if "call" in vars(c))
    return not is_keras_own(definer)


def is_functional(model):
    """Whether `model` is a functional model that computes what its graph says."""
    return isinstance(model, keras.Model) and isinstance(model, keras.Function) and not has_own_call(model)


def is_sequential(model):
    """Whether `model` is a Sequential model that runs its layers one after the other."""
    return isinstance(model, keras.Sequential) and not has_own_call(model)


def as_functional(model):
    """Returns a functional view of a built functional or Sequential model, sharing its layers.

    Raises:
        ModelError: if a Sequential model has not been built.
    """
    if is_functional(model):
        return model
    try:
        inputs, outputs = model.inputs, model.outputs
    except (AttributeError, ValueError) as error:
        raise unbuilt(model) from error
    if not inputs or not outputs:
        raise unbuilt(model)
    return functional_model(inputs[0] if len(inputs) == 1 else inputs, outputs[0] if len(outputs) == 1 else outputs, model.name)


def unbuilt(model):
    """Returns the error for a model without weights yet."""
    return ModelError(
        f"The model '{model.name}' ({type(model).__name__}) is not built: it has no weights and no input shape yet.",
        "a model that was called, or built with an input shape",
        "begin a Sequential model with keras.Input(shape), or call the model once on a batch",
    )


def calls(model):
    """Yields every `Call` of a functional model, in an order in which each one's inputs are there.

    Args:
        model: Functional Keras 3 model.
    """
    by_depth = model._nodes_by_depth
    for depth in sorted(by_depth, reverse=True):
        for node in by_depth[depth]:
            if not node.is_input:
                yield Call(node.operation, node.arguments.args, node.arguments.kwargs, node.outputs)


def only_calls(model):
    """Returns a dict of id of each layer or operation that a functional model calls once to its `Call`."""
    every = list(calls(model))
    times = collections.Counter(id(call.operation) for call in every)
    return {id(call.operation): call for call in every if times[id(call.operation)] == 1}


def input_operation(tensor):
    """Returns the InputLayer (or operation) that a symbolic tensor came from."""
    return tensor._keras_history.operation


def implicit_mask(value):
    """Returns the mask that travels with a symbolic tensor or a structure of them, None where there is none."""
    return keras.tree.map_structure(lambda x: getattr(x, "_keras_mask", None), value)


def filled(structure, tensors):
    """Returns a structure with other tensors in place of symbolic ones.

    Args:
        structure: Any structure.
        tensors: Dict of id of a symbolic tensor to what takes its place.
    """
    return keras.tree.map_structure(lambda x: tensors[id(x)] if isinstance(x, keras.KerasTensor) else x, structure)


def own_arguments(call):
    """Returns the keyword arguments of a call without those that Keras recorded for itself: the training flag, and masks that travel with the tensors."""
    implicit = {id(m) for m in keras.tree.flatten(implicit_mask((call.args, call.kwargs))) if m is not None}

    def recorded(name, value):
        if name == "training":
            return True
        if name == "mask" or name.endswith("_mask"):
            masks = [m for m in keras.tree.flatten(value) if m is not None]
            return all(id(m) in implicit for m in masks)
        return False

    return {name: value for name, value in call.kwargs.items() if not recorded(name, value)}


# Attributes of a layer or model whose name is a path: Keras opens a name scope around every call, which allows no path.
UNSCOPED = {"_open_name_scope": contextlib.nullcontext}


def functional_model(inputs, outputs, name):
    """Makes a functional model whose operations may have equal names, which Keras refuses; they have other names while it is made.

    Args:
        inputs: Structure of `keras.Input`s.
        outputs: Structure of symbolic tensors.
        name: Name of the model, which may be a path.
    """
    found, queue = {}, [x._keras_history for x in keras.tree.flatten(outputs)]
    while queue:
        operation, index, _ = queue.pop()
        node = operation._inbound_nodes[index] if operation is not None else None
        if node is not None and id(node) not in found:
            found[id(node)] = operation
            queue += [x._keras_history for x in node.input_tensors]
    names = {
        id(operation): (operation, operation.name) for operation in found.values() if not isinstance(operation, keras.layers.InputLayer)
    }
    try:
        for number, (operation, before) in enumerate(names.values()):
            operation.name = f"{before}_{number}"
        made = keras.Model(inputs, outputs, name=name.replace("/", "_"))
        made.name = name
        vars(made).update(UNSCOPED)
        return made
    finally:
        for operation, before in names.values():
            operation.name = before


def index_bounds(model):
    """Finds inputs that end as indices of an Embedding.

    Args:
        model: Functional Keras 3 model.

    Returns:
        Dict from the position of an input in `model.inputs` to the number of indices that are valid there.
    """
    origins = {id(tensor): {i} for i, tensor in enumerate(model.inputs)}
    bounds = {}
    for call in calls(model):
        sources = [origins.get(id(tensor), set()) for tensor in call.tensors()]
        for position, bound in _bounds_of(call.operation).items():
            reached = set().union(*sources) if position is None else sources[position] if position < len(sources) else set()
            for i in reached:
                bounds[i] = min(bound, bounds.get(i, bound))
        union = set().union(*sources)
        for output in call.outputs:
            origins[id(output)] = union
    return bounds


def _bounds_of(operation):
    if isinstance(operation, keras.layers.Embedding):
        return {None: operation.input_dim}
    if isinstance(operation, keras.layers.CategoryEncoding):
        return {None: operation.num_tokens}
    if isinstance(operation, keras.layers.Wrapper):
        return _bounds_of(operation.layer)
    if is_functional(operation) or is_sequential(operation):
        return index_bounds(as_functional(operation))
    if isinstance(operation, keras.layers.Layer):  # a subclassed one: its layers do not show which of its inputs are the indices
        inside = [layer.input_dim for layer in all_layers(operation) if isinstance(layer, keras.layers.Embedding)]
        return {None: min(inside)} if inside else {}
    return {}


# Layers that pass values on or only reorder them: the activation is that of the layer before.
_TRANSPARENT = {"Reshape", "Flatten", "Dropout", "Permute", "Identity", "Cropping1D", "Cropping2D", "UpSampling1D", "UpSampling2D"}
_ACTIVATION_LAYERS = {
    "Softmax": "softmax",
    "LogSoftmax": "log_softmax",
    "Sigmoid": "sigmoid",
    "ReLU": "relu",
    "Relu": "relu",
    "LeakyReLU": "leaky_relu",
    "ELU": "elu",
    "Tanh": "tanh",
    "Exp": "exponential",
}


def last_activations(model):
    """Finds the activation that makes each output of a model.

    Args:
        model: A built Keras 3 model, an `AdoptedModel`, or the tf_keras model that it holds.

    Returns:
        List with one entry for each output, in flattened order: a name such as `"softmax"`, `"sigmoid"` or `"linear"`, or None where the
        graph does not show it. An empty list for a model without a graph (a subclassed one).
    """
    model = getattr(model, "legacy", model)
    tensors = getattr(model, "outputs", None) if not (isinstance(model, keras.Model) and has_own_call(model)) else None
    return [_activation_of(tensor) for tensor in keras.tree.flatten(tensors)] if tensors else []


def final_activations(model):
    """Returns a dict of output name, None for the only output, to the name of its last activation; only what the model's graph shows."""
    found, names = last_activations(model), getattr(model, "output_names", None) or []
    return {None: found[0]} if len(found) == 1 else dict(zip(names, found, strict=False))


def activation_of_layer(layer):
    """Returns the name of a layer's activation, such as `"softmax"`; None where it has none."""
    # A quantization wrapper computes what its layer computes.
    layer = getattr(layer, "layer", layer)
    if type(layer).__name__ in _ACTIVATION_LAYERS:
        return _ACTIVATION_LAYERS[type(layer).__name__]
    activation = getattr(layer, "activation", None)
    if activation is None:
        return None
    name = getattr(activation, "activation", activation)
    return getattr(name, "__name__", None) or type(name).__name__.lower()


def _activation_of(tensor):
    for _ in range(100):  # a longer chain of layers that only reorder is no model
        history = getattr(tensor, "_keras_history", None)
        operation = getattr(history, "operation", getattr(history, "layer", None))
        if operation is None:
            return None
        if (isinstance(operation, keras.Model) or hasattr(operation, "_flatten_layers")) and getattr(operation, "outputs", None):
            tensor = operation.outputs[history.tensor_index]
            continue
        kind, found = type(getattr(operation, "layer", operation)).__name__, activation_of_layer(operation)
        # An Activation layer that is linear is there for its dtype.
        if found is not None and (kind, found) != ("Activation", "linear"):
            return found
        if found is None and kind not in _TRANSPARENT:
            return None
        nodes = getattr(operation, "_inbound_nodes", [])
        inputs = keras.tree.flatten(nodes[history.node_index].input_tensors if hasattr(nodes[history.node_index], "input_tensors") else [])
        if len(inputs) != 1:
            return None
        tensor = inputs[0]
    return None


def is_reused(operation):
    """Tells whether a layer or operation is called more than once.

    Reads `Operation._inbound_nodes`. If Keras renames it, this fails with an AttributeError.
    """
    return len(operation._inbound_nodes) > 1


def merges(operation):
    """Tells whether a call of a layer or operation has several input tensors.

    Reads `Operation._inbound_nodes` and the `input_tensors` of its nodes. If Keras renames them, this fails with an AttributeError.
    """
    return any(len(node.input_tensors) > 1 for node in operation._inbound_nodes)
