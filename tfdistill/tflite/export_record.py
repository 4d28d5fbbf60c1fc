"""What `export_tflite` returns."""

import dataclasses
from typing import Any

from tfdistill.convert.census import CensusRecord
from tfdistill.convert.file_tensors import FileTensor
from tfdistill.host import HostFingerprint
from tfdistill.records import Record
from tfdistill.tflite.accuracy_control.record import WiderLayer
from tfdistill.tflite.signatures import SignatureRecord
from tfdistill.tflite.streaming import FileState
from tfdistill.tflite.verification.figures import metrics_of
from tfdistill.tflite.verification.record import VerificationRecord


@dataclasses.dataclass(frozen=True)
class ExportRecord(Record):
    """The result of `export_tflite`: the file, its contents and its verification.

    Attributes:
        variant: Variant of the export, for example `int8`.
        path: The file.
        size_bytes: Size of the file.
        sha256: SHA-256 of the file, in hexadecimal digits. `verification.sha256` is that of the file before metadata was written into it.
        io: Type of its float inputs and outputs.
        batch_size: Batch size of the file; None if it is free.
        dtypes: Type -> number of tensors.
        min_runtime_version: Oldest TFLite runtime that has all operations; empty if the converter did not write it.
        calibration_samples: Number of calibration samples; 0 if none, or if a model with parts in float by choice, whose ranges are all known, needs none.
        road: Who made the integers: `bridge`, `converter` or `quantizer`; None where there are none, or the model had its own.
        road_reason: Why another road took the place of the bridge; empty if none did.
        runtime: What is to open the file; None for today's LiteRT.
        float_layers: Names of the layers of an integer file that have a part in float, by `QuantizeAware(integer_only=False)`.
        wide_layers: Names of the layers of an int8 file whose activations have 16 bits, by `Quantize(activation_bits=...)`.
        kept_wider: `WiderLayer` of each layer that `max_accuracy_drop_points` kept wider, in the order in which they were.
        accuracy_drop_points: Points of accuracy that the file loses against the Keras model on `verify_on`, with `max_accuracy_drop_points`; None without.
        verified_on: Data of the verification: `verify_on`, `calibration`, or None if the file was not verified.
        verification: Result of the verification; None if the file was not verified.
        census: Contents of the file.
        host: Machine and package versions.
        states: The states that a device carries on from call to call, with `states="explicit"`.
        split: Name of an output of the model -> the names of the outputs that its branches became, with `outputs="split"`.
        signatures: Signature name -> `SignatureRecord`, for a file with several; the other fields are then about the file, or its first signature.

    Example:
        >>> record = tfdistill.export_tflite(student, "float.tflite", verify_on=x)
        >>> record.variant, record.verified_on, record.argmax_agreement
        ('float32', 'verify_on', 1.0)
        >>> record.save("float.json").name
        'float.json'
    """

    variant: str
    path: str
    size_bytes: int
    sha256: str
    io: str
    batch_size: int | None
    dtypes: dict[str, int]
    min_runtime_version: str
    calibration_samples: int
    verified_on: str | None
    verification: VerificationRecord | None
    census: CensusRecord
    host: HostFingerprint
    road: str | None = None
    road_reason: str = ""
    float_layers: tuple[str, ...] = ()
    wide_layers: tuple[str, ...] = ()
    kept_wider: tuple[WiderLayer, ...] = ()
    accuracy_drop_points: float | None = None
    runtime: str | None = None
    states: tuple[FileState, ...] = ()
    split: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    signatures: dict[str, SignatureRecord] = dataclasses.field(default_factory=dict)

    @property
    def accuracy(self) -> float | None:
        """Accuracy of the file (0 to 1) on the verification data; None without labels."""
        return self.verification.accuracy if self.verification else None

    @property
    def max_abs_error(self) -> float | None:
        """Largest absolute difference between the dequantized outputs and Keras's; None if not verified."""
        return self.verification.max_abs_error if self.verification else None

    @property
    def argmax_agreement(self) -> float | None:
        """Share (0 to 1) of samples for which file and Keras model predict the same class; None without classes."""
        return self.verification.argmax_agreement if self.verification else None

    @property
    def keras_accuracy(self) -> float | None:
        """Accuracy of the Keras model (0 to 1) on the verification data; None without labels."""
        return self.verification.keras_accuracy if self.verification else None

    @property
    def inputs(self) -> tuple[FileTensor, ...]:
        """The inputs in the order of the file: name, shape, type, scale and zero point."""
        return self.census.inputs

    @property
    def outputs(self) -> tuple[FileTensor, ...]:
        """The outputs likewise."""
        return self.census.outputs

    @property
    def weight_bits(self) -> dict[str, int]:
        """Bits of the weights of each layer: name of the constant in the file, which begins with that of the layer -> 4, 8, 16 or, for floats, 32."""
        return {kernel.name: kernel.bits for kernel in self.census.kernels}

    def summary(self) -> dict[str, Any]:
        """Returns the fields of a summary table."""
        names = ("variant", "path", "size_bytes", "accuracy", "keras_accuracy", "max_abs_error", "argmax_agreement", "dtypes", "io")
        shown = {name: getattr(self, name) for name in names}
        return (
            shown
            | metrics_of(self.verification.outputs if self.verification else {})
            | {"notes": self.verification.notes if self.verification else ()}
        )

    def parts(self) -> dict[str, Any]:
        """Returns the tables of the inputs, the outputs, the states and the layers that were kept wider."""
        return {"inputs": self.inputs, "outputs": self.outputs, "states": self.states, "kept wider": self.kept_wider}
