"""Files with several signatures: models that share weights, such as a classifier and what computes its features, in one file."""

import dataclasses
import pathlib
import re

import numpy as np

from tfdistill.bridge.adopt.states import stateful_layers
from tfdistill.convert.census import census
from tfdistill.convert.file_tensors import FileTensor
from tfdistill.convert.merging import merged
from tfdistill.errors import ConfigurationError, ExportError, ModelError
from tfdistill.records import Record
from tfdistill.runtime.interpreter import open_file
from tfdistill.runtime.tensors import sample_inputs
from tfdistill.tflite.source import exportable
from tfdistill.tflite.verification.record import VerificationRecord
from tfdistill.utils.files import temporary_folder, write_whole

# Random inputs on which each signature is compared with the file of its model alone.
_SEEDS = (None, 0, 1)


@dataclasses.dataclass(frozen=True)
class SignatureRecord(Record):
    """One signature of a file with several.

    Attributes:
        inputs: Its inputs, in their order.
        outputs: Its outputs.
        verification: How its outputs compare with those of its Keras model; None if it was not verified.
        road: As in `ExportRecord`.
        alone_bytes: Size of the file of this model alone.

    Example:
        >>> features = keras.Model(student.input, student.get_layer("pool").output)
        >>> record = tfdistill.export_tflite({"serving_default": student, "features": features}, "two.tflite", verify_on=x)
        >>> record.signatures["features"].outputs[0].shape
        (1, 8)
        >>> record.size_bytes < sum(signature.alone_bytes for signature in record.signatures.values())
        True
    """

    inputs: tuple[FileTensor, ...]
    outputs: tuple[FileTensor, ...]
    verification: VerificationRecord | None
    road: str | None
    alone_bytes: int


def export_signatures(models, path, export, data, arguments):
    """Writes several models into one file, each as a signature; the first is what programs run that know no signatures.

    Each model is converted and verified by itself. In the joined file equal weights stand once, and each signature has to give, to the bit, what its model's own
    file gives.

    Args:
        models: Dict of signature name -> model.
        path: `pathlib.Path` of the file to write.
        export: `export_tflite`.
        data: Dict with `calibration` and `verify_on`: each for all signatures, a dict by their names, or None.
        arguments: The other arguments of `export_tflite`.

    Returns:
        `ExportRecord` of the file, with `signatures`.

    Raises:
        ConfigurationError: if there are names that a file cannot have, or metadata is asked for.
        ModelError: if a model keeps its state inside.
        ExportError: if a signature of the joined file gives something else than the model's own file.
    """
    models = {key: exportable(model) for key, model in _named(models).items()}
    if arguments.get("metadata") is not None:
        raise ConfigurationError(
            "metadata= was given for a file of several signatures.",
            "metadata of one signature",
            "add it to the file afterwards: tfdistill.add_metadata(path, ...)",
        )
    for key, model in models.items():
        if arguments.get("states") != "explicit" and (layers := stateful_layers(model)):
            raise ModelError(
                f"The signature '{key}' keeps the state of '{layers[0].name}' inside of the file, where the signatures would share it.",
                "states that each signature takes and gives",
                "export with states='explicit'",
            )
    with temporary_folder() as folder:
        alone = {}
        for place, (key, model) in enumerate(models.items()):
            own = {name: _of_signature(given, key, models) for name, given in data.items()}
            alone[key] = export(model, pathlib.Path(folder) / f"{place}.tflite", **own, **arguments)
        content = merged({key: pathlib.Path(record.path).read_bytes() for key, record in alone.items()})
        with write_whole(path) as temporary:
            temporary.write_bytes(content)
            contents = dataclasses.replace(census(temporary, True), path=str(path))
            for key, record in alone.items() if not contents.flex_ops else ():  # LiteRT does not open such a file
                _require_equal(temporary, key, record.path, path)
    first = next(iter(alone.values()))
    signatures = {
        key: SignatureRecord(record.inputs, record.outputs, _renamed(record.verification, path), record.road, record.size_bytes)
        for key, record in alone.items()
    }
    return dataclasses.replace(
        first,
        path=str(path),
        size_bytes=contents.size_bytes,
        sha256=contents.sha256,
        dtypes=contents.dtypes,
        min_runtime_version=contents.min_runtime_version,
        verification=_renamed(first.verification, path),
        census=contents,
        signatures=signatures,
    )


def _named(models):
    wrong = [key for key in models if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z]\w*", key, flags=re.ASCII)]
    if wrong or not models:
        raise ConfigurationError(
            f"The signatures are called {list(models)}.",
            "one or more names of letters, digits and underscores, which begin with a letter",
            "write export_tflite({'serving_default': model, 'features': other}, path)",
        )
    return models


def _of_signature(given, key, models):
    """Returns the data of one signature: its own where the data is a dict by signatures."""
    return given[key] if isinstance(given, dict) and set(given) == set(models) else given


def _renamed(verification, path):
    return None if verification is None else dataclasses.replace(verification, path=str(path))


def _require_equal(joined, key, alone, path):
    """Runs a signature and its model's own file on the same numbers; built-in kernels compute the same whatever else a file holds."""
    whole, single = (open_file(source, xnnpack=False, trusted=True) for source in (joined, alone))
    for seed in _SEEDS:
        arrays = sample_inputs(single.inputs, seed)
        single.reset()
        single.set_inputs(arrays)
        single.invoke()
        expected, found = single.read_outputs(), whole.run_signature(key, arrays)
        if set(expected) != set(found) or any(not np.array_equal(array, found[name], equal_nan=True) for name, array in expected.items()):
            raise ExportError(f"The signature '{key}' of '{path}' gives something else than the file of its model alone.", "equal outputs")
