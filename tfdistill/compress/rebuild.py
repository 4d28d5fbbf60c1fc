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

from tfdistill.bridge import imports, layer_facts
from tfdistill.bridge.adopt import introspection, serialization
from tfdistill.bridge.adopt.adopt import AdoptedModel, adopt
from tfdistill.bridge.adopt.layers import named_layers
from tfdistill.bridge.adopt.rewire import rewire
from tfdistill.bridge.convert.custom import described
from tfdistill.bridge.convert.layers import is_registered
from tfdistill.bridge.convert.to_keras import to_keras
from tfdistill.bridge.convert.to_tf_keras import to_tf_keras
from tfdistill.bridge.recurrent_kernels import copy_layer
from tfdistill.compress.selection import Layers
from tfdistill.errors import BridgeError, ModelError
from tfdistill.graph.keras_internals import is_keras_own
from tfdistill.graph.layers import child_layers, loading_of
from tfdistill.graph.names import unique_name
from tfdistill.graph.opening import is_foreign


@dataclasses.dataclass(frozen=True)
class Opened:
    """A model in both its forms.

    Attributes:
        legacy: The tf_keras model.
        original: The Keras 3 model that it was made from, or None where there is none.
        adopted: `legacy` as an `AdoptedModel`.
    """

    legacy: typing.Any
    original: typing.Any
    adopted: AdoptedModel

    @functools.cached_property
    def layers(self):
        """`Layers` of the live tf_keras model: those that compute, without inputs and without nested models as such."""
        return _computing(self.legacy)

    @property
    def custom(self):
        """Lines about the layers of classes that Keras does not have; see `Plan.custom`."""
        return described(self.original, self.legacy)


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
    refuse_distiller(model)
    if isinstance(model, AdoptedModel):
        return Opened(model.legacy, model.original, model)
    if isinstance(model, keras.Model):
        legacy = to_tf_keras(model)
        return Opened(legacy, model, adopt(legacy, original=model))
    if isinstance(model, imports.tf_keras().Model):
        return Opened(model, None, adopt(model))
    raise ModelError(f"A {type(model).__name__} cannot be compressed.", "a Keras model", loading_of(model))


def refuse_distiller(model):
    """Raises a `ModelError` if a model is one of a teacher and a student, of which a step compresses the student."""
    if hasattr(model, "teacher") and isinstance(getattr(model, "student", None), keras.Model):
        raise ModelError(
            f"The {type(model).__name__} '{model.name}' is a teacher and a student.", "one model", "give its student: distiller.student"
        )


def require_native(model, step):
    """Refuses what is no model of Keras 3, for a step that works on the model's own graph.

    Args:
        model: What the step got.
        step: Name of the step.

    Raises:
        ModelError: saying what it is.
    """
    refuse_distiller(model)
    if isinstance(model, keras.Model) and not isinstance(model, AdoptedModel):
        return
    if isinstance(model, (AdoptedModel, imports.tf_keras().Model)):
        raise ModelError(
            f"{step} got the {type(model).__name__} '{model.name}', which computes in tf_keras.",
            "a Keras 3 model",
            "change shapes first, before the steps that train in tf_keras; or give what the earlier step's strip(model) returned",
        )
    raise ModelError(f"A {type(model).__name__} cannot be compressed by {step}.", "a built Keras 3 model", loading_of(model))


def open_to_apply(model, step, trains=True):
    """Opens a model for the `apply` of a step.

    Args:
        model: As in `open_model`.
        step: Name of the step, for messages.
        trains: Whether the model is to be trained under the step, so that a `train_step` of its own matters.

    Returns:
        `Opened`.

    Raises:
        ModelError: if it is none of these, or its layers still have the wrappers of an earlier step.

    Warns:
        UserWarning: if the model has a `train_step` or the like of its own. It points to the caller of `apply`.
    """
    opened = open_model(model)
    _refuse_wrapped(opened, step)
    if trains:
        warn_of_own_training(model, step)
    return opened


def _refuse_wrapped(opened, step):
    wrapped = [path for path, layer in opened.layers.items() if introspection.is_wrapper(layer)]
    if wrapped:
        raise ModelError(
            f"{step} cannot start from '{opened.adopted.name}': its layers ('{wrapped[0]}' and {len(wrapped) - 1} more) are still wrapped.",
            "a model without the wrappers of an earlier step",
            "give it what the earlier step's strip(model) returned; quantization-aware training comes last",
        )


