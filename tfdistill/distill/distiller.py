"""`Distiller`: a Keras model that teaches a student from a teacher."""

import functools
import inspect
import threading

import keras
import tensorflow as tf

from tfdistill.distill.cache.position import following_epochs
from tfdistill.distill.distributed import ManyDevices
from tfdistill.distill.metrics.teacher_report import take_reports, with_reports
from tfdistill.distill.metrics.trackers import LastValue, SameAs
from tfdistill.distill.objective import compatibility, first_batch
from tfdistill.distill.objective.batch import inputs_of
from tfdistill.distill.objective.finite import FirstNonFinite, LooksForNonFinite, kept_where
from tfdistill.distill.objective.first_labels import check_labels
from tfdistill.distill.objective.objective import DistillationObjective, ForwardOutputs
from tfdistill.distill.objective.terms import by_name, make_terms
from tfdistill.distill.teachers.black_box import own_errors, refuse_jit, refuse_taps
from tfdistill.distill.teachers.convert import as_teacher
from tfdistill.distill.teachers.freeze import Freeze
from tfdistill.errors import ConfigurationError
from tfdistill.saveable import checks_config


@keras.saving.register_keras_serializable(package="tfdistill")
class Distiller(ManyDevices, LooksForNonFinite, keras.Model):
    """Trains a student on the labels and on what a teacher knows (Hinton et al., 2015, "Distilling the Knowledge in a Neural Network").

    A drop-in for `keras.distillation.Distiller`: the same arguments, `compile`, `fit`, metric names, and Keras's own distillation losses. The loss is

        student_loss_weight * student_loss + (1 - student_loss_weight) * sum(weight * distillation_loss) + the student's own penalties

    where `sample_weight` (and `class_weight`) weigh both of the first two, and the penalties (`kernel_regularizer`, `add_loss`) are those that the
    student has anyway. Student and teacher each run once per step, layers inside them included; evaluation runs both with `training=False`. A batch
    without labels is taught by the teacher alone. A step in which the teacher, the student or the loss is NaN or infinite changes no weights; it is said within
    the epoch, and where the teacher is the cause `fit` ends with a `DataError`.

    Args:
        teacher: A trained `keras.Model`, or anything that `as_teacher` makes one of: a tf_keras model, the path of a .tflite file or SavedModel folder, a
            callable of NumPy arrays, an `Ensemble`. It is frozen while `fit` runs, and has its own `trainable` flags before and after.
        student: The `keras.Model` to train: functional, Sequential, subclassed, or an adopted tf_keras model.
        distillation_losses: A loss of `tfdistill.losses`, a `keras.distillation.DistillationLoss`, a list of them, or for models with several outputs a dict of
            output name to a loss or a list of losses.
        distillation_loss_weights: One weight (a number of at least 0, or a schedule) for each loss, in the same structure. Defaults to 1 for each.
        student_loss_weight: Share of the student's loss on the labels, from 0 to 1.
        name: Name of the model.
        **kwargs: Further arguments of `keras.Model`.

    Raises:
        ModelError: if the models do not fit each other, or a layer that a loss names does not exist. A `ValueError`.
        ConfigurationError: if a weight is out of range, or the numbers of weights and losses differ. A `ValueError`.
    """

    def __init__(
        self,
        teacher,
        student,
        distillation_losses,
        distillation_loss_weights=None,
        student_loss_weight=0.5,
        name="distiller",
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        if (
            isinstance(student_loss_weight, bool)
            or not isinstance(student_loss_weight, (int, float))
            or not 0.0 <= student_loss_weight <= 1.0
        ):
            raise ConfigurationError(f"student_loss_weight is {student_loss_weight!r}.", "a number between 0.0 and 1.0")
        terms, flat_losses, flat_weights = make_terms(distillation_losses, distillation_loss_weights)
        teacher = as_teacher(teacher)
        compatibility.check_models(teacher, student, compare_outputs=any(t.wants_final_outputs and t.output is None for t in terms))
        refuse_taps(teacher, terms)
        for loss in flat_losses:
            loss.validate_model_compatibility(teacher, student)

        self.student = student
        # The teacher is no part of what is trained, counted or regularized, so Keras does not track it as a sublayer; it is saved all the same.
        object.__setattr__(self, "teacher", teacher)
        self.student_loss_weight = student_loss_weight
        self.distillation_losses = flat_losses
        self.distillation_loss_weights = flat_weights
        self._given = (distillation_losses, distillation_loss_weights)
        self._objective = DistillationObjective(teacher, student, terms)
        self.projections = self._objective.projections

        # Keras looks at the student only when it decides on XLA.
        self.supports_jit = all(layer.supports_jit for layer in teacher._flatten_layers())
        self._freeze = Freeze(teacher)
        self._passes = threading.local()
        self.reports = []
        self._looked_at_models = False
        self.student_loss_tracker = keras.metrics.Mean(name="student_loss")
        self.distillation_loss_tracker = keras.metrics.Mean(name="distillation_loss")
        self.total_loss_tracker = SameAs(lambda: self._loss_tracker, name="total_loss")
        self.first_non_finite = FirstNonFinite()
        self.schedule_trackers = {name: LastValue(name=name) for name in self._objective.scheduled(0)}
        # Keras restores what a loaded model is built from only while it says that it is not built.
        self.built = bool(student.built and self._objective.shapes_known)

    # Training

    def compile(self, optimizer="adam", loss=None, metrics=None, **kwargs):
        """Configures training, as `keras.Model.compile` does.

        Args:
            optimizer: Optimizer of the student (and of the projections).
            loss: The student's loss on the labels. May be None only if `student_loss_weight` is 0.
            metrics: Metrics of the student's predictions, and `TeacherReport`s. As in Keras, samples are weighed in `weighted_metrics` alone.
            **kwargs: Further arguments of `keras.Model.compile`: `loss_weights`, `weighted_metrics`, `jit_compile`, ...

        Raises:
            ConfigurationError: if there is no loss, or `jit_compile=True` and the teacher is a black box. A `ValueError`.
        """
        if loss is None and self.student_loss_weight > 0:
            words = ("the student's loss on the labels", "give one, or train with student_loss_weight=0")
            raise ConfigurationError("'loss' cannot be `None`.", *words)
        if not isinstance(metrics, (list, tuple, dict, type(None))):
            raise ConfigurationError(f"metrics must be a list, tuple or dict, got {type(metrics)}.")
        if kwargs.get("jit_compile") is True:
            refuse_jit(self.teacher)
        for report in self.reports:
            self._tracker.untrack(report)
        self.reports, arguments = take_reports({**kwargs, "metrics": metrics})
        super().compile(optimizer=optimizer, loss=loss, **arguments)
        self._looked_at_models = False

    @functools.wraps(keras.Model.fit)
    def fit(self, x=None, y=None, batch_size=None, *args, **kwargs):
        self._assert_compile_called("fit")
        compatibility.check_teacher_built(self.teacher)
        sample_weight = inspect.signature(keras.Model.fit).bind(self, x, y, batch_size, *args, **kwargs).arguments.get("sample_weight")
        x, batch = first_batch.peek(x, y, sample_weight, batch_size, put_back=self._distribute_strategy is None)
        if batch is not None:
            self._look_at(batch)
        with self._freeze, own_errors(self.teacher), following_epochs(self, x, y, batch_size, *args, **kwargs) as (args, kwargs):
            return super().fit(*args, **kwargs)

    @functools.wraps(keras.Model.evaluate)
    def evaluate(self, *args, **kwargs):
        with own_errors(self.teacher):
            return super().evaluate(*args, **kwargs)

    def _look_at(self, batch):
        """Finds what is wrong before any training: with the data every time, with the models once after `compile`."""
        first_batch.check_finite(batch)
        if self._looked_at_models:
            return
        # Variables that are made here belong where the student's are.
        with self.distribute_strategy.scope():
            both = self._objective.check_first_batch(batch[0])
        check_labels(self, batch, both)
        self.built = True
        self._looked_at_models = True

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        # Outside the tape: nothing of the teacher is kept for gradients.
        told = self._ask_teacher(x)
        with tf.GradientTape() as tape:
            y_pred, features = self._objective.ask_student(x, training=True)
            loss = self._loss_of_pass(ForwardOutputs(y_pred, features, *told), x, y, sample_weight, training=True)
            scaled = self.optimizer.scale_loss(loss)
        weights = self.trainable_weights
        gradients = tape.gradient(scaled, weights)
        # An optimizer that scales the loss looks for overflow itself: it skips such a step, and scales less.
        scales = isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer)
        finite = self.first_non_finite.note(told[0], y_pred, loss, [] if scales else gradients)
        self.optimizer.apply_gradients(zip(gradients if scales else kept_where(finite, gradients), weights, strict=True))
        return self._metrics_after(loss, x, y, y_pred, sample_weight)

    def test_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        y_pred, features = self._objective.ask_student(x, training=False)
        loss = self._loss_of_pass(ForwardOutputs(y_pred, features, *self._ask_teacher(x)), x, y, sample_weight, training=False)
        return self._metrics_after(loss, x, y, y_pred, sample_weight)

    def _ask_teacher(self, x):
        """The teacher's outputs and features; nothing where they have no weight in the loss and nobody reports on them."""
        return self._objective.ask_teacher(x, training=False) if self.student_loss_weight < 1.0 or self.reports else (None, None)

    def _loss_of_pass(self, both, x, y, sample_weight, training):
        # Through the public method, so that a subclass which overrides it is heard.
        for report in self.reports:
            weight = sample_weight if report.weighted else None
            report.update_teacher_state(*(by_name(part, self.student) for part in (y, both.teacher_outputs, both.y_pred, weight)))
        self._passes.current = both
        try:
            return self.compute_loss(x=x, y=y, y_pred=both.y_pred, sample_weight=sample_weight, training=training)
        finally:
            self._passes.current = None

    def _metrics_after(self, loss, x, y, y_pred, sample_weight):
        self._loss_tracker.update_state(loss * self._replicas, sample_weight=_batch_size(x))
        return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Computes the whole loss.

        Args:
            x: A batch of inputs.
            y: Its labels, or None.
            y_pred: The student's outputs, if they are there already.
            sample_weight: Weights of the samples, or None.
            training: Whether the student runs in training mode, where it has to run.

        Returns:
            Scalar. Under a distribution strategy this replica's share of it.
        """
        both = getattr(self._passes, "current", None)
        if both is None or both.y_pred is not y_pred:
            own, features = self._objective.ask_student(x, training=training)
            both = ForwardOutputs(own if y_pred is None else y_pred, features, *self._ask_teacher(x))
        weight = self.student_loss_weight
        size = _batch_size(x)
        total = self._penalties() if self.student.losses else 0.0
        if weight > 0.0 and y is not None:
            student_loss = self._compile_loss(y, both.y_pred, sample_weight)
            self.student_loss_tracker.update_state(student_loss * self._replicas, sample_weight=size)
            total += weight * student_loss
        if weight < 1.0:
            distillation_loss = self._distillation_loss(both, y, sample_weight)
            self.distillation_loss_tracker.update_state(distillation_loss, sample_weight=size)
            total += (1.0 - weight) * distillation_loss / self._replicas
        return keras.ops.convert_to_tensor(total, dtype=keras.config.floatx())

    def _distillation_loss(self, both, y, sample_weight):
        step = self._step()
        for name, value in self._objective.scheduled(step).items():
            self.schedule_trackers[name].update_state(value)
        return self._objective.loss(both, y, sample_weight, step)

    def _penalties(self):
        # Keras itself makes each of them this replica's share.
        return sum(self._aggregate_additional_loss(loss) for loss in self.student.losses)

    def _step(self):
        return self.optimizer.iterations if self.compiled and self.optimizer is not None else 0

    @property
    def _replicas(self):
        return self.distribute_strategy.num_replicas_in_sync

    # As a model

    @property
    def _teacher_feature_extractor(self):
        """Under Keras's name: what reads the teacher's final output and features in one pass; `outputs` lists them."""
        return self._objective.ask_teacher

    @property
    def _student_feature_extractor(self):
        return self._objective.ask_student

    def call(self, inputs, training=None, **kwargs):
        """Returns the student's predictions."""
        return self.student(inputs_of(inputs), training=training, **kwargs)

    def get_config(self):
        config = super().get_config()
        losses, weights = self._given
        serialize = keras.saving.serialize_keras_object
        config.update(
            teacher=serialize(self.teacher),
            student=serialize(self.student),
            distillation_losses=serialize(losses if isinstance(losses, dict) else self.distillation_losses),
            distillation_loss_weights=serialize(weights if isinstance(losses, dict) else self.distillation_loss_weights),
            student_loss_weight=self.student_loss_weight,
        )
        return config

    @classmethod
    @checks_config
    def from_config(cls, config):
        revived = ("teacher", "student", "distillation_losses", "distillation_loss_weights")
        return cls(**{k: keras.saving.deserialize_keras_object(v) if k in revived else v for k, v in config.items()})

    def _random_states(self):
        """The states of the student's random layers (dropout, augmentation), which Keras leaves out of its checkpoints."""
        others = {id(v) for v in (*self.student.weights, *self.student.metrics_variables)}
        return [v for v in self.student.variables if id(v) not in others]

    def save_own_variables(self, store):
        for index, state in enumerate(self._random_states()):
            store[f"random_state_{index}"] = state

    def load_own_variables(self, store):
        # A run that is restored draws the numbers that it would have drawn. A file without them holds weights alone, and is good for that.
        for index, state in enumerate(self._random_states()):
            if f"random_state_{index}" in store:
                state.assign(store[f"random_state_{index}"])

    def get_build_config(self):
        return {"projections": self.projections.shapes()}

    def build_from_config(self, config):
        self.projections.restore(self._objective.terms, config.get("projections", {}))

    def get_compile_config(self):
        # An optimizer that has not trained yet has no slots to save, so it must have none when they are loaded.
        config = super().get_compile_config()
        if not config:
            return config
        return {**with_reports(config, self.reports), "optimizer_built": bool(self.optimizer and self.optimizer.built)}

    def compile_from_config(self, config):
        config = keras.saving.deserialize_keras_object(config)
        optimizer_built = config.pop("optimizer_built", False)
        self.compile(**config)
        if optimizer_built:
            # The variables that `fit` trains: without those that the student shares with its teacher.
            with self._freeze:
                self.optimizer.build(self.trainable_variables)


def _batch_size(x):
    return tf.shape(next(leaf for leaf in keras.tree.flatten(x) if leaf is not None))[0]
