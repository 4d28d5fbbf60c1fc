"""One row of the zoo: a model goes the whole road, and every stage says how it went.

The columns are stages that every family has to pass: the bridge, pruning, clustering and quantization-aware training, each trained for a moment with the
teacher on; the integer file and its parity with the Keras model that it was made from; what is lost by training and by calibration alone; and the speed.
"""

import functools
import pathlib
import tempfile

import keras
import numpy as np
from stages import ZooRow, coarse, finished, run_stages, settle, verified_difference
from taught import images, teach
from zoo_models import FAMILIES, SMALL, family

from tfdistill.benchmarking.alternating import alternate
from tfdistill.bridge import check_parity, to_tf_keras
from tfdistill.bridge.parity.check import random_inputs
from tfdistill.compress import Cluster, Prune, QuantizeAware
from tfdistill.compress.plan import DONE
from tfdistill.convert.samples import collect
from tfdistill.convert.signature import describe
from tfdistill.convert.variants import Tolerances
from tfdistill.graph.functional import as_functional, is_sequential
from tfdistill.graph.tracing import open_model
from tfdistill.host import fingerprint
from tfdistill.runtime.interpreter import open_file
from tfdistill.runtime.profile import profile_operations
from tfdistill.tflite.export import export_tflite
from tfdistill.tflite.roads import BRIDGE

COLUMNS = (
    "bridge",
    "pruning",
    "clustering",
    "QAT",
    "integer file",
    "parity",
    "int8 by training",
    "int8 by calibration",
    "float32, ms",
    "int8, ms",
    "int8 / float32",
    "XNNPACK",
)
# The columns that `Speed` fills.
TIMES = COLUMNS[-4:]
NAMES = (*FAMILIES, *SMALL)
SAMPLES, HELD_OUT = 64, 64
# Mean difference between a file and its Keras model that is always near enough, as a share of the output's scale: about five of its 256 steps.
NEAR = 0.02
# Mean error of calibration alone on other data, as a share of the output's scale.
CALIBRATED = 0.03
# Row -> the most that the time of its int8 file may be of the float32 file's.
GOALS = {
    **dict.fromkeys((*FAMILIES, "conv1d_net", "unet", "separable", "nested"), 1.0),
    **dict.fromkeys(("MobileNetV3Small", "EfficientNetB0"), 0.6),
    **dict.fromkeys(("transformer_encoder", "vit"), 0.9),
}


def build(name, builder=None):
    """Returns a fresh model of a row, the same every time: a family that was taught a little, a small model of random weights, or what a function builds."""
    keras.utils.set_random_seed(0)
    if builder or name not in FAMILIES:
        return (builder or SMALL[name])()
    model = family(name)
    teach(model)
    return model


def data_for(model, samples=SAMPLES, seed=0):
    """Inputs of the model's own structure: images of classes for what classifies such, otherwise random."""
    if is_taught(model):
        return images(model.input_shape[1:], samples, seed + 1)[0]
    x = random_inputs(as_functional(_opened(model)), seed=seed, batch_size=samples)
    return keras.tree.map_structure(functools.partial(coarse, np.random.default_rng(seed + 1)), x)


def is_taught(model):
    return getattr(model, "optimizer", None) is not None


def _opened(model):
    return model if is_sequential(model) else open_model(model)


def run_row(name, row=None, columns=COLUMNS, builder=None, files=None):
    """Takes one model all the way.

    Args:
        name: Name of the row.
        row: `ZooRow` of the stages that were run before, if any.
        columns: The stages to run.
        builder: Function that builds the model, where it is not the zoo's own of that name.
        files: Folder that keeps the .tflite files; None keeps none. With both files there, the stages of `TIMES` need no model.

    Yields:
        A `ZooRow` after every stage.
    """
    if (
        row is not None
        and files is not None
        and set(COLUMNS) - set(TIMES) <= set(row.cells)
        and all(path.exists() for path in timed(files))
    ):
        yield from run_stages(row, dict(zip(TIMES, Speed(name, *timed(files)).stages(), strict=True)))
        return
    model = build(name, builder)
    with tempfile.TemporaryDirectory() as temporary:
        folder = files or temporary
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
        road = Road(name, model, pathlib.Path(folder), data_of_row(model))
        stages = dict(zip(COLUMNS, road.stages(), strict=True))
        yield from run_stages(row or ZooRow(name, model.count_params(), {}, fingerprint()), {column: stages[column] for column in columns})


def data_of_row(model):
    """Inputs for training and calibration, and others to compare by. The normalizations of a model that was not taught get the statistics of the former."""
    x, held_out = data_for(model), data_for(model, HELD_OUT, seed=10)
    if not is_taught(model):
        settle(model, x)
    return x, held_out


