"""Makes the quantization-aware model that was decided on."""

import numpy as np

from tfdistill.compress import graph, quantize_layout
from tfdistill.legacy import adopt_scope as scope
from tfdistill.legacy import door
from tfdistill.legacy.adopt_quantizing import input_quantizer, is_quantized_layer, quantize_layer
from tfdistill.legacy.rewire import rewire

# They read indices, whatever their type.
_READ_INDICES = ("Embedding", "CategoryEncoding", "IntegerLookup", "Hashing")


def build(opened, decided, quantize_inputs=True):
    """Returns a new tf_keras model that trains quantized, with the same weights.

    Args:
        opened: `graph.Opened` of the model.
        decided: Dict of path to `quantize_scheme.Treatment`, None for layers that are left as they are.
        quantize_inputs: Whether float inputs that a treated layer reads are rounded.
    """
    pairs = []
    treated = {id(scope.unwrap(opened.layers[path])) for path, treatment in decided.items() if treatment and treatment.done}
    readers = quantize_layout.input_readers(opened.legacy)

    def copy(path, layer):
        inner = scope.unwrap(layer)
        fresh = type(inner).from_config(inner.get_config())
        treatment = decided.get(path)
        wanted = treatment is not None and treatment.quantization is not None
        made = quantize_layer(fresh, treatment.quantization) if wanted else fresh
        pairs.append((layer, made, treatment))
        return made

    def enter(tensor):
        read_by = readers[id(tensor)]
        indices = all(type(scope.computing_layer(layer)).__name__ in _READ_INDICES for layer in read_by)
        wanted = any(id(layer) in treated or isinstance(layer, door.tf_keras().Model) for layer in read_by)
        floats = tensor.dtype.is_floating and not indices
        return input_quantizer(f"quantize_{tensor._keras_history.layer.name}") if quantize_inputs and floats and wanted else None

    with scope.legacy_scope():
        made = rewire(opened.legacy, copy, enter)
    for layer, fresh, treatment in pairs:
        values = graph.effective_weights(layer)
        scope.unwrap(fresh).set_weights(values)
        if is_quantized_layer(fresh):
            for weight, mask in scope.masks_of(fresh):
                mask.assign(np.asarray(weight) != 0)
            for path, variable in fresh.members.items():
                variable.assign(treatment.members[path])
    return made
