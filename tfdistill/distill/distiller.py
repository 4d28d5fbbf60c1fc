"""`Distiller`: a Keras model that trains a student from a teacher."""

from __future__ import annotations

import threading
import typing
from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf
from keras.distillation import DistillationLoss

from tfdistill.distill import tutorial
from tfdistill.distill.checked_fit import CheckedFit
from tfdistill.distill.distributed import DistributedTraining
from tfdistill.distill.metrics.compiled import take_reports
from tfdistill.distill.metrics.teacher_report import TeacherReport
from tfdistill.distill.metrics.trackers import LastValue, MetricAlias
from tfdistill.distill.objective import compatibility
from tfdistill.distill.objective.batch import inputs_of
from tfdistill.distill.objective.finite import FirstNonFinite, NonFiniteChecks, zeros_unless
from tfdistill.distill.objective.objective import DistillationObjective, ForwardOutputs
from tfdistill.distill.objective.terms import by_name, make_terms
from tfdistill.distill.saving import SavedWithTeacher
from tfdistill.distill.teachers.black_box import refuse_jit, refuse_taps
from tfdistill.distill.teachers.convert import as_teacher
from tfdistill.distill.teachers.freeze import Freeze
from tfdistill.distill.teachers.keras_file import KerasFile
from tfdistill.errors import ConfigurationError
from tfdistill.graph.layers import all_layers
from tfdistill.graph.training import loss_on_labels, loss_tracker
from tfdistill.utils import validate
from tfdistill.utils.types import Tensor, Tensors

# The losses of one output, and their weights.
OneOrMore: typing.TypeAlias = DistillationLoss | Sequence[DistillationLoss]
Weight: typing.TypeAlias = float | keras.optimizers.schedules.LearningRateSchedule
WeightOrMore: typing.TypeAlias = Weight | Sequence[Weight]


