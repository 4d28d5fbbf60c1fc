"""A Keras model goes in; a checked .tflite file and its record come out."""

import dataclasses
import pathlib

from tfdistill.bridge.adopt.states import initial_states
from tfdistill.bridge.adopt.trained_ranges import require_trained_ranges
from tfdistill.errors import ConfigurationError
from tfdistill.host import HostFingerprint, fingerprint
from tfdistill.records import Record
from tfdistill.tflite.convert.converter import convert
from tfdistill.tflite.convert.variants import resolve_io, variant_named
from tfdistill.tflite.inspection.census import CensusRecord, census, require_integer, require_no_flex
from tfdistill.tflite.inspection.preserved import require_trained_bits
from tfdistill.tflite.samples import MAX_CALIBRATION_SAMPLES, MIN_CALIBRATION_SAMPLES, collect
from tfdistill.tflite.signature import describe
from tfdistill.tflite.verification.ranges import extreme_calibration, warn
from tfdistill.tflite.verification.verify import VerificationRecord, tolerances_or_default, verify_samples
from tfdistill.utils.files import write_whole


@dataclasses.dataclass(frozen=True)
class ExportRecord(Record):
    """A file that was exported.

    Attributes:
        variant: What it was exported as.
        path: The file.
        size_bytes: Its size.
        sha256: Its digest.
        io: Type of its float inputs and outputs.
        batch_size: Its batch; None if free.
        dtypes: Type -> number of tensors.
        min_runtime_version: Oldest TFLite runtime that has its operations; empty if the converter did not say.
        calibration_samples: Number of samples it was calibrated on; 0 if none.
        verified_on: `verify_on`, `calibration`, or None if there was no data to verify it on.
        verification: What was found; None if there was no data.
        census: What is in the file.
        host: Where it was made.
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

    @property
    def accuracy(self):
        """The file's accuracy (0 to 1) on the data it was verified on; None without labels."""
        return self.verification.accuracy if self.verification else None

    @property
    def max_abs_error(self):
        """Largest absolute difference to the Keras model, dequantized; None if not verified."""
        return self.verification.max_abs_error if self.verification else None

    @property
    def argmax_agreement(self):
        """Share (0 to 1) of samples on which file and Keras model name the same class; None without classes."""
        return self.verification.argmax_agreement if self.verification else None

    def summary(self):
        """Returns the row of a summary: variant, path, size_bytes, accuracy, max_abs_error, argmax_agreement, dtypes."""
        names = ("variant", "path", "size_bytes", "accuracy", "max_abs_error", "argmax_agreement", "dtypes")
        return {name: getattr(self, name) for name in names}


