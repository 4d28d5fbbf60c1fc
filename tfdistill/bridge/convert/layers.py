"""Builds the tf_keras counterpart of a Keras 3 layer from its public configuration."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable

import keras

from tfdistill.bridge import imports
from tfdistill.bridge.convert.activations import translate_activation
from tfdistill.bridge.convert.constructors import config_of, constructor_arguments
from tfdistill.bridge.convert.hosted import host, host_called
from tfdistill.bridge.recurrent_kernels import leave_out_cudnn
from tfdistill.errors import BridgeError
from tfdistill.graph.keras_internals import is_keras_own
from tfdistill.graph.opening import origin

if typing.TYPE_CHECKING:
    import tf_keras

# Makes the tf_keras layer for a Keras 3 layer, given the name, trainable flag and dtype that it is to have.
Builder = Callable[[keras.layers.Layer, dict[str, typing.Any]], "tf_keras.layers.Layer"]

# Layers that run in tf_keras as they are although it has one of that name.
HOSTED = ("SpectralNormalization",)  # tf_keras's cannot be built while tf.keras is Keras 3

# Augmentation that tf_keras lacks: the identity at inference.
AUGMENTING = (
    *(
        "AugMix",
        "CutMix",
        "MixUp",
        "RandAugment",
        "RandomColorDegeneration",
        "RandomColorJitter",
        "RandomElasticTransform",
        "RandomErasing",
    ),
    *("RandomGaussianBlur", "RandomGrayscale", "RandomHue", "RandomInvert", "RandomPerspective", "RandomPosterization", "RandomSaturation"),
    *("RandomSharpness", "RandomShear"),
)

RENAMED = {("LeakyReLU", "negative_slope"): "alpha"}

# Arguments that tf_keras lacks, with the values under which the layer computes the same without them.
HARMLESS = {
    "activity_regularizer": (None,),
    "antialias": (False,),
    "data_format": (None, "channels_last"),
    "fill_mode": ("constant",),
    "fill_value": (0.0,),
    "flash_attention": (None, False, True),
    "gptq_unpacked_column_size": (None,),
    "lora_alpha": (None,),
    "lora_rank": (None,),
    "pad_to_aspect_ratio": (False,),
    "quantization_config": (None,),
    "rms_scaling": (False,),
    "sliding_window": (None,),
    "use_cudnn": ("auto", True, False),
    "use_gate": (None, False),
}
DROPPED = ("seed", "query_shape", "key_shape", "value_shape", "weights")


def register_bridge(keras_layer_class: type[keras.layers.Layer], builder: Builder) -> None:
    """Sets how `to_tf_keras` rebuilds a class of Keras 3 layers, in place of the builder that it had.

    Args:
        keras_layer_class: Subclass of `keras.layers.Layer`. Its own subclasses are not included: they may compute something else.
        builder: Function `(layer, base) -> tf_keras layer`. `layer` is the built Keras 3 layer; `base` is a dict of `name`, `trainable` and
            `dtype` to construct the tf_keras layer with. The new layer must have the same weights (names and shapes); their values
            are copied afterwards. `tfdistill.bridge.host` is such a builder: it runs the Keras 3 layer itself.

    Raises:
        BridgeError: if the class is not a Keras 3 layer class or the builder cannot be called.

    Example:
        >>> @keras.saving.register_keras_serializable("examples")
        ... class Squared(keras.layers.Layer):
        ...     def call(self, inputs):
        ...         return keras.ops.square(inputs)
        >>> tfdistill.bridge.register_bridge(Squared, tfdistill.bridge.host)
        >>> model = keras.Sequential([keras.Input((3,)), Squared()])
        >>> tfdistill.to_tf_keras(model)(np.ones((1, 3)) * 2.0).numpy()
        array([[4., 4., 4.]], dtype=float32)
    """
    if not (inspect.isclass(keras_layer_class) and issubclass(keras_layer_class, keras.layers.Layer)):
        raise BridgeError(f"{keras_layer_class!r} is not a Keras 3 layer class.", "a subclass of keras.layers.Layer")
    if not callable(builder):
        raise BridgeError(f"The builder for {keras_layer_class.__name__} is {builder!r}.", "a function (layer, base) -> tf_keras layer")
    _REGISTERED[keras_layer_class] = builder


_REGISTERED: dict[type, Builder] = {}


def is_registered(keras_layer_class):
    """Whether `register_bridge` was called for a class."""
    return keras_layer_class in _REGISTERED


def build_layer(layer, path, build_model, allow_lambda=False, call=None, why=None):
    """Returns a new tf_keras layer that computes what `layer` computes, without its weights' values yet.

    Args:
        layer: Built Keras 3 layer that is not a model.
        path: Where it is, for the error.
        build_model: Function `(model, path) -> tf_keras model`, for a layer that wraps a model.
        allow_lambda: Whether the function of a Lambda layer may be carried over.
        call: `graph.Call` of the layer, from which its weights' shapes follow where its config does not hold them; None where it is not known.
        why: The `BridgeError` that says why a layer of a class of the user's is not opened, or None.

    Raises:
        BridgeError: if it has no counterpart.
    """
    kind = type(origin(layer))

    def again(inner, where):
        return build_layer(inner, where, build_model, allow_lambda)

    base = {"name": layer.name, "trainable": layer.trainable, "dtype": dtype_of(layer, path)}
    if kind in _REGISTERED:
        made = _REGISTERED[kind](layer, base)
        if not isinstance(made, imports.tf_keras().layers.Layer) or made.name != layer.name:
            raise BridgeError(
                f"The builder registered for {kind.__name__} returned {made!r} for the layer '{path}'.",
                f"a tf_keras layer named '{layer.name}'",
                "construct it with **base",
            )
        return made
    name = public_name(kind)
    if name is None and is_keras_own(kind):
        return host(layer, base)  # a private layer of keras.applications
    if name is None and not is_plain(kind):
        return _host_foreign(layer, base, path, call, why)
    if name is None:
        name = public_name(base_of(kind))
    if name in HOSTED or name in AUGMENTING:
        return host(layer, base)
    if name == "Lambda":
        return _lambda(layer, base, path, allow_lambda)
    if not hasattr(imports.tf_keras().layers, name):
        return host(layer, base)  # a layer that only newer Keras has
    if name == "Normalization":
        return _normalization(layer, base)
    return _same_class(
        layer, name, base, path, lambda inner, where: (build_model if isinstance(inner, keras.Model) else again)(inner, where)
    )


def _host_foreign(layer, base, path, call, why):
    try:
        return host_called(layer, base, call, why and " ".join(line.strip() for line in why.happened.splitlines()))
    except BridgeError as error:
        kind = type(origin(layer)).__name__
        opened = f"{why.happened}\nNor can it be run as it is: " if why is not None else ""
        raise BridgeError(
            f"{opened}{error.happened}",
            getattr(why, "expected", None) or error.expected,
            f"{f'{why.fix}; or ' if why is not None and why.fix else ''}{error.fix}; or tfdistill.bridge.register_bridge({kind}, builder) sets how "
            f"'{path}' is built",
        ) from (why or error)


def base_of(kind):
    """Returns the nearest class of Keras's own that a class derives from; None if there is none."""
    return next((base for base in kind.__mro__ if is_keras_own(base)), None)


