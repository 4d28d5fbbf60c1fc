"""Where the ranges of quantization-aware training begin: at those of calibration data, if there is some."""

from tfdistill.bridge.adopt.adopt import adopt
from tfdistill.bridge.adopt.layers import named_layers
from tfdistill.bridge.wrappers.quantization import is_quantized_layer
from tfdistill.compress.quantize.build import build
from tfdistill.compress.quantize.measure import measure_ranges
from tfdistill.compress.quantize.quiet_rows import normalized_twice

# The measured range counts as much as those of so many batches in the mean that training goes on with.
_BATCHES = 10.0


def measured_start(opened, decided, signature, samples):
    """Returns the model that trains quantized, with ranges measured on data; normalizations with quiet rows normalize twice.

    Args:
        opened: `rebuild.Opened` of the model.
        decided: Dict of path to `LayerQuantization`.
        signature: `ModelSignature` of the samples.
        samples: Calibration `Samples`.

    Returns:
        An `AdoptedModel`.

    Raises:
        InvariantError: if a layer computes NaN or infinite numbers on the data.
    """

    def measured(decided):
        made = adopt(build(opened, decided), original=opened.original, name=opened.adopted.name)
        measure_ranges(made, signature, samples, {})
        return made

    made = measured(decided)
    twice = normalized_twice(decided, made, signature, samples)
    if twice is not decided:
        made = measured(twice)
    for layer in named_layers(made.legacy).values():
        if is_quantized_layer(layer):
            for _, _, batches in layer.ranges.values():
                if batches is not None:
                    batches.assign(_BATCHES)
    return made
