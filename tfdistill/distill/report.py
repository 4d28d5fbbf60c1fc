"""Metrics that need the teacher's answers: how good it is itself, how often the student agrees with it, and whether both know what they know."""

import keras
from keras import ops

from tfdistill.errors import ConfigurationError, ModelError
from tfdistill.losses.reduction import at_least_float32
from tfdistill.saveable import checks_config

OUTPUTS = ("logits", "log_probabilities", "probabilities", "numbers")


@keras.saving.register_keras_serializable(package="tfdistill")
class CalibrationError(keras.metrics.Metric):
    """Expected calibration error: how far confidence and accuracy lie apart.

    Guo et al. 2017, "On calibration of modern neural networks", arXiv 1706.04599. The predictions are sorted by confidence (the largest probability) into
    `bins` bins of equal width, (0, 1/bins], ..., (1 - 1/bins, 1]; the error is the mean over samples of |accuracy of the bin - mean confidence of the bin|.

    Args:
        outputs: The space of the predictions: "logits", "log_probabilities" or "probabilities".
        bins: Number of bins, at least 1. 15 in the paper.
        name: Name of the metric.

    Raises:
        ConfigurationError: if a setting is out of range.
    """

    def __init__(self, outputs="logits", bins=15, name="calibration_error"):
        super().__init__(name=name)
        if outputs not in OUTPUTS[:3]:
            raise ConfigurationError(f"outputs is {outputs!r}.", f"one of {OUTPUTS[:3]}")
        if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1:
            raise ConfigurationError(f"bins is {bins!r}.", "a whole number of at least 1")
        self.outputs, self.bins = outputs, bins
        # Per bin: sum of weights, of confidences, of right answers.
        self.sums = self.add_variable(shape=(3, bins), initializer="zeros", name="sums")

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Adds a batch.

        Args:
            y_true: Class indices `(batch, ...)` or `(batch, ..., 1)`, or one-hot (or soft) labels `(batch, ..., classes)`.
            y_pred: `(batch, ..., classes)`, or `(batch, ..., 1)` for one yes-no answer.
            sample_weight: None or `(batch,)`.
        """
        p = probabilities(y_pred, self.outputs)
        confidence = ops.reshape(ops.max(p, axis=-1), (-1,))
        right = ops.reshape(ops.cast(ops.equal(ops.argmax(p, axis=-1), class_indices(y_true, y_pred)), "float32"), (-1,))
        weight = _spread(sample_weight, p)
        place = ops.clip(ops.cast(ops.ceil(confidence * self.bins), "int32") - 1, 0, self.bins - 1)
        member = ops.one_hot(place, self.bins, dtype="float32")
        rows = ops.stack([weight, weight * confidence, weight * right])
        self.sums.assign_add(ops.matmul(rows, member))

    def result(self):
        weight, confidence, right = ops.unstack(self.sums.value, 3)
        return ops.sum(ops.abs(right - confidence)) / ops.maximum(ops.sum(weight), keras.config.epsilon())

    def get_config(self):
        return {"outputs": self.outputs, "bins": self.bins, "name": self.name}

    @classmethod
    @checks_config
    def from_config(cls, config):
        return cls(**config)


@keras.saving.register_keras_serializable(package="tfdistill")
class TeacherReport(keras.metrics.Metric):
    """What the teacher itself scores, how far the student follows it, and how well both are calibrated, in the logs of `fit` and `evaluate`.

    For classes the logs get

    - `teacher_accuracy`: the teacher's accuracy on the labels;
    - `agreement`: share of samples for which student and teacher choose the same class;
    - `student_calibration_error`, `teacher_calibration_error`: see `CalibrationError`;

    and for each metric in `metrics` the teacher's value of it as `teacher_<name>`. Batches without labels count for the agreement only.

    Args:
        metrics: Further Keras metric objects or names, evaluated on the teacher's outputs. Required for "numbers", where nothing else is reported.
        outputs: The space of the student's outputs: "logits", "log_probabilities", "probabilities", or "numbers" for regression.
        teacher_outputs: The same of the teacher's; None where it is that of the student's.
        bins: Bins of the calibration error.
        output: Name of the model output to report on; None for the only one.
        name: Name of the metric.

    Raises:
        ConfigurationError: if a setting is out of range.
    """

    def __init__(self, metrics=(), outputs="logits", teacher_outputs=None, bins=15, output=None, name="teacher_report"):
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
        if outputs == "numbers" and not metrics:
            raise ConfigurationError(
                "TeacherReport of numbers has nothing to report.", "metrics, for example [keras.metrics.MeanAbsoluteError()]"
            )
        self.outputs, self.teacher_outputs, self.bins, self.output = outputs, teacher_outputs, bins, output
        self.teacher_metrics = [_metric(m) for m in metrics]
        self.accuracy = self.agreement = None
        if outputs != "numbers":
            self.accuracy, self.agreement = keras.metrics.Mean(name="teacher_accuracy"), keras.metrics.Mean(name="agreement")
            self.calibration = {
                "student": CalibrationError(outputs, bins, name="student_calibration_error"),
                "teacher": CalibrationError(teacher_outputs, bins, name="teacher_calibration_error"),
            }

    def _parts(self):
        """Every metric that is kept, by its name in the logs."""
        parts = {f"teacher_{metric.name}": metric for metric in self.teacher_metrics}
        if self.agreement is not None:
            parts.update((m.name, m) for m in (self.accuracy, self.agreement, *self.calibration.values()))
        return parts

    def update_teacher_state(self, y, teacher_outputs, student_outputs, sample_weight=None):
        """Adds a batch.

        Args:
            y: Labels, `(batch, ...)` indices or `(batch, ..., classes)`; or None.
            teacher_outputs: `(batch, ..., classes)`, or `(batch, outputs)` of numbers.
            student_outputs: The same of the student.
            sample_weight: None or `(batch,)`.

        Each of the first three may be a dict of output name to these.

        Raises:
            ModelError: if an output is to be chosen by name and there is none of that name, or there are several and none was named.
        """
        y, teacher_outputs, student_outputs, sample_weight = (
            _output(value, self.output) for value in (y, teacher_outputs, student_outputs, sample_weight)
        )
        if self.agreement is not None:
            theirs, ours = probabilities(teacher_outputs, self.teacher_outputs), probabilities(student_outputs, self.outputs)
            weight = _spread(sample_weight, theirs)
            chosen = ops.argmax(theirs, axis=-1)
            same = ops.cast(ops.equal(chosen, ops.argmax(ours, axis=-1)), "float32")
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

    def update_state(self, *args, **kwargs):
        """Raises: labels and predictions alone say nothing of the teacher.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(
            "A TeacherReport needs the teacher's outputs.", "tfdistill.Distiller.compile(metrics=[TeacherReport(), ...])"
        )

    def result(self):
        """Returns a dict of name to value."""
        return {name: metric.result() for name, metric in self._parts().items()}

    def reset_state(self):
        for metric in self._parts().values():
            metric.reset_state()

    @property
    def variables(self):
        return [v for metric in self._parts().values() for v in metric.variables]

    def get_config(self):
        return {
            "metrics": [keras.metrics.serialize(m) for m in self.teacher_metrics],
            "outputs": self.outputs,
            "teacher_outputs": self.teacher_outputs,
            "bins": self.bins,
            "output": self.output,
            "name": self.name,
        }

    @classmethod
    @checks_config
    def from_config(cls, config):
        return cls(**{**config, "metrics": [keras.metrics.deserialize(m) for m in config["metrics"]]})


