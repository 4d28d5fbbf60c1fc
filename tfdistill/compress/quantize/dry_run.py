"""Tries the conversion of a quantization-aware model before it is trained, so that what export would refuse is said before anyone pays for the training."""

import hashlib

import numpy as np

from tfdistill.bridge import layer_facts
from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.adopt.layers import input_quantizers
from tfdistill.bridge.convert.to_tf_keras import tf_keras_flat
from tfdistill.bridge.wrappers.quantization import assumed_ranges, input_quantizer, is_quantized_layer, quantize_layer
from tfdistill.bridge.wrappers.quantization_settings import are_floats, without_floats
from tfdistill.compress.dry_run import Graph, remembered
from tfdistill.compress.quantize import consumers
from tfdistill.compress.quantize.build import is_rounded_input
from tfdistill.compress.quantize.layer_table import rule_of
from tfdistill.compress.quantize.scheme import CALIBRATED
from tfdistill.convert.dry_run import LOOP, Refusal
from tfdistill.errors import ModelError

_NEEDS_CALIBRATION = (
    "the converter would have to calibrate it, and would then make integers of the parts in float, too: leave out integer_only=False, or write it out with "
    "unroll=True"
)


def try_conversion(opened, decided, variant_name):
    """Converts the model that `build` would make, with ranges that are assumed: what stands against its file, and which operations its layers become.

    The graph is traced from the layers of the opened model, which are wrapped for it and otherwise left as they are.

    Args:
        opened: `rebuild.Opened` of the model.
        decided: Dict of path to `LayerQuantization`.
        variant_name: Name of the variant of the file: `"int8"` or `"int16x8"`.

    Returns:
        A `tfdistill.compress.dry_run.Conversion`.
    """
    settings = [[(decided[path].quantization, decided[path].done) for path in opened.layers], variant_name]
    return remembered(opened, settings, lambda: _tried(opened, decided, variant_name))


def try_quantized(opened, variant_name):
    """Converts a model that has quantizers, with the ranges that they have now: as `export_tflite` does, but for what is still to be calibrated.

    Args:
        opened: `rebuild.Opened` of the model.
        variant_name: Name of the variant of the file.

    Returns:
        A `tfdistill.compress.dry_run.Conversion`.

    Raises:
        ConfigurationError: if it was trained for another variant.
    """
    layers = list(opened.layers.values())
    floats = frozenset(i for i, layer in enumerate(layers) if is_quantized_layer(layer) and are_floats(layer.quantization))
    calibrated = frozenset(
        i for i, layer in enumerate(layers) if rule_of(introspection.kind_of(layer)).recurrent and not introspection.is_quantized(layer)
    )

    def convert():
        graph = Graph(opened, {id(layer): layer for layer in [*layers, *input_quantizers(opened.legacy)]})
        return graph.tried(variant_name, graph.trace, calibrated, floats)

    return remembered(opened, ["quantized", variant_name], convert)


def require_exportable(reasons, plan, variant_name):
    """Refuses a model whose file could not be made.

    Args:
        reasons: Those of a `Conversion`.
        plan: The `Plan` in which they are.
        variant_name: Name of the variant of the file.

    Raises:
        ModelError: naming the layers and what TFLite cannot do.
    """
    if reasons:
        names = {path or plan.model for path in reasons}
        texts = [f"'{row.name}' ({row.reason})" for row in plan.rows if row.name in names]
        shown = "; ".join(texts[:8]) + (f"; and {len(texts) - 8} more" if len(texts) > 8 else "")
        raise ModelError(
            f"'{plan.model}' could not be exported as {variant_name} after training: {shown}.",
            "layers that TFLite computes in integers",
            "replace these layers, or train all the same with apply(model, dry_run=False) if the model is not to become an integer file",
        )


