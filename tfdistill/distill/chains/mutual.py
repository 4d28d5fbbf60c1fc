"""Mutual learning: several students, all learning, teach one another in one step."""

import time
from collections.abc import Sequence

import keras
import tensorflow as tf

from tfdistill.distill.chains.record import ChainRecord
from tfdistill.distill.chains.runner import ChainRunner, check_students
from tfdistill.distill.chains.settings import ChainSettings
from tfdistill.distill.objective import first_batch
from tfdistill.distill.objective.compatibility import check_models
from tfdistill.distill.objective.objective import DistillationObjective, ForwardOutputs
from tfdistill.distill.objective.taps import Taps
from tfdistill.distill.objective.terms import make_terms
from tfdistill.errors import ConfigurationError
from tfdistill.graph.training import loss_tracker
from tfdistill.losses import masking
from tfdistill.utils.types import Data, Tensors


def mutual(
    students: Sequence[keras.Model], settings: ChainSettings, x: Data, y: Tensors = None, validation_data: Data = None
) -> ChainRecord:
    """Trains several students at once, each on the labels and on the current outputs of the others.

    Zhang et al. 2018, "Deep mutual learning", arXiv 1706.00384: the loss of student i of K is

        student_loss_weight * loss_i + (1 - student_loss_weight) * (mean over j of distillation_ij) + penalties_i

    where distillation_ij is the distillation loss with the other student j as teacher (in the paper each of the two terms has the weight 1). All students run on a batch first and are then updated together, each by its own
    optimizer; the paper updates them in turn, each on outputs of peers that are updated already. No gradient of a student's loss reaches
    its peers.

    Args:
        students: List of at least two `keras.Model`s with names of their own and equal outputs. Each ends compiled with the settings'
            optimizer, loss and metrics.
        settings: `ChainSettings`.
        x: Training inputs, as `fit` takes them.
        y: Labels, or None.
        validation_data: As in `fit`.

    Returns:
        `ChainRecord` with one generation for each student; logs and metrics carry the student's name in front.

    Raises:
        ModelError: if the students do not fit each other.
        ConfigurationError: if two have one name, or the optimizer averages weights (`use_ema`), which Keras does at the end of a student's
            own `fit` only.

    Example:
        >>> settings = tfdistill.distill.ChainSettings(
        ...     tfdistill.losses.SoftTargets(4.0), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
        ... )
        >>> record = tfdistill.mutual([teacher, student], settings, x, y)
        >>> [(generation.name, generation.teachers) for generation in record.generations]
        [('teacher', ('student',)), ('student', ('teacher',))]
        >>> sorted(record.generations[0].metrics)
        ['accuracy', 'loss']
    """
    check_students(students, 2)
    names = [student.name for student in students]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"The students' names are {names}.", "a name of its own for each, as the logs are named by it")
    runner = ChainRunner("mutual", settings, (x, y, validation_data), 1)
    peers = Peers(students, settings)
    began = time.perf_counter()
    peers.compile(**settings.compile)
    x, batch = first_batch.peek(x, y, settings.fit.get("sample_weight"), settings.fit.get("batch_size"))
    if batch is not None:
        peers.check_first_batch(batch)
    with runner:
        history = peers.fit(x, y, validation_data=validation_data, **settings.fit_arguments(runner.advance, x))
    metrics = runner.evaluate(peers)
    seconds = time.perf_counter() - began
    for student in students:
        own = {key[len(student.name) + 1 :]: value for key, value in metrics.items() if key.startswith(f"{student.name}_")}
        others = [name for name in names if name != student.name]
        runner.record_generation(student, "peer", others, len(history.epoch), seconds, own)
    return runner.record()