def is_plain(kind):
    """Whether a class computes what its base among the public layers of Keras does: it overrides nothing but its constructor and its config."""
    base = base_of(kind)
    if base is keras.layers.Layer or public_name(base) is None:
        return False
    own = {name for one in kind.__mro__[: kind.__mro__.index(base)] for name in vars(one)}
    return own <= {"__init__", "get_config", "from_config"} | _ANY_CLASS


# What every class has.
_ANY_CLASS = {
    *vars(type("Empty", (), {"__annotations__": {}})),
    "__firstlineno__",
    "__static_attributes__",
    "__abstractmethods__",
    "_abc_impl",
}


def public_name(kind):
    """Returns the name under which `keras.layers` has a class (it may differ from the class's own), None where it has not."""
    return _public_names().get(kind)


@functools.cache
def _public_names():
    return {value: name for name, value in vars(keras.layers).items() if inspect.isclass(value)}


def _same_class(layer, name, base, path, build_inner):
    target = getattr(imports.tf_keras().layers, name)
    accepted = constructor_arguments(target)
    config = config_of(layer, base_of(type(layer)))  # a class that only sets arguments may have a config of its own
    arguments = {}
    for key, value in config.items():
        if key in ("name", "trainable", "dtype") or key.endswith("_initializer") or key in DROPPED:
            continue  # weights are copied; newer Keras has initializer arguments that tf_keras lacks
        renamed = RENAMED.get((name, key), key)
        if renamed not in accepted:
            if key in HARMLESS and value in HARMLESS[key]:
                continue
            return host(layer, base)  # a setting that tf_keras's layer of this name does not have
        arguments[renamed] = _value(layer, key, value, path, build_inner)
    if "seed" in accepted and config.get("seed") is not None:
        arguments["seed"] = config["seed"]
    made = target(**arguments, **base)
    leave_out_cudnn(made)
    return made


