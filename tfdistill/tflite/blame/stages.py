"""How the loss of accuracy is split over the stages from a teacher to a file."""

import dataclasses
import typing
from collections.abc import Sequence

import keras
import numpy as np

from tfdistill import tasks
from tfdistill.convert.samples import collect
from tfdistill.errors import ConfigurationError, DataError
from tfdistill.records import Record
from tfdistill.tflite.verification.compare_models import Runner, paired_names
from tfdistill.tflite.verification.comparison import decision_threshold
from tfdistill.tflite.verification.paired import accuracy_drop_interval, mean_interval
from tfdistill.tflite.verification.reference import by_output
from tfdistill.tflite.verification.verify import tasks_by_output
from tfdistill.utils.arguments import explains_arguments
from tfdistill.utils.types import Data, PathLike, Tensors


@dataclasses.dataclass(frozen=True)
class StageAccuracy(Record):
    """One stage and what it loses against the one before it.

    Attributes:
        stage: Name of the stage.
        output: Name of the output.
        metric: `"accuracy"`, `"binary_accuracy"` or `"mean_absolute_error"`; of a segmentation the share of pixels that are right.
        value: The metric.
        lost: What the stage loses against the one before, in the metric's unit; below 0 if it gains. None for the first.
        lost_low: Lower end of the 95 % interval of `lost`, paired on the same samples. None for the first.
        lost_high: Upper end.

    Example:
        >>> found = tfdistill.tflite.accuracy_by_stage([("teacher", teacher), ("student", student)], x, y)
        >>> row = found.stages[1]
        >>> row.stage, row.metric, row.lost_low <= row.lost <= row.lost_high
        ('student', 'accuracy', True)
    """

    stage: str
    output: str
    metric: str
    value: float
    lost: float | None = None
    lost_low: float | None = None
    lost_high: float | None = None

    @property
    def is_certain(self) -> bool:
        """Whether the whole interval lies on one side of 0: the samples suffice to say that the stage loses, or gains."""
        return self.lost_low is not None and self.lost_high is not None and (self.lost_low > 0 or self.lost_high < 0)

    def summary(self) -> dict[str, typing.Any]:
        """Returns the fields of a table."""
        interval = None if self.lost_low is None else f"{self.lost_low:+.4f} to {self.lost_high:+.4f}"
        names = ("stage", "output", "metric", "value", "lost")
        return {name: getattr(self, name) for name in names} | {"interval": interval, "certain": "yes" if self.is_certain else ""}


@dataclasses.dataclass(frozen=True)
class StageAccuracies(Record):
    """The result of `accuracy_by_stage`.

    Attributes:
        samples: Number of samples.
        stages: `StageAccuracy` of each stage and output with labels, in order. What they lose adds up to `total`.
        total: What the last stage loses against the first, for each output with labels.

    Example:
        >>> stages = [("teacher", teacher), ("student", student), ("int8", "student.tflite")]
        >>> found = tfdistill.tflite.accuracy_by_stage(stages, x, y)
        >>> [row.stage for row in found.stages], found.total[0].stage
        (['teacher', 'student', 'int8'], 'teacher to int8')
        >>> round(sum(row.lost or 0 for row in found.stages) - found.total[0].lost, 9) == 0
        True
    """

    samples: int
    stages: tuple[StageAccuracy, ...]
    total: tuple[StageAccuracy, ...]

    @property
    def worst(self) -> StageAccuracy:
        """The stage that loses most."""
        return max((row for row in self.stages if row.lost is not None), key=lambda row: row.lost or 0.0)