class Peers(keras.Model):
    """Students that train together, see `mutual`.

    Args:
        students: List of `keras.Model`s.
        settings: `ChainSettings`.
    """

    def __init__(self, students, settings):
        super().__init__(name="peers")
        self.students = list(students)
        self.share = settings.student_loss_weight
        self._settings = settings
        self._objectives, taps = {}, {student.name: [] for student in students}
        for i, student in enumerate(students):
            for j, teacher in enumerate(students):
                if i != j:
                    terms = make_terms(settings.losses, settings.weights)[0]
                    check_models(teacher, student, compare_outputs=any(t.compares_final_outputs and t.output is None for t in terms))
                    self._objectives[i, j] = DistillationObjective(teacher, student, terms)
                    taps[student.name] += [t.student_tap for t in terms if t.student_tap]
                    taps[teacher.name] += [t.teacher_tap for t in terms if t.teacher_tap]
        self._taps = [Taps(student, dict.fromkeys(taps[student.name]), "student") for student in students]
        # An attribute of its own, so that Keras tracks the weights of projections.
        self.projections = [objective.projections for objective in self._objectives.values()]

    def compile(self, **kwargs):
        """Compiles each student with an optimizer of its own; `kwargs` go to all and to this model."""
        for student in self.students:
            arguments = self._settings.compile_arguments()
            if getattr(arguments["optimizer"], "use_ema", False):
                raise ConfigurationError("The optimizer averages weights (use_ema=True).", "an optimizer without it for mutual learning")
            student.compile(**arguments)
        # Keras's callbacks, such as schedules of the learning rate, read one optimizer: it is the first student's.
        super().compile(optimizer=self.students[0].optimizer, **kwargs)

    def check_first_batch(self, batch):
        """Runs all students on a first batch, checks what they compare, and makes all variables.

        Args:
            batch: (x, y, sample_weight).

        Raises:
            DataError: if the batch holds NaN.
            ModelError: if outputs or features cannot be compared.
        """
        first_batch.check_finite(batch)
        x, y, sample_weight = batch
        for objective in self._objectives.values():
            objective.check_first_batch(x)
        outputs = [run(x, training=False)[0] for run in self._taps]
        for index, (student, y_pred) in enumerate(zip(self.students, outputs, strict=True)):
            if y is not None:
                student.compute_loss(x, y, y_pred, sample_weight, training=False)
                student.compute_metrics(x, y, y_pred, sample_weight)
            student.reset_metrics()
            if not student.optimizer.built:
                student.optimizer.build(self._weights_of(index))
        self.built = True

    def _weights_of(self, index):
        own = [w for (i, _), objective in self._objectives.items() if i == index for w in objective.projections.trainable_weights]
        return [*self.students[index].trainable_weights, *own]

    def _students_losses(self, x, y, sample_weight, outputs, training):
        """The loss of each student."""
        losses = []
        for i, student in enumerate(self.students):
            y_pred, features = outputs[i]
            loss = sum(student.losses) if student.losses else 0.0
            if self.share > 0 and y is not None:
                # Includes the student's penalties, which are not scaled.
                with_labels = student.compute_loss(x, y, y_pred, sample_weight, training=training)
                loss += self.share * (with_labels - loss)
            if self.share < 1:
                distillation = 0.0
                for j in range(len(self.students)):
                    if j != i:
                        teacher_outputs = keras.tree.map_structure(_without_gradient, outputs[j])
                        step = student.optimizer.iterations
                        distillation += self._objectives[i, j].loss(
                            ForwardOutputs(y_pred, features, *teacher_outputs), y, sample_weight, step
                        )
                loss += (1 - self.share) * distillation / (len(self.students) - 1)
            losses.append(loss)
        return losses

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            outputs = [run(x, training=True) for run in self._taps]
            losses = self._students_losses(x, y, sample_weight, outputs, training=True)
            # Each weight has a gradient in its own student's loss only, so one backward pass gives all gradients.
            total = sum(s.optimizer.scale_loss(loss) for s, loss in zip(self.students, losses, strict=True))
        groups = [self._weights_of(i) for i in range(len(self.students))]
        for student, weights, gradients in zip(self.students, groups, tape.gradient(total, groups), strict=True):
            student.optimizer.apply_gradients(zip(gradients, weights, strict=True))
        return self._logs_after(x, y, sample_weight, outputs, losses)

    def test_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        outputs = [run(x, training=False) for run in self._taps]
        return self._logs_after(x, y, sample_weight, outputs, self._students_losses(x, y, sample_weight, outputs, training=False))

    def _logs_after(self, x, y, sample_weight, outputs, losses):
        size = tf.shape(keras.tree.flatten(x)[0])[0]
        for student, (y_pred, _), loss in zip(self.students, outputs, losses, strict=True):
            loss_tracker(student).update_state(loss, sample_weight=size)
            student.compute_metrics(x, y, y_pred, sample_weight)
        return self.get_metrics_result()

    def get_metrics_result(self):
        """The logs of all students, each under its name, and the sum of their losses."""
        logs = {s.name: s.get_metrics_result() for s in self.students}
        return {
            "loss": sum(own["loss"] for own in logs.values()),
            **{f"{name}_{k}": v for name, own in logs.items() for k, v in own.items()},
        }

    @property
    def metrics(self):
        return [metric for student in self.students for metric in student.metrics]

    def call(self, inputs, training=None):
        """Returns the list of the students' outputs."""
        return [student(inputs, training=training) for student in self.students]


def _without_gradient(x):
    """Stops the gradient through a peer's output, and keeps its mask."""
    return masking.with_mask(tf.stop_gradient(x), masking.mask_of(x))
