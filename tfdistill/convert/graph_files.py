"""Writes traced functions as SavedModels, which is what the converter reads."""

import pathlib

from tfdistill.bridge.frozen import frozen
from tfdistill.runtime import tensorflow_lite

SIGNATURE = "serving_default"
# The names that `tf.saved_model.save` gives: inputs and outputs of the file are called after them.
_INPUT, _OUTPUTS = f"{SIGNATURE}_", "StatefulPartitionedCall"


def save(concrete, folder):
    """Saves a concrete function as a SavedModel, and returns a function that makes a converter of it.

    A function that can be frozen is written as the bare graph that the converter makes of any other: TensorFlow would first make functions of the graph, save
    its variables, and load it all twice for the converter, which takes longer than the conversion.

    Args:
        concrete: Concrete function with named inputs and a dict of outputs.
        folder: Existing empty folder.

    Returns:
        Function without arguments that returns a new converter.
    """
    import tensorflow as tf

    if (graph := frozen(concrete)) is not None:
        model = _model(graph)
        pathlib.Path(folder, "saved_model.pb").write_bytes(model.SerializeToString())
        return lambda: tensorflow_lite.converter_of_graph(str(folder), SIGNATURE, model.meta_graphs[0].graph_def)
    module = tf.Module()
    module.variables_of_graph = list(concrete.graph.variables)  # the SavedModel needs them, or the file has no weights
    tf.saved_model.save(module, str(folder), signatures={SIGNATURE: concrete})
    return lambda: tensorflow_lite.converter_class().from_saved_model(str(folder), signature_keys=[SIGNATURE])


def _model(graph):
    """Returns the SavedModel of a `FrozenGraph` as a message."""
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel(saved_model_schema_version=1)
    meta = model.meta_graphs.add()
    meta.meta_info_def.tags.append("serve")
    meta.graph_def.CopyFrom(graph.definition)
    nodes = {node.name: node for node in meta.graph_def.node}
    signature = meta.signature_def[SIGNATURE]
    signature.method_name = "tensorflow/serving/predict"
    for name, tensor in graph.inputs.items():
        fed = meta.graph_def.node.add()
        fed.CopyFrom(nodes[name])
        fed.name = _INPUT + name
        nodes[name].Clear()
        nodes[name].name, nodes[name].op = name, "Identity"
        nodes[name].input.append(fed.name)
        nodes[name].attr["T"].CopyFrom(fed.attr["dtype"])
        _describe(signature.inputs[name], tensor, f"{fed.name}:0")
    outputs = meta.graph_def.node.add(name=_OUTPUTS, op="IdentityN")
    for i, (name, tensor) in enumerate(graph.outputs.items()):
        outputs.input.append(tensor.name)
        outputs.attr["T"].list.type.append(tensor.dtype.as_datatype_enum)
        _describe(signature.outputs[name], tensor, f"{_OUTPUTS}:{i}")
    return model


def _describe(info, tensor, name):
    info.name, info.dtype = name, tensor.dtype.as_datatype_enum
    info.tensor_shape.CopyFrom(tensor.shape.as_proto())