@explains_arguments(models="give pairs of a name and a model as stages=", data="give the samples as x=", labels="give the labels as y=")
def accuracy_by_stage(
    stages: Sequence[tuple[str, keras.Model | PathLike]],
    x: Data,
    y: Tensors | None = None,
    task: str | None = None,
    threads: int = 1,
) -> StageAccuracies:
    """Splits the loss of accuracy from a first model to a last one over the stages between them, each with the interval of what it loses.

    All stages run on the same samples, and each is compared with the one before it sample by sample. So the interval of a small loss is narrow, where those of two
    accuracies would overlap. With one decision for each sample it is exact (McNemar 1947, Clopper and Pearson 1934), as in `verify`.

    Args:
        stages: Pairs of a name and a model, two or more: Keras models, what else `export_tflite` takes, and paths of .tflite files. For example the teacher, the
            student, the pruned student, the quantized one, and its file.
        x: Samples in the structure of the first model, in any form that `export_tflite` takes for calibration; a tuple (inputs, labels) brings its labels along.
        y: Labels, as `verify` takes them.
        task: Task of the outputs, as `verify` takes it.
        threads: CPU threads of files, at least 1.

    Returns:
        `StageAccuracies`; `print` shows them as a table.

    Raises:
        ConfigurationError: if there are fewer than two stages, or two of one name.
        DataError: if there are no labels, or samples or labels do not fit.
        ModelError: if inputs or outputs of two stages do not belong together.
        ExportError, RuntimeUnavailableError: if a file is damaged or does not run.

    Example:
        >>> stages = [("float", student), ("int8", "student.tflite")]
        >>> found = tfdistill.tflite.accuracy_by_stage(stages, (x, y))
        >>> found.worst.stage, found.samples
        ('int8', 64)
    """
    names = _checked(stages)
    runners = [Runner(model, threads) for _, model in stages]
    samples = collect(x, runners[0].signature, "comparison")
    labels = samples.labels if y is None else keras.tree.map_structure(np.asarray, y)
    if labels is None:
        raise DataError("accuracy_by_stage got no labels.", "samples with their labels", "give them as y=labels, or the data as (x, y)")
    batch = max(runner.batch for runner in runners)
    shapes = [{i.name: i.shape for i in runner.signature.inputs} for runner in runners]
    results = []
    for runner, own in zip(runners, shapes, strict=True):
        inputs = paired_names((runners[0], runner), "inputs", (shapes[0], own))
        results.append(runner.run({inputs[name]: array for name, array in samples.inputs.items()}, batch))
    by_name = by_output("labels", labels, list(results[0]))
    given = tasks_by_output(task, list(results[0]))
    rows, total = [], []
    for output, truth in by_name.items():
        columns = [_column(runners, results, output, place) for place in range(len(stages))]
        hints = columns[0].loss, columns[0].last_activation
        kind = given.get(output) or tasks.infer_task(columns[0].scores.shape, truth, *hints) or "regression"
        judged = [_judged(column, truth, output, kind) for column in columns]
        rows += [_row(name, output, kind, judged[max(i - 1, 0)], judged[i], i > 0) for i, name in enumerate(names)]
        total.append(_row(f"{names[0]} to {names[-1]}", output, kind, judged[0], judged[-1], True))
    order = {name: place for place, name in enumerate(names)}
    return StageAccuracies(samples.count, tuple(sorted(rows, key=lambda row: order[row.stage])), tuple(total))


class _Column(typing.NamedTuple):
    """One output of one stage: its scores, and how it was trained."""

    scores: np.ndarray
    loss: typing.Any
    last_activation: str | None


def _checked(stages):
    names = [name for name, _ in stages] if all(isinstance(s, (tuple, list)) and len(s) == 2 for s in stages) else []
    if len(names) < 2 or len(set(names)) < len(names):
        raise ConfigurationError(
            f"stages has the names {names}." if names else "stages holds no pairs of a name and a model.",
            "at least two pairs of a name and a model, of different names",
            "write accuracy_by_stage([('float', model), ('int8', 'model.tflite')], x, y)",
        )
    return names


def _column(runners, results, output, place):
    shapes = [{name: array.shape for name, array in found.items()} for found in (results[0], results[place])]
    own = paired_names((runners[0], runners[place]), "outputs", shapes)[output]
    hints = runners[place].hints(list(results[place])).get(own) or {}
    return _Column(results[place][own], hints.get("loss"), hints.get("last_activation"))


def _judged(column, labels, name, task):
    """Returns (samples, ...): whether each decision is right; for numbers, the absolute error of each."""
    scores = column.scores.astype(np.float64)
    true = tasks.targets(task, labels, scores.shape, name)
    if task == "regression":
        return np.abs(true - scores)
    return true == tasks.predictions(task, scores, decision_threshold(scores, column.loss, column.last_activation))


def _row(stage, output, task, before, after, compared):
    numbers = task == "regression"
    metric = "binary_accuracy" if tasks.METRICS[task] == "binary_accuracy" else "mean_absolute_error" if numbers else "accuracy"
    value = float(after.mean())
    if not compared:
        return StageAccuracy(stage, output, metric, value)
    rise = (after - before).reshape(len(after), -1).mean(1) if numbers else None
    low, high = mean_interval(rise) if numbers else accuracy_drop_interval(before, after)
    lost = value - float(before.mean()) if numbers else float(before.mean()) - value
    return StageAccuracy(stage, output, metric, value, lost, float(low), float(high))
