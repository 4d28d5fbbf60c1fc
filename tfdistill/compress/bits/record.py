"""What `assign_bits` returns."""

import dataclasses
import typing

from tfdistill.compress.plan import row_named
from tfdistill.records import Record


@dataclasses.dataclass(frozen=True)
class LayerBits(Record):
    """One layer and the bits that it has. Layers that the converter fuses, such as a convolution, its normalization and its ReLU, have one row.

    Attributes:
        name: Path of the layer.
        bits: 4: weights of 4 bits, activations of 8. 8: both of 8. 16: weights of 8 bits, activations of 16.
        why: What these bits change against 8; of a layer of 8 bits what it cannot have, or nothing.
        error_8_bits: Error of the outputs with all layers at 8 bits: root mean square of the difference to the float outputs, as a share of their standard deviation;
            of several outputs the largest.
        error_4_bits: The same with this layer at 4 bits and the others at 8; None where it cannot have them.
        error_16_bits: The same with this layer at 16 bits.
        bytes_8_bits: Bytes of its weights at 8 bits.
        bytes_4_bits: The same at 4 bits; None where it cannot have them.
        bytes_16_bits: The same at 16 bits, with what its biases grow by.

    Example:
        >>> row = tfdistill.compress.assign_bits(student, x, calibration=x, max_error=2.0).row("conv")
        >>> row.bits, row.bytes_8_bits, row.bytes_4_bits
        (4, 72, 36)
    """

    name: str
    bits: int
    why: str
    error_8_bits: float
    error_4_bits: float | None = None
    error_16_bits: float | None = None
    bytes_8_bits: int = 0
    bytes_4_bits: int | None = None
    bytes_16_bits: int | None = None

    def summary(self) -> dict[str, typing.Any]:
        """Returns the fields of a table."""
        names = ("name", "bits", "error_4_bits", "error_16_bits", "bytes_8_bits", "why")
        return {name: getattr(self, name) for name in names}


@dataclasses.dataclass(frozen=True)
class BitAssignment(Record):
    """The result of `assign_bits`.

    Attributes:
        model: Name of the model.
        layers: `LayerBits`, in the order of the model.
        size_bytes: Size of the int8 file with these bits, which was made.
        error: Error of its outputs, as `LayerBits.error_8_bits`, on the samples that the bits were assigned on.
        latency_ms: Measured time of one run of the file; None where no latency was asked for.
        size_bytes_all_8: Size of the file with 8 bits everywhere.
        error_all_8: Error of that file.
        files: Number of files that were made to find these bits.

    Example:
        >>> assigned = tfdistill.compress.assign_bits(student, x, calibration=x, max_error=2.0)
        >>> assigned.weight_bits["conv"], assigned.wide_layers, assigned.size_bytes < assigned.size_bytes_all_8
        (4, (), True)
        >>> quantize = tfdistill.compress.Quantize(weight_bits=assigned.weight_bits, activation_bits=assigned.activation_bits)
        >>> record = tfdistill.export_tflite(quantize.apply(student, calibration=x), "mixed.tflite", "int8", verify_on=x)
        >>> record.size_bytes == assigned.size_bytes
        True
    """

    model: str
    layers: tuple[LayerBits, ...]
    size_bytes: int
    error: float
    latency_ms: float | None
    size_bytes_all_8: int
    error_all_8: float
    files: int

    @property
    def weight_bits(self) -> dict[str, int] | int:
        """What `QuantizeAware(weight_bits=...)` and `Quantize(weight_bits=...)` take: path of each layer with weights -> 4 or 8; 8 if there is none."""
        return weight_bits({row.name: row.bits for row in self.layers if row.bytes_8_bits})

    @property
    def activation_bits(self) -> dict[str, int] | int:
        """What `activation_bits=` of the same steps takes: path of each layer at 16 bits -> 16; 8 if there is none."""
        return activation_bits({row.name: row.bits for row in self.layers})

    @property
    def wide_layers(self) -> tuple[str, ...]:
        """Paths of the layers at 16 bits."""
        return tuple(row.name for row in self.layers if row.bits == 16)

    def row(self, name: str) -> LayerBits:
        """Returns the row of a layer.

        Args:
            name: Its path.

        Raises:
            ConfigurationError: if it has none; the message names the nearest.
        """
        return row_named(self.layers, name)

    def parts(self) -> dict[str, typing.Any]:
        """Returns the table of the layers."""
        return {"layers": self.layers}


def weight_bits(bits):
    """Returns the setting `weight_bits` for a dict of path to 4, 8 or 16, of layers with weights."""
    return {path: 4 if one == 4 else 8 for path, one in bits.items()} or 8


def activation_bits(bits):
    """Returns the setting `activation_bits` for a dict of path to 4, 8 or 16."""
    return {path: 16 for path, one in bits.items() if one == 16} or 8
