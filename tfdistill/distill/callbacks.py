"""Callbacks for distillation."""

import keras

from tfdistill.distill.distiller import Distiller
from tfdistill.distill.evaluation import CompiledCopy
from tfdistill.errors import ConfigurationError, DataError, nearest

DIRECTIONS = ("auto", "max", "min")
_LOWER_IS_BETTER = ("loss", "error", "mse", "mae", "rmse", "mape", "msle", "divergence", "crossentropy", "perplexity")
_HIGHER_IS_BETTER = ("acc", "auc", "precision", "recall", "f1", "fbeta", "iou", "dice", "r2", "similarity", "agreement")


# The names under which a Distiller logs losses that a teacher can be compared by.
_LOSSES = ("loss", "student_loss", "total_loss")


class OnLabels(CompiledCopy):
    """A model whose loss is that on the labels, as a Distiller's `student_loss` is: without the model's own penalties."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return self._compile_loss(y, y_pred, sample_weight)


class StopAtTarget(keras.callbacks.Callback):
    """Stops training when the student keeps a given share of the teacher's metric.

    Where higher is better, the student's value must be at least `share * teacher's`; where lower is better, at most `teacher's / share`. The weights stay
    as they are at that moment: nothing is restored. After each epoch the logs (and the history) hold `teacher_<metric>`, the value that is compared with, and
    `kept_<metric>`, the share that the student keeps (above 1 where it is better than the teacher).

    Args:
        share: Share of the teacher's metric to keep, in (0, 1].
        metric: Name of the student's metric in the logs, for example "val_accuracy" or "val_loss". While a `Distiller` trains, "loss" and "total_loss" stand for
            "student_loss", the student's loss on the labels: a teacher has no other, and the student's whole loss holds distillation losses and penalties, too.
        teacher_value: The teacher's value of that metric, if it is known. Positive (or 0 where lower is better). For a loss, that on the labels alone.
        validation_data: Data on which the teacher is evaluated, once, when training begins: (x, y), (x, y, sample_weight), a `tf.data.Dataset` or a `PyDataset`. It
            should be what `fit` gets as such. Give either this or `teacher_value`. Only for a `Distiller` with a teacher that is a model.
        teacher_metric: Keras metric, or its name, to evaluate the teacher with. Defaults to `metric` without "val_"; for a loss to the loss on the labels that the
            model is compiled with, without the teacher's penalties.
        direction: "max" where higher is better, "min" where lower is, or "auto": by the metric's name.
        batch_size: Batch size of that evaluation.

    Example:

    ```python
    stop = StopAtTarget(0.98, "val_accuracy", validation_data=(x_val, y_val))
    distiller.fit(x, y, validation_data=(x_val, y_val), epochs=100, callbacks=[stop])
    ```

    Raises:
        ConfigurationError: if a setting is out of range, or the direction cannot be told from the metric's name; while training, if the logs hold no such metric
            (with the nearest names), or a loss is compared and the student has none on the labels (`student_loss_weight=0`).
        DataError: if the teacher's value is such that no share of it can be kept.
    """

    def __init__(
        self, share, metric="val_accuracy", teacher_value=None, validation_data=None, teacher_metric=None, direction="auto", batch_size=None
    ):
        super().__init__()
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0.0 < share <= 1.0:
            raise ConfigurationError(f"share is {share!r}.", "a number above 0 and at most 1")
        if (teacher_value is None) == (validation_data is None):
            given = "neither" if teacher_value is None else "both"
            raise ConfigurationError(f"StopAtTarget was given {given} of teacher_value and validation_data.", "one of them")
        if direction not in DIRECTIONS:
            raise ConfigurationError(f"direction is {direction!r}.", f"one of {DIRECTIONS}")
        if teacher_metric is not None and validation_data is None:
            raise ConfigurationError(
                "teacher_metric is given, but the teacher's value is known.", "teacher_metric with validation_data only"
            )
        self.share, self.metric = float(share), metric
        self.direction = _direction(metric) if direction == "auto" else direction
        self.validation_data, self.teacher_metric, self.batch_size = validation_data, teacher_metric, batch_size
        self.teacher_value = None if teacher_value is None else self._usable(float(teacher_value))
        self.stopped_epoch = None

    @property
    def target(self):
        """The value at which training stops; None until the teacher's is known."""
        if self.teacher_value is None:
            return None
        return self.share * self.teacher_value if self.direction == "max" else self.teacher_value / self.share

    def on_train_begin(self, logs=None):
        self.stopped_epoch = None
        self._compared = self._of_the_student()
        if self.teacher_value is None:
            self.teacher_value = self._usable(self._ask_teacher())

    def on_epoch_end(self, epoch, logs=None):
        if logs is None or self._compared not in logs:
            raise ConfigurationError(
                f"The logs hold no '{self._compared}'.",
                "a metric of the student",
                f"give validation_data to fit, and the metric to compile. {nearest(self._compared, logs or {})}",
            )
        value = float(logs[self._compared])
        name = self.metric.removeprefix("val_")
        logs[f"teacher_{name}"] = self.teacher_value
        logs[f"kept_{name}"] = self._kept(value)
        if value >= self.target if self.direction == "max" else value <= self.target:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def _of_the_student(self):
        """Name in the logs of what is compared: a Distiller logs the student's loss on the labels under a name of its own."""
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
            "a positive number: a share of anything else says nothing",
            "choose a metric of another scale, or look at the teacher",
        )

    def _ask_teacher(self):
        teacher = getattr(self.model, "teacher", None)
        if not isinstance(teacher, keras.Model):
            raise ConfigurationError(
                f"The model that is trained ({type(self.model).__name__}) has no teacher to evaluate.", fix="give teacher_value"
            )
        name = self.metric.removeprefix("val_")
        of_loss = self.teacher_metric is None and name in _LOSSES
        metric = None if of_loss else self.teacher_metric or name
        # A model of its own: the teacher keeps how it was compiled.
        alone = OnLabels(teacher)
        try:
            alone.compile(optimizer="sgd", loss=self.model.loss, metrics=[] if metric is None else [metric], jit_compile=False)
            data = self.validation_data
            x, y, weight = keras.utils.unpack_x_y_sample_weight(tuple(data)) if isinstance(data, (tuple, list)) else (data, None, None)
            found = alone.evaluate(x, y, sample_weight=weight, batch_size=self.batch_size, verbose=0, return_dict=True)
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
