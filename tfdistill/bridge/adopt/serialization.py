"""Serializes a tf_keras model, wrappers included, and opens the scope in which it can be made from its config again."""

import contextlib
import functools
import json
import types

import keras

from tfdistill.bridge import imports
from tfdistill.bridge.adopt.introspection import original_activations
from tfdistill.bridge.convert.activations import translate_activation
from tfdistill.bridge.convert.hosted import layer_class, operation_class
from tfdistill.bridge.wrappers.clustering import clustered_layer_class
from tfdistill.bridge.wrappers.pruning import pruned_layer_class
from tfdistill.bridge.wrappers.quantization import quantized_layer_class


@functools.cache
def _register_bridge_classes():
    # A new process that only loads a file has converted nothing yet.
    operation_class()
    layer_class()
    clustered_layer_class()
    pruned_layer_class()
    quantized_layer_class()
    for name in dir(keras.activations):
        activation = getattr(keras.activations, name)
        if isinstance(activation, types.FunctionType) and name not in ("get", "serialize", "deserialize"):
            translate_activation(activation)


@contextlib.contextmanager
def legacy_scope(custom_objects=None):
    """The scope in which a model with TFMOT's and this library's classes can be rebuilt from its config."""
    tfmot = imports.tfmot()
    from tensorflow_model_optimization.python.core.clustering.keras import cluster

    _register_bridge_classes()

    # A TimeDistributed writes the layer inside by the name of its class alone.
    inside = {kind.__name__: kind for kind in (operation_class(), layer_class())}
    with (
        tfmot.sparsity.keras.prune_scope(),
        cluster.cluster_scope(),
        tfmot.quantization.keras.quantize_scope({**inside, **(custom_objects or {})}),
    ):
        yield


def config_of(legacy):
    """Returns the JSON text from which `tfdistill.bridge.adopt.loading` makes a tf_keras model, TFMOT's wrappers included."""
    with original_activations(legacy):
        return json.dumps(_without_build_config(json.loads(legacy.to_json())))


def _without_build_config(config):
    # Building from a build_config makes some of TFMOT's layers build twice, and their ranges twice with them.
    # A hosted layer has an argument of that name: only what stands beside a class is meant.
    if isinstance(config, dict):
        dropped = "build_config" if "class_name" in config else None
        return {key: _without_build_config(value) for key, value in config.items() if key != dropped}
    return [_without_build_config(value) for value in config] if isinstance(config, list) else config
