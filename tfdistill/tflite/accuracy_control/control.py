"""Keeps layers of a file wider until it loses no more accuracy than is allowed, on data that it was not calibrated with."""

import dataclasses
import pathlib

import numpy as np

from tfdistill.compress.bits.sensitivity import require_float
from tfdistill.convert.samples import collect
from tfdistill.convert.signature import describe
from tfdistill.errors import ConfigurationError, DataError
from tfdistill.tflite.accuracy_control.floats import FloatSearch
from tfdistill.tflite.accuracy_control.integers import IntegerSearch
from tfdistill.tflite.accuracy_control.search import drop_points, no_accuracy
from tfdistill.tflite.source import exportable
from tfdistill.utils import validate
from tfdistill.utils.files import temporary_folder
from tfdistill.utils.progress import progress

# Variant -> how its files of wider layers are made.
_SEARCHES = {"int8": IntegerSearch, "int8_int4_mixed": IntegerSearch, "int4_weights": FloatSearch}


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
    with temporary_folder() as folder, progress("holding the accuracy"):
        search = _SEARCHES[settings["variant"]](export, model, settings, limit, pathlib.Path(folder))
        count = search.smallest()
    with search.made_with(count):
        record = export(model, path, **{**settings, "road": search.road})
    return dataclasses.replace(record, kept_wider=search.kept(count), accuracy_drop_points=drop_points(record))


def _require_fit(model, settings):
    """Returns a model whose accuracy can be held with these settings."""
    for found, what, expected, fix in (
        (
            settings["variant"] not in _SEARCHES,
            f"the variant '{settings['variant']}'",
            f"one of {', '.join(_SEARCHES)}",
            "give variant='int8'",
        ),
        (
            settings["road"] not in ("auto", getattr(_SEARCHES.get(settings["variant"]), "road", "auto")),
            f"road='{settings['road']}'",
            "a road on which layers have bits of their own",
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
        if settings[name] is None and (name == "verify_on" or _SEARCHES[settings["variant"]].calibrates):
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
        raise no_accuracy()
    if calibration is None:
        return
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
