"""The layers that accuracy control kept wider."""

import dataclasses

from tfdistill.records import Record


@dataclasses.dataclass(frozen=True)
class WiderLayer(Record):
    """A layer that accuracy control kept wider.

    Attributes:
        name: Path of the layer, or of the first of those that the converter fuses. In a file of float arithmetic, name of its weights in the file.
        bits: 8: weights of 8 bits in place of 4. 16: activations of 16 bits in place of 8. 32: weights in float in place of 8 bits.
        error_before: Error of the outputs on calibration samples with this layer narrow and all others at 8 bits, or in float in a file of float arithmetic: root mean
            square of the difference to the float outputs, as a share of their standard deviation.
        error_after: The same with this layer wider.

    Example:
        >>> data = {"calibration": x[:32], "verify_on": (x, y)}
        >>> record = tfdistill.export_tflite(student, "exact.tflite", "int8", max_accuracy_drop_points=50, **data)
        >>> [row.name for row in record.kept_wider]
        []
    """

    name: str
    bits: int
    error_before: float
    error_after: float
