"""Tries the conversion of a quantization-aware model before it is trained, so that what export would refuse is said before anyone pays for the training."""

import collections
import hashlib
import json
import typing

from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.adopt.precision import in_float32
from tfdistill.bridge.adopt.rewire import replay
from tfdistill.bridge.wrappers.quantization import assumed_ranges, input_quantizer, quantize_layer
from tfdistill.bridge.wrappers.quantization_settings import are_floats, without_floats
from tfdistill.compress.quantize import consumers
from tfdistill.compress.quantize.build import is_rounded_input
from tfdistill.compress.quantize.scheme import CALIBRATED
from tfdistill.convert.dry_run import refusals
from tfdistill.convert.layer_operations import layer_operations, scope_of
from tfdistill.convert.variants import variant_named
from tfdistill.errors import ModelError

# Digest of a structure and of the decisions about it, and the classes of its layers -> what was found, for the last few hundred.
_FOUND: "collections.OrderedDict[tuple, tuple]" = collections.OrderedDict()
_MOST_FOUND = 500
WHOLE = ""


class Conversion(typing.NamedTuple):
    """What a conversion that was only tried has shown.

    Attributes:
        reasons: Dict of path to the reason why the layer cannot be exported. `WHOLE` stands for the model where the layer is not known.
        operations: Dict of path to the tuple of `LayerOperation`s that the layer became; `WHOLE` for those of no layer. None where there is no file.
    """

    reasons: dict
    operations: dict | None


NOT_TRIED = Conversion({}, None)


def try_conversion(opened, decided, variant_name):
    """Converts the model that `build` would make, with ranges that are assumed: what stands against its file, and which operations its layers become.

    The graph is traced from the layers of the opened model, which are wrapped for it and otherwise left as they are.

    Args:
        opened: `rebuild.Opened` of the model.
        decided: Dict of path to `LayerQuantization`.
        variant_name: Name of the variant of the file: `"int8"` or `"int16x8"`.

    Returns:
        A `Conversion`.
    """
    paths = list(opened.layers)
    kinds = tuple(type(introspection.computing_layer(layer)) for layer in opened.layers.values())
    key = (_digest(opened, [decided[path] for path in paths], variant_name), kinds)
    if key not in _FOUND:
        _FOUND[key] = _tried(opened, decided, variant_name)
        while len(_FOUND) > _MOST_FOUND:
            _FOUND.popitem(last=False)
    found, made = _FOUND[key]
    reasons, operations = collections.defaultdict(list), collections.defaultdict(list)
    for refusal in found:
        for path in [paths[index] for index in refusal.layers] or [WHOLE]:
            reasons[path].append(refusal.reason)
    for operation in made:
        operations[WHOLE if operation.layer is None else paths[operation.layer]].append(operation)
    return Conversion(
        {path: "; ".join(several) for path, several in reasons.items()},
        {path: tuple(several) for path, several in operations.items()} if made else None,
    )


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
        texts = [f"'{row.name}' ({row.reason})" for row in plan.rows if row.name in reasons] + list(plan.findings)
        shown = "; ".join(texts[:8]) + (f"; and {len(texts) - 8} more" if len(texts) > 8 else "")
        raise ModelError(
            f"'{plan.model}' could not be exported as {variant_name} after training: {shown}.",
            "layers that TFLite computes in integers",
            "replace these layers, or train all the same with apply(model, dry_run=False) if the model is not to become an integer file",
        )


def _tried(opened, decided, variant_name):
    import tensorflow as tf

    legacy, layers = opened.legacy, opened.layers
    readers = consumers.input_readers(legacy)
    indices = {id(layer): index for index, layer in enumerate(layers.values())}
    called = {id(layer): _wrapped(layer, decided[path].quantization) for path, layer in layers.items()}
    free = any(None in tensor.shape[1:] for tensor in legacy.inputs)
    specs, quantizers, ranges = [], [], {}
    for i, tensor in enumerate(legacy.inputs):
        batch = tensor.shape[0] or (None if free else 1)
        specs.append(tf.TensorSpec((batch, *tensor.shape[1:]), tensor.dtype, name=f"input_{i}"))
        rounded = variant_name == "int8" and is_rounded_input(tensor, readers[id(tensor)])
        quantizers.append(input_quantizer(f"quantize_input_{i}") if rounded else tf.identity)
        if rounded:
            quantizers[-1].build(tensor.shape)

    def range_of(layer, what):
        # All differ, as they will in a trained model: the converter refuses two ranges where it needs one.
        step = 0.01 * len(ranges)
        return ranges.setdefault((id(layer), what), (-1.0 - step, 1.0 + step))

    def call(layer, args, kwargs):
        with tf.name_scope(scope_of(indices[id(layer)])):
            return called[id(layer)](*args, **kwargs)

    def serve(*tensors):
        outputs = replay(legacy, call, [quantize(tensor) for quantize, tensor in zip(quantizers, tensors, strict=True)])
        return {f"output_{i}": output for i, output in enumerate(tf.nest.flatten(outputs))}

    def trace():
        with assumed_ranges(range_of), in_float32(opened.adopted):
            return tf.function(serve, input_signature=specs, autograph=False).get_concrete_function()

    calibrated = frozenset(i for i, path in enumerate(layers) if CALIBRATED in decided[path].reason)
    made, floats = [], frozenset(i for i, path in enumerate(layers) if are_floats(decided[path].quantization))
    found = refusals(
        trace,
        specs,
        opened.adopted.name,
        variant_named(variant_name),
        None if free else specs[0].shape[0],
        calibrated,
        look=lambda content: made.extend(layer_operations(content)),
        floats=floats,
    )
    if found and floats:
        # With islands, nothing is calibrated, and what is behind a float operation that nobody chose is in float, too. Without them it is told apart.
        integers = {path: decision._replace(quantization=without_floats(decision.quantization)) for path, decision in decided.items()}
        found = _tried(opened, integers, variant_name)[0] or found
    return found, tuple(made)


def _wrapped(layer, quantization):
    inner = introspection.unwrap(layer)
    return quantize_layer(inner, quantization) if quantization else layer


def _digest(opened, decisions, variant_name):
    """Returns a digest of what decides about the file: the structure without its names, and how each layer is quantized; not the weights."""
    names = {}

    def known(name):
        return f"#{names.setdefault(name, len(names))}"

    def plain(value, key=None):
        if isinstance(value, dict):
            return {name: plain(item, name) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            refers = len(value) > 2 and isinstance(value[0], str) and all(isinstance(n, int) for n in value[1:3])
            return [known(value[0]), *plain(value[1:])] if refers else [plain(item) for item in value]
        return known(value) if key == "name" and isinstance(value, str) else value

    config = plain(json.loads(opened.legacy.to_json()))
    settings = [(decision.quantization, decision.done) for decision in decisions]
    return hashlib.sha256(json.dumps([config, settings, variant_name], default=str).encode()).hexdigest()
