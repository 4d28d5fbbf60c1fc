"""Weights of files of float arithmetic that get 8 bits for 4, or stay in float."""

import numpy as np

from tfdistill.compress.bits.switches import worst_share
from tfdistill.convert.file_kernels import kernels_in, placed_kernels
from tfdistill.convert.packing import pack
from tfdistill.convert.quantizer import BITS, parsed
from tfdistill.convert.samples import collect
from tfdistill.convert.signature import describe
from tfdistill.convert.variants import Tolerances
from tfdistill.runtime.interpreter import open_file
from tfdistill.tflite.accuracy_control.record import WiderLayer
from tfdistill.tflite.accuracy_control.search import Search
from tfdistill.tflite.roads import QUANTIZER, kept_wider
from tfdistill.utils.progress import progress

_MEASURED_ON = 256
# Operation -> the axis of its kernel that has a scale for each entry.
_CHANNELS = {"DEPTHWISE_CONV_2D": 3}


class FloatSearch(Search):
    """Files of litert-quantizer. Kernels have the bits that the variant gives them, then 8, then those of floats."""

    road = QUANTIZER
    calibrates = False

    def __init__(self, export, model, settings, limit, folder):
        super().__init__(export, model, settings, limit, folder)
        self._errors, self._outputs = {}, {}

    def measure_layers(self):
        """Finds the order in which kernels get wider, by the error that each of them makes alone, with all others in float."""
        path = self.folder / "float32.tflite"
        plain = {"variant": "float32", "verify_on": None, "tolerances": Tolerances(), "metadata": None, "road": "auto", "io": "auto"}
        self.export(self.model, path, **{**self.settings, **plain})
        content = path.read_bytes()
        given = self.settings["calibration"] if self.settings["calibration"] is not None else self.settings["verify_on"]
        inputs = collect(given, describe(self.model), "comparison", 1, _MEASURED_ON).inputs
        whole = open_file(path, trusted=True).run(inputs)
        file = parsed(content)
        rows = [(kernel, BITS[kernel.operation]) for kernel in kernels_in(file) if kernel.operation in BITS]
        with progress("rounding the weights of each layer", sum(len({first, 8}) for _, first in rows)) as advance:
            for kernel, first in rows:
                for bits in {first, 8}:
                    path.write_bytes(_with_rounded(content, kernel.name, bits))
                    self._errors[kernel.name, bits] = worst_share(whole, open_file(path, trusted=True).run(inputs))
                    advance()
        self._outputs = {
            placed.graph.tensors[placed.tensor].name.decode(): (file.name_of(placed.operator), _output(placed))
            for placed in placed_kernels(file)
        }
        sizes, first = {kernel.name: kernel.size for kernel, _ in rows}, {kernel.name: bits for kernel, bits in rows}

        def won(name, bits, wider):
            return (self._errors[name, bits] ** 2 - self._errors.get((name, wider), 0.0) ** 2) / (sizes[name] * (wider - bits))

        narrow = sorted((name for name, bits in first.items() if bits == 4), key=lambda name: -won(name, 4, 8))
        # At least one keeps its 4 bits, or the file would be of another variant.
        floats = sorted(set(first) - set(narrow[-1:]), key=lambda name: -won(name, 8, 32))
        self.order = [(name, 8) for name in narrow[:-1]] + [(name, 32) for name in floats]

    def made_with(self, count):
        """Returns a context manager in which litert-quantizer makes the first kernels of the order wider."""
        return kept_wider({self._outputs[name]: bits for name, bits in self.order[:count]})

    def kept(self, count):
        """Returns the `WiderLayer`s of the first kernels of the order."""
        return tuple(
            WiderLayer(name, bits, self._errors[name, 4 if bits == 8 else 8], self._errors.get((name, bits), 0.0))
            for name, bits in self.order[:count]
        )


def _output(placed):
    return placed.graph.tensors[int(placed.operator.outputs[0])].name.decode()


def _with_rounded(content, name, bits):
    """Returns a file of floats in which one kernel lies on the steps of so many bits, with the largest weight of each channel as the last one."""
    file = parsed(content)
    (placed,) = (one for one in placed_kernels(file) if one.graph.tensors[one.tensor].name.decode() == name)
    tensor = placed.graph.tensors[placed.tensor]
    buffer = file.model.buffers[tensor.buffer]
    values = np.asarray(buffer.data, np.uint8).view(np.float32).reshape(tensor.shape)
    channel = _CHANNELS.get(file.name_of(placed.operator), 0)
    largest = np.abs(values).max(tuple(axis for axis in range(values.ndim) if axis != channel), keepdims=True)
    scale = np.maximum(largest, np.finfo(np.float32).tiny) / (2 ** (bits - 1) - 1)
    buffer.data = (np.round(values / scale) * scale).astype(np.float32).reshape(-1).view(np.uint8)
    return pack(file.model, file.classes)
