"""Keeps layers of an integer file wider until it loses no more accuracy than is allowed, on data that it was not calibrated with."""

import dataclasses
import pathlib
import warnings

import numpy as np

from tfdistill.compress.bits.files import with_bits
from tfdistill.compress.bits.order import narrowing, widening
from tfdistill.compress.bits.sensitivity import require_float, sensitivities
from tfdistill.compress.quantize.calibrate import Quantize
from tfdistill.convert.samples import MIN_CALIBRATION_SAMPLES, collect
from tfdistill.convert.signature import describe
from tfdistill.convert.variants import Tolerances
from tfdistill.errors import ConfigurationError, DataError, VerificationError
from tfdistill.tflite.kept_wider import WiderLayer
from tfdistill.tflite.roads import quantized_by
from tfdistill.tflite.runtimes import TARGETS_OF_RUNTIMES
from tfdistill.tflite.source import exportable
from tfdistill.utils import validate
from tfdistill.utils.files import temporary_folder
from tfdistill.utils.progress import progress

# Variant -> the bits that its layers begin with.
_BEGIN = {"int8": 8, "int8_int4_mixed": 4}
_MEASURED_ON = 256


def controlled_export(export, model, path, limit, settings):
    """Exports a model whose file may lose no more accuracy than a limit; `export_tflite(max_accuracy_drop_points=...)`.

    The file with the variant's own bits is tried first. If it loses too much, layers get more bits in the order of the error that this wins for each byte, as few of
    them as suffice: files of half of them, a quarter and so on are made and measured.

    Args:
        export: `export_tflite`.
        model: What the user gave it, like the following.
        path: The file.
        limit: Most points of accuracy that may be lost.
        settings: Dict of its other arguments.

    Returns:
        Its `ExportRecord`, with `kept_wider` and `accuracy_drop_points`.

    Raises:
        VerificationError: if no file holds the limit; with the best, and nothing is written.
    """
    limit = validate.number("max_accuracy_drop_points", limit, at_least=0.0, at_most=100.0)
    model = _require_fit(exportable(model), settings)
    search = _Search(export, model, settings, limit)
    with temporary_folder() as folder, progress("holding the accuracy"):
        count = search.smallest(pathlib.Path(folder))
    step, kept = search.step(count), search.kept(count)
    with quantized_by(step):
        record = export(model, path, **{**settings, "road": "bridge"})
    return dataclasses.replace(record, kept_wider=kept, accuracy_drop_points=drop_points(record))


class _Search:
    """Files of more and more layers that are wider."""

    def __init__(self, export, model, settings, limit):
        self._export, self._model, self._settings, self._limit = export, model, settings, limit
        self._base = Quantize(target=TARGETS_OF_RUNTIMES.get(settings["runtime"], "xnnpack"))
        self._drops, self._rows, self._order, self._narrow = {}, (), [], set()

    def _measure_layers(self):
        """Finds the order in which layers get wider."""
        signature = describe(self._model)
        limit = self._settings["max_calibration_samples"]
        calibration = collect(self._settings["calibration"], signature, "calibration", MIN_CALIBRATION_SAMPLES, limit)
        samples = collect(self._settings["calibration"], signature, "calibration", 1, min(_MEASURED_ON, limit))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a model that the user would train or save
            self._rows, _ = sensitivities(self._model, signature, calibration, samples, self._base)
        narrow = narrowing(self._rows)
        outer = [row.name for row in self._rows if row.bytes_8_bits]
        # The first and the last layer with weights are those that 4 bits hurt most, at the fewest bytes.
        begin_narrow = [name for name in narrow if name not in (outer[0], outer[-1])] if _BEGIN[self._settings["variant"]] == 4 else []
        # At least one layer keeps its 4 bits, or the file would be one of int8.
        self._narrow = set(begin_narrow)
        wider = [(name, 16) for name in widening(self._rows) if name not in begin_narrow[:1]]
        self._order = [(name, 8) for name in reversed(begin_narrow[1:])] + wider

    def step(self, count):
        """Returns the `Quantize` with the first layers of the order wider."""
        bits = {row.name: 4 if row.name in self._narrow else 8 for row in self._rows}
        for name, wider in self._order[:count]:
            bits[name] = max(bits[name], wider)
        return with_bits(self._base, bits, {row.name for row in self._rows if row.bytes_8_bits})

    def kept(self, count):
        """Returns the `WiderLayer`s of the first layers of the order."""
        rows = {row.name: row for row in self._rows}
        return tuple(
            WiderLayer(name, 8, rows[name].error_4_bits, rows[name].error_8_bits)
            if bits == 8
            else WiderLayer(name, 16, rows[name].error_8_bits, rows[name].error_16_bits)
            for name, bits in self._order[:count]
        )

    def smallest(self, folder):
        """Returns the smallest number of layers that suffices.

        Args:
            folder: Folder for the files.

        Raises:
            VerificationError: if all of them do not.
        """
        if _BEGIN[self._settings["variant"]] == 4:
            self._measure_layers()  # which says what can have 4 bits
        self._folder = folder
        if self._holds(0):
            return 0
        if not self._rows:
            self._measure_layers()
        most = len(self._order)
        if not most or not self._holds(most):
            best = min(self._drops, key=self._drops.get)
            names = ", ".join(f"'{name}'" for name, _ in self._order[:best]) or "no layer"
            raise VerificationError(
                f"No {self._settings['variant']} file of '{self._model.name}' loses at most {self._limit:g} points of accuracy: the best loses "
                f"{self._drops[best]:.2f}, with {names} kept wider. Nothing was written.",
                f"a drop of at most {self._limit:g} points on verify_on",
                f"give max_accuracy_drop_points={np.ceil(self._drops[best] * 100) / 100:g}, or train with tfdistill.compress.QuantizeAware",
            )
        low, high = 0, most
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._holds(middle) else (middle, high)
        return high

    def _holds(self, count):
        if count not in self._drops:
            plain = {"tolerances": Tolerances(), "metadata": None, "road": "bridge"}
            with warnings.catch_warnings(), quantized_by(self.step(count)):
                warnings.simplefilter("ignore")  # the export of the file that is found says them
                record = self._export(self._model, self._folder / f"{count}.tflite", **{**self._settings, **plain})
            self._drops[count] = drop_points(record)
        return self._drops[count] <= self._limit + 1e-9


