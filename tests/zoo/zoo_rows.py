"""One row of the zoo: a model goes the whole road, and every stage says how it went.

The columns are stages that every family has to pass: the bridge, pruning, clustering and quantization-aware training, each trained for a moment with the
teacher on, then the integer file and its parity with the Keras model that it was made from.
"""

import dataclasses
import pathlib
import tempfile
import time

import keras
import numpy as np
from zoo_models import FAMILIES, SMALL, family

from tfdistill import Distiller
from tfdistill.bridge import check_parity, to_keras, to_tf_keras
from tfdistill.bridge.parity.check import random_inputs
from tfdistill.compress import Cluster, Prune, QuantizeAware, rebuild
from tfdistill.compress.plan import DONE
from tfdistill.convert.variants import Tolerances
from tfdistill.graph.functional import as_functional, is_sequential
from tfdistill.graph.tracing import open_model
from tfdistill.host import HostFingerprint, fingerprint
from tfdistill.losses import OutputMatching
from tfdistill.records import Record
from tfdistill.tflite.export import export_tflite

COLUMNS = ("bridge", "pruning", "clustering", "QAT", "integer file", "parity")
NAMES = (*FAMILIES, *SMALL)
SAMPLES, BATCH = 32, 16
# Mean difference of a file, as a share of the output's scale, that is always near enough: about five of its 256 steps.
NEAR = 0.02
PASSED, FAILED = "passed", "failed"


@dataclasses.dataclass(frozen=True)
class Cell(Record):
    """One stage of one model.

    Attributes:
        state: `passed` or `failed`.
        text: The figure that the table shows, or why there is none.
        seconds: Time that the stage took, training included.
    """

    state: str
    text: str
    seconds: float


@dataclasses.dataclass(frozen=True)
class ZooRow(Record):
    """All stages of one model, and where they were run."""

    name: str
    parameters: int
    cells: dict[str, Cell]
    host: HostFingerprint


def build(name):
    """Returns a fresh model of a row, with weights that are the same every time."""
    keras.utils.set_random_seed(0)
    return family(name) if name in FAMILIES else SMALL[name]()


def data_for(model):
    """Random inputs of the model's own structure, and targets of its outputs'.

    Images are coarse, as photographs are: in a batch of white noise all look the same to a pooling layer, and normalizing what little is left of them shows
    rounding and nothing else.
    """
    rng = np.random.default_rng(1)

    def coarse(x):
        if x.ndim != 4 or x.dtype.kind != "f":
            return x
        coarse = keras.ops.image.resize(rng.normal(size=(len(x), 4, 4, x.shape[-1])), x.shape[1:3], interpolation="bilinear")
        return (np.asarray(coarse) * rng.uniform(0.5, 1.5, (len(x), 1, 1, 1)) + rng.normal(size=(len(x), 1, 1, 1))).astype(x.dtype)

    x = keras.tree.map_structure(coarse, random_inputs(as_functional(_opened(model)), seed=0, batch_size=SAMPLES))
    y = keras.tree.map_structure(lambda out: rng.normal(size=out.shape).astype("float32"), model(x, training=False))
    return x, y


def _opened(model):
    return model if is_sequential(model) else open_model(model)


def settle(model, x):
    """Lets the moving statistics be those of the data, as they are in any model that was trained."""
    normalizations = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in normalizations]
    for layer in normalizations:
        layer.momentum = 0.0
    if normalizations:
        model(x, training=True)
    for layer, momentum in zip(normalizations, momenta, strict=True):
        layer.momentum = momentum


def run_row(name):
    """Takes one model all the way; a stage that fails is a cell that says so, not an exception.

    Yields:
        A `ZooRow` after every stage, so that a crash inside the converter leaves the earlier ones.
    """
    model = build(name)
    road = _Road(model)
    row = ZooRow(name, model.count_params(), {}, fingerprint())
    stages = (road.bridge, road.prune, road.cluster, road.quantize, road.export, road.verify)
    for column, stage in zip(COLUMNS, stages, strict=True):
        row = dataclasses.replace(row, cells={**row.cells, column: _cell(stage)})
        yield row


def crashed(row, code):
    """The row of a process that ended in the middle: the stage that it was in has failed, and those after it."""
    missing = [column for column in COLUMNS if column not in row.cells]
    return dataclasses.replace(row, cells={**row.cells, **{c: Cell(FAILED, f"the process ended with {code}", 0.0) for c in missing}})


def _cell(stage):
    began = time.perf_counter()
    try:
        state, text = PASSED, stage()
    except Exception as error:
        state, text = FAILED, f"{type(error).__name__}: {error}"
    return Cell(state, text, round(time.perf_counter() - began, 1))


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
        plan = step.plan(self.model)
        applied = step.apply(self.model)
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
        outputs = self.exported.verification.outputs.values()
        apart = max(o.mean_abs_error / o.scale for o in outputs)
        rounded = [np.asarray(out) for out in keras.tree.flatten(self.quantized(self.x, training=False))]
        smooth = [np.asarray(out) for out in keras.tree.flatten(self._smooth()(self.x, training=False))]
        effect = max(float(np.abs(a - b).mean() / np.ptp(a)) for a, b in zip(rounded, smooth, strict=True))
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
        """Two steps, with the teacher on every output."""
        matching = OutputMatching("mse")
        losses = dict.fromkeys(self.y, matching) if isinstance(self.y, dict) else matching
        distiller = Distiller(self.model, applied, losses)
        distiller.compile(keras.optimizers.SGD(1e-4), loss="mse")
        distiller.fit(self.x, self.y, batch_size=BATCH, verbose=0, callbacks=step.callbacks())
