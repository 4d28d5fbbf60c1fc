"""Puts what is inside layers that others wrote in the place of these layers, at any depth."""

import dataclasses

import keras

from tfdistill.errors import BridgeError
from tfdistill.graph.carriers import HeldWeight
from tfdistill.graph.functional import UNSCOPED, calls, filled, functional_model, input_operation, own_arguments
from tfdistill.graph.layers import all_layers
from tfdistill.graph.masks import mask_of, masks_data_alone, with_its_mask
from tfdistill.graph.names import unique_name
from tfdistill.graph.opening import Signature, is_foreign, look_inside, origin, stand_in, traced_quietly
from tfdistill.graph.tracing import base_name, is_layer


def is_rewritten(operation):
    """Whether an operation of a graph may have another place in the graph that `inlined` returns: what is inside it, or a mask that it hides."""
    return is_foreign(operation) or masks_data_alone(operation)


def inputs_at(model, call):
    """Returns new inputs for a nested model, with the sizes that the model leaves free and the tensors of its call have; None where there are none.

    Args:
        model: Functional view of the nested model.
        call: The only `graph.Call` of it, or None.
    """
    given = [x for x in keras.tree.flatten(call.args) if isinstance(x, keras.KerasTensor)] if call is not None else []
    ranks = [[len(x.shape) for x in tensors] for tensors in (given, model.inputs)]
    if ranks[0] != ranks[1] or not any(map(is_foreign, all_layers(model))):
        return None
    shapes = [
        (*own.shape[:1], *(n if n is not None else there for n, there in zip(own.shape[1:], x.shape[1:], strict=True)))
        for own, x in zip(model.inputs, given, strict=True)
    ]
    if all(shape == own.shape for shape, own in zip(shapes, model.inputs, strict=True)):
        return None
    return [
        keras.Input(batch_shape=shape, dtype=own.dtype, name=input_operation(own).name)
        for shape, own in zip(shapes, model.inputs, strict=True)
    ]


def inlined(model, inside, frozen, inputs=None):
    """Returns a functional model with what is inside its layers in place of those that are opened, at any depth.

    All that is in it are stand-ins, named by their paths (`"encoder/attention/query"`), which share their weights with the model's own layers; see `origin`.

    Args:
        model: Functional Keras 3 model.
        inside: Function `(layer, signature, path) -> functional model or None`: what takes the layer's place, or None where it stays as it is.
        frozen: Set of ids: of the first output of each call that stays in inference mode, in `model` and in the models that `inside` returns. Those of the
            result are added.
        inputs: Inputs in place of the model's own, flat; None for these.

    Returns:
        Functional `keras.Model`; `model` itself where nothing is opened and the inputs are its own.
    """
    if inputs is None and not any(is_rewritten(call.operation) for call in calls(model)):
        return model
    inliner, given = _Inliner(inside, frozen), inputs or model.inputs
    tensors = inliner.run(model, dict(zip(map(id, model.inputs), given, strict=True)), "", False)
    if inputs is None and not inliner.opened:
        return model
    return functional_model(keras.tree.pack_sequence_as(model.input, given), filled(model.output, tensors), model.name)


def inlined_as(model, names, call=None):
    """Returns a functional model in which those layers are opened that another model with the given layers has only as what is inside them.

    Args:
        model: Functional Keras 3 model.
        names: Names of the other model's layers, as `inlined` gives them.
        call: The only `graph.Call` of the model where it is nested in another one, or None.
    """

    def inside(layer, signature, path):
        if path in names:
            return None
        try:
            view = look_inside(layer, signature, path)
        except BridgeError:
            return None
        empty = not any(True for _ in calls(view))
        return view if empty or any(name.startswith(f"{path}/") for name in names) else None

    return inlined(model, inside, set(), inputs_at(model, call))


class _Inliner:
    def __init__(self, inside, frozen):
        self.inside, self.frozen = inside, frozen
        self.opened = False
        self.made = {}  # id of a layer or weight -> (it, its stand-in)
        self.held = {}  # id of a weight -> its tensor
        self.names = set()

    def run(self, model, tensors, prefix, in_inference):
        """Repeats the calls of a model on other tensors; returns a dict of id of each of its tensors to the new one."""
        for call in calls(model):
            args, kwargs = filled((call.args, own_arguments(call)), tensors)
            here = dataclasses.replace(call, args=args, kwargs=kwargs)
            still = in_inference or id(call.outputs[0]) in self.frozen
            for kept, new in zip(call.outputs, self._outputs(here, prefix, still), strict=True):
                tensors[id(kept)] = new
        return tensors

    def _outputs(self, call, prefix, in_inference):
        operation = call.operation
        if isinstance(operation, HeldWeight):
            key = id(operation.weight)
            if key not in self.held:
                self.held[key] = self._stand_in(operation, prefix + operation.weight.name)(*call.args)
            return [self.held[key]]
        if is_foreign(operation):
            path, signature = prefix + operation.name, Signature.of(call)
            view = self.inside(operation, signature, path)
            if view is not None:
                self.opened = True
                given = dict(zip(map(id, view.inputs), signature.tensors, strict=True))
                tensors = self.run(view, given, f"{path}/", in_inference)
                return [tensors[id(x)] for x in view.outputs]
        # The operations of a functional model have names already; those inside a layer are numbered by their order.
        named = not prefix or is_layer(operation)
        made = self._stand_in(operation, prefix + (operation.name if named else base_name(operation)))
        with traced_quietly():
            outputs = made(*call.args, **call.kwargs)
            if not prefix and masks_data_alone(operation):  # inside a layer that is opened it is there already
                outputs = self._masked(made, call, outputs)
            outputs = keras.tree.flatten(outputs)
        if in_inference:
            self.frozen.add(id(outputs[0]))
        return outputs

    def _masked(self, layer, call, outputs):
        masked = with_its_mask(layer, call.args, call.kwargs, outputs)
        if masked is not outputs:
            self.opened = True
            for operation in (mask_of(masked)._keras_history.operation, masked._keras_history.operation):
                vars(operation).update(name=self._unique(f"{layer.name}/{base_name(operation)}"), **UNSCOPED)
        return masked

    def _unique(self, name):
        unique = unique_name(name, self.names)
        self.names.add(unique)
        return unique

    def _stand_in(self, operation, name):
        key = operation.weight if isinstance(operation, HeldWeight) else origin(operation)
        if id(key) not in self.made:
            self.made[id(key)] = (key, stand_in(operation, self._unique(name)))
        return self.made[id(key)][1]