def drop_points(record):
    """Returns the points of accuracy that a file loses against its Keras model: 100 times the difference; of several outputs the largest.

    Args:
        record: `ExportRecord` with labels in its verification.

    Raises:
        DataError: if there is no accuracy.
    """
    outputs = record.verification.outputs.values() if record.verification else ()
    drops = [100 * (o.keras_accuracy - o.accuracy) for o in outputs if o.accuracy is not None and o.keras_accuracy is not None]
    if not drops:
        raise _no_accuracy()
    return max(drops)


def _no_accuracy():
    return DataError(
        "max_accuracy_drop_points needs an accuracy, and verify_on gives none.",
        "held-out samples with labels of classes or decisions",
        "give the labels along with the inputs: verify_on=(x, y)",
    )


def _require_fit(model, settings):
    """Returns a model whose accuracy can be held with these settings."""
    for found, what, expected, fix in (
        (settings["variant"] not in _BEGIN, f"the variant '{settings['variant']}'", f"one of {', '.join(_BEGIN)}", "give variant='int8'"),
        (
            settings["road"] not in ("auto", "bridge"),
            f"road='{settings['road']}'",
            "the bridge, which knows the bits of layers",
            "leave road= out",
        ),
        (
            settings["states"] != "inside",
            f"states='{settings['states']}'",
            "a model without explicit states",
            "leave max_accuracy_drop_points= out",
        ),
        (settings["batch_size"] is None, "batch_size=None", "a fixed batch", "leave batch_size= out"),
    ):
        if found:
            raise ConfigurationError(f"max_accuracy_drop_points was given with {what}.", expected, fix)
    require_float(model)
    for name in ("calibration", "verify_on"):
        if settings[name] is None:
            raise DataError(
                f"max_accuracy_drop_points was given without {name}=.",
                "samples for the ranges, and others with labels to measure the accuracy on",
                "give calibration=x_train[:500], verify_on=(x_test, y_test)",
            )
    _require_held_out(model, settings["calibration"], settings["verify_on"])
    return model


def _require_held_out(model, calibration, verify_on):
    """Refuses data to verify on that is the calibration data: what the ranges were made for says nothing of what the model will meet."""
    iterators = [hasattr(data, "__next__") for data in (calibration, verify_on)]
    if any(iterators):
        raise DataError(
            "max_accuracy_drop_points was given with an iterator, which can be read once only.",
            "arrays, or datasets that begin anew",
            "give arrays",
        )
    signature = describe(model)
    held_out = collect(verify_on, signature, "verification")
    if held_out.labels is None:
        raise _no_accuracy()
    known, held = set(_hashes(collect(calibration, signature, "calibration"))), _hashes(held_out)
    shared = sum(one in known for one in held)
    if 2 * shared > len(held):
        raise DataError(
            f"{shared} of the {len(held)} samples of verify_on are calibration samples.",
            "held-out samples, which the ranges were not made for",
            "give verify_on=(x_test, y_test)",
        )


def _hashes(samples):
    arrays = list(samples.inputs.values())
    return [hash(tuple(np.ascontiguousarray(array[index]).tobytes() for array in arrays)) for index in range(samples.count)]
