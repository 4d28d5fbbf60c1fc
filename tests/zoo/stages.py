"""What every table of models shares: a record of stages that passed, were refused or failed, settled models, and training for a moment."""

import dataclasses
import time

import keras
import numpy as np

from tfdistill import Distiller
from tfdistill.compress.plan import DONE, IMPOSSIBLE
from tfdistill.errors import TfdistillError
from tfdistill.host import HostFingerprint, fingerprint
from tfdistill.losses import OutputMatching
from tfdistill.records import Record

PASSED, REFUSED, FAILED = "passed", "refused", "failed"
BATCH = 16


class Refused(Exception):
    """The stage is not taken: the plan says why, before any training."""


@dataclasses.dataclass(frozen=True)
class Cell(Record):
    """One stage of one model.

    Attributes:
        state: `passed`, `refused` or `failed`.
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


def run_stages(row, stages):
    """Takes one model through the stages that its row does not have yet; one that fails is a cell that says so, not an exception.

    Args:
        row: `ZooRow` to begin with.
        stages: Dict of column to function that returns the text of its cell, or raises.

    Yields:
        A `ZooRow` before the first stage and after every one, so that a crash inside the converter leaves the earlier ones.
    """
    if not row.cells:
        yield row
    for column, stage in stages.items():
        if column not in row.cells:
            row = dataclasses.replace(row, cells={**row.cells, column: run_stage(stage)}, host=fingerprint())
            yield row


def run_stage(stage):
    """Returns the `Cell` of one stage."""
    began = time.perf_counter()
    try:
        state, text = PASSED, stage()
    except Refused as error:
        state, text = REFUSED, str(error)
    except Exception as error:
        state, text = FAILED, f"{type(error).__name__}: {error}"
    return Cell(state, text, round(time.perf_counter() - began, 1))


def coarse(rng, x):
    """Makes images coarse, as photographs are; other arrays stay as they are.

    In a batch of white noise all images look the same to a pooling layer, and normalizing what little is left of them shows rounding and nothing else.
    """
    if x.ndim != 4 or x.dtype.kind != "f":
        return x
    smooth = keras.ops.image.resize(rng.normal(size=(len(x), 4, 4, x.shape[-1])), x.shape[1:3], interpolation="bilinear")
    return (np.asarray(smooth) * rng.uniform(0.5, 1.5, (len(x), 1, 1, 1)) + rng.normal(size=(len(x), 1, 1, 1))).astype(x.dtype)


def targets(rng, model, x):
    """Random targets in the structure of a model's outputs."""
    return keras.tree.map_structure(lambda out: rng.normal(size=out.shape).astype("float32"), model(x, training=False))


def settle(model, x):
    """Lets the moving statistics be those of the data without dropout, as they are in any model that was trained long enough."""
    layers = list(model._flatten_layers())
    changed = [(layer, "momentum", 0.0) for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    if not changed:
        return
    changed += [(layer, "rate", 0.0) for layer in layers if isinstance(layer, keras.layers.Dropout)]
    before = [getattr(layer, name) for layer, name, _ in changed]
    for layer, name, value in changed:
        setattr(layer, name, value)
    model(x, training=True)
    for (layer, name, _), value in zip(changed, before, strict=True):
        setattr(layer, name, value)


def train_for_a_moment(teacher, student, x, y, callbacks=()):
    """One epoch of a few steps, with the teacher on every output."""
    matching = OutputMatching("mse")
    losses = dict.fromkeys(y, matching) if isinstance(y, dict) else matching
    distiller = Distiller(teacher, student, losses)
    distiller.compile(keras.optimizers.SGD(1e-4), loss="mse")
    distiller.fit(x, y, batch_size=BATCH, verbose=0, callbacks=list(callbacks))


def planned(step, model):
    """The step's plan. Raises `Refused` with the reason if there is none."""
    try:
        return step.plan(model)
    except TfdistillError as error:
        raise Refused(str(error)) from error


def applied(step, model, plan):
    """The step applied. Raises `Refused` if it refuses what its plan says cannot be done; that `apply` refuses anything else is a failure."""
    try:
        return step.apply(model)
    except TfdistillError as error:
        reasons = reasons_of(plan)
        if reasons or not plan.names(DONE) or error.happened in plan.findings:
            raise Refused("; ".join(reasons) or str(error)) from error
        raise


def reasons_of(plan):
    """What a plan says of the layers that its step cannot take."""
    return [f"'{name}' {plan.row(name).reason}" for name in plan.names(IMPOSSIBLE)]


def finished(step, student, teacher, x, y):
    """What a step makes of the student that it was applied to, after a moment under the teacher; the structure of the step holds in it."""
    train_for_a_moment(teacher, student, x, y, step.callbacks())
    stripped = step.strip(student)
    step.check(stripped)
    return stripped


def mean_difference(outputs, references):
    """Largest mean difference of two structures of outputs, as a share of the reference's range."""
    pairs = zip(keras.tree.flatten(outputs), keras.tree.flatten(references), strict=True)
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).mean() / np.ptp(np.asarray(b))) for a, b in pairs)


def verified_difference(record):
    """Largest mean difference between an exported file and its Keras model, as a share of the output's scale."""
    return max(o.mean_abs_error / o.scale for o in record.verification.outputs.values())
