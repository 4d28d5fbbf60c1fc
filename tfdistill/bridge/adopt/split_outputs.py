"""Takes the concatenated outputs of an adopted model apart."""

from tfdistill.bridge import imports
from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.adopt.adopt import adopt
from tfdistill.graph.split_outputs import SplitModel, split


def split_adopted_outputs(model, names_of):
    """Returns an adopted model with an output for each branch of its concatenated outputs, as a `SplitModel`; it shares the layers of the original.

    Args:
        model: `AdoptedModel` whose tf_keras model is functional or Sequential, and not quantized.
        names_of: Function of the structure of its outputs: returns their names, in flattened order.
    """
    legacy = model.legacy
    tensors, names, branches = split(legacy.outputs, names_of(legacy.output), _maker)
    if not branches:
        return SplitModel(model, names, branches)
    return SplitModel(adopt(imports.tf_keras().Model(legacy.input, tensors, name=legacy.name), name=model.name), names, branches)


def _maker(tensor):
    layer, node, _ = tensor._keras_history
    inner = introspection.unwrap(layer)
    reads = list(layer._inbound_nodes[node].keras_inputs)
    return inner.name, introspection.kind_of(layer), getattr(inner, "axis", None), reads
