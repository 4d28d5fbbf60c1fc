"""Traces subclassed models: one run of `call` on symbolic inputs gives a functional model of the inner layers, which shares their weights."""

import inspect
import re
import traceback

import keras

from tfdistill.errors import BridgeError
from tfdistill.graph.carriers import CARRIERS
from tfdistill.graph.functional import as_functional, calls, is_functional, is_sequential, unbuilt
from tfdistill.graph.keras_internals import is_keras_own
from tfdistill.graph.layers import all_layers
from tfdistill.graph.names import unique_name


def open_model(model, inputs=None, path=None):
    """Returns a functional view of any Keras 3 model, sharing its layers.

    Args:
        model: Built Keras 3 model.
        inputs: For a subclassed model: `keras.Input`s in the structure that its `call` takes. By default they have the
            shapes that it was built with, the batch left free, and are int32 where lookups alone read them, else float32.
        path: Name of the model in errors.

    Returns:
        Functional `keras.Model`; `model` itself where it is one.

    Raises:
        ModelError: if the model is not built.
        BridgeError: if `call` does something that symbolic tensors cannot; the message shows the line.
    """
    if is_functional(model) or is_sequential(model):
        return as_functional(model)
    if not model.built or (not model.variables and inputs is None):
        raise unbuilt(model)
    if inputs is not None:
        return traced(model, inputs, path or model.name)
    from tfdistill.graph.indices import index_inputs  # which opens layers, as this does models

    opened = traced(model, symbolic_inputs(model), path or model.name)
    indices = index_inputs(opened)
    return traced(model, symbolic_inputs(model, indices), path or model.name) if indices else opened


def traced(model, inputs, path, **mode):
    """Returns the functional model that one symbolic run of a model's `call` gives.

    Args:
        model: Built subclassed Keras 3 model.
        inputs: Symbolic tensors, in the structure that its `call` takes.
        path: Name of the model in errors.
        **mode: Other arguments of `call`, such as `training`.

    Raises:
        BridgeError: as `open_model`.
    """
    try:
        opened = keras.Model(inputs, model.call(inputs, **mode), name=model.name)
    except Exception as error:
        raise BridgeError(
            f"The model '{path}' ({type(model).__name__}) cannot be opened: its call does not work on symbolic tensors."
            f"{line_of(type(model).call, error)}\n{reason_of(error)}",
            "a call made of layers and keras.ops",
            "replace TensorFlow or NumPy functions and Python conditions on values in `call` by keras.ops, or build the model functionally; if its"
            " inputs are not float32, say so: to_tf_keras(model, inputs=keras.Input(shape, dtype=...)); a compression step then takes"
            " tfdistill.adopt(tfdistill.to_tf_keras(model, inputs=keras.Input(shape, dtype=...)))",
        ) from error
    name_operations(opened, all_layers(model))
    return opened


def name_operations(model, held):
    """Numbers the operations by their order, so that the same model opened twice gives the same names.

    Operations are made anew each time and belong to this view alone, and so do layers without weights that `call` makes, as `keras.layers.add([x, y])` does.
    Layers that were there before keep their names, and so do those that were given one.

    Args:
        model: The view.
        held: The layers that were there before.
    """
    before = set(map(id, held))
    numbered = {id(call.operation): call.operation for call in calls(model) if not is_layer(call.operation)}
    numbered |= {id(op): op for op in model.operations if id(op) not in before and _is_named_by_keras(op)}
    used = {op.name for op in model.operations if id(op) not in numbered}
    for call in calls(model):
        if operation := numbered.pop(id(call.operation), None):
            operation.name = unique_name(base_name(operation), used)
            used.add(operation.name)


def _is_named_by_keras(operation):
    """Whether an operation of a graph is one of Keras's layers without weights, under a name that Keras itself gave it: that of the class, and a number."""
    kind = type(operation)
    if not isinstance(operation, keras.layers.Layer) or isinstance(operation, keras.layers.InputLayer) or operation.variables:
        return False
    return is_keras_own(kind) and re.sub(r"_\d+$", "", operation.name).replace("_", "") == kind.__name__.lower()


def is_layer(operation):
    """Whether an operation of a graph is a layer that was there before the graph, and keeps its name."""
    return isinstance(operation, keras.layers.Layer) and not isinstance(operation, CARRIERS)


