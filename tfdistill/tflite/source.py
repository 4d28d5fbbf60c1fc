"""What is exported when a path, a Distiller or a model in training is given, and which layers an error of the conversion is about."""

import functools
import os
import re
import typing
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import keras

from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.adopt.adopt import AdoptedModel
from tfdistill.bridge.load import load_model
from tfdistill.errors import ExportError, ModelError, TfdistillError
from tfdistill.graph.layers import LOOKUPS, all_layers
from tfdistill.graph.names import named_layers
from tfdistill.graph.tracing import required_arguments, several_arguments

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
    model = meant(model)
    if found := obstacle(model):
        raise found.error
    return model


def meant(model):
    """Returns the model that a user means, whether it can be exported or not.

    Args:
        model: As in `exportable`.

    Raises:
        ModelError: if the model still has the wrappers of a compression step.
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
    return model


class Obstacle(typing.NamedTuple):
    """What stands against any file of a model, whatever its layers compute.

    Attributes:
        kind: `"lookup"`, `"arguments"` or `"cast_input"`.
        layers: Tuple of the paths of the layers, or the names of the inputs, that it is about.
        error: The error that says so.
    """

    kind: str
    layers: tuple[str, ...]
    error: TfdistillError


def obstacle(model):
    """Returns the `Obstacle` of a Keras 3 model: tables that are looked up, text, a call of several arguments; None where there is none.

    Args:
        model: A model.
    """
    if not isinstance(model, keras.Model) or isinstance(model, AdoptedModel):
        return None
    return _lookups(model) or _several_arguments(model)


def _student(model):
    return getattr(model, "student", None) if hasattr(model, "teacher") else None


def _lookups(model):
    paths = [path for path, layer in named_layers(model).items() if type(layer).__name__ in LOOKUPS]
    found = [path for path in paths if not any(path.startswith(f"{other}/") for other in paths)]
    text = [tensor.name for tensor in getattr(model, "inputs", None) or [] if tensor.dtype == "string"]
    if found or text:
        layers = named_layers(model)
        what = ", ".join(f"'{path}' ({type(layers[path]).__name__})" for path in found)
        what = f"looks up tables in {what}" if found else f"takes text at {', '.join(map(repr, text))}"
        after = f"model.get_layer('{found[-1]}').output" if found else "its_first_numbers"
        error = ModelError(
            f"The model '{model.name}' {what}, which a .tflite file cannot do.",
            "a model of numbers",
            f"look up before the model, in the data pipeline, and export what comes after: keras.Model({after}, model.output)",
        )
        return Obstacle("lookup", tuple(found or text), error)
    return None


def _several_arguments(model):
    if isinstance(model, (keras.Function, keras.Sequential)):
        return None
    names = required_arguments(model)
    return Obstacle("arguments", (), several_arguments(model, names, ModelError)) if len(names) > 1 else None


def names_layers(export: Callable[P, R]) -> Callable[P, R]:
    """Decorates `export_tflite` so that an error of the conversion names the user's layers and what to do about them."""

    @functools.wraps(export)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return export(*args, **kwargs)
        except ExportError as error:
            told = explained(error, args[0] if args else kwargs["model"])
            if told is error:  # which keeps its own cause
                raise
            raise told from error

    return call


def explained(error, model):
    """Returns the error of a conversion with the user's layers in it, and what to do about them.

    Args:
        error: An `ExportError`.
        model: What was given to `export_tflite`.
    """
    try:
        model = exportable(model)
        layers = {path: introspection.computing_layer(layer) for path, layer in named_layers(model).items()}
    except Exception:  # a model that cannot be read adds nothing to the error
        return error
    if "CAST -> " in error.happened and (found := cast_inputs(model)):
        return ExportError(f"{error.happened}\n{found.error.happened}", found.error.expected, found.error.fix)
    unknown = not isinstance(model, AdoptedModel) and not getattr(model, "inputs", None)
    if unknown and "Exception encountered when calling" in error.happened:
        return ExportError(
            error.happened, "a call that takes float32 tensors, as a subclassed model does not say what it takes", _TYPED_INPUT
        )
    named = _named_in(error.happened, layers)
    if not named:
        return error
    shown = ", ".join(f"'{path}' ({type(layers[path]).__name__})" for path in named)
    return ExportError(f"{error.happened}\nThey come from the layers {shown}.", error.expected, error.fix)


def cast_inputs(model):
    """Returns the `Obstacle` of the inputs of another type than float32, to which an integer file would have to convert them; None where there are none.

    Args:
        model: A Keras model.
    """
    cast = [t for t in getattr(model, "inputs", None) or [] if t.dtype != "float32"]
    if not cast:
        return None
    shown = ", ".join(f"'{tensor.name}' ({tensor.dtype})" for tensor in cast)
    error = ExportError(
        f"The model takes the input {shown} and converts it to float32.", "inputs of float32 in the Keras model", _FLOAT_INPUT
    )
    return Obstacle("cast_input", tuple(tensor.name for tensor in cast), error)


def _named_in(text, layers):
    """Lists the layers whose names are in the names of tensors: Keras puts a number behind the names of layers that it calls again."""
    parts = {part for name in re.findall(r"'([^' ]+/[^' ]+)'", text) for part in name.split("/")[:-1]}
    parts |= {part for name in re.findall(r'"([^" @]+/[^" @]+)[@"]', text) for part in name.split("/")[:-1]}
    parts |= {re.sub(r"_\d+$", "", part) for part in parts}
    return [path for path, layer in layers.items() if layer.name in parts and not isinstance(layer, keras.Model)]
