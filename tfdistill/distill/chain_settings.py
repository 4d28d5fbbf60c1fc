"""What all chains share: the settings of a training, the record of what came of it, and one training."""

import collections.abc
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfdistill.distill.distiller import Distiller
from tfdistill.distill.terms import make_terms
from tfdistill.errors import ConfigurationError, DataError, ModelError
from tfdistill.progress import progress
from tfdistill.records import Record

# `fit` arguments that the functions of a chain take themselves.
_TAKEN = ("x", "y", "validation_data", "epochs", "self")


@dataclasses.dataclass(frozen=True)
class ChainSettings:
    """How each training of a chain is done: the arguments of `Distiller`, `compile` and `fit` that all of them share.

    Attributes:
        losses: Distillation losses, as `Distiller` takes them.
        weights: Their weights, as `Distiller` takes them.
        student_loss_weight: Share of the loss on the labels, from 0 to 1.
        optimizer: Function without arguments that makes a new optimizer; each training gets its own.
        loss: Loss on the labels; may be None only where `student_loss_weight` is 0.
        metrics: Metrics of each student: names, functions or metric objects (each training gets copies).
        epochs: Number of epochs of each training, at least 1.
        fit: Further arguments of `fit`, such as `batch_size` or `sample_weight`. Callbacks keep a state, so "callbacks" is a function without arguments that
            makes a new list. "verbose" is 0 where it is not given.
        compile: Further arguments of `compile`, such as `jit_compile` or `steps_per_execution`.

    Raises:
        ConfigurationError: if settings contradict each other or are out of range.
    """

    losses: Any
    weights: Any = None
    student_loss_weight: float = 0.5
    optimizer: Callable[[], Any] = keras.optimizers.Adam
    loss: Any = None
    metrics: tuple = ()
    epochs: int = 1
    fit: dict = dataclasses.field(default_factory=dict)
    compile: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        make_terms(self.losses, self.weights)
        weight = self.student_loss_weight
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight <= 1:
            raise ConfigurationError(f"student_loss_weight is {weight!r}.", "a number between 0.0 and 1.0")
        if self.loss is None and weight > 0:
            raise ConfigurationError(
                f"loss is None, but student_loss_weight is {weight}.", "the loss on the labels, or student_loss_weight=0"
            )
        if not callable(self.optimizer) or isinstance(self.optimizer, keras.optimizers.Optimizer):
            raise ConfigurationError(
                f"optimizer is {self.optimizer!r}.",
                "a function that makes a new optimizer for each training",
                "for example optimizer=lambda: keras.optimizers.Adam(1e-3)",
            )
        if isinstance(self.epochs, bool) or not isinstance(self.epochs, int) or self.epochs < 1:
            raise ConfigurationError(f"epochs is {self.epochs!r}.", "a whole number of at least 1")
        if not isinstance(self.metrics, (list, tuple)):
            raise ConfigurationError(f"metrics is {self.metrics!r}.", "a list of metrics")
        taken = sorted(set(self.fit) & set(_TAKEN))
        if taken:
            raise ConfigurationError(
                f"fit has {taken}.", f"none of {list(_TAKEN[:-1])}", "give data to the chain's function, and epochs by the setting"
            )
        if "callbacks" in self.fit and not callable(self.fit["callbacks"]):
            raise ConfigurationError(
                "fit has callbacks that keep their state from one training to the next.", "a function that makes a new list"
            )
        taken = sorted(set(self.compile) & {"optimizer", "loss", "metrics"})
        if taken:
            raise ConfigurationError(f"compile has {taken}.", "further arguments only", "give them by the settings of these names")
        object.__setattr__(self, "metrics", tuple(self.metrics))
        object.__setattr__(self, "fit", dict(self.fit))
        object.__setattr__(self, "compile", dict(self.compile))

    def compile_arguments(self):
        """Arguments of one `compile`: a new optimizer, and metrics without a history."""
        metrics = [type(m).from_config(m.get_config()) if isinstance(m, keras.metrics.Metric) else m for m in self.metrics]
        return {**self.compile, "optimizer": self.optimizer(), "loss": self.loss, "metrics": metrics}

    def fit_arguments(self, advance, x):
        """Arguments of one `fit` on `x` without the data; `advance` is called after each epoch."""
        own = self.fit.get("callbacks", list)()
        ticking = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: advance())
        # Keras shuffles by default, and warns that it cannot where a Dataset does so itself.
        order = {"shuffle": False} if isinstance(x, tf.data.Dataset) else {}
        return {"verbose": 0, **order, **self.fit, "epochs": self.epochs, "callbacks": [*own, ticking]}

    def evaluate_arguments(self):
        """Arguments of `evaluate` without its data."""
        return {"verbose": 0, "return_dict": True, **{k: v for k, v in self.fit.items() if k == "batch_size"}}


