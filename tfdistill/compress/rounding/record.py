"""What learned rounding did to each layer of a model."""

import dataclasses
import typing
import weakref

import keras

from tfdistill.errors import ModelError
from tfdistill.records import Record

# Of each model that this process quantized; not part of the model, as nothing of its training is.
_records: "weakref.WeakKeyDictionary[keras.Model, RoundingRecord]" = weakref.WeakKeyDictionary()


@dataclasses.dataclass(frozen=True)
class LayerRounding(Record):
    """What learned rounding did to one layer.

    Attributes:
        name: Path of the layer.
        bits: Bits of its weights.
        weights: Number of the weights that are rounded.
        nearest_error: Mean squared error of the layer's outputs after its activation (after the sum where it ends a residual block), with its weights rounded to
            nearest, as a share of their variance in the float model. The layers before it are rounded as they are in the result, so this is not the rounding of the layer alone.
        error: The same with the weights of the result; at most `nearest_error`.
        learned: Whether what was learned is kept; False where the nearest steps make less error.
        moved: Share of the weights, 0 to 1, that are not on the step nearest to them.

    Example:
        >>> quantize = tfdistill.compress.Quantize(weight_bits=4, rounding=tfdistill.compress.AdaRound(steps=50))
        >>> row = tfdistill.compress.rounding_of(quantize.apply(student, calibration=x)).layers[0]
        >>> row.name, row.bits, row.weights, row.error <= row.nearest_error
        ('conv', 4, 72, True)
    """

    name: str
    bits: int
    weights: int
    nearest_error: float
    error: float
    learned: bool
    moved: float


@dataclasses.dataclass(frozen=True)
class RoundingRecord(Record):
    """What learned rounding did to a model. Returned by `rounding_of`.

    Attributes:
        model: Name of the model.
        samples: Number of calibration samples that it learned on.
        layers: One `LayerRounding` for each layer, in the order in which they were learned.

    Example:
        >>> quantize = tfdistill.compress.Quantize(weight_bits=4, rounding=tfdistill.compress.AdaRound(steps=50))
        >>> record = tfdistill.compress.rounding_of(quantize.apply(student, calibration=x))
        >>> record.samples, [row.name for row in record.layers]
        (64, ['conv', 'logits'])
    """

    model: str
    samples: int
    layers: tuple[LayerRounding, ...]

    def parts(self) -> dict[str, typing.Any]:
        """Returns the table of the layers."""
        return {"layers": self.layers}


def remember(model, record):
    """Keeps the record of a model as long as the model is there."""
    _records[model] = record


def rounding_of(model: keras.Model) -> RoundingRecord:
    """Returns what learned rounding did to each layer of a model.

    Args:
        model: The model that `Quantize(rounding="adaround").apply` returned, in the process that made it: the record is not saved with the model.

    Returns:
        A `RoundingRecord`.

    Raises:
        ModelError: if the rounding of the model was not learned in this process.

    Example:
        >>> quantize = tfdistill.compress.Quantize(weight_bits=4, rounding="adaround")
        >>> quantized = quantize.apply(student, calibration=x)
        >>> all(row.error <= row.nearest_error for row in tfdistill.compress.rounding_of(quantized).layers)
        True
    """
    record = _records.get(model) if isinstance(model, keras.Model) else None
    if record is None:
        shown = f"'{model.name}'" if isinstance(model, keras.Model) else f"a {type(model).__name__}"
        raise ModelError(
            f"There is no record of learned rounding for {shown}.",
            "the model that Quantize(rounding='adaround').apply returned in this process",
            "save the record where the model is made: rounding_of(model).save('rounding.json')",
        )
    return record
