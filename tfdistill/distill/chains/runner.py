"""Runs and records the trainings of a chain."""

import dataclasses
import time

import keras

from tfdistill.distill.chains.record import ChainRecord, Generation
from tfdistill.distill.chains.settings import ChainSettings
from tfdistill.distill.distiller import Distiller
from tfdistill.errors import ConfigurationError, DataError, ModelError
from tfdistill.utils.data import ITERATOR, form_of
from tfdistill.utils.progress import progress


class ChainRunner:
    """Runs the trainings of one chain on the same data, and collects their records.

    Args:
        kind: The chain's name.
        settings: `ChainSettings`.
        data: (x, y, validation_data), as `fit` takes them.
        count: Number of trainings, for the progress bar.
        epochs: Number of epochs of all trainings together; None where each has those of `settings`.

    Raises:
        DataError: if the data is an iterator, which can be read only once.
        ConfigurationError: if `settings` is not a `ChainSettings`.
    """

    def __init__(self, kind, settings, data, count, epochs=None):
        if not isinstance(settings, ChainSettings):
            raise ConfigurationError(f"settings is a {type(settings).__name__}.", "ChainSettings")
        self.kind, self.settings, self.notes = kind, settings, []
        self.x, self.y, self.validation = data
        for role, source in (("training", self.x), ("validation", self.validation)):
            if form_of(source) == ITERATOR:
                raise DataError(
                    f"The {role} data is an iterator, which can be read once; a chain trains several times.",
                    "arrays, a tf.data.Dataset or a PyDataset",
                )
        self.generations, self._began = [], time.perf_counter()
        self._progress = progress(f"Training ({kind.replace('_', ' ')})", total=epochs or settings.epochs * count or None)

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
        self.record_generation(model, role, teachers, len(history.epoch), time.perf_counter() - began, self.evaluate(trainer))

    def evaluate(self, trainer):
        """Evaluates a compiled model on the validation data, or on the training data if there are none; returns a dict."""
        arguments = self.settings.evaluate_arguments()
        if self.validation is None:
            weights = {k: v for k, v in self.settings.fit.items() if k == "sample_weight"}
            return trainer.evaluate(self.x, self.y, steps=self.settings.fit.get("steps_per_epoch"), **weights, **arguments)
        arguments["steps"] = self.settings.fit.get("validation_steps")
        if isinstance(self.validation, (tuple, list)):
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(tuple(self.validation))
            return trainer.evaluate(x, y, sample_weight=sample_weight, **arguments)
        return trainer.evaluate(self.validation, **arguments)

    def record_generation(self, model, role, teachers, epochs, seconds, metrics):
        """Adds a `Generation`."""
        metrics = {name: float(value) for name, value in metrics.items()}
        self.generations.append(Generation(model.name, tuple(teachers), role, int(model.count_params()), epochs, seconds, metrics))

    def record(self):
        """Returns the `ChainRecord` of the trainings so far."""
        on = "training data" if self.validation is None else "validation data"
        return ChainRecord(self.kind, on, tuple(self.generations), time.perf_counter() - self._began, tuple(self.notes))


def check_students(students, at_least, what="students"):
    """Refuses a list of students that is too short, or has one model twice."""
    if not isinstance(students, (list, tuple)) or len(students) < at_least:
        raise ConfigurationError(f"{what} is {students!r}.", f"a list of at least {at_least} models")
    for model in students:
        if not isinstance(model, keras.Model):
            raise ModelError(f"One of the {what} is a {type(model).__name__}.", "a keras.Model")
    if len({id(model) for model in students}) < len(students):
        raise ModelError(f"One model stands twice among the {what}: {[m.name for m in students]}.", "a model of its own for each")
