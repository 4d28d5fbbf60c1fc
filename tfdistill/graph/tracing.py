"""Traces subclassed models: one run of `call` on symbolic inputs gives a functional model of the inner layers, which shares their weights."""

import inspect
import re
import traceback

import keras

from tfdistill.errors import BridgeError
from tfdistill.graph.functional import as_functional, calls, is_functional, is_sequential, unbuilt


def open_model(model, inputs=None, path=None):
    """Returns a functional view of any Keras 3 model, sharing its layers.

    Args:
        model: Built Keras 3 model.
        inputs: For a subclassed model: `keras.Input`s in the structure that its `call` takes. By default they are float32 of the
            shapes that it was built with, the batch left free.
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
    return traced(model, symbolic_inputs(model) if inputs is None else inputs, path or model.name)


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
            f"{_where(model, error)}\n{type(error).__name__}: {_first_line(error)}",
            "a call made of layers and keras.ops",
            "replace TensorFlow or NumPy functions and Python conditions on values in `call` by keras.ops, or build the model functionally; if its"
            " inputs are not float32, say so: to_tf_keras(model, inputs=keras.Input(shape, dtype=...)); a compression step then takes"
            " tfdistill.adopt(tfdistill.to_tf_keras(model, inputs=keras.Input(shape, dtype=...)))",
        ) from error
    _name_operations(opened)
    return opened


def _name_operations(model):
    """Numbers the operations by their order, so that the same model opened twice gives the same names.

    Operations are made anew each time and belong to this view alone; layers keep their names.
    """
    used = {op.name for op in model.operations if isinstance(op, keras.layers.Layer)}
    for call in calls(model):
        operation = call.operation
        if isinstance(operation, keras.layers.Layer):
            continue
        base = "_".join(re.findall("[A-Z][a-z0-9]*|[a-z0-9]+", type(operation).__name__)).lower()
        name, number = base, 0
        while name in used:
            number += 1
            name = f"{base}_{number}"
        used.add(name)
        operation.name = name


def symbolic_inputs(model):
    """Returns new `keras.Input`s for a model that was built, in the structure that its call takes.

    Raises:
        BridgeError: if Keras has not kept the shapes, as for a call of several arguments.
    """
    if isinstance(model, (keras.Function, keras.Sequential)):
        return keras.tree.map_structure(
            lambda t: keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t._keras_history.operation.name),
            model.input if isinstance(model, keras.Function) else model.inputs[0],
        )
    config = model.get_build_config() or {}
    shapes = config.get("input_shape")
    required = [p for p in inspect.signature(model.call).parameters.values() if p.default is p.empty and p.kind == p.POSITIONAL_OR_KEYWORD]
    if shapes is None or len(required) > 1:
        raise BridgeError(
            f"The input shapes of the subclassed model '{model.name}' ({type(model).__name__}) are not known.",
            "a model whose call takes one argument of tensors",
            "say what they are, in the structure that its call takes: to_tf_keras(model, inputs=keras.Input(...)); a compression step then takes "
            "tfdistill.adopt(tfdistill.to_tf_keras(model, inputs=keras.Input(...)))",
        )
    return _symbolic(shapes, "inputs")


def _symbolic(shapes, name):
    """Makes named inputs in the structure of the shapes, the batch left free."""
    if isinstance(shapes, dict):
        return {key: _symbolic(shape, key) for key, shape in shapes.items()}
    if all(n is None or isinstance(n, int) for n in shapes):
        return keras.Input(tuple(shapes)[1:], name=name)
    return [_symbolic(shape, f"{name}_{i}") for i, shape in enumerate(shapes)]


def _where(model, error):
    # The last frame inside the file of the user's class: the line that could not be traced.
    filename = type(model).call.__code__.co_filename
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == filename]
    if not frames:
        return ""
    return f"\n  {frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}"


def _first_line(error):
    text = str(error).strip().splitlines()
    return text[0] if text else ""
