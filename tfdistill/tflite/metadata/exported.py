"""What `export_tflite` writes into a file about itself: what the user says, and how the file was made."""

import dataclasses
import math

from tfdistill.convert.signature import output_shapes
from tfdistill.graph.weights import sha256_of_weights
from tfdistill.tflite.metadata.write import described, fitted, require_metadata
from tfdistill.tflite.verification.figures import metrics_of

# The key of the provenance under which it stands.
KEY = "export"
_SETTINGS = ("variant", "io", "batch_size", "calibration_samples", "road", "runtime", "verified_on")
_METRICS = ("samples", "max_abs_error", "argmax_agreement", "accuracy", "keras_accuracy")


def require_fit_to_model(metadata, model, signature):
    """Checks metadata before the conversion, against what a model says of its inputs and outputs.

    Raises:
        ConfigurationError: if it does not fit.
    """
    require_metadata(metadata)
    inputs = {each.name: ((each.batch, *each.shape), each.dtype) for each in signature.inputs}
    fitted(metadata, inputs, output_shapes(model, signature), f"the model '{model.name}'")


def described_export(content, metadata, record, model):
    """Returns an exported file with a description of itself.

    Args:
        content: The file as bytes.
        metadata: `FileMetadata`.
        record: Its `ExportRecord`.
        model: The model that was exported.

    Returns:
        As `described`.
    """
    made = {**metadata.provenance, KEY: _provenance(record, model)}
    return described(content, dataclasses.replace(metadata, provenance=made), record.path)


def _provenance(record, model):
    """How a file was made: settings, versions, checksums and results. No time and no machine, so that the same export gives the same bytes."""
    found = {name: getattr(record, name) for name in _SETTINGS}
    if record.states:
        found["states"] = {state.input: state.output for state in record.states}
    found["versions"] = {"tfdistill": record.host.library_version, "python": record.host.python, **record.host.packages}
    found["sha256_of_weights"], found["sha256_without_metadata"] = sha256_of_weights(model), record.sha256
    if record.verification is not None:
        numbers = {name: getattr(record.verification, name) for name in _METRICS} | metrics_of(record.verification.outputs)
        found["verification"] = {name: number if number is not None and math.isfinite(number) else None for name, number in numbers.items()}
    return found
