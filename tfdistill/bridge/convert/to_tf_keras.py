"""Rebuilds a Keras 3 model in tf_keras, the only Keras that tensorflow-model-optimization works on."""

from __future__ import annotations

import typing

import keras
import numpy as np

from tfdistill.bridge import imports
from tfdistill.bridge.convert.custom import Opener
from tfdistill.bridge.convert.encoding import encode
from tfdistill.bridge.convert.hosted import call_by_name, layer_class, operation_class
from tfdistill.bridge.convert.layers import build_layer
from tfdistill.bridge.convert.native import native_layer
from tfdistill.bridge.convert.weights import copy_weights, holds_weights, pair_weights
from tfdistill.bridge.parity.once import check_parity_once
from tfdistill.bridge.parity.opened import check_opened, refuse_copies
from tfdistill.errors import BridgeError, ModelError
from tfdistill.graph.carriers import HeldWeight
from tfdistill.graph.functional import as_functional, calls, input_operation, is_functional, is_sequential, only_calls, own_arguments
from tfdistill.graph.opening import origin
from tfdistill.graph.tracing import open_model

if typing.TYPE_CHECKING:
    import tf_keras


def to_tf_keras(
    model: keras.Model, *, check: bool = True, seed: int = 0, allow_lambda: bool = False, inputs: typing.Any = None
) -> tf_keras.Model:
    """Rebuilds a Keras 3 model in tf_keras, with the same weights and the same layer names.

    Every layer becomes the tf_keras layer of the same name and settings; operations of `keras.ops` become layers as well. Regularizers,
    constraints, dtype policies and trainable flags are kept; initializers are not, as the weights are copied. The two models share nothing.

    In training they compute the same too, with two exceptions: random layers, and the fused BatchNormalization of tf_keras, which moves its variance
    towards the batch's unbiased variance. That is n / (n - 1) times the variance of Keras 3, n being the number of values per channel in a batch.

    A subclassed model is traced: its `call` runs once on symbolic tensors. The model is refused where the trace holds only a part of it: where `call`
    reads a weight as a value, or computes by another graph in training mode. Layers that it always calls with `training=False` stay in inference
    mode. What the model class does besides `call`, such as a `train_step`, is not carried over.

    A layer of a class that Keras does not have is opened in the same way, at any depth: the layers inside it become layers of the tf_keras model under their
    paths (`"encoder/attention/query"`), and the weights that it owns itself become layers that hold one weight each (`"encoder/scale"`). Where a trace would
    hold only a part of it, the layer runs as it is: see `tfdistill.bridge.host`. `register_bridge` sets another way for a class.

    Args:
        model: Built `keras.Model`: functional, Sequential, or subclassed where its `call` works on symbolic tensors.
        check: Whether the models are compared on random input before the new one is returned; see `check_parity`. A model of Keras's own
            layers that has not changed since it was compared is not compared again.
        seed: Seed of that input.
        allow_lambda: Whether Lambda layers are carried over with their Python function; they are refused otherwise.
        inputs: `keras.Input`s, in the structure that `call` takes, for a subclassed model whose inputs are not float32 of the shapes that it was built
            with.

    Returns:
        `tf_keras.Model`: Sequential where `model` is, else functional, with the inputs and outputs in the same structure.

    Raises:
        ModelError: if `model` is no Keras 3 model or is not built.
        BridgeError: if a layer has no counterpart, a weight would become two, or the rebuilt model computes something else; the layer or weight is named.

    Example:
        >>> copy = tfdistill.to_tf_keras(student)
        >>> [layer.name for layer in copy.layers]
        ['image', 'conv', 'norm', 'relu', 'pool', 'logits']
        >>> np.allclose(copy(x), student(x), atol=1e-5)
        True
    """
    if not isinstance(model, keras.Model):
        raise ModelError(
            f"{type(model).__module__}.{type(model).__name__} was given as the model.",
            "a built keras.Model (Keras 3)",
            "a tf_keras model needs no bridge: use it as it is" if isinstance(model, imports.tf_keras().Model) else None,
        )
    bridge = _Bridge(allow_lambda)
    opened = bridge.open(model, model.name, inputs)
    rebuilt = bridge.model(opened, model.name)
    bridge.copy_weights()
    refuse_copies([(*pair, path) for variables, made, path in bridge.pairs for pair in pair_weights(variables, made.weights, path)])
    bridge.copy_trainable()
    if check:
        check_parity_once(opened, rebuilt, seed)
    return rebuilt