def base_name(operation):
    """Returns the name of an operation's class as Keras writes names: `"get_item"`."""
    name = getattr(operation, "inner_name", type(operation).__name__)
    return "_".join(re.findall("[A-Z][a-z0-9]*|[a-z0-9]+", name)).lower()


def input_types(model, count):
    """Lists the types of the inputs of a subclassed model, of which Keras keeps no record: `"int32"` for what is only read as indices, else float32.

    Args:
        model: Built subclassed Keras 3 model.
        count: Number of its inputs.
    """
    try:
        return [keras.backend.standardize_dtype(tensor.dtype) for tensor in open_model(model).inputs]
    except BridgeError:  # its call cannot be traced, so its inputs are as they always are
        return ["float32"] * count


def symbolic_inputs(model, indices=()):
    """Returns new `keras.Input`s for a model that was built, in the structure that its call takes.

    Args:
        model: Built Keras 3 model.
        indices: Names of the inputs of a subclassed model that are int32; the others are float32, or what it was called with inside another model.

    Raises:
        BridgeError: if Keras has not kept the shapes, as for a call of several arguments.
    """
    if isinstance(model, (keras.Function, keras.Sequential)):
        return keras.tree.map_structure(
            lambda t: keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t._keras_history.operation.name),
            model.input if isinstance(model, keras.Function) else model.inputs[0],
        )
    names = required_arguments(model)
    if len(names) > 1:
        raise several_arguments(model, names, BridgeError)
    config = model.get_build_config() or {}
    shapes = config.get("input_shape")
    if shapes is None:
        raise BridgeError(
            f"The input shapes of the subclassed model '{model.name}' ({type(model).__name__}) are not known.",
            "a model that was called on data",
            "say what they are, in the structure that its call takes: to_tf_keras(model, inputs=keras.Input(...)); a compression step then takes "
            "tfdistill.adopt(tfdistill.to_tf_keras(model, inputs=keras.Input(...)))",
        )
    return _typed_as_called(model, _symbolic(shapes, "inputs", indices))


def _typed_as_called(model, inputs):
    """Returns the inputs of a subclassed model with the types that it was called with inside another model; as they are where it was not."""
    flat = keras.tree.flatten(inputs)
    given = model._inbound_nodes[-1].arguments.keras_tensors if model._inbound_nodes else ()
    if len(given) != len(flat):
        return inputs
    # float32 says nothing: it is what inputs of unknown type are taken for.
    types = [other.dtype if one.dtype == "float32" else one.dtype for one, other in zip(flat, given, strict=True)]
    typed = [keras.Input(batch_shape=one.shape, dtype=dtype, name=one.name) for one, dtype in zip(flat, types, strict=True)]
    return keras.tree.pack_sequence_as(inputs, typed)


def several_arguments(model, names, kind):
    """Returns the error of class `kind` for a model whose call cannot do without several arguments, of these `names`."""
    listed = ", ".join(names)
    return kind(
        f"The call of the model '{model.name}' ({type(model).__name__}) takes {len(names)} arguments: {listed}.",
        "a call of one argument of tensors: a tensor, a list or a dict",
        fix=f"make a functional model of it: {listed} = {', '.join(['keras.Input(shape)'] * len(names))}; keras.Model([{listed}], model({listed}))",
    )


def required_arguments(layer):
    """Lists the names of the arguments that the call of a layer or model cannot do without."""
    parameters = inspect.signature(layer.call).parameters.values()
    return [p.name for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _symbolic(shapes, name, indices):
    """Makes named inputs in the structure of the shapes, the batch left free."""
    if isinstance(shapes, dict):
        return {key: _symbolic(shape, key, indices) for key, shape in shapes.items()}
    if all(n is None or isinstance(n, int) for n in shapes):
        return keras.Input(tuple(shapes)[1:], name=name, dtype="int32" if name in indices else None)
    return [_symbolic(shape, f"{name}_{i}", indices) for i, shape in enumerate(shapes)]


def line_of(call, error):
    """Returns the last line of the user's own code that an error came through, with its file, as a line of a message; empty if there is none.

    Args:
        call: The `call` of the user's class.
        error: What it raised.
    """
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == call.__code__.co_filename]
    return f"\n  {frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}" if frames else ""


def reason_of(error):
    """Returns class and first line of an error."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"
