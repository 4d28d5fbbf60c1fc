"""Callbacks for distillation."""

import typing
from typing import Literal

import keras

from tfdistill.distill.distiller import Distiller
from tfdistill.distill.evaluation import CompiledCopy
from tfdistill.errors import ConfigurationError, DataError, nearest
from tfdistill.graph.training import loss_on_labels
from tfdistill.utils import validate
from tfdistill.utils.types import Data

DIRECTIONS = ("auto", "max", "min")
_LOWER_IS_BETTER = ("loss", "error", "mse", "mae", "rmse", "mape", "msle", "divergence", "crossentropy", "perplexity")
_HIGHER_IS_BETTER = ("acc", "auc", "precision", "recall", "f1", "fbeta", "iou", "dice", "r2", "similarity", "agreement")
# The names under which a Distiller logs losses that a teacher can be compared by.
_LOSSES = ("loss", "student_loss", "total_loss")


class EvaluatedOnLabels(CompiledCopy):
    """A model whose loss is that on the labels, without the model's own penalties, as a Distiller's `student_loss` is."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = loss_on_labels(self, y, y_pred, sample_weight)
        # A Distiller that is trained by its teacher alone may have no loss on labels; metrics are evaluated all the same.
        return keras.ops.zeros(()) if loss is None else loss


class StopAtTarget(keras.callbacks.Callback):
    """Stops training when the student reaches a given share of the teacher's metric.

    Where higher is better, the student's value must be at least `share * teacher's`; where lower is better, at most `teacher's / share`.
    The weights stay as they are at that moment. After each epoch the logs (and the history) hold `teacher_<metric>`, the teacher's value,
    and `kept_<metric>`, the share of it that the student has (above 1 where it is better than the teacher).

    Args:
        share: Share of the teacher's metric to keep, in (0, 1].
        metric: Name of the student's metric in the logs, for example "val_accuracy" or "val_loss". While a `Distiller` trains, "loss" and
            "total_loss" stand for "student_loss", the student's loss on the labels, as the student's whole loss has distillation losses and
            penalties that the teacher's has not.
        teacher_value: The teacher's value of that metric, if it is known. Positive (or 0 where lower is better). For a loss, that on the
            labels alone.
        validation_data: Data on which the teacher is evaluated, once, when training begins: (x, y), (x, y, sample_weight), a
            `tf.data.Dataset` or a `PyDataset`. It should be the `validation_data` of `fit`. Give either this or `teacher_value`. Only for a
            `Distiller` whose teacher is a model.
        teacher_metric: Keras metric, or its name, to evaluate the teacher with. Defaults to `metric` without "val_"; for a loss to the loss
            on the labels that the model is compiled with, without the teacher's penalties.
        direction: "max" where higher is better, "min" where lower is, or "auto": by the metric's name.
        batch_size: Batch size of that evaluation.

    Raises:
        ConfigurationError: if a setting is out of range, or the metric's name does not show the direction; while training, if the logs hold
            no such metric (with the nearest names), or a loss is compared and the student has none on the labels (`student_loss_weight=0`).
        DataError: if the teacher's value is negative, or 0 where higher is better.

    Example:
        >>> distiller = tfdistill.Distiller(teacher, student, tfdistill.losses.SoftTargets(4.0))
        >>> distiller.compile("adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
        >>> stop = tfdistill.StopAtTarget(0.01, "val_accuracy", teacher_value=0.9)
        >>> stop.target
        0.009000000000000001
        >>> history = distiller.fit(x, y, epochs=3, validation_data=(x, y), callbacks=[stop], verbose=0).history
        >>> history["teacher_accuracy"][0]
        0.9
    """

    def __init__(
        self,
        share: float,
        metric: str = "val_accuracy",
        teacher_value: float | None = None,
        validation_data: Data = None,
        teacher_metric: str | keras.metrics.Metric | None = None,
        direction: Literal["auto", "max", "min"] = "auto",
        batch_size: int | None = None,
    ):
        super().__init__()
        validate.share("share", share, zero=False)
        if (teacher_value is None) == (validation_data is None):
            given = "neither" if teacher_value is None else "both"
            raise ConfigurationError(f"StopAtTarget was given {given} of teacher_value and validation_data.", "one of them")
        validate.one_of("direction", direction, DIRECTIONS)
        if teacher_metric is not None and validation_data is None:
            raise ConfigurationError(
                "teacher_metric is given, but the teacher's value is known.", "teacher_metric with validation_data only"
            )
        self.share, self.metric = float(share), metric
        self.direction = _direction(metric) if direction == "auto" else direction
        self.validation_data, self.teacher_metric, self.batch_size = validation_data, teacher_metric, batch_size
        self.teacher_value = None if teacher_value is None else self._usable(float(teacher_value))
        self.stopped_epoch: int | None = None

    @property
    def target(self) -> float | None:
        """The value at which training stops; None until the teacher's is known."""
        if self.teacher_value is None:
            return None
        return self.share * self.teacher_value if self.direction == "max" else self.teacher_value / self.share

    def on_train_begin(self, logs: dict[str, typing.Any] | None = None) -> None:
        """Evaluates the teacher where its value is not known; Keras calls it.

        Args:
            logs: Without effect.
        """
        self.stopped_epoch = None
        self._log_name = self._student_log_name()
        if self.teacher_value is None:
            self.teacher_value = self._usable(self._evaluate_teacher())

    def on_epoch_end(self, epoch: int, logs: dict[str, typing.Any] | None = None) -> None:
        """Compares the student with the target, adds to the logs, and stops training; Keras calls it.

        Args:
            epoch: Number of the epoch.
            logs: Dict of metric name to value.
        """
        if logs is None or self._log_name not in logs:
            raise ConfigurationError(
                f"The logs hold no '{self._log_name}'.",
                "a metric of the student",
                f"give validation_data to fit, and the metric to compile. {nearest(self._log_name, logs or {})}",
            )
        value = float(logs[self._log_name])
        name = self.metric.removeprefix("val_")
        logs[f"teacher_{name}"] = self.teacher_value
        logs[f"kept_{name}"] = self._kept(value)
        target = self.target
        if target is not None and (value >= target if self.direction == "max" else value <= target):
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def _student_log_name(self):
        """Returns the name in the logs of the value to compare: a Distiller logs the loss on the labels as `student_loss`."""
        prefix, name = ("val_", self.metric[4:]) if self.metric.startswith("val_") else ("", self.metric)
        if name not in _LOSSES or not isinstance(self.model, Distiller):
            return self.metric
        if self.model.student_loss_weight == 0:
            raise ConfigurationError(
                f"StopAtTarget compares '{self.metric}', but the student is trained with student_loss_weight=0, so its loss on the labels is not computed.",
                "a metric that the student and the teacher both have",
                'compare a metric such as "val_accuracy"',
            )
        return f"{prefix}student_loss"

    def _kept(self, value):
        over, under = (value, self.teacher_value) if self.direction == "max" else (self.teacher_value, value)
        return over / under if under else float(over >= under)

    def _usable(self, value):
        if value > 0 or (value == 0 and self.direction == "min"):
            return value
        raise DataError(
            f"The teacher's {self.metric} is {value}.",
            "a positive number, as a share of anything else has no meaning",
            "choose a metric of another scale, or look at the teacher",
        )

    def _evaluate_teacher(self):
        teacher = getattr(self.model, "teacher", None)
        if not isinstance(teacher, keras.Model):
            raise ConfigurationError(
                f"The model that is trained ({type(self.model).__name__}) has no teacher to evaluate.",
                fix="give teacher_value instead of validation_data",
            )
        name = self.metric.removeprefix("val_")
        of_loss = self.teacher_metric is None and name in _LOSSES
        metric = None if of_loss else self.teacher_metric or name
        # A copy, so that the teacher stays compiled as it is.
        copy = EvaluatedOnLabels(teacher)
        try:
            copy.compile(optimizer="sgd", loss=self.model.loss, metrics=[] if metric is None else [metric], jit_compile=False)
            data = self.validation_data
            x, y, weight = keras.utils.unpack_x_y_sample_weight(tuple(data)) if isinstance(data, (tuple, list)) else (data, None, None)
            found = copy.evaluate(x, y, sample_weight=weight, batch_size=self.batch_size, verbose=0, return_dict=True)
        except ValueError as error:
            raise ConfigurationError(
                f"The teacher '{teacher.name}' cannot be evaluated for '{self.metric}': {error}",
                "a metric that Keras knows by that name, and data that the teacher takes",
                "give teacher_metric, or teacher_value",
            ) from error
        loss = found.pop("loss", None)
        return float(loss if of_loss else next(iter(found.values())))


def _direction(metric):
    name = metric.removeprefix("val_").lower()
    for direction, words in (("min", _LOWER_IS_BETTER), ("max", _HIGHER_IS_BETTER)):
        if any(word in name for word in words):
            return direction
    raise ConfigurationError(
        f"Whether higher or lower is better cannot be told from the name '{metric}'.", 'direction="max" or direction="min"'
    )
