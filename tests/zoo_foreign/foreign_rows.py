"""One row of the table of models that others wrote: what a user would do with it, and how each stage went.

A stage is refused if the step's plan says before any training that it cannot be done, and why. Everything else that does not pass has failed.
"""

import dataclasses
import pathlib
import tempfile

import keras
import numpy as np
from stages import (
    FAILED,
    Refused,
    ZooRow,
    applied,
    coarse,
    finished,
    mean_difference,
    planned,
    reasons_of,
    run_stages,
    settle,
    targets,
    train_for_a_moment,
    verified_difference,
)
from tutorial_images import IMAGES
from tutorial_sequences import SEQUENCES

from tfdistill.bridge import check_parity, to_keras, to_tf_keras
from tfdistill.compress import Prune, Quantize, QuantizeAware, rebuild
from tfdistill.compress.plan import DONE
from tfdistill.convert.signature import describe
from tfdistill.convert.variants import Tolerances
from tfdistill.errors import TfdistillError
from tfdistill.graph.functional import is_sequential
from tfdistill.graph.tracing import open_model
from tfdistill.host import fingerprint
from tfdistill.tflite.export import export_tflite

COLUMNS = ("bridge", "pruning", "QAT", "QAT's file", "calibrated file", "distillation")
TUTORIALS = SEQUENCES | IMAGES
SAMPLES = 32
# Mean difference of a file, as a share of the output's scale, that is always near enough; see `zoo_rows`.
NEAR = {"QAT's file": 0.02, "calibrated file": 0.03}
# Integer inputs by the beginning of their names: how many values they take. Others are tokens.
VALUES = {"kind": 5, "segment": 2}
TOKENS = 20
# Models whose tutorial divides the images by 255 before them: curves applied again and again leave every range elsewhere.
DIVIDED = ("low_light",)
# Inputs of subclassed models, which have no names: shape and whether they are integers.
UNNAMED = {"entity_tagger": ((10,), True), "recommender": ((2,), True), "depth_estimation": ((16, 16, 3), False)}


def rows():
    """Names of all rows and their builders; models of keras-hub and kimm are there where these packages are."""
    from hub_models import HUB, KIMM

    return HUB | KIMM | {f"keras.io {name}": builder for name, builder in TUTORIALS.items()}


def builder_of(name):
    """The builder of a row; those of tutorials need no other package."""
    return TUTORIALS.get(name.removeprefix("keras.io ")) or rows()[name]


def data_for(model, rng):
    """Random inputs in the structure of the model's own: images in the range that its first layer expects, tokens, and masks with padding behind."""
    if not isinstance(model, (keras.Function, keras.Sequential)):
        shape, integers = UNNAMED[model.name]
        return _values(rng, "", (SAMPLES, *shape), "int32" if integers else "float32")
    scaled = any(isinstance(layer, keras.layers.Rescaling) for layer in model._flatten_layers())
    inputs = model.input if isinstance(model, keras.Function) else model.inputs[0]

    def values(tensor):
        shape = (SAMPLES, *(12 if n is None else n for n in tensor.shape[1:]))
        x = _values(rng, tensor._keras_history.operation.name, shape, keras.backend.standardize_dtype(tensor.dtype))
        if model.name in DIVIDED:
            return (1 / (1 + np.exp(-x))).astype(x.dtype)
        return 128 + 50 * x if scaled and x.ndim == 4 else x

    return keras.tree.map_structure(values, inputs)


