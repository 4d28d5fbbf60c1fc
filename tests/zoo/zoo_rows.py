"""One row of the zoo: a model goes the whole road, and every stage says how it went.

The columns are stages that every family has to pass: the bridge, pruning, clustering and quantization-aware training, each trained for a moment with the
teacher on, then the integer file and its parity with the Keras model that it was made from.
"""

import functools
import pathlib
import tempfile

import keras
import numpy as np
from stages import ZooRow, coarse, mean_difference, run_stages, settle, targets, train_for_a_moment, verified_difference
from zoo_models import FAMILIES, SMALL, family

from tfdistill.bridge import check_parity, to_keras, to_tf_keras
from tfdistill.bridge.parity.check import random_inputs
from tfdistill.compress import Cluster, Prune, QuantizeAware, rebuild
from tfdistill.compress.plan import DONE
from tfdistill.convert.variants import Tolerances
from tfdistill.graph.functional import as_functional, is_sequential
from tfdistill.graph.tracing import open_model
from tfdistill.host import fingerprint
from tfdistill.tflite.export import export_tflite

COLUMNS = ("bridge", "pruning", "clustering", "QAT", "integer file", "parity")
NAMES = (*FAMILIES, *SMALL)
SAMPLES = 32
# Mean difference of a file, as a share of the output's scale, that is always near enough: about five of its 256 steps.
NEAR = 0.02


def build(name):
    """Returns a fresh model of a row, with weights that are the same every time."""
    keras.utils.set_random_seed(0)
    return family(name) if name in FAMILIES else SMALL[name]()


def data_for(model):
    """Random inputs of the model's own structure, and targets of its outputs'."""
    rng = np.random.default_rng(1)
    x = random_inputs(as_functional(_opened(model)), seed=0, batch_size=SAMPLES)
    x = keras.tree.map_structure(functools.partial(coarse, rng), x)
    return x, targets(rng, model, x)


def _opened(model):
    return model if is_sequential(model) else open_model(model)


def run_row(name, row=None):
    """Takes one model all the way.

    Args:
        name: Name of the row.
        row: `ZooRow` of the stages that were run before, if any.

    Yields:
        A `ZooRow` after every stage.
    """
    model = build(name)
    road = _Road(model)
    stages = (road.bridge, road.prune, road.cluster, road.quantize, road.export, road.verify)
    yield from run_stages(row or ZooRow(name, model.count_params(), {}, fingerprint()), dict(zip(COLUMNS, stages, strict=True)))


class _Road:
    """The stages of one model; each returns the text of its cell, or raises."""

    def __init__(self, model):
        self.model = model
        self.x, self.y = data_for(model)
        settle(model, self.x)
        self.quantized = self.exported = None

    def bridge(self):
        found = check_parity(_opened(self.model), to_tf_keras(self.model, check=False))
        return f"{found.max_abs_error:.0e}" + ("" if found.layer is None else f" (a layer {found.layer_error:.0e})")

    def prune(self):
        return self._shrink(Prune(0.5, schedule="constant", frequency=1))

    def cluster(self):
        return self._shrink(Cluster(8))

    def quantize(self):
        step = QuantizeAware()
        plan = step.plan(self.model, dry_run=False)  # the next stage exports
        applied = step.apply(self.model, dry_run=False)
        self._train(applied, step)
        step.check(applied)
        self.quantized = step.strip(applied)
        return f"{len(plan.names(DONE))} of {len(plan.rows)} layers"

    def export(self):
        if self.quantized is None:
            raise RuntimeError("there is no quantized model")
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "model.tflite"
            # It is an error if a float tensor is left in an int8 file.
            self.exported = export_tflite(self.quantized, path, "int8", calibration=self.x, tolerances=Tolerances())
        return f"{self.exported.size_bytes / 1024:,.0f} KiB"

    def verify(self):
        """The file against its Keras model: as near as `NEAR`, or as two independent roundings of this model would be.

        A deep net of random weights multiplies every single step of rounding until it is a tenth of the output; a trained one does not. Between file and Keras model
        some roundings always fall differently, so what they may differ by is measured by what rounding does to this model: two errors of that size that know nothing of
        each other differ by the square root of two times it.
        """
        if self.exported is None:
            raise RuntimeError("there is no file")
        apart = verified_difference(self.exported)
        effect = mean_difference(self._smooth()(self.x, training=False), self.quantized(self.x, training=False))
        told = f"{100 * apart:.1f} % ({100 * effect:.1f} %)"
        if apart > max(NEAR, 2**0.5 * effect):
            raise AssertionError(f"{told} is too far apart")
        return told

    def _smooth(self):
        """The quantization-aware model's weights in a model that rounds nothing."""
        return to_keras(rebuild.rebuild(self.quantized.legacy, lambda path, layer: layer), like=self.model, check=False)

    def _shrink(self, step):
        plan = step.plan(self.model)
        applied = step.apply(self.model)
        self._train(applied, step)
        stripped = step.strip(applied)
        step.check(stripped)
        return f"{len(plan.names(DONE))} layers"

    def _train(self, applied, step):
        train_for_a_moment(self.model, applied, self.x, self.y, step.callbacks())
