"""Which layers read the output of which in a tf_keras model. What the converter fuses into one integer operation follows from that."""

import collections
import dataclasses

from tfdistill.bridge import imports, layer_facts
from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.integer import traced
from tfdistill.bridge.integer.recognize import name_of
from tfdistill.bridge.integer.rounding import FIXED_RANGES
from tfdistill.compress.selection import Layers

# Activations, and the operations of the same name, whose range the converter fixes.
FIXED = {*FIXED_RANGES, *(name.capitalize() for name in FIXED_RANGES)}
# Operations of keras.ops, and of TensorFlow on tensors of Keras, that divide by one of their operands, or may.
_DIVIDING = {
    *("Divide", "DivideNoNan", "TrueDivide", "Reciprocal", "Power", "Rsqrt", "FloorDivide"),
    *("math.divide", "math.divide_no_nan", "math.truediv", "math.pow", "math.reciprocal", "math.rsqrt", "math.xdivy"),
}


def operation_of(layer):
    """Returns the name of the operation that a layer stands for, of keras.ops or of TensorFlow; None for any other layer."""
    return getattr(layer, "operation_name", None) or getattr(layer, "symbol", None)


def known_function(layer):
    """Returns the name of the known activation function that a layer's operation is; None if it is another one, or the layer stands for no operation."""
    function = layer_facts.function_of_one(layer) if operation_of(layer) is not None else None
    return function and name_of(function)


def activation_of(layer):
    """Returns the name of a layer's activation, or of the operation that it stands for; `"linear"` if it has none, `"custom"` for one that is not known."""
    if introspection.kind_of(layer) == "Softmax":
        return "softmax"
    if operation_of(layer) is not None:
        return known_function(layer) or operation_of(layer)
    return name_of(getattr(layer, "activation", None)) or "custom"


@dataclasses.dataclass(frozen=True)
class Place:
    """The place of one layer in its model.

    Attributes:
        path: The user's path of the layer.
        layer: The live tf_keras layer, without wrappers.
        readers: The layers that read its output, one entry for each time; None stands for the model's own output.
        sources: The layers whose outputs it reads; None stands for one of the model's inputs.
        calls: How often it is called in the model that it is in.
        runs: How often it runs in one run of the whole model, which may call a nested one several times.
        dtypes: Names of the types of its outputs.
        rank: Number of axes of its first output.
        sized: Whether all of these axes but the batch are of known length.
        masked: Whether its first input carries a mask.
        length: Length of the second axis of its first input; None if that is not known, or differs between its calls.
        scores: Whether its output is only read by softmaxes, at once or after it was added to.
        hides: Whether that output may have numbers that hide scores, or scores that are hidden.
        positive: Of a layer that divides: positions of the tensors that it reads of which the graph shows that they are not negative.
    """

    path: str
    layer: object
    readers: tuple
    sources: tuple
    calls: int
    runs: int
    dtypes: tuple[str, ...]
    rank: int | None
    sized: bool
    masked: bool
    length: int | None
    positive: tuple[int, ...] = ()
    scores: bool = False
    hides: bool = False

    @property
    def reader(self):
        """The only layer that reads its output; None if there are several, or the model's output is among them, or it is called several times."""
        return self.readers[0] if len(self.readers) == 1 and self.calls == 1 else None

    @property
    def source(self):
        """The only layer that it reads; None if there are several, or it is called several times."""
        return self.sources[0] if len(self.sources) == 1 and self.calls == 1 else None


def places(legacy):
    """Finds every layer of a functional or Sequential tf_keras model, those of nested models too. A layer that several models share is listed once.

    Args:
        legacy: The tf_keras model.

    Returns:
        Dict of path to `Place`.
    """
    found = {}
    _collect(legacy, "", found)
    layers = Layers({path: place.layer for path, place in found.items()})
    paths = {path: [path] for path in layers}
    for alias, path in layers.aliases.items():
        paths[path].append(alias)
    together = {path: _together(path, [found[one] for one in several]) for path, several in paths.items()}
    known = {id(place.layer): place for place in together.values()}
    return {
        path: dataclasses.replace(place, positive=tuple(positive_inputs(place, known))) if operation_of(place.layer) in _DIVIDING else place
        for path, place in together.items()
    }


