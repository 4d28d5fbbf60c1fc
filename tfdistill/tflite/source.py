"""What is exported when a path, a Distiller or a model in training is given, and which layers an error of the conversion is about."""

import functools
import os
import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import keras

from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.adopt.adopt import AdoptedModel
from tfdistill.bridge.load import load_model
from tfdistill.errors import ExportError, ModelError
from tfdistill.graph.layers import LOOKUPS, all_layers
from tfdistill.graph.names import named_layers
from tfdistill.graph.tracing import required_arguments

P = ParamSpec("P")
R = TypeVar("R")
_TYPED_INPUT = "if it takes another type, say so: inputs = keras.Input(shape, dtype='int32'); export keras.Model(inputs, model(inputs))"
_FLOAT_INPUT = (
    "rebuild it on a float input: fresh = keras.models.clone_model(model, input_tensors=keras.Input(shape)); "
    "fresh.set_weights(model.get_weights()). With io='uint8' the file takes uint8 all the same"
)


def exportable(model):
    """Returns the model to export for what a user gives.

    Args:
        model: A Keras model; the path of one that `load_model` loads; or a Distiller, whose student is meant.

    Raises:
        ModelError: if the model still has the wrappers of a compression step, or layers that look up tables.
    """
    if isinstance(model, (str, os.PathLike)):
        model = load_model(model)
    if isinstance(model, keras.Model) and isinstance(_student(model), keras.Model):
        model = _student(model)
    if isinstance(model, AdoptedModel):
        for step in ("pruning", "clustering"):
            if any(introspection.is_wrapper_for(layer, step) for layer in all_layers(model.legacy)):
                raise ModelError(
                    f"The model '{model.name}' still carries {step}: wrappers that are there for training only.",
                    "the model without them",
                    "give step.strip(model), where step.apply returned the model",
                )
    elif isinstance(model, keras.Model):
        _refuse_lookups(model)
        _refuse_several_arguments(model)
    return model


def _student(model):
    return getattr(model, "student", None) if hasattr(model, "teacher") else None


def _refuse_lookups(model):
    paths = [path for path, layer in named_layers(model).items() if type(layer).__name__ in LOOKUPS]
    found = [path for path in paths if not any(path.startswith(f"{other}/") for other in paths)]
    text = [tensor.name for tensor in getattr(model, "inputs", None) or [] if tensor.dtype == "string"]
    if found or text:
        layers = named_layers(model)
        what = ", ".join(f"'{path}' ({type(layers[path]).__name__})" for path in found)
        what = f"looks up tables in {what}" if found else f"takes text at {', '.join(map(repr, text))}"
        after = f"model.get_layer('{found[-1]}').output" if found else "its_first_numbers"
        raise ModelError(
            f"The model '{model.name}' {what}, which a .tflite file cannot do.",
            "a model of numbers",
            f"look up before the model, in the data pipeline, and export what comes after: keras.Model({after}, model.output)",
        )


def _refuse_several_arguments(model):
    if isinstance(model, (keras.Function, keras.Sequential)):
        return
    names = required_arguments(model)
    if len(names) > 1:
        listed, inputs = ", ".join(names), ", ".join(["keras.Input(shape)"] * len(names))
        raise ModelError(
            f"The call of the model '{model.name}' ({type(model).__name__}) takes {len(names)} arguments: {listed}.",
            "a call of one argument of tensors: a tensor, a list or a dict",
            f"make a functional model of it: {listed} = {inputs}; keras.Model([{listed}], model({listed}))",
        )


def names_layers(export: Callable[P, R]) -> Callable[P, R]:
    """Decorates `export_tflite` so that an error of the conversion names the user's layers and what to do about them."""

    @functools.wraps(export)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return export(*args, **kwargs)
        except ExportError as error:
            raise _explained(error, args[0] if args else kwargs["model"]) from error

    return call


def _explained(error, model):
    try:
        model = exportable(model)
        layers = {path: introspection.computing_layer(layer) for path, layer in named_layers(model).items()}
    except Exception:  # a model that cannot be read adds nothing to the error
        return error
    cast = [t for t in getattr(model, "inputs", None) or [] if t.dtype != "float32"]
    if cast and "CAST -> " in error.happened:
        shown = ", ".join(f"'{tensor.name}' ({tensor.dtype})" for tensor in cast)
        return ExportError(
            f"{error.happened}\nThe model takes the input {shown} and converts it to float32.",
            "inputs of float32 in the Keras model",
            _FLOAT_INPUT,
        )
    if "Exception encountered when calling" in error.happened and not getattr(model, "inputs", None):
        return ExportError(
            error.happened, "a call that takes float32 tensors, as a subclassed model does not say what it takes", _TYPED_INPUT
        )
    named = _named_in(error.happened, layers)
    if not named:
        return error
    shown = ", ".join(f"'{path}' ({type(layers[path]).__name__})" for path in named)
    return ExportError(f"{error.happened}\nThey come from the layers {shown}.", error.expected, error.fix)


def _named_in(text, layers):
    """Lists the layers whose names are in the names of tensors: Keras puts a number behind the names of layers that it calls again."""
    parts = {part for name in re.findall(r"'([^' ]+/[^' ]+)'", text) for part in name.split("/")[:-1]}
    parts |= {part for name in re.findall(r'"([^" @]+/[^" @]+)[@"]', text) for part in name.split("/")[:-1]}
    parts |= {re.sub(r"_\d+$", "", part) for part in parts}
    return [path for path, layer in layers.items() if layer.name in parts and not isinstance(layer, keras.Model)]