@keras.saving.register_keras_serializable(package="tfdistill")
class Distiller(CheckedFit, SavedWithTeacher, DistributedTraining, NonFiniteChecks, keras.Model):
    """Trains a student on labels and on the outputs of a teacher.

    Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531. A drop-in for `keras.distillation.Distiller`: the
    same arguments, `compile`, `fit`, metric names, and Keras's own distillation losses. The loss is

        student_loss_weight * student_loss + (1 - student_loss_weight) * sum(weight * distillation_loss) + the student's own penalties

    where `sample_weight` (and `class_weight`) weigh both of the first two, and the penalties (`kernel_regularizer`, `add_loss`) are those
    that the student has anyway. Student and teacher each run once per step, tapped layers included; evaluation runs both with
    `training=False`. On a batch without labels the student is trained by the teacher alone. A step in which the teacher, the student or the
    loss is NaN or infinite changes no weights; it is reported within the epoch, and where the teacher is the cause `fit` ends with a
    `DataError`.

    Args:
        teacher: A trained `keras.Model`, or anything that `as_teacher` converts to one: the path of a .keras, .h5 or .tflite file or a
            SavedModel folder, a tf_keras model, a callable of NumPy arrays, an `Ensemble`. It is frozen while `fit` runs; afterwards its
            `trainable` flags are as they were. Checkpoints hold a teacher that is given as a model; of one that is given as a path they hold
            the path and the SHA-256.
        student: The `keras.Model` to train: functional, Sequential, subclassed, or an adopted tf_keras model.
        distillation_losses: A loss of `tfdistill.losses`, a `keras.distillation.DistillationLoss`, a list of them, or for models with
            several outputs a dict of output name to a loss or a list of losses. There is no default.
        distillation_loss_weights: One weight (a number of at least 0, or a schedule) for each loss, in the same structure. Defaults to 1
            for each.
        student_loss_weight: Share of the student's loss on the labels, from 0 to 1.
        name: Name of the model.
        **kwargs: Further arguments of `keras.Model`.

    Raises:
        ModelError: if the models do not fit each other, or a layer that a loss names does not exist. A `ValueError`.
        ConfigurationError: if a weight is out of range, or the numbers of weights and losses differ. A `ValueError`.

    Example:
        >>> distiller = tfdistill.Distiller(teacher, student, tfdistill.losses.SoftTargets(4.0), student_loss_weight=0.1)
        >>> distiller.compile("adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> history = distiller.fit(x, y, epochs=2, verbose=0).history
        >>> sorted(history)
        ['distillation_loss', 'loss', 'student_loss', 'total_loss']
        >>> distiller.student.predict(x, verbose=0).shape
        (64, 10)
    """

    # The reports of `compile`. Keras does not track them, as it has no public way to forget them when `compile` is called again.
    reports: Sequence[TeacherReport] = ()

    def __init__(
        self,
        teacher: typing.Any,
        student: keras.Model,
        distillation_losses: OneOrMore | Mapping[str, OneOrMore] | None = None,
        distillation_loss_weights: WeightOrMore | Mapping[str, WeightOrMore] | None = None,
        student_loss_weight: float = 0.5,
        name: str = "distiller",
        **kwargs: typing.Any,
    ):
        tutorial.refuse("Distiller", teacher, student, kwargs, missing=distillation_losses is None)
        super().__init__(name=name, **kwargs)
        validate.share("student_loss_weight", student_loss_weight)
        terms, flat_losses, flat_weights = make_terms(distillation_losses, distillation_loss_weights)
        # Keras saves what dir() lists, which a teacher with a file is not.
        self._teacher_file = KerasFile.of(teacher)
        teacher = as_teacher(self._teacher_file or teacher)
        compatibility.check_models(teacher, student, compare_outputs=any(t.compares_final_outputs and t.output is None for t in terms))
        refuse_taps(teacher, terms)
        for loss in flat_losses:
            loss.validate_model_compatibility(teacher, student)

        self.student = student
        # Keras must not track the teacher as a sublayer, as it is neither trained, counted nor regularized. It is saved like any attribute.
        object.__setattr__(self, "teacher", teacher)
        self.student_loss_weight = student_loss_weight
        self.distillation_losses = flat_losses
        self.distillation_loss_weights = flat_weights
        self._given = (distillation_losses, distillation_loss_weights)
        self._objective = DistillationObjective(teacher, student, terms)
        self.projections = self._objective.projections

        # Keras decides on XLA by its sublayers, of which the teacher is none.
        self.supports_jit = all(layer.supports_jit for layer in all_layers(teacher))
        self._freeze = Freeze(teacher)
        # The outputs of the step that this thread is in; replicas of a MirroredStrategy trace in threads of their own.
        self._step_outputs = threading.local()
        self._models_checked = False
        self.student_loss_tracker = keras.metrics.Mean(name="student_loss")
        self.distillation_loss_tracker = keras.metrics.Mean(name="distillation_loss")
        self.total_loss_tracker = MetricAlias(lambda: loss_tracker(self), name="total_loss")
        self.first_non_finite = FirstNonFinite()
        self.schedule_trackers = {name: LastValue(name=name) for name in self._objective.scheduled(0)}
        # Keras calls `build_from_config` on a loaded model only while `built` is False.
        self.built = bool(student.built and self._objective.shapes_known)

    # Training

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "adam",
        loss: typing.Any = None,
        metrics: Sequence | Mapping | None = None,
        **kwargs: typing.Any,
    ) -> None:
        """Configures training, as `keras.Model.compile` does.

        Args:
            optimizer: Optimizer of the student (and of the projections).
            loss: The student's loss on the labels. May be None only if `student_loss_weight` is 0.
            metrics: Metrics of the student's predictions, and `TeacherReport`s. As in Keras, samples are weighed in `weighted_metrics`
                alone.
            **kwargs: Further arguments of `keras.Model.compile`: `loss_weights`, `weighted_metrics`, `jit_compile`, ...

        Raises:
            ConfigurationError: if there is no loss, or `jit_compile=True` and the teacher is a black box. A `ValueError`.
        """
        tutorial.refuse("compile", self.teacher, self.student, {"optimizer": optimizer, "loss": loss, "metrics": metrics, **kwargs})
        if loss is None and self.student_loss_weight > 0:
            expected = "the student's loss on the labels"
            raise ConfigurationError("'loss' cannot be `None`.", expected, "give one, or train with student_loss_weight=0")
        if not isinstance(metrics, (list, tuple, dict, type(None))):
            raise ConfigurationError(f"metrics must be a list, tuple or dict, got {type(metrics)}.")
        if kwargs.get("jit_compile") is True:
            refuse_jit(self.teacher)
        reports, arguments = take_reports({**kwargs, "metrics": metrics})
        object.__setattr__(self, "reports", reports)
        super().compile(optimizer=optimizer, loss=loss, **arguments)
        self._models_checked = False

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Every metric that is logged: Keras's, the parts of the loss, and the `TeacherReport`s."""
        return [*super().metrics, *self.reports]

    def train_step(self, data: Tensors) -> dict[str, Tensor]:
        """Trains on one batch; Keras calls it.

        Args:
            data: `(x, y, sample_weight)`, or a shorter tuple of these.

        Returns:
            Dict of metric name to value.
        """
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        # Outside the tape: nothing of the teacher is kept for gradients.
        teacher_outputs, teacher_features = self._run_teacher(x)
        with tf.GradientTape() as tape:
            y_pred, features = self._objective.student_taps(x, training=True)
            outputs = ForwardOutputs(y_pred, features, teacher_outputs, teacher_features)
            loss = self._loss_of_outputs(outputs, x, y, sample_weight, training=True)
            scaled = self.optimizer.scale_loss(loss)
        weights = self.trainable_weights
        gradients = tape.gradient(scaled, weights)
        # An optimizer that scales the loss checks for overflow itself: it skips such a step, and scales less.
        scales = isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer)
        finite = self.first_non_finite.record(teacher_outputs, y_pred, loss, [] if scales else gradients)
        self.optimizer.apply_gradients(zip(gradients if scales else zeros_unless(finite, gradients), weights, strict=True))
        return self._metrics_after(loss, x, y, y_pred, sample_weight)

    def test_step(self, data: Tensors) -> dict[str, Tensor]:
        """Evaluates one batch; Keras calls it.

        Args:
            data: `(x, y, sample_weight)`, or a shorter tuple of these.

        Returns:
            Dict of metric name to value.
        """
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        y_pred, features = self._objective.student_taps(x, training=False)
        outputs = ForwardOutputs(y_pred, features, *self._run_teacher(x))
        loss = self._loss_of_outputs(outputs, x, y, sample_weight, training=False)
        return self._metrics_after(loss, x, y, y_pred, sample_weight)

    def _run_teacher(self, x):
        """The teacher's outputs and features; Nones where they have no weight in the loss and no report uses them."""
        return self._objective.teacher_taps(x, training=False) if self.student_loss_weight < 1.0 or self.reports else (None, None)

    def _loss_of_outputs(self, outputs, x, y, sample_weight, training):
        for report in self.reports:
            weight = sample_weight if report.weighted else None
            report.update_teacher_state(*(by_name(part, self.student) for part in (y, outputs.teacher_outputs, outputs.y_pred, weight)))
        # Through the public `compute_loss`, so that a subclass can override it. Its signature is Keras's and has no place for the teacher's
        # outputs and the features.
        self._step_outputs.current = outputs
        try:
            return self.compute_loss(x=x, y=y, y_pred=outputs.y_pred, sample_weight=sample_weight, training=training)
        finally:
            self._step_outputs.current = None

    def _metrics_after(self, loss, x, y, y_pred, sample_weight):
        loss_tracker(self).update_state(loss * self._replicas, sample_weight=_batch_size(x))
        return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    def compute_loss(
        self, x: Tensors = None, y: Tensors = None, y_pred: Tensors = None, sample_weight: Tensors = None, training: bool = True
    ) -> Tensor:
        """Computes the whole loss.

        Args:
            x: A batch of inputs.
            y: Its labels, or None.
            y_pred: The student's outputs, if they are computed already.
            sample_weight: Weights of the samples, or None.
            training: Whether the student runs in training mode, where it has to run.

        Returns:
            Scalar. Under a distribution strategy this replica's share of it.
        """
        outputs = getattr(self._step_outputs, "current", None)
        if outputs is None or outputs.y_pred is not y_pred:
            own, features = self._objective.student_taps(x, training=training)
            outputs = ForwardOutputs(own if y_pred is None else y_pred, features, *self._run_teacher(x))
        weight = self.student_loss_weight
        size = _batch_size(x)
        total = self._penalties() if self.student.losses else 0.0
        if weight > 0.0 and y is not None:
            student_loss = loss_on_labels(self, y, outputs.y_pred, sample_weight)
            self.student_loss_tracker.update_state(student_loss * self._replicas, sample_weight=size)
            total += weight * student_loss
        if weight < 1.0:
            distillation_loss = self._distillation_loss(outputs, y, sample_weight)
            self.distillation_loss_tracker.update_state(distillation_loss, sample_weight=size)
            total += (1.0 - weight) * distillation_loss / self._replicas
        return keras.ops.convert_to_tensor(total, dtype=keras.config.floatx())

    def _distillation_loss(self, outputs, y, sample_weight):
        step = self._step()
        for name, value in self._objective.scheduled(step).items():
            self.schedule_trackers[name].update_state(value)
        return self._objective.loss(outputs, y, sample_weight, step)

    def _penalties(self):
        """The sum of the student's `add_loss` and regularizers: as Keras has it, this replica's share."""
        losses = [
            loss if keras.backend.is_float_dtype(loss.dtype) else keras.ops.cast(loss, keras.config.floatx())
            for loss in self.student.losses
        ]
        return sum(keras.ops.sum(loss) * (1.0 / self._replicas) for loss in losses)

    def _step(self):
        return self.optimizer.iterations if self.compiled and self.optimizer is not None else 0

    @property
    def _replicas(self):
        return self.distribute_strategy.num_replicas_in_sync

    # As a model

    @property
    def _teacher_feature_extractor(self):
        """The teacher with its taps, under the name that Keras's Distiller has for it; its `outputs` lists what is read."""
        return self._objective.teacher_taps

    @property
    def _student_feature_extractor(self):
        return self._objective.student_taps

    def call(self, inputs: Tensors, training: bool | None = None, **kwargs: typing.Any) -> Tensors:
        """Returns the student's outputs.

        Args:
            inputs: A batch of inputs.
            training: Whether the student runs in training mode.
            **kwargs: Further arguments of the student's `call`.
        """
        return self.student(inputs_of(inputs), training=training, **kwargs)


def _batch_size(x):
    return tf.shape(next(leaf for leaf in keras.tree.flatten(x) if leaf is not None))[0]
