"""The record of a verification."""

import dataclasses

from tfdistill.records import Record
from tfdistill.tflite.verification.figures import OutputComparison


@dataclasses.dataclass(frozen=True)
class VerificationRecord(Record):
    """The result of `verify`: how a .tflite file compares with its Keras model.

    Attributes:
        path: The file.
        sha256: SHA-256 of the file, in hexadecimal digits.
        samples: Number of samples compared.
        engine: Import name of the interpreter that ran the file, or the description of the device that did.
        max_abs_error: Largest absolute difference over all outputs, dequantized.
        mean_abs_error: Largest mean absolute difference of an output.
        argmax_agreement: Lowest `argmax_agreement` of an output (0 to 1); None without classes.
        accuracy: Lowest accuracy of the file (0 to 1) over the outputs with labels of classes or decisions; None without such labels.
        keras_accuracy: The same of the Keras model.
        outputs: Output name -> `OutputComparison`.
        notes: Sentences on what does not fail the file but is worth knowing.
        variant: Variant whose default tolerances apply: the one that was given, or the one that the file is.

    Example:
        >>> record = tfdistill.export_tflite(student, "small.tflite", variant="int8", calibration=x).verification
        >>> record.engine, record.samples, list(record.outputs)
        ('ai_edge_litert', 64, ['logits'])
        >>> record.outputs["logits"].lowest_r_squared > 0.9
        True
    """

    path: str
    sha256: str
    samples: int
    engine: str
    max_abs_error: float
    mean_abs_error: float
    argmax_agreement: float | None
    accuracy: float | None
    keras_accuracy: float | None
    outputs: dict[str, OutputComparison]
    notes: tuple[str, ...] = ()
    variant: str = ""