def _values(rng, name, shape, dtype):
    if "float" in dtype:
        return coarse(rng, rng.normal(size=shape).astype(dtype))
    if "mask" in name:
        lengths = rng.integers(shape[1] // 2, shape[1] + 1, (shape[0], 1))
        return (np.arange(shape[1]) < lengths).astype(dtype)
    return rng.integers(0, next((n for start, n in VALUES.items() if name.startswith(start)), TOKENS), shape).astype(dtype)


def run_row(name, row=None):
    """Takes one model through all stages, each of which begins with the same model.

    Args:
        name: Name of the row.
        row: `ZooRow` of the stages that were run before, if any.

    Yields:
        A `ZooRow` after every stage.
    """
    road = Road(builder_of(name))
    stages = (road.bridge, road.prune, road.quantize, road.export_trained, road.export_calibrated, road.distil)
    yield from run_stages(
        resumable(row) if row else ZooRow(name, road.model.count_params(), {}, fingerprint()), dict(zip(COLUMNS, stages, strict=True))
    )


def resumable(row):
    """Returns a row without its quantization-aware training if a file is missing, as both files are held against what rounding does to that model.

    A training that failed stays, as it may have ended the process.
    """
    again = not NEAR.keys() <= row.cells.keys()
    kept = {column: cell for column, cell in row.cells.items() if not again or column != "QAT" or cell.state == FAILED}
    return dataclasses.replace(row, cells=kept)


class Road:
    """The stages of one model; each returns the text of its cell, or raises."""

    def __init__(self, builder):
        keras.utils.set_random_seed(0)
        self.builder, self.model = builder, builder()
        rng = np.random.default_rng(1)
        self.x = data_for(self.model, rng)
        settle(self.model, self.x)
        self.y = targets(rng, self.model, self.x)
        # What quantization-aware training made, or why the plan refused it.
        self.quantized = self.refused = None

    def bridge(self):
        planned(Prune(0.5, schedule="constant", frequency=1), self.model)
        opened = self.model if is_sequential(self.model) else open_model(self.model)
        found = check_parity(opened, to_tf_keras(self.model, check=False))
        return f"{found.max_abs_error:.0e}" + ("" if found.layer is None else f" (a layer {found.layer_error:.0e})")

    def prune(self):
        step = Prune(0.5, schedule="constant", frequency=1)
        plan = planned(step, self.model)
        finished(step, applied(step, self.model, plan), self.model, self.x, self.y)
        return f"{len(plan.names(DONE))} layers"

    def quantize(self):
        step = QuantizeAware()
        try:
            plan = planned(step, self.model)
            student = applied(step, self.model, plan)
        except Refused as error:
            self.refused = error
            raise
        self.quantized = finished(step, student, self.model, self.x, self.y)
        return f"{len(plan.names(DONE))} of {len(plan.rows)} layers"

    def export_trained(self):
        if self.refused is not None:
            raise self.refused
        if self.quantized is None:
            raise RuntimeError("there is no quantized model")
        return self._exported(self.quantized, self._effect(), "QAT's file")

    def export_calibrated(self):
        # Without a quantization-aware model it is not known what rounding does to this one.
        effect = 0.0 if self.quantized is None else self._effect()
        try:
            return self._exported(self.model, effect, "calibrated file")
        except TfdistillError as error:
            reasons = reasons_of(Quantize().plan(self.model))
            if not reasons:
                raise
            raise Refused("; ".join(reasons)) from error

    def distil(self):
        student = self.model
        before = [np.array(weight) for weight in student.trainable_weights]
        train_for_a_moment(self.builder(), student, self.x, self.y)
        if not any((np.array(weight) != old).any() for weight, old in zip(student.trainable_weights, before, strict=True)):
            raise AssertionError("no weight of the student changed")
        if not all(np.isfinite(weight).all() for weight in student.weights):
            raise AssertionError("a weight of the student is not finite")
        return "trained"

    def _exported(self, model, effect, column):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "model.tflite"
            # Inputs of any length stay so, which export asks to be told. It is an error if a float tensor is left in an int8 file.
            size = None if any(None in i.shape for i in describe(model).inputs) else 1
            record = export_tflite(model, path, "int8", calibration=self.x, tolerances=Tolerances(), batch_size=size)
        apart = verified_difference(record)
        told = f"{record.size_bytes / 1024:,.0f} KiB, {100 * apart:.1f} %"
        if not apart <= max(NEAR[column], 2**0.5 * effect):
            raise AssertionError(f"{told} is too far from the Keras model; rounding makes {100 * effect:.1f} %")
        return told

    def _effect(self):
        """What rounding does to the quantization-aware model: its difference from its own weights in a model that rounds nothing."""
        smooth = to_keras(rebuild.rebuild(self.quantized.legacy, lambda path, layer: layer), like=self.model, check=False)
        return mean_difference(smooth(self.x, training=False), self.quantized(self.x, training=False))