def take_reports(metrics):
    """Parts the metrics that are fed with the teacher's outputs from the others.

    Args:
        metrics: List, tuple or dict of metrics, or None, as `compile` takes them.

    Returns:
        List of `TeacherReport`s, and the other metrics.
    """
    if not isinstance(metrics, (list, tuple)):
        return [], metrics
    return [m for m in metrics if isinstance(m, TeacherReport)], [m for m in metrics if not isinstance(m, TeacherReport)]


def _output(values, name):
    """The one output that a report is about."""
    if not isinstance(values, dict):
        return values
    if name is None and len(values) == 1:
        return next(iter(values.values()))
    if name not in values:
        what = "names none" if name is None else f"names '{name}'"
        raise ModelError(
            f"The TeacherReport {what}, and there are the outputs {sorted(values)}.",
            mend="give one TeacherReport(output=...) for each that counts",
        )
    return values[name]


def probabilities(values, space):
    """Probabilities of classes out of a model's outputs; one yes-no answer becomes the two classes "no" and "yes".

    Args:
        values: `(batch, ..., classes)`, or `(batch, ..., 1)`.
        space: "logits", "log_probabilities" or "probabilities".

    Returns:
        `(batch, ..., classes)`, float32 or wider.
    """
    values = at_least_float32(ops.convert_to_tensor(values))
    if len(values.shape) < 2:
        raise ModelError(f"The outputs have the shape {tuple(values.shape)}.", "(batch, classes) or (batch, ..., classes)")
    if values.shape[-1] == 1:
        yes = ops.sigmoid(values) if space == "logits" else ops.exp(values) if space == "log_probabilities" else values
        return ops.concatenate([1.0 - yes, yes], axis=-1)
    return values if space == "probabilities" else ops.softmax(values, axis=-1)


def class_indices(y, outputs):
    """Class indices out of labels, which may be indices (with or without a last axis of 1) or one-hot.

    Args:
        y: Labels.
        outputs: The outputs that they belong to, `(batch, ..., classes)`.

    Returns:
        int32, `(batch, ...)`.
    """
    y = ops.convert_to_tensor(y)
    if len(y.shape) == len(outputs.shape):
        y = ops.squeeze(y, axis=-1) if y.shape[-1] == 1 else ops.argmax(y, axis=-1)
    return ops.cast(y, "int32")


def _spread(sample_weight, p):
    """One weight for each position of each sample, flat."""
    ones = ops.ones(ops.shape(p)[:-1], dtype="float32")
    if sample_weight is not None:
        weight = ops.cast(ops.convert_to_tensor(sample_weight), "float32")
        ones = ones * ops.reshape(weight, (*ops.shape(weight), *(1,) * (len(ones.shape) - len(weight.shape))))
    return ops.reshape(ones, (-1,))


def _metric(metric):
    made = keras.metrics.get(metric)
    if isinstance(made, type):
        made = made()
    if not isinstance(made, keras.metrics.Metric):
        raise ConfigurationError(f"TeacherReport: {metric!r} is no metric with a state.", "a keras.metrics.Metric object")
    return made
