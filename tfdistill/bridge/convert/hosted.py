"""tf_keras layers that run a Keras 3 operation or layer as it is, for what tf_keras has no layer of its own.

Keras 3 on TensorFlow computes with plain TensorFlow operations, so the result is the same to the bit, and converts to TFLite like any other. Weights
belong to the tf_keras layer: it can be cloned, saved, frozen and trained there.
"""

from __future__ import annotations

import copy
import functools
import inspect
import types
import typing

import keras

from tfdistill.bridge import imports
from tfdistill.bridge.convert.constructors import not_taken
from tfdistill.bridge.convert.encoding import decode, encode, tensor_positions
from tfdistill.bridge.convert.live_classes import made_again, remember
from tfdistill.errors import BridgeError
from tfdistill.graph.batches import name_of_operation
from tfdistill.graph.functional import own_arguments
from tfdistill.graph.layers import child_layers
from tfdistill.graph.opening import origin

if typing.TYPE_CHECKING:
    import tf_keras


@functools.cache
def operation_class():
    """Returns the class `KerasOperation`: a tf_keras layer for one call of a `keras.ops` operation."""
    tfk = imports.tf_keras()

    @tfk.utils.register_keras_serializable("tfdistill")
    class KerasOperation(tfk.layers.Layer):
        """Runs one Keras 3 operation on the tensors it is called with.

        Args:
            operation: Serialized `keras.Operation`.
            arguments: Its encoded arguments (see `encoding.encode`).
            shapes: Shapes of its outputs; Keras 3 infers dimensions that TensorFlow may lose.
            variables: List of `{"shape", "dtype", "trainable"}` for the variables among the arguments.
        """

        def __init__(self, operation, arguments, shapes, variables=(), **kwargs):
            # Operations of Keras 3 promote dtypes by themselves: a cast before them could change the result.
            super().__init__(autocast=False, **kwargs)
            # Plain dicts in a namespace: as attributes, tf_keras would wrap them, and a deserialization may change what it is given.
            self._host = types.SimpleNamespace(operation=operation, arguments=arguments, shapes=shapes, variables=list(variables))
            self._host.run = keras.saving.deserialize_keras_object(copy.deepcopy(operation))
            if not isinstance(self._host.run, keras.Operation):
                raise BridgeError(f"The operation of the layer '{self.name}' is a {type(self._host.run).__name__}.", "a keras.Operation")
            self._held = []

        @property
        def operation_name(self):
            """Class name of the operation, for example `"Mean"`."""
            return name_of_operation(self._host.operation)

        @property
        def is_unary(self):
            """Whether the operation is a function of one tensor, and of no variables."""
            return len(tensor_positions(self._host.arguments)) == 1 and not self._host.variables

        def build(self, input_shape):
            for i, spec in enumerate(self._host.variables):
                self._held.append(self.add_weight(name=f"variable_{i}", **spec))
            super().build(input_shape)

        def compute(self, *tensors):
            """Computes the operation of tensors of any shapes."""
            args, kwargs = decode(self._host.arguments, list(tensors), [keras.ops.convert_to_tensor(v) for v in self._held])
            return self._host.run.call(*args, **kwargs)

        def call(self, inputs):
            outputs = self.compute(*inputs) if isinstance(inputs, (list, tuple)) else self.compute(inputs)
            for output, shape in zip(keras.tree.flatten(outputs), self._host.shapes, strict=True):
                output.set_shape(shape)
            return outputs

        def compute_mask(self, inputs, mask=None):
            return None  # an operation of Keras 3 drops the mask

        def get_config(self):
            return {
                **super().get_config(),
                "operation": copy.deepcopy(self._host.operation),
                "arguments": copy.deepcopy(self._host.arguments),
                "shapes": copy.deepcopy(self._host.shapes),
                "variables": copy.deepcopy(self._host.variables),
            }

    return KerasOperation


