"""Makes the quantization-aware model that was decided on."""

import numpy as np

from tfdistill.bridge.adopt import introspection, serialization
from tfdistill.bridge.adopt.rewire import rewire
from tfdistill.bridge.wrappers.quantization import input_quantizer, is_quantized_layer, quantize_layer
from tfdistill.compress import rebuild
from tfdistill.compress.quantize import consumers


def build(opened, decided, quantize_inputs=True):
    """Returns a new tf_keras model that trains quantized, with the same weights.

    Args:
        opened: `graph.Opened` of the model.
        decided: Dict of path to `LayerQuantization`.
        quantize_inputs: Whether float inputs are rounded.
    """
    pairs = []
    readers = consumers.input_readers(opened.legacy)
    paths = {id(layer): path for path, layer in opened.layers.items()}

    def copy(layer):
        inner = introspection.unwrap(layer)
        fresh = type(inner).from_config(inner.get_config())
        treatment = decided.get(paths[id(layer)])
        made = quantize_layer(fresh, treatment.quantization) if treatment is not None and treatment.quantization else fresh
        pairs.append((layer, made, treatment))
        return made

    def enter(tensor):
        indices = all(introspection.kind_of(layer) in consumers.READ_INDICES for layer in readers[id(tensor)])
        wanted = quantize_inputs and tensor.dtype.is_floating and not indices
        return input_quantizer(f"quantize_{tensor._keras_history.layer.name}") if wanted else None

    with serialization.legacy_scope():
        made = rewire(opened.legacy, copy, enter)
    for layer, fresh, treatment in pairs:
        values = rebuild.effective_weights(layer)
        introspection.unwrap(fresh).set_weights(values)
        if is_quantized_layer(fresh):
            for weight, mask in introspection.masks_of(fresh):
                mask.assign(np.asarray(weight) != 0)
            for path, variable in fresh.members.items():
                variable.assign(treatment.members[path])
    return made