@dataclasses.dataclass(frozen=True)
class Generation(Record):
    """One training of a chain.

    Attributes:
        name: Name of the model that was trained.
        teachers: Names of what taught it; empty if it had labels alone.
        role: "assistant", "student", "block", "generation", "peer" or "average".
        parameters: Number of the trained model's weights.
        epochs: Number of epochs that it was trained.
        seconds: Time of training and evaluation.
        metrics: What `evaluate` says after the training, on the validation data, or without such on the training data.
    """

    name: str
    teachers: tuple[str, ...]
    role: str
    parameters: int
    epochs: int
    seconds: float
    metrics: dict[str, float]


@dataclasses.dataclass(frozen=True)
class ChainRecord(Record):
    """What came of a chain.

    Attributes:
        kind: "assistants", "blockwise", "born_again", "mutual" or "many_to_one".
        evaluated_on: "validation data" or "training data".
        generations: One for each training, in order.
        seconds: Time of the whole chain.
        notes: What a reader of the numbers should know.
    """

    kind: str
    evaluated_on: str
    generations: tuple[Generation, ...]
    seconds: float
    notes: tuple[str, ...] = ()


class Trainings:
    """Runs the trainings of one chain on the same data, and keeps their records.

    Args:
        kind: The chain's name.
        settings: `ChainSettings`.
        data: (x, y, validation_data), as `fit` takes them.
        count: Number of trainings, for the progress bar.

    Raises:
        DataError: if the data can be read once only.
        ConfigurationError: if the settings are none.
    """

    def __init__(self, kind, settings, data, count):
        if not isinstance(settings, ChainSettings):
            raise ConfigurationError(f"settings is a {type(settings).__name__}.", "ChainSettings")
        self.kind, self.settings, self.notes = kind, settings, []
        self.x, self.y, self.validation = data
        for what, source in (("training", self.x), ("validation", self.validation)):
            if isinstance(source, collections.abc.Iterator):
                raise DataError(
                    f"The {what} data is an iterator, which can be read once; a chain trains several times.",
                    "arrays, a tf.data.Dataset or a PyDataset",
                )
        self.generations, self._began = [], time.perf_counter()
        self._progress = progress(f"Training ({kind.replace('_', ' ')})", total=settings.epochs * count or None)

    def __enter__(self):
        self.advance = self._progress.__enter__()
        return self

    def __exit__(self, *exception):
        return self._progress.__exit__(*exception)

    def distil(self, teacher, student, role, teachers=None, **changes):
        """Trains a student with a new `Distiller` and records it; `changes` replaces settings for this training."""
        settings = dataclasses.replace(self.settings, **changes)
        distiller = Distiller(
            teacher, student, settings.losses, settings.weights, settings.student_loss_weight, name=f"{student.name}_distiller"
        )
        self.train(distiller, student, role, teachers or (teacher.name,), settings)

    def train(self, trainer, model, role, teachers, settings=None):
        """Compiles, fits and evaluates `trainer`, which trains `model`."""
        settings = settings or self.settings
        began = time.perf_counter()
        trainer.compile(**settings.compile_arguments())
        history = trainer.fit(self.x, self.y, validation_data=self.validation, **settings.fit_arguments(self.advance, self.x))
        self.note(model, role, teachers, len(history.epoch), time.perf_counter() - began, self.evaluate(trainer))

    def evaluate(self, trainer):
        """What `evaluate` says of a compiled model on the validation data, or without such on the training data."""
        arguments = self.settings.evaluate_arguments()
        if self.validation is None:
            weights = {k: v for k, v in self.settings.fit.items() if k == "sample_weight"}
            return trainer.evaluate(self.x, self.y, **weights, **arguments)
        if isinstance(self.validation, (tuple, list)):
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(tuple(self.validation))
            return trainer.evaluate(x, y, sample_weight=sample_weight, **arguments)
        return trainer.evaluate(self.validation, **arguments)

    def note(self, model, role, teachers, epochs, seconds, metrics):
        """Adds a `Generation`."""
        metrics = {name: float(value) for name, value in metrics.items()}
        self.generations.append(Generation(model.name, tuple(teachers), role, int(model.count_params()), epochs, seconds, metrics))

    def record(self):
        """The `ChainRecord` of what was done so far."""
        on = "training data" if self.validation is None else "validation data"
        return ChainRecord(self.kind, on, tuple(self.generations), time.perf_counter() - self._began, tuple(self.notes))


class Alone(keras.Model):
    """A model behind a compile state of its own: trained and evaluated on labels, while the caller's model keeps how it was compiled.

    Args:
        model: A `keras.Model`.
    """

    def __init__(self, model, **kwargs):
        super().__init__(**kwargs)
        self.model = model

    def call(self, inputs, training=None):
        return self.model(inputs, training=training)


def check_students(students, at_least, what="students"):
    """Refuses a list of students that is too short or has one model twice."""
    if not isinstance(students, (list, tuple)) or len(students) < at_least:
        raise ConfigurationError(f"{what} is {students!r}.", f"a list of at least {at_least} models")
    for model in students:
        if not isinstance(model, keras.Model):
            raise ModelError(f"One of the {what} is a {type(model).__name__}.", "a keras.Model")
    if len({id(model) for model in students}) < len(students):
        raise ModelError(f"One model stands twice among the {what}: {[m.name for m in students]}.", "a model of its own for each")