@functools.cache
def layer_class():
    """Returns the class `KerasLayer`: a tf_keras layer around a Keras 3 layer."""
    tfk = imports.tf_keras()

    @tfk.utils.register_keras_serializable("tfdistill")
    class KerasLayer(tfk.layers.Layer):
        """Runs a Keras 3 layer with weights that belong to this tf_keras layer.

        Args:
            layer: Serialized Keras 3 layer.
            build_config: What its `get_build_config` gave, from which its weights' shapes follow.
            arguments: Encoded arguments of a call (see `encoding.encode`), for a layer that makes its weights when it is first called; or None.
            tensors: List of `{"shape", "dtype"}` for the tensors among the arguments.
        """

        def __init__(self, layer, build_config, arguments=None, tensors=(), **kwargs):
            super().__init__(autocast=False, **kwargs)
            hosted = made_again(layer)
            if arguments is not None:
                args, kwargs = decode(arguments, [keras.KerasTensor(tuple(t["shape"]), dtype=t["dtype"]) for t in tensors], [])
                hosted(*args, **kwargs)
            elif not hosted.built and _is_built_by_its_call(hosted) and "input_shape" in build_config:
                hosted(keras.KerasTensor(tuple(build_config["input_shape"])))
            elif not hosted.built:
                hosted.build_from_config(build_config)
            self.supports_masking = hosted.supports_masking
            # In a namespace, or tf_keras would take the Keras 3 layer for one of its own and track its variables.
            self._hosted = types.SimpleNamespace(layer=hosted, config=layer, build_config=build_config)
            self._hosted.call = {} if arguments is None else {"arguments": arguments, "tensors": list(tensors)}
            kept = {id(v) for v in hosted.weights}
            self._hosted.trainable = [self._own(v, True) for v in hosted.trainable_variables]
            self._hosted.fixed = [
                self._own(v, False) if id(v) in kept else v.value  # seeds stay with the hosted layer
                for v in hosted.non_trainable_variables
            ]
            self._hosted.takes = tuple(inspect.signature(hosted.call).parameters)
            self._hosted.is_weight = [id(v) in kept for v in hosted.non_trainable_variables]

        def _own(self, variable, trainable):
            return self.add_weight(
                name=variable.path.rpartition(f"{self.name}/")[2],
                shape=tuple(variable.shape),
                dtype=keras.backend.standardize_dtype(variable.dtype),
                trainable=trainable,
            )

        def call(self, inputs, training=None, mask=None, **kwargs):
            hosted = self._hosted
            kwargs |= self._masks(mask, kwargs)
            if "training" in hosted.takes:
                kwargs["training"] = training
            fixed = [keras.ops.convert_to_tensor(v) for v in hosted.fixed]
            outputs, updated, losses = hosted.layer.stateless_call(
                [keras.ops.convert_to_tensor(v) for v in hosted.trainable],
                fixed,
                inputs,
                return_losses=True,
                **kwargs,
            )
            for loss in losses:  # penalties of its weights, and what its call adds
                self.add_loss(loss)
            if hosted.layer.activity_regularizer is not None:
                for output in keras.tree.flatten(outputs):
                    loss = hosted.layer.activity_regularizer(output)
                    self.add_loss(loss / keras.ops.cast(keras.ops.shape(output)[0], loss.dtype))  # by example, as Keras has it
            for variable, before, value, is_weight in zip(hosted.fixed, fixed, updated, hosted.is_weight, strict=True):
                if value is not before and (not is_weight or training):
                    variable.assign(value)
            return outputs

        def compute_mask(self, inputs, mask=None):
            return self._hosted.layer.compute_mask(inputs, mask) if self.supports_masking else super().compute_mask(inputs, mask)

        def _masks(self, mask, others):
            """Finds the masks that Keras 3 would hand over: that of the first argument as `mask`, or that of each as `query_mask` and the like."""
            names = self._hosted.takes
            found = {f"{name}_mask": getattr(value, "_keras_mask", None) for name, value in others.items()}
            found |= {"mask": mask, f"{names[0]}_mask": mask}
            return {name: value for name, value in found.items() if name in names and value is not None and others.get(name) is None}

        def get_config(self):
            return {
                **super().get_config(),
                "layer": copy.deepcopy(self._hosted.config),
                "build_config": copy.deepcopy(self._hosted.build_config),
                **copy.deepcopy(self._hosted.call),
            }

    return KerasLayer


