"""Tries the conversion of a quantization-aware model before it is trained, so that what export would refuse is said before anyone pays for the training."""

from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.wrappers.quantization import assumed_ranges, input_quantizer, quantize_layer
from tfdistill.bridge.wrappers.quantization_settings import are_floats, without_floats
from tfdistill.compress.dry_run import Graph, remembered
from tfdistill.compress.quantize import consumers
from tfdistill.compress.quantize.build import is_rounded_input
from tfdistill.compress.quantize.scheme import CALIBRATED
from tfdistill.convert.dry_run import refusals
from tfdistill.convert.layer_operations import layer_operations
from tfdistill.convert.variants import variant_named
from tfdistill.errors import ModelError


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
    readers = consumers.input_readers(opened.legacy)
    called = {id(layer): _wrapped(layer, decided[path].quantization) for path, layer in opened.layers.items()}
    enter, ranges = {}, {}
    for i, tensor in enumerate(opened.legacy.inputs):
        if variant_name == "int8" and is_rounded_input(tensor, readers[id(tensor)]):
            enter[i] = input_quantizer(f"quantize_input_{i}")
            enter[i].build(tensor.shape)
    graph = Graph(opened, called, enter)

    def range_of(layer, what):
        # All differ, as they will in a trained model: the converter refuses two ranges where it needs one.
        step = 0.01 * len(ranges)
        return ranges.setdefault((id(layer), what), (-1.0 - step, 1.0 + step))

    def trace():
        with assumed_ranges(range_of):
            return graph.trace()

    layers = list(opened.layers)
    calibrated = frozenset(i for i, path in enumerate(layers) if CALIBRATED in decided[path].reason)
    made, floats = [], frozenset(i for i, path in enumerate(layers) if are_floats(decided[path].quantization))
    found = refusals(
        trace,
        graph.specs,
        opened.adopted.name,
        variant_named(variant_name),
        graph.batch_size,
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