def without_wrappers(model):
    """Returns a new Keras 3 model with the effective weights of an `AdoptedModel`.

    For an adopted model that was not made from a Keras 3 model, it is an `AdoptedModel` whose tf_keras model has no wrappers.

    Raises:
        BridgeError: if no Keras 3 model of these weights can be made. The weights are in a file then, which the message names.
    """
    if model.original is None:
        return adopt(rebuild(model.legacy, lambda path, layer: layer), name=model.name)
    try:
        return to_keras(rebuild(model.legacy, lambda path, layer: layer), like=model.original, by_place=True)
    except Exception as error:  # of the user's layers too: the trained weights must not be lost
        path = save_trained(model)
        raise BridgeError(
            f"No Keras 3 model can be made of the trained '{model.name}': {getattr(error, 'happened', error)}\n"
            f"Its weights are saved in {path}.",
            getattr(error, "expected", None),
            # `apply` has made one: since then, the original has changed.
            f"make the original model again as it was when apply() got it; then apply(original).load_weights('{path}') gives the trained model "
            "back, for strip()",
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


# The methods of training, evaluation and prediction that a model class may override. The tf_keras copy has Keras's own.
_STEPS_OF_TRAINING = (
    *("train_step", "test_step", "predict_step", "compute_loss", "compute_metrics", "metrics", "get_metrics_result", "compile"),
    *("fit", "evaluate", "predict", "train_on_batch", "test_on_batch", "predict_on_batch"),
    *("make_train_function", "make_test_function", "make_predict_function"),
)


def own_training(model):
    """Lists the methods of training, evaluation and prediction that a Keras 3 model overrides; `apply` does not carry them over."""
    own = [vars(kind) for kind in type(model).__mro__ if not is_keras_own(kind)]
    return [name for name in _STEPS_OF_TRAINING if any(name in names for names in [vars(model), *own])]


def warn_of_own_training(model, step, stacklevel=4):
    """Warns of a `train_step` or the like of a model's own class, which the result of a step's `apply` has not.

    Args:
        model: What `apply` got.
        step: Name of the step.
        stacklevel: As of `warnings.warn`, for the caller of `apply`.
    """
    if isinstance(model, AdoptedModel) or not isinstance(model, keras.Model):
        return
    if names := own_training(model):
        warnings.warn(
            f"'{model.name}' ({type(model).__name__}) has its own {', '.join(names)}. The model that {step}.apply returns has not: it is trained and "
            "evaluated as any Keras model.\nFix: give compile() the loss and the metrics, teach it with a Distiller, or put it into a keras.Model of "
            "your own whose train_step calls it.",
            UserWarning,
            stacklevel=stacklevel,
        )


def require_strippable(opened):
    """Refuses, before training, a model of which `strip` could not make a Keras 3 model again.

    Raises:
        BridgeError: naming the layer and the remedy.
    """
    if opened.original is not None:
        # A model that is remade from its graph computes what its layers compute, which `to_tf_keras` has compared already.
        compared = layer_facts.is_remade_from_graph(opened.original)
        to_keras(opened.legacy, like=opened.original, check=not compared, by_place=True)


def layers_by_name(model):
    """Returns the `Layers` of an `AdoptedModel` or a Keras 3 model, with those of nested models.

    A Keras 3 model that holds an adopted one, such as a Distiller, is not searched: give the student.
    """
    return _computing(model.legacy) if isinstance(model, AdoptedModel) else Layers(dict(_walk(model, "")))


def _walk(model, prefix):
    taken = set()
    for layer in model.layers if isinstance(model, keras.Model) else child_layers(model):
        path = unique_name(prefix + layer.name, taken)
        taken.add(path)
        # In a layer of a class that Keras does not have, all that has a kernel is a layer inside, under the path that it has in a plan. One with a
        # builder of its own (`register_bridge`) is not opened.
        if isinstance(layer, keras.Model) or (is_foreign(layer) and child_layers(layer) and not is_registered(type(layer))):
            yield from _walk(layer, f"{path}/")
        elif not isinstance(layer, keras.layers.InputLayer):
            yield path, layer


def rebuild(legacy, replace):
    """Rebuilds a tf_keras model with other layers in place of its own, and with its weights.

    Wrappers of pruning and clustering are removed; the new layers have the weights as masked or clustered.

    Args:
        legacy: A functional or Sequential tf_keras model, nested ones included.
        replace: Function of (path, layer) that gets a new copy of each layer and returns what takes its place: the copy itself, or a
            wrapper around it. It is called once per layer, also for one that several models share.

    Returns:
        A new tf_keras model of the same names.

    Raises:
        ModelError: if the model is neither functional nor Sequential.
    """
    pairs = []
    paths = {id(layer): path for path, layer in _computing(legacy).items()}

    def copy(layer):
        fresh = copy_layer(introspection.unwrap(layer))
        pairs.append((layer, fresh))
        return replace(paths[id(layer)], fresh) if id(layer) in paths else fresh  # a quantizer of the input is no layer of the user's

    if not isinstance(legacy, imports.tf_keras().Sequential) and not layer_facts.is_graph_network(legacy):
        raise ModelError(f"The tf_keras model '{legacy.name}' is subclassed.", "a functional or Sequential model")
    with serialization.legacy_scope():
        copied = rewire(legacy, copy)
    for layer, fresh in pairs:
        fresh.set_weights(effective_weights(layer))
    return copied


def effective_weights(layer):
    """Returns the weights of the user's layer as arrays, as it computes with them: masked and clustered by its wrapper."""
    effective = introspection.effective_values(layer)
    return [np.asarray(effective.get(id(weight), weight)) for weight in introspection.weights_of(layer)]


def effective_weight(layer, attribute):
    """Returns one weight of a live layer (Keras 3, or tf_keras, wrapped or not) as it computes with it; None if it has none of that name."""
    variable = introspection.weight_named(layer, attribute)
    return None if variable is None else np.asarray(introspection.effective_values(layer).get(id(variable), variable))