def is_hosted(layer):
    """Whether a tf_keras layer runs a Keras 3 layer."""
    return hasattr(layer, "_hosted")


def why_hosted(layer):
    """Returns why a Keras 3 layer that runs in a tf_keras layer was not opened; None where nobody tried, or the tf_keras layer was made from its config."""
    return getattr(layer._hosted, "why", None)


def call_by_name(layer, args, kwargs):
    """Turns all arguments but the first of a Keras 3 layer's call into keyword arguments: tf_keras can only clone a call of `**kwargs` so."""
    every = list(inspect.signature(layer.call).parameters)
    if not args:  # the first argument was given by its name, too
        return (kwargs[every[0]],), {name: value for name, value in kwargs.items() if name != every[0]}
    names = [name for name in every if name not in kwargs]
    return args[:1], {**dict(zip(names[1:], args[1:], strict=False)), **kwargs}


def host(layer: keras.layers.Layer, base: dict[str, typing.Any]) -> tf_keras.layers.Layer:
    """Builder for `register_bridge`: runs the Keras 3 layer itself inside tf_keras.

    Args:
        layer: Built Keras 3 layer. It must have a working `get_config`.
        base: Dict of `name`, `trainable` and `dtype` for the tf_keras layer.

    Returns:
        tf_keras layer with the same weights, in the same order.

    Raises:
        BridgeError: if Keras cannot make a second layer from its config.

    Example:
        >>> layer = keras.layers.UnitNormalization()
        >>> layer.build((None, 2))
        >>> hosted = tfdistill.bridge.host(layer, {"name": "unit", "trainable": True, "dtype": "float32"})
        >>> hosted(np.array([[3.0, 4.0]])).numpy()
        array([[0.6, 0.8]])
    """
    return host_called(layer, base)


def host_called(layer, base, call=None, why=None):
    """Does what `host` does, for a layer too that makes its weights when it is first called.

    Args:
        layer: See `host`.
        base: See `host`.
        call: `graph.Call` of the layer, or None.
        why: Text: why it is not opened; or None.
    """
    source = origin(layer)
    remember(source)
    try:
        config, build_config = keras.saving.serialize_keras_object(source), _untracked(source.get_build_config())
        config["config"] = {
            name: value for name, value in config["config"].items() if name not in not_taken(type(source), config["config"])
        }
        by_call = call is not None and _is_built_by_its_call(source)
        if _is_built_by_its_call(source):
            config.pop("build_config", None)  # Keras would take the layer for built with it
        made = None if by_call else layer_class()(config, build_config, **base)
        if by_call or (call is not None and _shapes(made) != _shapes(source)):
            tensors = []
            arguments = encode((call.args, own_arguments(call)), tensors, [])
            tensors = [{"shape": list(t.shape), "dtype": t.dtype} for t in tensors]
            made = layer_class()(config, build_config, arguments, tensors, **base)
    except Exception as error:  # whatever the user's class raises
        raise BridgeError(
            f"The layer '{layer.name}' ({type(source).__name__}) cannot be made again from its get_config(), which running it in tf_keras takes: {error}",
            "a layer that Keras can save and load",
            "give the class a get_config that holds its constructor's arguments, and decorate it with "
            "@keras.saving.register_keras_serializable()",
        ) from error
    made._hosted.why = why
    return made


def _is_built_by_its_call(layer):
    """Whether the layers inside a layer get their weights when it is called, as it has no `build` of its own."""
    return type(layer).build is keras.layers.Layer.build and bool(child_layers(layer))


def _untracked(value):
    """Returns lists and dicts as Python's own: a copy of those that Keras keeps in a layer is a copy of all layers that are tracked with them."""
    if isinstance(value, dict):
        return {key: _untracked(item) for key, item in value.items()}
    return tuple(map(_untracked, value)) if isinstance(value, tuple) else list(map(_untracked, value)) if isinstance(value, list) else value


def _shapes(layer):
    return sorted(tuple(weight.shape) for weight in layer.weights)