class _Bridge:
    """One translation of a model: remembers what every layer became, so that shared layers stay shared, across nested models too."""

    def __init__(self, allow_lambda):
        self.allow_lambda = allow_lambda
        self.made = {}  # id of a Keras 3 layer or model -> (it, its counterpart)
        self.pairs = []  # (variables, counterpart, path) of every layer or operation whose weights are to be copied
        self.waiting = []  # those that are not copied yet
        self.flags = []  # (layer, counterpart) of every layer
        self.frozen = set()  # id of the first output of every call that stays in inference mode
        self.opener = Opener(self.frozen)

    def open(self, model, path, inputs=None, call=None):
        """Returns the functional view of a model, or the Sequential model itself. Of a subclassed model it is checked that the view is complete."""
        if not is_sequential(model) and not is_functional(model):
            opened = open_model(model, inputs, path)
            self.frozen |= check_opened(model, opened, path)
            model = opened
        return self.opener.open(model, path, call)

    def model(self, model, path):
        """Returns the counterpart of a functional or Sequential model."""
        sequential = is_sequential(model)
        opened = as_functional(model)
        inputs = [self._input(tensor) for tensor in opened.inputs]
        if sequential:
            layers = [self.layer(layer, f"{path}/{layer.name}") for layer in model.layers]
            made = imports.tf_keras().Sequential(inputs, name=model.name)
            for layer in layers:
                made.add(layer)
                self.copy_weights(layer)
        else:
            made = self._functional(opened, inputs, path)
        self.made[id(origin(model))] = (model, made)
        return made

    def _input(self, tensor):
        operation = input_operation(tensor)
        if getattr(operation, "optional", False):
            raise BridgeError(
                f"The input '{operation.name}' is optional, which tf_keras does not have.", fix="give the model one that is not"
            )
        return imports.tf_keras().Input(
            shape=tensor.shape[1:], batch_size=tensor.shape[0], name=operation.name, dtype=tensor.dtype, sparse=bool(tensor.sparse)
        )

    def _functional(self, model, inputs, path):
        tensors = {id(kept): made for kept, made in zip(model.inputs, inputs, strict=True)}

        def current(value):
            return keras.tree.map_structure(lambda x: tensors[id(x)] if isinstance(x, keras.KerasTensor) else x, value)

        alone = only_calls(model)
        for call in calls(model):
            where = f"{path}/{call.operation.name}"
            try:
                if isinstance(call.operation, keras.layers.Layer):
                    layer = self.layer(call.operation, where, call, alone.get(id(call.operation)))
                    args, kwargs = call.args, own_arguments(call)
                    if isinstance(layer, layer_class()):
                        args, kwargs = call_by_name(call.operation, args, kwargs)
                    if id(call.outputs[0]) in self.frozen:
                        kwargs = {**kwargs, "training": False}
                    outputs = layer(*current(args), **current(_with_tensors(kwargs)))
                    self.copy_weights(layer)
                else:
                    outputs = self._operation(call, where, tensors)
            except (TypeError, ValueError, NotImplementedError) as error:
                if isinstance(error, (BridgeError, ModelError)):
                    raise
                raise BridgeError(
                    f"The layer '{where}' ({type(call.operation).__name__}) was rebuilt in tf_keras, but cannot be called there as it is in Keras 3: "
                    f"{type(error).__name__}: {error}",
                    fix=f"tfdistill.bridge.register_bridge({type(call.operation).__name__}, builder) sets how it is built",
                ) from error
            for kept, made in zip(call.outputs, tf_keras_flat(outputs), strict=True):
                tensors[id(kept)] = made
        structure = keras.tree.pack_sequence_as(model.input, inputs)
        return imports.tf_keras().Model(structure, current(model.output), name=model.name)

    def layer(self, layer, path, call=None, alone=None):
        """Returns the counterpart of a layer or nested model, the same one every time."""
        key = layer.weight if isinstance(layer, HeldWeight) else origin(layer)
        if id(key) in self.made:
            return self.made[id(key)][1]
        if isinstance(layer, keras.Model):
            made = self.model(self.open(layer, path, call=alone), path)
        else:
            made = build_layer(layer, path, self.layer, self.allow_lambda, call, self.opener.why_whole(layer))
            if holds_weights(layer):
                self._add_pair(layer.weights, made, path)
            self.flags.append((layer, made))
        self.made[id(key)] = (layer, made)
        return made

    def _operation(self, call, path, tensors):
        native = native_layer(call)
        if native is not None:
            layer, inputs = native
            return layer([tensors[id(x)] for x in inputs] if isinstance(inputs, list) else tensors[id(inputs)])
        found, variables = [], []
        try:
            operation = keras.saving.serialize_keras_object(origin(call.operation))
            arguments = encode((call.args, call.kwargs), found, variables)
        except (NotImplementedError, TypeError, ValueError) as error:
            raise BridgeError(
                f"The operation '{path}' (keras.ops {type(call.operation).__name__}) cannot be carried over: {error}",
                fix="replace it by a layer",
            ) from error
        specs = [
            {"shape": list(v.shape), "dtype": keras.backend.standardize_dtype(v.dtype), "trainable": bool(v.trainable)} for v in variables
        ]
        shapes = [list(output.shape) for output in call.outputs]
        layer = operation_class()(operation, arguments, shapes, specs, name=call.operation.name)
        outputs = layer([tensors[id(x)] for x in found] if len(found) > 1 else tensors[id(found[0])])
        if variables:
            self._add_pair(variables, layer, path)
            self.copy_weights(layer)
        return outputs

    def _add_pair(self, *pair):
        self.pairs.append(pair)
        self.waiting.append(pair)

    def copy_weights(self, layer=None):
        """Copies the weights of a counterpart that has just been built; without one, of all that are left.

        One after the other, as the values that a layer is built with are let go by then: TensorFlow keeps that memory, and gives it to the next layer.
        """
        for variables, made, path in self.waiting:
            if layer is None or made is layer:
                copy_weights(variables, made.weights, path)
        self.waiting = [pair for pair in self.waiting if layer is not None and pair[1] is not layer]

    def copy_trainable(self):
        """Sets every flag as it is in the Keras 3 model; models first, as setting theirs sets all that is inside.

        In Keras 3 a layer trains by its own flag, whatever the models around it say; in tf_keras a frozen model freezes all that is inside. So a
        frozen model with a trainable layer inside is made trainable, and its other layers are frozen one by one.
        """
        # A nested model is finished before the one around it, so the outermost is last.
        models = [pair for pair in self.made.values() if isinstance(pair[0], keras.Model)]
        for kept, made in reversed(models):
            made.trainable = kept.trainable or any(v.trainable for v in kept.variables)
        for kept, made in self.flags:
            made.trainable = kept.trainable


def tf_keras_flat(structure):
    """Flattens tensors of tf_keras in the order in which Keras 3 flattens its own (dicts by sorted keys)."""
    import tensorflow as tf

    return tf.nest.flatten(structure)


def _with_tensors(kwargs):
    """Returns keyword arguments with tensors in place of arrays: tf_keras notes a mask on the output of its layer, which in a graph has to be a tensor."""
    import tensorflow as tf

    return {name: tf.constant(value) if isinstance(value, np.ndarray) else value for name, value in kwargs.items()}
