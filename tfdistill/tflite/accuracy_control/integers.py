"""Layers of integer files that get 8 bits of weights for 4, or 16 bits of activations for 8."""

import warnings

from tfdistill.compress.bits.files import with_bits
from tfdistill.compress.bits.order import narrowing, widening
from tfdistill.compress.bits.sensitivity import sensitivities
from tfdistill.compress.quantize.calibrate import Quantize
from tfdistill.convert.samples import MIN_CALIBRATION_SAMPLES, collect
from tfdistill.convert.signature import describe
from tfdistill.tflite.accuracy_control.record import WiderLayer
from tfdistill.tflite.accuracy_control.search import Search
from tfdistill.tflite.roads import BRIDGE, quantized_by
from tfdistill.tflite.runtimes import TARGETS_OF_RUNTIMES

_MEASURED_ON = 256


class IntegerSearch(Search):
    """Files of the bridge. Those of int8 begin with 8 bits, those of int8_int4_mixed with 4."""

    road = BRIDGE
    calibrates = True

    def __init__(self, export, model, settings, limit, folder):
        super().__init__(export, model, settings, limit, folder)
        self._base = Quantize(target=TARGETS_OF_RUNTIMES.get(settings["runtime"], "xnnpack"))
        self._rows, self._narrow = (), set()
        if settings["variant"] == "int8_int4_mixed":
            self._measure()  # which says what can have 4 bits

    def measure_layers(self):
        """Finds the order in which layers get wider."""
        signature = describe(self.model)
        limit = self.settings["max_calibration_samples"]
        calibration = collect(self.settings["calibration"], signature, "calibration", MIN_CALIBRATION_SAMPLES, limit)
        samples = collect(self.settings["calibration"], signature, "calibration", 1, min(_MEASURED_ON, limit))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a model that the user would train or save
            self._rows, _ = sensitivities(self.model, signature, calibration, samples, self._base)
        narrow = narrowing(self._rows)
        outer = [row.name for row in self._rows if row.bytes_8_bits]
        # The first and the last layer with weights are those that 4 bits hurt most, at the fewest bytes.
        begin_narrow = (
            [name for name in narrow if name not in (outer[0], outer[-1])] if self.settings["variant"] == "int8_int4_mixed" else []
        )
        # At least one layer keeps its 4 bits, or the file would be one of int8.
        self._narrow = set(begin_narrow)
        wider = [(name, 16) for name in widening(self._rows) if name not in begin_narrow[:1]]
        self.order = [(name, 8) for name in reversed(begin_narrow[1:])] + wider

    def made_with(self, count):
        """Returns a context manager in which the bridge makes the first layers of the order wider."""
        bits = {row.name: 4 if row.name in self._narrow else 8 for row in self._rows}
        for name, wider in self.order[:count]:
            bits[name] = max(bits[name], wider)
        return quantized_by(with_bits(self._base, bits, {row.name for row in self._rows if row.bytes_8_bits}))

    def kept(self, count):
        """Returns the `WiderLayer`s of the first layers of the order."""
        rows = {row.name: row for row in self._rows}
        return tuple(
            WiderLayer(name, 8, rows[name].error_4_bits, rows[name].error_8_bits)
            if bits == 8
            else WiderLayer(name, 16, rows[name].error_8_bits, rows[name].error_16_bits)
            for name, bits in self.order[:count]
        )