def export_tflite(
    model,
    path,
    variant="float32",
    calibration=None,
    verify_on=None,
    batch_size=1,
    io="auto",
    tolerances=None,
    allow_flex=False,
    max_calibration_samples=MAX_CALIBRATION_SAMPLES,
    task=None,
):
    """Exports a Keras model as a .tflite file, checks what is in it, and compares it with the model.

    The file appears whole and checked, or not at all.

    Args:
        model: A built Keras 3 model (functional, Sequential, subclassed), or an adopted tf_keras model, whose ranges learned by
            quantization-aware training are then used.
        path: The file to write, ending in `.tflite`. Its folder is made.
        variant: `"float32"`, `"float16"`, `"dynamic_range"`, `"int8"` or `"int16x8"`; see `tfdistill.tflite.VARIANTS`.
        calibration: Samples that show an integer variant the ranges of the activations: at least 16. An array (samples, ...), a list or a
            dict of arrays for several inputs, a tuple (inputs, labels), a `tf.data.Dataset`, a `keras.utils.PyDataset` or an iterator of
            batches. Not needed where all ranges were trained; used then for what has none.
        verify_on: Samples to compare file and model on, in the same forms; with labels for accuracy. Without it the calibration data is
            used; without both the file is not run, and the record says so.
        batch_size: Batch of the file, or None to leave it free.
        io: Type of float inputs and outputs: `"auto"` is the variant's own (an `"int8"` file takes and gives int8); an int8 file can also
            have `"uint8"` or `"float32"`, which image libraries expect.
        tolerances: `tfdistill.tflite.Tolerances` instead of the variant's own.
        allow_flex: Whether operations that need full TensorFlow may stay in. Such a file does not run in LiteRT alone, so it is not
            verified.
        max_calibration_samples: Most samples to calibrate on: evenly spaced ones of an array, the first ones of a dataset.
        task: What the outputs are for, one of `tfdistill.tasks.TASKS`, or a dict of output name to it; None reads it from the labels, the compiled loss and the
            last activation.

    Returns:
        An `ExportRecord`.

    Raises:
        ConfigurationError: for arguments that contradict each other, or a folder that cannot be written.
        ModelError: if the model is not built, or its shapes cannot be fixed.
        DataError: if calibration is missing where needed, too small, NaN, or of the wrong shape; before any conversion.
        ExportError: if the conversion fails, or an integer file holds a float tensor, or any file a Flex operation.
        InvariantError: if the model is quantization-aware and some of its ranges were never trained.
        VerificationError: if the file does not compute what the model computes.

    Warns:
        UserWarning: if a few calibration samples take most of an input's integer range for themselves (they are named by index), if steps of the inputs are too
            coarse for some features, or if a mean absolute error grows by half.
    """
    path = pathlib.Path(path)
    if path.suffix != ".tflite":
        raise ConfigurationError(f"The path '{path}' does not end in .tflite.", "a name ending in .tflite")
    if batch_size is not None and batch_size < 1:
        raise ConfigurationError(f"batch_size={batch_size} is impossible.", "at least 1, or None for a free batch")
    if max_calibration_samples < MIN_CALIBRATION_SAMPLES:
        raise ConfigurationError(f"max_calibration_samples={max_calibration_samples} is too few.", f"at least {MIN_CALIBRATION_SAMPLES}")
    kind = variant_named(variant)
    io = resolve_io(kind, io)
    limits = tolerances_or_default(kind, tolerances)
    signature = describe(model)
    require_trained_ranges(model)
    calibrating, checking = _samples(calibration, verify_on, signature, max_calibration_samples)
    fed = calibrating if kind.integer_only else None
    extreme = extreme_calibration(fed, signature) if fed else {}
    warn(extreme.values())
    with write_whole(path) as beside:
        with initial_states(model):
            beside.write_bytes(convert(model, signature, kind, io, fed, batch_size, allow_flex))
        counted = dataclasses.replace(census(beside, True), path=str(path))
        if not allow_flex:
            require_no_flex(counted)
        if kind.integer_only:
            require_integer(counted, float_io=io == "float32")
            require_trained_bits(beside, model)
        found, urgent = None, ()
        if checking is not None and not counted.flex_ops:
            found, urgent = verify_samples(
                beside, model, signature, checking, limits, name=str(path), task=task, extreme=extreme, trusted=True
            )
    warn(urgent)
    return ExportRecord(
        variant=variant,
        path=str(path),
        size_bytes=counted.size_bytes,
        sha256=counted.sha256,
        io=io,
        batch_size=batch_size,
        dtypes=counted.dtypes,
        min_runtime_version=counted.min_runtime_version,
        calibration_samples=fed.count if fed else 0,
        verified_on=None if found is None else "calibration" if verify_on is None else "verify_on",
        verification=found,
        census=counted,
        host=fingerprint(),
    )


def _samples(calibration, verify_on, signature, most):
    """Returns checked calibration and verification samples, either None."""
    calibrating = checking = None
    if calibration is not None:
        calibrating = checking = collect(calibration, signature, "calibration", MIN_CALIBRATION_SAMPLES, most)
    if verify_on is not None:
        checking = collect(verify_on, signature, "verification")
    return calibrating, checking
