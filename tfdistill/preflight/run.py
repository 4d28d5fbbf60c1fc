"""Says before a model is trained what will fail, be slow or be inexact on a device."""

import keras

from tfdistill.bridge.adopt.states import initial_states
from tfdistill.compress import rebuild
from tfdistill.convert.converter import convert
from tfdistill.convert.layer_operations import layer_operations
from tfdistill.convert.samples import MAX_CALIBRATION_SAMPLES, collect
from tfdistill.convert.signature import describe
from tfdistill.convert.variants import VariantName, variant_named
from tfdistill.errors import BridgeError, ExportError
from tfdistill.preflight.conversion import found_by_conversion
from tfdistill.preflight.findings import SEVERITIES, Finding, Preflight
from tfdistill.preflight.inputs import coarse_inputs, free_inputs
from tfdistill.preflight.operations import found_in_operations
from tfdistill.preflight.outputs import found_in_outputs, traced_heads
from tfdistill.runtime.operations import Target, require_target
from tfdistill.tflite.source import cast_inputs, explained, meant, obstacle
from tfdistill.utils.arguments import explains_arguments
from tfdistill.utils.types import Data, PathLike


@explains_arguments(calibration="give it as data=")
def check(model: keras.Model | PathLike, variant: VariantName = "int8", target: Target = "xnnpack", data: Data | None = None) -> Preflight:
    """Finds what will fail, be slow or be inexact on a device, before a model is trained: the conversion is tried as it is, untrained.

    An integer variant is judged as `QuantizeAware(target=target)` would make it; a model that is quantized already, as it is. Nothing is trained or written, and
    the model is not changed. It takes seconds (MobileNetV2: ten); what was tried for a model is not tried again for one of the same structure.

    Args:
        model: A built Keras 3 model, an `AdoptedModel`, a Distiller, whose student is meant, or the path of a saved model.
        variant: Variant of the file, as in `export_tflite`.
        target: What is to run the file: `"xnnpack"`, `"builtin"`, `"micro"`, `"edgetpu"` or `"gpu"`, as in `QuantizeAware`.
        data: Samples in one of the forms that `export_tflite` takes for calibration; a hundred are enough. With them inputs of other scales are found, and outputs
            of mixed units are measured. Without them the latter are found by the structure alone, and the former only where a layer has seen the data.

    Returns:
        A `Preflight`: a list of `Finding`s, the worst first.

    Raises:
        ConfigurationError: if there is no such variant or target, or the model was trained quantized for another variant.
        ModelError: if it is no model, not built, or still has the wrappers of pruning or clustering.
        DataError: if the data is not finite or does not fit the model.

    Example:
        >>> for finding in tfdistill.check(student, target="micro", data=x):
        ...     print(finding.severity, finding.layers, finding.happened, finding.fix)
    """
    kind = variant_named(variant)
    require_target(target)
    model = meant(model)
    if found := obstacle(model):
        return Preflight(model.name, variant, target, (Finding.of_error("fails", found.kind, found.layers, found.error),))
    signature = describe(model)
    samples = None if data is None else collect(data, signature, "check", limit=MAX_CALIBRATION_SAMPLES)
    findings = free_inputs(signature, model.name)
    try:
        opened = rebuild.open_model(model)
    except BridgeError as error:
        findings += _without_bridge(model, signature, kind, target, error)
    else:
        findings += _with_bridge(opened, signature, kind, target, cast_inputs(model), samples)
    return Preflight(model.name, variant, target, tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))))


def _with_bridge(opened, signature, variant, target, cast, samples):
    """Lists what is found of a model by its tf_keras form."""
    tried = found_by_conversion(opened, variant, target, cast)
    traced = all(finding.kind != "not_converted" for finding in tried.findings)
    eight_bits = variant.activation_bits == 8
    heads = traced_heads(opened) if eight_bits and traced else []
    last = {head.last for head in heads}
    findings = [*tried.findings, *found_in_operations(tried.operations, variant.name, target, tried.faster_in_float, last, opened.layers)]
    with initial_states(opened.adopted):
        findings += found_in_outputs(heads, signature, samples)
    return [*findings, *coarse_inputs(opened, signature, samples)] if eight_bits else findings


def _without_bridge(model, signature, variant, target, refused):
    """Lists what is found of a model of which no tf_keras form can be made."""
    cast = cast_inputs(model)
    if variant.integer_only:
        if cast:
            return [Finding.of_error("fails", "cast_input", cast.layers, cast.error)]
        return [Finding.of_error("fails", "bridge", (), refused)]
    findings = [Finding.of_error("note", "bridge", (), refused)]
    try:
        content = convert(
            model, signature, variant, variant.io[0], batch_size=None if any(None in i.shape for i in signature.inputs) else 1
        )
    except ExportError as error:
        told = cast.error if cast else explained(error, model)
        return [*findings, Finding.of_error("fails", "cast_input" if cast else "not_converted", cast.layers if cast else (), told)]
    return [*findings, *found_in_operations({"": layer_operations(content)}, variant.name, target)]