class Road:
    """The stages of one model; each returns the text of its cell, or raises. What several need is made once, when the first of them is run.

    Args:
        name: Name of the row.
        model: The model.
        folder: Where its files are written.
        data: What `data_of_row` returned.
        teacher: What teaches it; by default what it is itself.
    """

    def __init__(self, name, model, folder, data, teacher=None):
        self.name, self.model, self.folder, self.teacher = name, model, folder, teacher or model
        self.x, self.held_out = data
        self.y = keras.tree.map_structure(np.asarray, self.teacher(self.x, training=False))

    def stages(self):
        """Returns the functions of the columns."""
        return (
            self.bridge,
            self.prune,
            lambda: self._shrink(Cluster(8)),
            self.quantize,
            lambda: size(self.trained),
            self.parity,
            self.by_training,
            self.by_calibration,
            *(functools.partial(self._timed, number) for number in range(len(TIMES))),
        )

    def bridge(self):
        found = check_parity(_opened(self.model), to_tf_keras(self.model, check=False))
        return f"{found.max_abs_error:.0e}" + ("" if found.layer is None else f" (a layer {found.layer_error:.0e})")

    def prune(self):
        return self._shrink(Prune(0.5, schedule="constant", frequency=1))

    def quantize(self):
        self.quantized  # noqa: B018 (trains)
        plan = QuantizeAware().plan(self.model, dry_run=False)  # the next stage exports
        return f"{len(plan.names(DONE))} of {len(plan.rows)} layers"

    @functools.cached_property
    def quantized(self):
        """The model, trained quantized for a moment."""
        step = QuantizeAware()
        return self._finished(step, step.apply(self.model, dry_run=False))

    @functools.cached_property
    def trained(self):
        """Record of the int8 file of `quantized`. It is an error if a float tensor is left in it."""
        return export_tflite(self.quantized, timed(self.folder)[1], "int8", calibration=self.x, tolerances=Tolerances())

    def parity(self):
        apart = verified_difference(self.trained)
        told = f"{100 * apart:.1f} %"
        if apart > NEAR:
            raise AssertionError(f"{told} is too far apart")
        return told

    def by_training(self):
        """The file against the model as it was before: it has other names, but the same inputs and outputs."""
        signature = describe(self.quantized)
        found = open_file(self.trained.path, trusted=True).run(collect(self.held_out, signature, "verification").inputs)
        expected = signature.name_outputs(self.model(self.held_out, training=False))
        error = max(
            float(np.abs(found[name] - np.asarray(output)).mean() / np.ptp(np.asarray(output))) for name, output in expected.items()
        )
        same = [found[name].argmax(-1) == np.asarray(output).argmax(-1) for name, output in expected.items() if output.shape[-1] > 1]
        return _told(error, float(np.concatenate([each.reshape(-1) for each in same]).mean()) if same else None)

    @functools.cached_property
    def calibrated(self):
        """Record of the int8 file of the model by calibration alone, compared on other samples."""
        return export_tflite(
            self.model, self.folder / "calibrated.tflite", "int8", calibration=self.x, verify_on=self.held_out, tolerances=Tolerances()
        )

    def by_calibration(self):
        record = self.calibrated
        error = max(output.mean_abs_error / output.scale for output in record.verification.outputs.values())
        told = _told(error, record.verification.argmax_agreement)
        if record.road != BRIDGE:
            raise AssertionError(f"the bridge refused the model: {record.road_reason}")
        if error > CALIBRATED:
            raise AssertionError(f"{told} is too much")
        return told

    @functools.cached_property
    def _speed(self):
        return Speed(self.name, export_tflite(self.model, timed(self.folder)[0]).path, self.trained.path)

    def _timed(self, number):
        return self._speed.stages()[number]()

    def _shrink(self, step):
        plan = step.plan(self.model)
        self._finished(step, step.apply(self.model))
        return f"{len(plan.names(DONE))} layers"

    def _finished(self, step, student):
        return finished(step, student, self.teacher, *keras.tree.map_structure(lambda array: array[:32], (self.x, self.y)))


class Speed:
    """The times of a model's float32 and int8 file, and what XNNPACK takes of the latter.

    Args:
        name: Name of the row.
        whole: Path of the float32 file.
        integers: Path of the int8 file.
    """

    def __init__(self, name, whole, integers):
        self.name, self.files = name, (whole, integers)

    @functools.cached_property
    def found(self):
        return alternate(*self.files, amx=False)

    def stages(self):
        """Returns the functions of the columns `TIMES`."""
        return (
            lambda: f"{self.found.p50_ms[0]:.3f}",
            lambda: f"{self.found.p50_ms[1]:.3f}",
            self._ratio,
            lambda: f"{100 * self.found.delegated[1]:.0f} %",
        )

    def _ratio(self):
        ratio, goal = self.found.ratio, GOALS.get(self.name)
        return f"{ratio:.2f}" + ("" if goal is None or ratio <= goal else f" (over {goal:g}: {slowest(self.files[1])})")


def timed(folder):
    """Returns the paths of the float32 and the int8 file in a folder."""
    return pathlib.Path(folder, "float32.tflite"), pathlib.Path(folder, "trained.tflite")


def size(record):
    """Returns the text of a file's size."""
    return f"{record.size_bytes / 1024:,.0f} KiB"


def _told(error, same):
    """Returns the text of a cell: a mean error as a share of the output's scale, and the share of samples whose largest output is the same."""
    return f"{100 * error:.1f} %" + ("" if same is None else f", {100 * same:.0f} % alike")


def slowest(path):
    """Returns which kind of operation takes most of the time of a file, first among those that XNNPACK leaves, and its share."""
    times = {}
    for operation in profile_operations(path, amx=False):
        key = (operation.delegated, operation.name)
        times[key] = times.get(key, 0.0) + operation.share
    (delegated, name), share = max(times.items(), key=lambda item: (item[1] > 0.1 and not item[0][0], item[1]))
    return f"{name}, {100 * share:.0f} %, {'in' if delegated else 'outside'} XNNPACK"
