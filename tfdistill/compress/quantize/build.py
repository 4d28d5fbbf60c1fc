"""Builds the quantization-aware model from the decisions about its layers."""

import numpy as np

from tfdistill.bridge import imports, layer_facts
from tfdistill.bridge.adopt import introspection, serialization
from tfdistill.bridge.adopt.rewire import rewire
from tfdistill.bridge.recurrent_kernels import copy_layer
from tfdistill.bridge.wrappers.quantization import input_quantizer, is_quantized_layer, quantize_layer
from tfdistill.bridge.wrappers.quantization_settings import Quantization
from tfdistill.compress import rebuild
from tfdistill.compress.quantize import consumers
from tfdistill.compress.quantize.layer_table import reads_indices


def build(opened, decided, quantize_inputs=True):
    """Returns a new tf_keras model that trains quantized, with the same weights.

    Args:
        opened: `rebuild.Opened` of the model.
        decided: Dict of path to `LayerQuantization`.
        quantize_inputs: Whether float inputs are rounded.
    """
    pairs = []
    readers = consumers.input_readers(opened.legacy)
    paths = {id(layer): path for path, layer in opened.layers.items()}

    def copy(layer):
        fresh = copy_layer(introspection.unwrap(layer))
        decision = decided.get(paths[id(layer)])
        made = quantize_layer(fresh, decision.quantization) if decision is not None and decision.quantization else fresh
        pairs.append((layer, made, decision))
        return made

    def enter(tensor):
        name = layer_facts.producer(tensor).name
        if not quantize_inputs or not is_rounded_input(tensor, readers[id(tensor)]):
            return None
        decisions = [decided.get(paths.get(id(layer))) for layer in readers[id(tensor)]]
        if decisions and all(d is not None and d.quantization is not None and d.quantization.hides for d in decisions):
            # What is added to scores may be -1e9, of which no range has to hold more than that it hides.
            return quantize_layer(imports.tf_keras().layers.Activation("linear", name=name), Quantization(scores=True, hides=True))
        return input_quantizer(f"quantize_{name}")

    with serialization.legacy_scope():
        made = rewire(opened.legacy, copy, enter, dense=True)
    for layer, fresh, decision in pairs:
        values = rebuild.effective_weights(layer)
        introspection.unwrap(fresh).set_weights(values)
        if is_quantized_layer(fresh):
            for weight, mask in introspection.masks_of(fresh):
                mask.assign(np.asarray(weight) != 0)
            for path, variable in fresh.members.items():
                variable.assign(decision.members[path])
    return made


def is_rounded_input(tensor, readers):
    """Whether an input of a model has a range: one of floats that are no indices.

    Args:
        tensor: The input.
        readers: The layers that read it.
    """
    return tensor.dtype.is_floating and not all(reads_indices(layer, layer_facts.producer(tensor)) for layer in readers)
