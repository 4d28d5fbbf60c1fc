"""Int8 files of one model with different bits, made and measured."""

import dataclasses
import pathlib
import typing

from tfdistill.bridge.adopt.states import initial_states
from tfdistill.compress.bits.record import activation_bits, weight_bits
from tfdistill.compress.bits.switches import worst_share
from tfdistill.compress.quantize.calibrate import quantized_on
from tfdistill.convert.converter import convert
from tfdistill.convert.finish import finish
from tfdistill.convert.variants import variant_named
from tfdistill.runtime.interpreter import open_file


class MadeFile(typing.NamedTuple):
    """A file and what was measured of it.

    Attributes:
        bits: Dict of path to 4, 8 or 16.
        path: The file.
        size_bytes: Its size.
        error: Error of its outputs, as `worst_share`.
    """

    bits: dict
    path: pathlib.Path
    size_bytes: int
    error: float


class Files:
    """Makes the int8 file of a model for the bits of its layers, and remembers it.

    Args:
        folder: Folder for the files.
        model: A float model.
        signature: Its `ModelSignature`.
        step: `Quantize` of 8 bits.
        weighted: Set of the paths of the layers with weights.
        calibration: Calibration `Samples`.
        samples: `Samples` to measure on.
        floats: Outputs of the float model on these, a dict of output name to array.
    """

    def __init__(self, folder, model, signature, step, weighted, calibration, samples, floats):
        self._folder, self._model, self._signature, self._step = pathlib.Path(folder), model, signature, step
        self._weighted, self._calibration, self._samples, self._floats = weighted, calibration, samples, floats
        self._made = {}

    @property
    def count(self):
        """How many were made."""
        return len(self._made)

    def __call__(self, bits):
        """Returns the `MadeFile` of a dict of path to 4, 8 or 16.

        Raises:
            TfdistillError: as `export_tflite`, if it cannot be made.
        """
        key = tuple(sorted(bits.items()))
        if key not in self._made:
            self._made[key] = self._make(bits)
        return self._made[key]

    def _make(self, bits):
        quantized, _ = quantized_on(with_bits(self._step, bits, self._weighted), self._model, self._signature, self._calibration)
        path = self._folder / f"{len(self._made)}.tflite"
        with initial_states(quantized):
            content = convert(quantized, self._signature, variant_named("int8"), "int8", self._calibration, self._signature.batch_size or 1)
        path.write_bytes(finish(content))
        outputs = open_file(path, trusted=True).run(self._samples.inputs)
        return MadeFile(dict(bits), path, path.stat().st_size, worst_share(self._floats, outputs))


def with_bits(step, bits, weighted):
    """Returns a `Quantize` with the bits of each layer.

    Args:
        step: `Quantize` of 8 bits.
        bits: Dict of path to 4, 8 or 16.
        weighted: Set of the paths of the layers with weights.
    """
    weights = weight_bits({path: one for path, one in bits.items() if path in weighted})
    return dataclasses.replace(step, weight_bits=weights, activation_bits=activation_bits(bits))