def _tried(opened, decided, variant_name):
    layers = list(opened.layers)
    calibrated = frozenset(i for i, path in enumerate(layers) if CALIBRATED in decided[path].reason)
    floats = frozenset(i for i, path in enumerate(layers) if are_floats(decided[path].quantization))
    if calibrated and floats:
        return tuple(Refusal((index,), _NEEDS_CALIBRATION, LOOP) for index in sorted(calibrated)), ()
    readers = consumers.input_readers(opened.legacy)
    called = {id(layer): _wrapped(layer, decided[path].quantization) for path, layer in opened.layers.items()}
    enter, ranges = {}, {}
    for i, tensor in enumerate(opened.legacy.inputs):
        if variant_name == "int8" and is_rounded_input(tensor, readers[id(tensor)]):
            enter[i] = input_quantizer(f"quantize_input_{i}")
            enter[i].build(tensor.shape)
            enter[i].built = True  # or its first call would make its variables again
    graph, owners = Graph(opened, called, enter), _Owners(opened.layers.values())

    def range_of(layer, what):
        # All differ, as they will in a trained model: the converter refuses two ranges where it needs one.
        step = 0.01 * len(ranges)
        return ranges.setdefault(owners.owner(layer, what), (-1.0 - step, 1.0 + step))

    def trace():
        with assumed_ranges(range_of):
            return graph.trace()

    found, made = graph.tried(variant_name, trace, calibrated, floats)
    if found and floats:
        # With islands, nothing is calibrated, and what is behind a float operation that nobody chose is in float, too. Without them it is told apart.
        integers = {path: decision._replace(quantization=without_floats(decision.quantization)) for path, decision in decided.items()}
        found = _tried(opened, integers, variant_name)[0] or found
    return found, made


class _Owners:
    """Says what ranges belong to: where two layers compute the same of one tensor, they see the same, and the converter computes it once.

    Args:
        layers: The layers of a graph, in its order.
    """

    def __init__(self, layers):
        self._keys = {}  # id of a layer that is called once -> what it computes: equal for two that compute the same
        self._numbers = {}  # what a tensor is computed from -> its number
        for layer in map(introspection.unwrap, layers):
            if len(layer.inbound_nodes) == 1 and layer.inbound_nodes[0].keras_inputs:
                self._keys[id(layer)] = _settings(layer), self._read_by(layer)

    def owner(self, layer, what):
        """Returns what has a range.

        Args:
            layer: Quantized layer, whose inner one is part of a graph.
            what: Name of the range in it.
        """
        inner, form = layer.layer, layer.quantization.form
        if id(inner) not in self._keys:
            return id(layer), what
        what = what.replace(inner.name.replace("/", "_"), "")  # names of operations begin with it
        if "normalization" in form and what != "output":
            return form, what, self._read_by(inner)
        return self._keys[id(inner)], what

    def _read_by(self, layer):
        return tuple(map(self._number, layer.inbound_nodes[0].keras_inputs))

    def _number(self, tensor):
        layer = introspection.unwrap(layer_facts.producer(tensor))
        key = self._keys.get(id(layer))
        index = [id(x) for x in tf_keras_flat(layer.inbound_nodes[0].outputs)].index(id(tensor)) if key else id(tensor)
        return self._numbers.setdefault((key, index), len(self._numbers))


def _settings(layer):
    """Returns the class of a layer, its config and the values of its weights. One initializer with a seed gives several layers the same, until they are trained."""
    values = tuple(hashlib.sha256(np.ascontiguousarray(value)).digest() for value in layer.get_weights())
    return type(layer), repr(_nameless(layer.get_config())), values


def _nameless(config):
    """Returns a config without the names in it."""
    if isinstance(config, dict):
        return {key: _nameless(value) for key, value in config.items() if key != "name"}
    return [_nameless(value) for value in config] if isinstance(config, (list, tuple)) else config


def _wrapped(layer, quantization):
    if not quantization:
        return layer
    wrapped = quantize_layer(introspection.unwrap(layer), quantization)
    wrapped.add_structure()  # TensorFlow traces a function a second time if it makes a variable
    return wrapped
