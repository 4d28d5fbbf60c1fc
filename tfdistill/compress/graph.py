"""Opens models for a step: the tf_keras form to work on, the layers by the user's names, and rebuilt copies with replaced layers."""

import dataclasses
import functools
import typing

import keras
import numpy as np

from tfdistill.compress.selection import Layers
from tfdistill.errors import ModelError
from tfdistill.legacy import adopt_scope as scope
from tfdistill.legacy import door
from tfdistill.legacy.adopt import AdoptedModel, adopt, named_layers
from tfdistill.legacy.back import to_keras
from tfdistill.legacy.convert import to_tf_keras
from tfdistill.legacy.graph import is_functional, is_sequential
from tfdistill.legacy.parity import check_parity
from tfdistill.legacy.rewire import rewire
from tfdistill.legacy.tracing import open_model as open_subclassed


@dataclasses.dataclass(frozen=True)
class Opened:
    """A model in both its forms.

    Attributes:
        legacy: The tf_keras model.
        original: The Keras 3 model that it stands for, or None where there is none.
        adopted: `legacy` as an `AdoptedModel`.
    """

    legacy: typing.Any
    original: typing.Any
    adopted: AdoptedModel

    @functools.cached_property
    def layers(self):
        """`Layers` of the live tf_keras model: those that compute, without inputs and without nested models as such."""
        return _computing(self.legacy)


def _computing(legacy):
    skipped = (door.tf_keras().layers.InputLayer, door.tf_keras().Model)
    return Layers({path: layer for path, layer in named_layers(legacy).items() if not isinstance(scope.unwrap(layer), skipped)})


def open_model(model):
    """Returns the tf_keras form of a model; a Keras 3 model is converted, which leaves it as it was.

    Args:
        model: A built Keras 3 model, an `AdoptedModel`, or a tf_keras model.

    Returns:
        `Opened`.

    Raises:
        ModelError: if it is none of these.
    """
    if isinstance(model, AdoptedModel):
        return Opened(model.legacy, model.original, model)
    if isinstance(model, keras.Model):
        legacy = to_tf_keras(model, check=False)
        _compare(model, legacy)
        return Opened(legacy, model, adopt(legacy, original=model))
    if isinstance(model, door.tf_keras().Model):
        return Opened(model, None, adopt(model))
    raise ModelError(f"A {type(model).__name__} cannot be compressed.", "a Keras model")


def refuse_wrapped(opened, step):
    """Raises ModelError when a model still wears the scaffolding of an earlier step."""
    wrapped = [path for path, layer in opened.layers.items() if scope.is_wrapper(layer)]
    if wrapped:
        raise ModelError(
            f"{step} cannot start from '{opened.adopted.name}': its layers ('{wrapped[0]}' and {len(wrapped) - 1} more) are still wrapped.",
            "a model without the wrappers of an earlier step",
            "give it what the earlier step's strip(model) returned; quantization-aware training comes last",
        )


def without_wrappers(model):
    """Returns a fresh Keras 3 model with the effective weights of an `AdoptedModel`.

    Raises:
        ModelError: if it does not know the Keras 3 model that it came from.
    """
    if model.original is None:
        raise ModelError(
            f"The model '{model.name}' does not know the Keras 3 model that it came from.", "one that apply() made from a Keras 3 model"
        )
    return back_to_keras(rebuild(model.legacy, lambda path, layer: layer), model.original)


def back_to_keras(legacy, original):
    """Returns a fresh Keras 3 model like `original` with the weights of an unwrapped tf_keras model, compared on random input."""
    model = to_keras(legacy, like=original, check=False)
    _compare(model, legacy)
    return model


def _compare(model, legacy):
    check_parity(model if is_functional(model) or is_sequential(model) else open_subclassed(model), legacy)


def layers_by_name(model):
    """Returns the `Layers` of an `AdoptedModel` or a Keras 3 model, nested models opened up.

    A Keras 3 model that holds an adopted one, such as a Distiller, is not searched: give the student.
    """
    return _computing(model.legacy) if isinstance(model, AdoptedModel) else Layers(dict(_walk(model, "")))


def _walk(model, prefix):
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _walk(layer, f"{prefix}{layer.name}/")
        elif not isinstance(layer, keras.layers.InputLayer):
            yield prefix + layer.name, layer


def rebuild(legacy, replace):
    """Rebuilds a tf_keras model with other layers in place of its own, weights included.

    Wrappers of pruning and clustering are taken off; the weights that they mask or cluster arrive so.

    Args:
        legacy: A functional or Sequential tf_keras model, nested ones included.
        replace: Function of (path, layer): gets a fresh copy of each layer and returns what is to stand in its place: the copy itself, or a
            wrapper around it. It is asked once per layer, also for one that several models share.

    Returns:
        A new tf_keras model of the same names.

    Raises:
        ModelError: if the model is neither functional nor Sequential.
    """
    pairs = []
    paths = {id(layer): path for path, layer in _computing(legacy).items()}

    def copy(layer):
        inner = scope.unwrap(layer)
        fresh = type(inner).from_config(inner.get_config())
        pairs.append((layer, fresh))
        return replace(paths[id(layer)], fresh)

    if not isinstance(legacy, door.tf_keras().Sequential) and not legacy._is_graph_network:
        raise ModelError(f"The tf_keras model '{legacy.name}' is subclassed.", "a functional or Sequential model")
    with scope.legacy_scope():
        copied = rewire(legacy, copy)
    for layer, fresh in pairs:
        fresh.set_weights(effective_weights(layer))
    return copied


def effective_weights(layer):
    """Returns the weights of the user's layer as arrays, as it computes with them: masked and clustered by what is around it."""
    effective = scope.effective_values(layer)
    return [np.asarray(effective.get(id(weight), weight)) for weight in scope.weights_of(layer)]


def effective_weight(layer, attribute):
    """Returns one weight of a live layer (Keras 3, or tf_keras, wrapped or not) as it computes with it; None if it has none of that name."""
    variable = scope.weight_named(layer, attribute)
    return None if variable is None else np.asarray(scope.effective_values(layer).get(id(variable), variable))
