"""Rebuilds a tf_keras model call by call, so that layers can be put between its layers. Cloning can only exchange layers."""

from tfdistill.bridge import imports
from tfdistill.bridge.wrappers.quantization import numbered


def rewire(legacy, copy, enter=lambda tensor: None, dense=False):
    """Repeats every call of a model with other layers, nested models included, in time that grows with the number of calls.

    A layer that is shared stays shared, between a nested model and the one around it too. A quantized layer is told which of its calls each one is.

    Args:
        legacy: A functional or Sequential tf_keras model that is built.
        copy: Function of a layer: returns the layer to call in its place. It is called once per layer, also for a shared one.
        enter: Function of an input tensor of the outermost model: returns a layer to put between it and its readers, or None.
        dense: Whether sparse inputs become dense ones.

    Returns:
        A new tf_keras model of the same names and the same structure of inputs and outputs.
    """
    import tensorflow as tf

    tfk = imports.tf_keras()
    made, numbers = {}, Numbers()

    def copied(layer):
        if id(layer) not in made:
            made[id(layer)] = (layer, rebuilt(layer) if isinstance(layer, tfk.Model) else copy(layer))
        return made[id(layer)][1]

    def rebuilt(model):
        inputs = {id(tensor): _input(tensor, dense) for tensor in model.inputs}
        between = {id(tensor): enter(tensor) if model is legacy else None for tensor in model.inputs}
        if isinstance(model, tfk.Sequential):
            first = [layer for layer in between.values() if layer is not None]
            return tfk.Sequential([*inputs.values(), *first, *(copied(layer) for layer in model.layers)], name=model.name)
        tensors = {key: tensor if between[key] is None else between[key](tensor) for key, tensor in inputs.items()}
        outputs = _repeated(model, tensors, call, numbers)
        structure = tf.nest.map_structure(lambda x: inputs[id(x)], model._nested_inputs)
        return tfk.Model(structure, outputs, name=model.name)

    def call(layer, args, kwargs, number):
        fresh = copied(layer)
        return fresh(*args, **numbered(fresh, kwargs, number))

    return rebuilt(legacy)


def replay(legacy, call, tensors, numbers=None):
    """Repeats every call of a model in inference mode on tensors of a graph that is being traced, nested models included.

    Args:
        legacy: A functional or Sequential tf_keras model that is built.
        call: Function of (layer, args, kwargs, number): returns the outputs of one call of a layer that is no model; the number is that of `Numbers`.
        tensors: List of the tensors to take for the model's inputs, in the order of `legacy.inputs`.
        numbers: `Numbers` of the model around it, for a nested one.

    Returns:
        The outputs, in the model's structure.
    """
    import tensorflow as tf

    numbers = numbers or Numbers()

    def inference(layer, args, kwargs, number):
        if isinstance(layer, imports.tf_keras().Model):
            return replay(layer, call, tf.nest.flatten(args), numbers)
        return call(layer, args, {**kwargs, "training": False} if layer._expects_training_arg else kwargs, number)

    known = {}
    for kept, tensor in zip(legacy.inputs, tensors, strict=True):
        known[id(kept)] = tensor if tensor.dtype == kept.dtype else tf.cast(tensor, kept.dtype)
    return _repeated(legacy, known, inference, numbers)


class Numbers:
    """Numbers the calls of each layer in a graph. Calls that read the same tensors have one number, as they compute the same."""

    def __init__(self):
        self._known = {}

    def of(self, node):
        """Returns how many other calls of its layer go before a tf_keras node."""
        known = self._known.setdefault(id(node.layer), {})
        return known.setdefault(tuple(map(id, node.keras_inputs)), len(known))


def _repeated(model, tensors, call, numbers):
    """Repeats the calls in the graph of a tf_keras model.

    Args:
        model: A functional or Sequential tf_keras model that is built.
        tensors: Dict of id of each input of the model to the tensor in its place; what the calls return is added.
        call: Function of (layer, args, kwargs, number): returns the outputs of one call.
        numbers: `Numbers` of the calls.

    Returns:
        The outputs, in the model's structure.
    """
    import tensorflow as tf

    def current(structure):
        return tf.nest.map_structure(lambda x: tensors.get(id(x), x), structure)

    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if node.is_input:
                continue
            outputs = call(node.layer, current(node.call_args), current(node.call_kwargs), numbers.of(node))
            for kept, new in zip(tf.nest.flatten(node.outputs), tf.nest.flatten(outputs), strict=True):
                tensors[id(kept)] = new
    return current(model._nested_outputs)


def _input(tensor, dense):
    layer = tensor._keras_history.layer
    return imports.tf_keras().Input(
        batch_shape=tensor.shape, dtype=tensor.dtype, name=layer.name, sparse=getattr(layer, "sparse", None) and not dense
    )
