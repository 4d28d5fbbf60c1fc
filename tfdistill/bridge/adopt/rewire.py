"""Rebuilds a tf_keras model call by call, so that layers can be put between its layers. Cloning can only exchange layers."""

from tfdistill.bridge import imports


def rewire(legacy, copy, enter=lambda tensor: None, dense=False):
    """Repeats every call of a model with other layers, nested models included, in time that grows with the number of calls.

    A layer that is shared stays shared, between a nested model and the one around it too.

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
    made = {}

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
        outputs = _repeated(model, tensors, lambda layer, args, kwargs: copied(layer)(*args, **kwargs))
        structure = tf.nest.map_structure(lambda x: inputs[id(x)], model._nested_inputs)
        return tfk.Model(structure, outputs, name=model.name)

    return rebuilt(legacy)


def replay(legacy, call, tensors):
    """Repeats every call of a model in inference mode on tensors of a graph that is being traced, nested models included.

    Args:
        legacy: A functional or Sequential tf_keras model that is built.
        call: Function of (layer, args, kwargs): returns the outputs of one call of a layer that is no model.
        tensors: List of the tensors to take for the model's inputs, in the order of `legacy.inputs`.

    Returns:
        The outputs, in the model's structure.
    """
    import tensorflow as tf

    def inference(layer, args, kwargs):
        if isinstance(layer, imports.tf_keras().Model):
            return replay(layer, call, tf.nest.flatten(args))
        return call(layer, args, {**kwargs, "training": False} if layer._expects_training_arg else kwargs)

    known = {}
    for kept, tensor in zip(legacy.inputs, tensors, strict=True):
        known[id(kept)] = tensor if tensor.dtype == kept.dtype else tf.cast(tensor, kept.dtype)
    return _repeated(legacy, known, inference)


def _repeated(model, tensors, call):
    """Repeats the calls in the graph of a tf_keras model.

    Args:
        model: A functional or Sequential tf_keras model that is built.
        tensors: Dict of id of each input of the model to the tensor in its place; what the calls return is added.
        call: Function of (layer, args, kwargs): returns the outputs of one call.

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
            outputs = call(node.layer, current(node.call_args), current(node.call_kwargs))
            for kept, new in zip(tf.nest.flatten(node.outputs), tf.nest.flatten(outputs), strict=True):
                tensors[id(kept)] = new
    return current(model._nested_outputs)


def _input(tensor, dense):
    layer = tensor._keras_history.layer
    return imports.tf_keras().Input(
        batch_shape=tensor.shape, dtype=tensor.dtype, name=layer.name, sparse=getattr(layer, "sparse", None) and not dense
    )
