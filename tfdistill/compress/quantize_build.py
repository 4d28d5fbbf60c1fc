"""Makes the quantization-aware model that was decided on."""

import numpy as np

from tfdistill.compress import graph, quantize_layout
from tfdistill.legacy import adopt_scope as scope
from tfdistill.legacy.adopt_quantizing import input_quantizer, is_quantized_layer, quantize_layer
from tfdistill.legacy.rewire import rewire


def build(opened, decided, quantize_inputs=True):
    """Returns a new tf_keras model that trains quantized, with the same weights.

    Args:
        opened: `graph.Opened` of the model.
        decided: Dict of path to `quantize_scheme.Treatment`.
        quantize_inputs: Whether float inputs are rounded.
    """
    pairs = []
    readers = quantize_layout.input_readers(opened.legacy)
    paths = {id(layer): path for path, layer in opened.layers.items()}

    def copy(layer):
        inner = scope.unwrap(layer)
        fresh = type(inner).from_config(inner.get_config())
        treatment = decided.get(paths[id(layer)])
        made = quantize_layer(fresh, treatment.quantization) if treatment is not None and treatment.quantization else fresh
        pairs.append((layer, made, treatment))
        return made

    def enter(tensor):
        indices = all(scope.kind_of(layer) in quantize_layout.READ_INDICES for layer in readers[id(tensor)])
        wanted = quantize_inputs and tensor.dtype.is_floating and not indices
        return input_quantizer(f"quantize_{tensor._keras_history.layer.name}") if wanted else None

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
