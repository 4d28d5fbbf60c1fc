"""Opens models for a step: the tf_keras form to work on, the layers by the user's names, and rebuilt copies with replaced layers."""

import dataclasses
import functools
import pathlib
import re
import tempfile
import typing
import warnings

import keras
import numpy as np

from tfdistill.bridge import imports
from tfdistill.bridge.adopt import introspection, serialization
from tfdistill.bridge.adopt.adopt import AdoptedModel, adopt
from tfdistill.bridge.adopt.layers import named_layers
from tfdistill.bridge.adopt.rewire import rewire
from tfdistill.bridge.convert.to_keras import to_keras
from tfdistill.bridge.convert.to_tf_keras import to_tf_keras
from tfdistill.compress.selection import Layers
from tfdistill.errors import BridgeError, ModelError
from tfdistill.graph.keras_internals import is_keras_own


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
    skipped = (imports.tf_keras().layers.InputLayer, imports.tf_keras().Model)
    return Layers({path: layer for path, layer in named_layers(legacy).items() if not isinstance(introspection.unwrap(layer), skipped)})


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
        legacy = to_tf_keras(model)
        return Opened(legacy, model, adopt(legacy, original=model))
    if isinstance(model, imports.tf_keras().Model):
        return Opened(model, None, adopt(model))
    raise ModelError(f"A {type(model).__name__} cannot be compressed.", "a Keras model")


def refuse_wrapped(opened, step):
    """Raises ModelError when a model still wears the scaffolding of an earlier step."""
    wrapped = [path for path, layer in opened.layers.items() if introspection.is_wrapper(layer)]
    if wrapped:
        raise ModelError(
            f"{step} cannot start from '{opened.adopted.name}': its layers ('{wrapped[0]}' and {len(wrapped) - 1} more) are still wrapped.",
            "a model without the wrappers of an earlier step",
            "give it what the earlier step's strip(model) returned; quantization-aware training comes last",
        )


def without_wrappers(model):
    """Returns a fresh Keras 3 model with the effective weights of an `AdoptedModel`.

    An adopted model that was not made from a Keras 3 model comes back adopted, its tf_keras model without wrappers.

    Raises:
        BridgeError: if no Keras 3 model of these weights can be made. The weights are in a file then, which the message names.
    """
    if model.original is None:
        return adopt(rebuild(model.legacy, lambda path, layer: layer), name=model.name)
    try:
        return to_keras(rebuild(model.legacy, lambda path, layer: layer), like=model.original, by_place=True)
    except Exception as error:  # of the user's layers too: what was trained must outlive this call
        path = save_trained(model)
        raise BridgeError(
            f"No Keras 3 model can be made of the trained '{model.name}': {getattr(error, 'happened', error)}\n"
            f"Its weights are saved in {path}.",
            getattr(error, "expected", None),
            f"{getattr(error, 'mend', None) or 'make the original model again as it was when apply() got it'}; then "
            f"apply(original).load_weights('{path}') gives the trained model back, for strip()",
        ) from error


def save_trained(model):
    """Saves the weights of a model in a new file: in a new folder of the working directory, or of the system's temporary one.

    Returns:
        Path of the file, which `load_weights` of a model like this one reads.
    """
    prefix = f"{re.sub('[^A-Za-z0-9_-]+', '_', model.name)[:80]}-trained-"
    try:
        folder = tempfile.mkdtemp(prefix=prefix, dir=pathlib.Path.cwd())
    except OSError:
        folder = tempfile.mkdtemp(prefix=prefix)
    path = pathlib.Path(folder) / "model.weights.h5"
    model.save_weights(path)
    return path


# What a model class may do its own way in training, evaluation and prediction; a tf_keras copy of its layers does it Keras's way.
_STEPS_OF_TRAINING = (
    *("train_step", "test_step", "predict_step", "compute_loss", "compute_metrics", "metrics", "get_metrics_result", "compile"),
    *("fit", "evaluate", "predict", "train_on_batch", "test_on_batch", "predict_on_batch"),
    *("make_train_function", "make_test_function", "make_predict_function"),
)


def own_training(model):
    """Lists the methods by which a Keras 3 model is trained, evaluated or asked otherwise than any other; `apply` does not carry them over."""
    own = [vars(kind) for kind in type(model).__mro__ if not is_keras_own(kind)]
    return [name for name in _STEPS_OF_TRAINING if any(name in names for names in [vars(model), *own])]


def warn_of_own_training(model, step):
    """Warns the caller of a step's `apply` that the model's own `train_step` and the like stay behind."""
    if isinstance(model, AdoptedModel) or not isinstance(model, keras.Model):
        return
    if names := own_training(model):
        warnings.warn(
            f"'{model.name}' ({type(model).__name__}) has its own {', '.join(names)}. The model that {step}.apply returns has not: it is trained and "
            "evaluated as any Keras model.\nTo mend it: give compile() the loss and the metrics, teach it with a Distiller, or put it into a keras.Model of "
            "your own whose train_step calls it.",
            UserWarning,
            stacklevel=3,
        )


def require_way_back(opened):
    """Refuses a model of which `strip` could not make a Keras 3 model again, before it is trained.

    Raises:
        BridgeError: naming the layer and the remedy.
    """
    if opened.original is not None:
        # A class of Keras's own computes what its layers compute, which was compared on the way here.
        own = not is_keras_own(type(opened.original))
        to_keras(opened.legacy, like=opened.original, check=own, by_place=True)


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
        inner = introspection.unwrap(layer)
        fresh = type(inner).from_config(inner.get_config())
        pairs.append((layer, fresh))
        return replace(paths[id(layer)], fresh) if id(layer) in paths else fresh  # a quantizer of the input is no layer of the user's

    if not isinstance(legacy, imports.tf_keras().Sequential) and not legacy._is_graph_network:
        raise ModelError(f"The tf_keras model '{legacy.name}' is subclassed.", "a functional or Sequential model")
    with serialization.legacy_scope():
        copied = rewire(legacy, copy)
    for layer, fresh in pairs:
        fresh.set_weights(effective_weights(layer))
    return copied


def effective_weights(layer):
    """Returns the weights of the user's layer as arrays, as it computes with them: masked and clustered by what is around it."""
    effective = introspection.effective_values(layer)
    return [np.asarray(effective.get(id(weight), weight)) for weight in introspection.weights_of(layer)]


def effective_weight(layer, attribute):
    """Returns one weight of a live layer (Keras 3, or tf_keras, wrapped or not) as it computes with it; None if it has none of that name."""
    variable = introspection.weight_named(layer, attribute)
    return None if variable is None else np.asarray(introspection.effective_values(layer).get(id(variable), variable))
