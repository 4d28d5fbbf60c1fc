"""Metrics of a Distiller that need the teacher's outputs: its own scores, the student's agreement with it, and both calibrations."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import Literal

import keras
from keras import ops

from tfdistill import tasks
from tfdistill.distill.metrics.calibration import CalibrationError, class_indices, probabilities, spread
from tfdistill.errors import ConfigurationError, ModelError, nearest
from tfdistill.losses import spaces
from tfdistill.saveable import checks_config
from tfdistill.utils.types import Config, Tensor, Tensors

OUTPUTS = (*spaces.SPACES, "numbers")
# Tasks whose outputs do not hold one probability for each of several classes.
WITHOUT_CLASSES = ("multilabel", "regression")
OutputSpace = Literal["logits", "log_probabilities", "probabilities", "numbers"]
Task = Literal["multiclass", "binary", "multilabel", "regression", "segmentation"]


@keras.saving.register_keras_serializable(package="tfdistill")
class TeacherReport(keras.metrics.Metric):
    """Logs the teacher's own scores, how often the student agrees with it, and how well both are calibrated, in `fit` and `evaluate`.

    It is one of the `metrics` of `Distiller.compile`.

    For classes the logs get

    - `teacher_accuracy`: the teacher's accuracy on the labels;
    - `agreement`: share of samples for which student and teacher choose the same class;
    - `student_calibration_error`, `teacher_calibration_error`: see `CalibrationError`;

    and for each metric in `metrics` the teacher's value of it as `teacher_<name>`. Batches without labels count for the agreement only. As
    with Keras's own metrics, a report in `compile(metrics=...)` does not weigh samples, and one in `compile(weighted_metrics=...)` weighs
    them by `sample_weight` and `class_weight`.

    Args:
        metrics: Further Keras metric objects or names, evaluated on the teacher's outputs. Required for "numbers", where nothing else is
            reported.
        outputs: The space of the student's outputs: "logits", "log_probabilities", "probabilities", or "numbers" for regression.
        teacher_outputs: The space of the teacher's outputs; None where it is the student's.
        bins: Number of bins of the calibration error.
        output: Name of the model output to report on; None for the only one.
        task: What the output is for: "multiclass" or "segmentation" (classes that exclude one another), "binary" (one yes-no output), or
            "multilabel" or "regression", which are reported with `outputs="numbers"`. None reads it from the first batch: from the labels,
            the loss and the student's last activation.
        name: Name of the metric.

    Raises:
        ConfigurationError: if a setting is out of range, or `outputs` does not fit the task; at the first batch of `fit`, if the outputs are
            in another space than `outputs`, or the task that was read is not one of classes that exclude one another.

    Example:
        >>> distiller = tfdistill.Distiller(teacher, student, tfdistill.losses.SoftTargets(4.0))
        >>> distiller.compile("adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=[tfdistill.TeacherReport()])
        >>> logs = distiller.evaluate(x, y, verbose=0, return_dict=True)
        >>> sorted(name for name in logs if "loss" not in name)
        ['agreement', 'student_calibration_error', 'teacher_accuracy', 'teacher_calibration_error']
    """

    def __init__(
        self,
        metrics: Sequence[str | keras.metrics.Metric] = (),
        outputs: OutputSpace = "logits",
        teacher_outputs: OutputSpace | None = None,
        bins: int = 15,
        output: str | None = None,
        task: Task | None = None,
        name: str = "teacher_report",
    ):
        super().__init__(name=name)
        teacher_outputs = outputs if teacher_outputs is None else teacher_outputs
        for value in (outputs, teacher_outputs):
            if value not in OUTPUTS:
                raise ConfigurationError(f"TeacherReport: outputs is {value!r}.", f"one of {OUTPUTS}")
        if (outputs == "numbers") != (teacher_outputs == "numbers"):
            raise ConfigurationError(
                f"TeacherReport: outputs is {outputs!r}, teacher_outputs {teacher_outputs!r}.", "numbers on both sides, or on none"
            )
        if not isinstance(metrics, (list, tuple)):
            raise ConfigurationError(f"TeacherReport: metrics is {metrics!r}.", "a list of metrics")
        if task is not None and task not in tasks.TASKS:
            raise ConfigurationError(f"TeacherReport: task is {task!r}.", f"one of {tasks.TASKS}", nearest(str(task), tasks.TASKS))
        if task is not None and outputs != "numbers" and task in WITHOUT_CLASSES:
            raise _unfit(f"task={task!r}", task, outputs, output)
        if task in tasks.CLASS_TASKS and outputs == "numbers":
            raise ConfigurationError(
                f"TeacherReport: task is {task!r}, and outputs 'numbers'.",
                f"one of {spaces.SPACES} for classes that exclude one another",
                f"TeacherReport(task={task!r})",
            )
        if outputs == "numbers" and not metrics:
            raise ConfigurationError(
                "TeacherReport of numbers has nothing to report.", "metrics, for example [keras.metrics.MeanAbsoluteError()]"
            )
        self.outputs, self.teacher_outputs, self.bins, self.output, self.task = outputs, teacher_outputs, bins, output, task
        self.teacher_metrics = [_metric(m) for m in metrics]
        # Set by the Distiller: whether the report is one of the `weighted_metrics`.
        self.weighted = False
        self.accuracy: typing.Any = None
        self.agreement: typing.Any = None
        if outputs != "numbers":
            self.accuracy, self.agreement = keras.metrics.Mean(name="teacher_accuracy"), keras.metrics.Mean(name="agreement")
            self.calibration = {
                "student": CalibrationError(outputs, bins, name="student_calibration_error"),
                "teacher": CalibrationError(teacher_outputs, bins, name="teacher_calibration_error"),
            }

    def _parts(self):
        """Returns every metric of the report by its name in the logs."""
        parts = {f"teacher_{metric.name}": metric for metric in self.teacher_metrics}
        if self.agreement is not None:
            parts.update((m.name, m) for m in (self.accuracy, self.agreement, *self.calibration.values()))
        return parts

    def update_teacher_state(self, y: Tensors, teacher_outputs: Tensors, student_outputs: Tensors, sample_weight: Tensors = None) -> None:
        """Adds a batch.

        Args:
            y: Labels, `(batch, ...)` indices or `(batch, ..., classes)`; or None.
            teacher_outputs: `(batch, ..., classes)`, or `(batch, outputs)` of numbers.
            student_outputs: The student's outputs, likewise.
            sample_weight: None or `(batch,)`.

        Each of the first three may be a dict of output name to these.

        Raises:
            ModelError: if there is no output of the report's name, or there are several outputs and the report has no name.
        """
        y, teacher_outputs, student_outputs, sample_weight = (
            _output(value, self.output) for value in (y, teacher_outputs, student_outputs, sample_weight)
        )
        if self.agreement is not None:
            p, q = probabilities(teacher_outputs, self.teacher_outputs), probabilities(student_outputs, self.outputs)
            weight = spread(sample_weight, p)
            chosen = ops.argmax(p, axis=-1)
            same = ops.cast(ops.equal(chosen, ops.argmax(q, axis=-1)), "float32")
            self.agreement.update_state(ops.reshape(same, (-1,)), sample_weight=weight)
        if y is None:
            return
        if self.agreement is not None:
            right = ops.cast(ops.equal(chosen, class_indices(y, teacher_outputs)), "float32")
            self.accuracy.update_state(ops.reshape(right, (-1,)), sample_weight=weight)
            self.calibration["teacher"].update_state(y, teacher_outputs, sample_weight)
            self.calibration["student"].update_state(y, student_outputs, sample_weight)
        for metric in self.teacher_metrics:
            metric.update_state(y, teacher_outputs, sample_weight)

    def check_first_batch(
        self,
        y: Tensors,
        teacher_outputs: Tensors,
        student_outputs: Tensors,
        loss: typing.Any = None,
        last_activation: str | None = None,
        teacher_activation: str | None = None,
    ) -> None:
        """Checks that the report fits the outputs and the task.

        Args:
            y: Labels, or None.
            teacher_outputs: As in `update_teacher_state`.
            student_outputs: As in `update_teacher_state`.
            loss: The student's loss on this output, or None.
            last_activation: Name of the activation that makes the student's output, such as "softmax"; None where it is unknown.
            teacher_activation: The same of the teacher's output.

        Raises:
            ConfigurationError: if the report is one of classes and the task is not, or a model's outputs are in another space than the one
                given.
        """
        if self.outputs == "numbers":
            return
        y, *sides = (_output(value, self.output) for value in (y, teacher_outputs, student_outputs))
        named = _rest(self.output, self.task)
        shape = tuple(sides[1].shape)
        labels = None if y is None else ops.convert_to_numpy(y)
        task = self.task or tasks.infer_task(shape, labels, loss, last_activation)
        if task is not None:
            tasks.check_task(task, shape, self.output or "output")
            if task in WITHOUT_CLASSES:
                signs = f"the loss is {tasks.loss_name(loss)}, the last activation {last_activation}, the outputs have the shape {shape}"
                raise _unfit(f"the task is {task}: {signs}", task, self.teacher_outputs, self.output)
        for side, values, given in zip(("teacher", "student"), sides, (self.teacher_outputs, self.outputs), strict=True):
            values = ops.convert_to_numpy(values)
            if values.ndim < 2 or values.shape[-1] < 2:
                continue
            if given == "logits" and {"teacher": teacher_activation, "student": last_activation}[side] == "linear":
                continue  # logits, whatever those of one batch look like
            found = spaces.class_space(values)
            # Log-probabilities are logits as well.
            if found != given and not (given == "logits" and found == "log_probabilities"):
                fixed = {"teacher": self.teacher_outputs, "student": self.outputs, side: found}
                raise ConfigurationError(
                    f"The TeacherReport takes the {side}'s outputs for {given.replace('_', '-')}, but in the first batch they are {found.replace('_', '-')}: calibration "
                    "errors would be wrong.",
                    "the space of each side's outputs",
                    f"TeacherReport(outputs={fixed['student']!r}, teacher_outputs={fixed['teacher']!r}{named})",
                )

    def update_state(self, *args: typing.Any, **kwargs: typing.Any) -> None:
        """Fails, as labels and predictions alone have no teacher's outputs.

        Args:
            *args: Without effect.
            **kwargs: Without effect.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(
            "A TeacherReport needs the teacher's outputs.", "tfdistill.Distiller.compile(metrics=[TeacherReport(), ...])"
        )

    def result(self) -> dict[str, Tensor]:
        """Returns a dict of name to value."""
        return {name: metric.result() for name, metric in self._parts().items()}

    def reset_state(self) -> None:
        """Sets all metrics of the report to their initial state."""
        for metric in self._parts().values():
            metric.reset_state()

    @property
    def variables(self) -> list:
        """The variables of all metrics of the report."""
        return [v for metric in self._parts().values() for v in metric.variables]

    def get_config(self) -> Config:
        """Returns what `from_config` takes."""
        return {
            "metrics": [keras.metrics.serialize(m) for m in self.teacher_metrics],
            "outputs": self.outputs,
            "teacher_outputs": self.teacher_outputs,
            "bins": self.bins,
            "output": self.output,
            "task": self.task,
            "name": self.name,
        }

    @classmethod
    @checks_config
    def from_config(cls, config: Config) -> TeacherReport:
        """Makes the report of what `get_config` returned.

        Args:
            config: The dict.
        """
        return cls(**{**config, "metrics": [keras.metrics.deserialize(m) for m in config["metrics"]]})


def _unfit(signs, task, space, output):
    """Returns the error for a report of classes on an output that is not for classes, with a report that fits."""
    metric = "MeanAbsoluteError()" if task == "regression" else f"BinaryAccuracy(threshold={0.5 if space == 'probabilities' else 0.0})"
    return ConfigurationError(
        f"The TeacherReport scores classes that exclude one another, but {signs}.",
        "metrics that fit the task",
        f"TeacherReport(metrics=[keras.metrics.{metric}], outputs='numbers'{_rest(output, None)})",
    )


def _rest(output, task):
    """Returns the arguments that a corrected report keeps, as text."""
    return "".join(f", {name}={value!r}" for name, value in (("output", output), ("task", task)) if value)


def _output(values, name):
    """Returns the output called `name` from a dict of outputs."""
    if not isinstance(values, dict):
        return values
    if name is None and len(values) == 1:
        return next(iter(values.values()))
    if name not in values:
        what = "names none" if name is None else f"names '{name}'"
        raise ModelError(
            f"The TeacherReport {what}, and there are the outputs {sorted(values)}.",
            fix="give one TeacherReport(output=...) for each output to report on",
        )
    return values[name]


def _metric(metric):
    made = keras.metrics.get(metric)
    if isinstance(made, type):
        made = made()
    if not isinstance(made, keras.metrics.Metric):
        raise ConfigurationError(f"TeacherReport: {metric!r} is no metric with a state.", "a keras.metrics.Metric object")
    return made
