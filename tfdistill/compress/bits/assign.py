"""Assigns 4, 8 or 16 bits to each layer under a budget, by what they do to the outputs."""

import dataclasses
import warnings
from collections.abc import Callable

import keras

from tfdistill.compress.bits.files import Files
from tfdistill.compress.bits.order import narrowing, widening
from tfdistill.compress.bits.record import BitAssignment
from tfdistill.compress.bits.search import Budgets, Search
from tfdistill.compress.bits.sensitivity import require_eight_bits, require_float, sensitivities
from tfdistill.compress.quantize.calibrate import Quantize
from tfdistill.convert.samples import MAX_CALIBRATION_SAMPLES, MIN_CALIBRATION_SAMPLES, collect
from tfdistill.convert.signature import describe
from tfdistill.errors import ConfigurationError, DataError
from tfdistill.utils import validate
from tfdistill.utils.arguments import explains_arguments
from tfdistill.utils.files import temporary_folder
from tfdistill.utils.types import Data, PathLike

MAX_SAMPLES = 256
_BITS = (4, 8, 16)


@explains_arguments(x="give the samples as data=")
def assign_bits(
    model: keras.Model,
    data: Data,
    calibration: Data | None = None,
    size_bytes: int | None = None,
    max_error: float | None = None,
    latency_ms: float | None = None,
    latency: Callable[[PathLike], float] | None = None,
    step: Quantize | None = None,
    bits: tuple[int, ...] = _BITS,
    max_samples: int = MAX_SAMPLES,
) -> BitAssignment:
    """Assigns 4, 8 or 16 bits to each layer of an int8 file, under budgets that are measured on the file itself.

    First the error of the outputs is measured with each layer alone at 4 and at 16 bits and all others at 8, by running the quantized graph. Then layers are taken in
    the order of error for each byte, and files are made with more and more of them, until the budgets are met (as HAWQ and AIMET's mixed precision do: Dong et al.,
    2019, https://arxiv.org/abs/1905.03696).

    - `size_bytes` alone: as few layers at 4 bits as fit, those that cost least error for each byte.
    - `max_error` alone: the smallest file within that error. If 8 bits everywhere are not enough, layers get 16, those first that win most for each byte.
    - `latency_ms` alone: as many layers at 16 bits as the time allows, those first that win most. Such operations run in the interpreter's own kernels, not in XNNPACK.
    - Several: all hold, or the error says which can.

    4 bits are those of weights, 16 those of activations. What a layer gives as an output of the file has the type of that, so it is not widened.

    Args:
        model: A built float Keras model, or an `AdoptedModel` without quantizers.
        data: Samples to measure the errors on, in any form that `export_tflite` takes for calibration. Labels are not used.
        calibration: Samples for the ranges; at least 16. None takes `data`.
        size_bytes: Largest size of the file, whose inputs and outputs are int8; at least 1.
        max_error: Largest error: root mean square of the difference to the float outputs as a share of their standard deviation, above 0; of several outputs the largest.
        latency_ms: Longest time of one run in milliseconds, above 0, as `latency` measures it.
        latency: Function of the path of a file that returns the time of one run in milliseconds, such as `tfdistill.pipeline.FileLatency()`.
        step: `tfdistill.compress.Quantize` with other settings than bits; None takes the defaults.
        bits: Which bits layers may have: a selection of 4, 8 and 16, with 8 among them.
        max_samples: Largest number of samples that is measured on, at least 1.

    Returns:
        `BitAssignment`; `print` shows the layers. Its `weight_bits` and `activation_bits` are settings of `Quantize` and `QuantizeAware`.

    Raises:
        ConfigurationError: if there is no budget, a setting has a wrong value, or `step` says bits itself.
        DataError: if samples do not fit the model, or are too few.
        ModelError: if no bits meet the budgets, with the closest that do; or if the model cannot be quantized, or is.
        BridgeError, ExportError: if the file cannot be made.

    Example:
        >>> assigned = tfdistill.compress.assign_bits(student, x, calibration=x, max_error=2.0)
        >>> assigned.error <= 2.0, {row.name: row.bits for row in assigned.layers}
        (True, {'conv': 4, 'pool': 8, 'logits': 4})
        >>> aware = tfdistill.compress.QuantizeAware(weight_bits=assigned.weight_bits)
    """
    budgets, step = _checked(size_bytes, max_error, latency_ms, latency, bits), step or Quantize()
    validate.whole_number("max_samples", max_samples, at_least=1)
    require_eight_bits(step)
    require_float(model)
    signature = describe(model)
    samples = collect(data, signature, "comparison", 1, max_samples)
    if calibration is None and samples.count < MIN_CALIBRATION_SAMPLES:
        raise DataError(
            f"assign_bits got no calibration data, and {samples.count} samples as data.",
            f"at least {MIN_CALIBRATION_SAMPLES} samples for the ranges",
            "give calibration=samples, a few hundred of real data",
        )
    calibrated = collect(
        data if calibration is None else calibration, signature, "calibration", MIN_CALIBRATION_SAMPLES, MAX_CALIBRATION_SAMPLES
    )
    with temporary_folder() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a model that the user would train or save; these are neither
        rows, floats = sensitivities(model, signature, calibrated, samples, step, bits)
        weighted = {row.name for row in rows if row.bytes_8_bits}
        files = Files(folder, model, signature, step, weighted, calibrated, samples, floats)
        paths = [row.name for row in rows]
        everything = files(dict.fromkeys(paths, 8))
        found = Search(files, paths, narrowing(rows), widening(rows), budgets, model.name).run()
    layers = tuple(_with_bits(row, found.file.bits[row.name]) for row in rows)
    file = found.file
    return BitAssignment(
        model.name, layers, file.size_bytes, file.error, found.latency_ms, everything.size_bytes, everything.error, files.count
    )


def _checked(size_bytes, max_error, latency_ms, latency, bits):
    if not set(bits) <= set(_BITS) or 8 not in bits:
        raise ConfigurationError(f"bits={bits!r}.", "a selection of 4, 8 and 16, with 8 among them", "bits=(4, 8)")
    if size_bytes is None and max_error is None and latency_ms is None:
        raise ConfigurationError("assign_bits got no budget.", "size_bytes, max_error or latency_ms", "give max_error=0.05")
    if size_bytes is not None:
        validate.whole_number("size_bytes", size_bytes, at_least=1)
    for name, value in (("max_error", max_error), ("latency_ms", latency_ms)):
        if value is not None:
            validate.number(name, value, above=0)
    if (latency_ms is None) == callable(latency):
        raise ConfigurationError(
            f"assign_bits got latency_ms={latency_ms}, latency={latency!r}.",
            "both, or none of them",
            "give latency=tfdistill.pipeline.FileLatency() along with latency_ms=",
        )
    return Budgets(size_bytes, max_error, latency_ms, latency)


def _with_bits(row, bits):
    if bits == 8:
        return row
    if bits == 4:
        why = f"error {row.error_4_bits - row.error_8_bits:+.2g}, {row.bytes_8_bits - row.bytes_4_bits:,} bytes less"
        return dataclasses.replace(row, bits=4, why=why)
    return dataclasses.replace(row, bits=16, why=f"error {row.error_16_bits - row.error_8_bits:+.2g}")
