"""Which layers get weights of 4 bits in a file of mixed bits: all that can, but for the first and the last ones with weights.

What the first layers read and the last ones give is not computed again by others, so their rounding is not averaged out; they are kept at 8 bits in most of the
literature (Esser et al., "Learned Step Size Quantization", 2020, https://arxiv.org/abs/1902.08153, section 3).
"""

import collections
import dataclasses

from tfdistill.bridge import imports, layer_facts
from tfdistill.bridge.adopt import introspection
from tfdistill.compress import kernels
from tfdistill.compress.quantize.scheme import takes_bits
from tfdistill.errors import ModelError


class NothingInFourBits(ModelError):
    """A model of which no layer would have weights of 4 bits."""


def in_four_bits(step, opened):
    """Returns a `Quantize` that gives weights 4 bits wherever it can, but in the first and the last layers with weights.

    Args:
        step: `Quantize`, whose `weight_bits` are not used.
        opened: `rebuild.Opened` of the model.

    Raises:
        NothingInFourBits: if there is no such layer.
    """
    possible = {path for path, layer in opened.layers.items() if kernels.kernels_of(layer) and takes_bits(introspection.unwrap(layer), 4)}
    outer = outer_layers(opened.legacy)
    inner = [path for path in possible if id(introspection.unwrap(opened.layers[path])) not in outer]
    if inner:
        return dataclasses.replace(step, weight_bits={**dict.fromkeys(sorted(inner), 4), "*": 8})
    name = opened.adopted.name
    if not possible:
        raise _nothing(
            f"TFLite has weights of 4 bits for no layer of '{name}'.",
            "a model with Conv2D, DepthwiseConv2D, SeparableConv2D, Dense, EinsumDense or MultiHeadAttention",
            "export it as int8",
        )
    raise _nothing(
        f"The layers of '{name}' that can have weights of 4 bits are its first and last ones, which keep 8 bits: {', '.join(sorted(possible))}.",
        "a model with other layers between these",
        "export it as int8; or let these have 4 bits too: export what Quantize(weight_bits=4).apply(model, calibration) returns",
    )


def _nothing(happened, expected, fix):
    return NothingInFourBits(happened, expected, fix)


def outer_layers(legacy):
    """Returns the ids of the first and the last layers with weights of a tf_keras model, without wrappers: those on whose side, towards the inputs or towards the outputs,
    there is no other one with weights."""
    return _ends(legacy, 0) | _ends(legacy, 1)


def _ends(model, side):
    """Returns the ids of the layers with weights that begin (side 0) or end (side 1) a model. Of nested models that begin or end it, those of these."""
    tfk = imports.tf_keras()
    inputs = {id(tensor) for tensor in model.inputs}
    beside, layers = collections.defaultdict(set), {}
    for node in layer_facts.graph_nodes(model):
        if node.is_input:
            continue
        layers[id(node.layer)] = node.layer
        for tensor in node.keras_inputs:
            if id(tensor) not in inputs:
                source = layer_facts.producer(tensor)
                layers[id(source)] = source
                pair = (id(node.layer), id(source)) if side == 0 else (id(source), id(node.layer))
                beside[pair[0]].add(pair[1])
    weighs = {key: _has_kernels(layer, tfk) for key, layer in layers.items()}

    def is_end(key):
        passed, waiting = {key}, list(beside[key])
        while waiting:
            other = waiting.pop()
            if other in passed:
                continue
            if weighs[other]:
                return False
            passed.add(other)
            waiting += beside[other]
        return True

    found = set()
    for key in filter(is_end, (key for key, has in weighs.items() if has)):
        inner = introspection.unwrap(layers[key])
        found |= _ends(inner, side) if isinstance(inner, tfk.Model) else {id(inner)}
    return found


def _has_kernels(layer, tfk):
    inner = introspection.unwrap(layer)
    return any(_has_kernels(one, tfk) for one in inner.layers) if isinstance(inner, tfk.Model) else bool(kernels.kernels_of(layer))
