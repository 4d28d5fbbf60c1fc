"""Mutual learning: several students, all learning, teach one another in one step."""

import time

import keras
import tensorflow as tf

from tfdistill.distill.chains.runner import ChainRunner, check_students
from tfdistill.distill.objective import first_batch
from tfdistill.distill.objective.compatibility import check_models
from tfdistill.distill.objective.objective import DistillationObjective, ForwardOutputs
from tfdistill.distill.objective.taps import Taps
from tfdistill.distill.objective.terms import make_terms
from tfdistill.errors import ConfigurationError
from tfdistill.losses import masking


def mutual(students, settings, x, y=None, validation_data=None):
    """Trains several students at once, each on the labels and on what the others say at that moment.

    Zhang et al. 2018, "Deep mutual learning", arXiv 1706.00384: the loss of student i of K is

        student_loss_weight * loss_i + (1 - student_loss_weight) * mean over the others j of their distillation loss (j teaches i) + its penalties

    (in the paper both terms weigh 1). All students answer a batch first and are then updated together, each by its own optimizer; the paper updates them
    in turn, each against what those before it answer after their update. Nothing of a student's loss reaches the peers that taught it.

    Args:
        students: List of at least two `keras.Model`s with names of their own and equal outputs. Each ends compiled with the settings' optimizer, loss and metrics.
        settings: `ChainSettings`.
        x: Training inputs, as `fit` takes them.
        y: Labels, or None.
        validation_data: As in `fit`.

    Returns:
        `ChainRecord` with one generation for each student; logs and metrics carry the student's name in front.

    Raises:
        ModelError: if the students do not fit each other.
        ConfigurationError: if two have one name, or the optimizer averages weights (`use_ema`), which Keras does at the end of a student's own `fit` only.
    """
    check_students(students, 2)
    names = [student.name for student in students]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"The students' names are {names}.", "a name of its own for each, as the logs are told apart by it")
    trainings = ChainRunner("mutual", settings, (x, y, validation_data), 1)
    peers = Peers(students, settings)
    began = time.perf_counter()
    peers.compile(**settings.compile)
    x, batch = first_batch.peek(x, y, settings.fit.get("sample_weight"), settings.fit.get("batch_size"))
    if batch is not None:
        peers.check_first_batch(batch)
    with trainings:
        history = peers.fit(x, y, validation_data=validation_data, **settings.fit_arguments(trainings.advance, x))
    metrics = trainings.evaluate(peers)
    seconds = time.perf_counter() - began
    for student in students:
        own = {key[len(student.name) + 1 :]: value for key, value in metrics.items() if key.startswith(f"{student.name}_")}
        others = [name for name in names if name != student.name]
        trainings.note(student, "peer", others, len(history.epoch), seconds, own)
    return trainings.record()


class Peers(keras.Model):
    """Students that train together; `mutual` says how.

    Args:
        students: List of `keras.Model`s.
        settings: `ChainSettings`.
    """

    def __init__(self, students, settings):
        super().__init__(name="peers")
        self.students = list(students)
        self.share = settings.student_loss_weight
        self._settings = settings
        self._objective, taps = {}, {student.name: [] for student in students}
        for i, student in enumerate(students):
            for j, teacher in enumerate(students):
                if i != j:
                    terms = make_terms(settings.losses, settings.weights)[0]
                    check_models(teacher, student, compare_outputs=any(t.compares_final_outputs and t.output is None for t in terms))
                    self._objective[i, j] = DistillationObjective(teacher, student, terms)
                    taps[student.name] += [t.student_tap for t in terms if t.student_tap]
                    taps[teacher.name] += [t.teacher_tap for t in terms if t.teacher_tap]
        self._ask = [Taps(student, dict.fromkeys(taps[student.name]), "student") for student in students]
        # Tracked, so that the weights of projections are found.
        self.projections = [lessons.projections for lessons in self._objective.values()]

    def compile(self, **kwargs):
        """Compiles each student with an optimizer of its own; `kwargs` go to all and to this model."""
        for student in self.students:
            arguments = self._settings.compile_arguments()
            if getattr(arguments["optimizer"], "use_ema", False):
                raise ConfigurationError("The optimizer averages weights (use_ema=True).", "an optimizer without it for mutual learning")
            student.compile(**arguments)
        # Keras and its callbacks (schedules of the learning rate) look for one optimizer: it is the first student's.
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
        for lessons in self._objective.values():
            lessons.check_first_batch(x)
        outputs = [ask(x, training=False)[0] for ask in self._ask]
        for index, (student, y_pred) in enumerate(zip(self.students, outputs, strict=True)):
            if y is not None:
                student.compute_loss(x, y, y_pred, sample_weight, training=False)
                student.compute_metrics(x, y, y_pred, sample_weight)
            student.reset_metrics()
            if not student.optimizer.built:
                student.optimizer.build(self._weights_of(index))
        self.built = True

    def _weights_of(self, index):
        own = [w for (i, _), lessons in self._objective.items() if i == index for w in lessons.projections.trainable_weights]
        return [*self.students[index].trainable_weights, *own]

    def _students_losses(self, x, y, sample_weight, passes, training):
        """The loss of each student."""
        losses = []
        for i, student in enumerate(self.students):
            y_pred, features = passes[i]
            loss = sum(student.losses) if student.losses else 0.0
            if self.share > 0 and y is not None:
                # Holds the student's penalties already, which count in full.
                labelled = student.compute_loss(x, y, y_pred, sample_weight, training=training)
                loss += self.share * (labelled - loss)
            if self.share < 1:
                taught = 0.0
                for j in range(len(self.students)):
                    if j != i:
                        told = keras.tree.map_structure(_held, passes[j])
                        step = student.optimizer.iterations
                        taught += self._objective[i, j].loss(ForwardOutputs(y_pred, features, *told), y, sample_weight, step)
                loss += (1 - self.share) * taught / (len(self.students) - 1)
            losses.append(loss)
        return losses

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            passes = [ask(x, training=True) for ask in self._ask]
            losses = self._students_losses(x, y, sample_weight, passes, training=True)
            # A student's weights are in its own loss only, so one backward pass serves all.
            total = sum(s.optimizer.scale_loss(loss) for s, loss in zip(self.students, losses, strict=True))
        groups = [self._weights_of(i) for i in range(len(self.students))]
        for student, weights, gradients in zip(self.students, groups, tape.gradient(total, groups), strict=True):
            student.optimizer.apply_gradients(zip(gradients, weights, strict=True))
        return self._logs_after(x, y, sample_weight, passes, losses)

    def test_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        passes = [ask(x, training=False) for ask in self._ask]
        return self._logs_after(x, y, sample_weight, passes, self._students_losses(x, y, sample_weight, passes, training=False))

    def _logs_after(self, x, y, sample_weight, passes, losses):
        size = tf.shape(keras.tree.flatten(x)[0])[0]
        for student, (y_pred, _), loss in zip(self.students, passes, losses, strict=True):
            student._loss_tracker.update_state(loss, sample_weight=size)
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


def _held(x):
    """A peer's answer without gradient; where it is padded, it stays so."""
    return masking.with_mask(tf.stop_gradient(x), masking.mask_of(x))