def positive_inputs(place, known):
    """Lists the positions of the tensors that a layer reads of which the graph shows that they are not negative.

    Args:
        place: `Place` of the layer.
        known: Dict of id of layer to `Place`.
    """
    return [i for i, source in enumerate(place.sources) if place.calls == 1 and _is_positive(known.get(id(source)), known)]


def _is_positive(place, known):
    if place is None:
        return False
    function, specs, _ = layer_facts.as_function(place.layer)
    # Most functions can give negative results whatever they are given; then there is no need to look further.
    return traced.gives_positive(function, specs, range(len(specs))) and traced.gives_positive(
        function, specs, positive_inputs(place, known)
    )


def _together(path, places):
    """Returns the one `Place` of a layer that several models share."""
    if len(places) == 1:
        return places[0]
    lengths = {place.length for place in places}
    return dataclasses.replace(
        places[0],
        path=path,
        readers=tuple(reader for place in places for reader in place.readers),
        sources=tuple(source for place in places for source in place.sources),
        calls=sum(place.calls for place in places),
        runs=sum(place.runs for place in places),
        dtypes=tuple(dtype for place in places for dtype in place.dtypes),
        sized=all(place.sized for place in places),
        masked=any(place.masked for place in places),
        length=lengths.pop() if len(lengths) == 1 else None,
    )


def _collect(model, prefix, found, runs=1):
    import tensorflow as tf

    tfk = imports.tf_keras()
    readers, sources, outputs, firsts = (collections.defaultdict(list) for _ in range(4))
    inputs = {id(tensor) for tensor in model.inputs}
    for node in layer_facts.graph_nodes(model):
        if node.is_input:
            continue
        outputs[id(node.layer)].append(tf.nest.flatten(node.outputs))
        firsts[id(node.layer)].extend(node.keras_inputs[:1])
        for tensor in node.keras_inputs:
            source = None if id(tensor) in inputs else layer_facts.producer(tensor)
            sources[id(node.layer)].append(source and introspection.unwrap(source))
            if source is not None:
                readers[id(source)].append(introspection.unwrap(node.layer))
    for tensor in model.outputs:
        readers[id(layer_facts.producer(tensor))].append(None)
    for layer in model.layers:
        key, inner = id(layer), introspection.unwrap(layer)
        if key not in outputs or introspection.is_input_quantizer(layer):
            continue
        if isinstance(inner, tfk.Model):
            _collect(inner, f"{prefix}{inner.name}/", found, runs * len(outputs[key]))
            continue
        flat = [tensor for call in outputs[key] for tensor in call]
        lengths = {x.shape[1] if (x.shape.rank or 0) > 1 else None for x in firsts[key]}
        found[prefix + inner.name] = Place(
            path=prefix + inner.name,
            layer=inner,
            readers=tuple(readers[key]),
            sources=tuple(sources[key]),
            calls=len(outputs[key]),
            runs=runs * len(outputs[key]),
            dtypes=tuple(tensor.dtype.name for tensor in flat),
            rank=flat[0].shape.rank if flat else None,
            sized=bool(flat) and flat[0].shape.rank is not None and flat[0].shape[1:].is_fully_defined(),
            masked=any(layer_facts.carries_mask(x) for x in firsts[key]),
            length=lengths.pop() if len(lengths) == 1 else None,
        )


def input_readers(legacy):
    """Returns a dict of id of each of a tf_keras model's input tensors to the list of the layers that read it, without wrappers."""
    found = {id(tensor): [] for tensor in legacy.inputs}
    for node in layer_facts.graph_nodes(legacy):
        for tensor in () if node.is_input else node.keras_inputs:
            if id(tensor) in found:
                found[id(tensor)].append(introspection.unwrap(node.layer))
    return found
