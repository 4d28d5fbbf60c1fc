"""One row of the table of smaller models that others wrote: its layers are opened, and what is inside them gets smaller.

A stage is refused if a plan or an error says, before any work, that it cannot be done, and why. Everything else that does not pass has failed.
"""

import functools
import pathlib
import re
import tempfile
import warnings

import keras
import numpy as np
from foreign_rows import builder_of, data_for
from stages import Refused, ZooRow, reasons_of, run_stages, settle

from tfdistill.compress import LowRank, PruneChannels, Quantize, open_layers, shrink_like
from tfdistill.errors import ModelError, TfdistillError
from tfdistill.graph.flat import flat_graph
from tfdistill.graph.opening import is_foreign
from tfdistill.graph.profiling import profile
from tfdistill.host import fingerprint
from tfdistill.tflite import Tolerances, export_tflite

COLUMNS = ("opened", "MACs left", "int8 file", "low rank", "half the width", "loaded")
KEEP_MACS, KEEP_PARAMETERS, WIDTH = 0.7, 0.8, 0.5
# Where a budget cannot be met, the one that can is taken.
REACHABLE = re.compile(r"a share of at least (\d\.\d+)")


def run_row(name, row=None):
    """Takes one model through the stages; the arguments and what is yielded are those of `foreign_rows.run_row`."""
    road = ShrunkRoad(builder_of(name))
    stages = (road.open, road.channels, road.export, road.low_rank, road.narrower, road.load)
    yield from run_stages(row or ZooRow(name, road.model.count_params(), {}, fingerprint()), dict(zip(COLUMNS, stages, strict=True)))


class ShrunkRoad:
    """The stages of one model; each returns the text of its cell, or raises.

    Args:
        builder: Function that builds the model.
    """

    def __init__(self, builder):
        keras.utils.set_random_seed(0)
        self.model = builder()
        self.x = data_for(self.model, np.random.default_rng(1))
        settle(self.model, self.x)

    @functools.cached_property
    def opened(self):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return open_layers(self.model)
        except ModelError as error:
            raise Refused(error.happened) from error

    @functools.cached_property
    def smaller(self):
        return _within(lambda share: PruneChannels(keep_macs=share, divisor=1), self.opened, KEEP_MACS)

    def outputs(self, model):
        return [np.asarray(y, "float32") for y in keras.tree.flatten(model(self.x, training=False))]

    def open(self):
        before, after = (
            {call.path for call in flat_graph(model).calls if is_foreign(call.operation)} for model in (self.model, self.opened)
        )
        difference = max(np.abs(a - b).max() for a, b in zip(self.outputs(self.model), self.outputs(self.opened), strict=True))
        inside = f", {len(after - before)} inside stay" if after - before else ""
        return f"{len(before - after)} of {len(before)} layers{inside}, {difference:.0e}" if before else "Keras's own"

    def channels(self):
        if not all(np.isfinite(y).all() for y in self.outputs(self.smaller)):
            raise AssertionError("an output is not finite")
        return _share("macs", self.smaller, self.opened)

    def export(self):
        with tempfile.TemporaryDirectory() as folder:
            size = None if any(None in x.shape[1:] for x in self.smaller.inputs) else 1
            try:
                record = export_tflite(
                    self.smaller, pathlib.Path(folder, "m.tflite"), "int8", calibration=self.x, tolerances=Tolerances(), batch_size=size
                )
            except TfdistillError as error:
                reasons = reasons_of(Quantize().plan(self.smaller))
                if not reasons:
                    raise
                raise Refused("; ".join(reasons)) from error
        return f"{record.size_bytes / 1024:,.0f} KiB"

    def low_rank(self):
        return _share(
            "parameters", _within(lambda share: LowRank(keep_parameters=share, divisor=1), self.opened, KEEP_PARAMETERS), self.opened
        )

    def narrower(self):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of channels that stay whole: the share says how many they are
                return _share("macs", shrink_like(self.opened, width=WIDTH, divisor=1), self.opened)
        except TfdistillError as error:
            raise Refused(error.happened) from error

    def load(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "smaller.keras")
            self.smaller.save(path)
            try:
                loaded = keras.saving.load_model(path)
            except Exception as error:
                if self._loads(pathlib.Path(folder, "whole.keras")):
                    raise
                raise Refused("Keras does not load the model itself either") from error
            if not all(np.array_equal(a, b) for a, b in zip(self.outputs(loaded), self.outputs(self.smaller), strict=True)):
                raise AssertionError("loaded, it computes something else")
        return "the same"

    def _loads(self, path):
        self.model.save(path)
        try:
            return bool(keras.saving.load_model(path))
        except Exception:
            return False


def _within(step, model, share):
    """Applies a step for a share of the cost, or for the smallest share above it that can be met.

    Raises:
        Refused: if nothing can be removed.
    """
    try:
        return step(share).apply(model)
    except ModelError as error:
        found = REACHABLE.fullmatch(error.expected or "")
        if found is None or float(found[1]) > 0.99:
            raise Refused(error.happened) from error
    return step(float(found[1]) + 0.01).apply(model)


def _share(what, smaller, whole):
    try:
        costs = [getattr(profile(model), what) for model in (smaller, whole)]
    except ModelError as error:
        raise Refused(error.happened) from error
    return f"{100 * costs[0] / max(costs[1], 1):.1f} %"