def _value(layer, key, value, path, build_inner):
    if key.endswith("activation"):
        return translate_activation(getattr(layer, key, None))
    if key.endswith("regularizer"):
        return _object(imports.tf_keras().regularizers, value, key, path)
    if key.endswith("constraint"):
        return _object(imports.tf_keras().constraints, value, key, path)
    if key in ("layer", "backward_layer", "cell", "cells"):
        return _inner(layer, key, path, build_inner)
    return value


def _inner(layer, key, path, build_inner):
    if key == "cells":
        return [build_inner(cell, f"{path}/{cell.name}") for cell in layer.cells]
    inner = {"layer": lambda: getattr(layer, "forward_layer", None) or layer.layer}.get(key, lambda: getattr(layer, key))()
    made = build_inner(inner, f"{path}/{inner.name}")
    if key == "layer" and hasattr(layer, "forward_layer"):
        made._name = layer.get_config()["layer"]["config"]["name"]  # tf_keras puts "forward_" before it, as Keras 3 did
    return made


def _lambda(layer, base, path, allow_lambda):
    if not allow_lambda:
        raise BridgeError(
            f"The layer '{path}' is a Lambda: its Python function is not checked or saved by tf_keras in a way that can be trusted.",
            "layers, or keras.ops operations on tensors",
            "write the function with keras.ops on the tensors themselves, make it a layer and register it, or trust it: to_tf_keras(model, allow_lambda=True); "
            "a compression step then takes tfdistill.adopt(tfdistill.to_tf_keras(model, allow_lambda=True))",
        )
    return imports.tf_keras().layers.Lambda(layer.function, arguments=layer.arguments, **base)


def _normalization(layer, base):
    # The statistics that `adapt` learned become settings: as weights they would take effect only after a call that cloning does not make.
    config = layer.get_config()
    if layer.input_mean is None:
        mean, variance = (keras.ops.convert_to_numpy(x).tolist() for x in (layer.adapt_mean, layer.adapt_variance))
    else:
        mean, variance = config["mean"], config["variance"]
    return imports.tf_keras().layers.Normalization(axis=config["axis"], mean=mean, variance=variance, invert=config["invert"], **base)


def _object(module, value, key, path):
    if value is None:
        return None
    name, config = (value, {}) if isinstance(value, str) else (value["class_name"], value["config"])
    known = getattr(module, name, None)
    if known is None or (isinstance(value, dict) and not str(value.get("module", "keras.")).startswith("keras.")):
        raise BridgeError(
            f"The {key} of the layer '{path}' is of the class {name}, which tf_keras does not have.",
            "a regularizer or constraint of Keras",
            "use one of those, or take it off before the bridge",
        )
    return known(**config)


def dtype_of(layer, path):
    """Returns the name of a layer's dtype policy as tf_keras takes it.

    Raises:
        BridgeError: for the policy of a layer that Keras has already quantized.
    """
    policy = layer.dtype_policy
    if getattr(policy, "quantization_mode", None):
        raise BridgeError(
            f"The layer '{path}' is already quantized ({policy.name}).",
            "a float model",
            "bridge the model before `quantize` is called on it",
        )
    return policy.name
