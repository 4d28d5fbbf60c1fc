"""Chains of distillation: more than one teacher, or more than one student, one after another or at once."""

import collections

import numpy as np

from tfdistill.distill.chains.average import _note_alone
from tfdistill.distill.chains.blockwise import blockwise
from tfdistill.distill.chains.mutual import mutual
from tfdistill.distill.chains.record import ChainRecord, Generation
from tfdistill.distill.chains.runner import ChainRunner, check_students
from tfdistill.distill.chains.settings import ChainSettings
from tfdistill.distill.evaluation import CompiledCopy
from tfdistill.errors import ConfigurationError, ModelError

__all__ = ["BornAgain", "ChainRecord", "ChainSettings", "Generation", "assistants", "blockwise", "born_again", "mutual"]


# Models of all generations, first to last; their `Ensemble`, or None; the `ChainRecord`.
BornAgain = collections.namedtuple("BornAgain", ["generations", "ensemble", "record"])


def assistants(teacher, students, settings, x, y=None, validation_data=None):
    """Distils through teacher assistants: the teacher teaches the first model, that one the next, and so on to the student.

    Mirzadeh et al. 2020, "Improved knowledge distillation via teacher assistant", arXiv 1902.03393: where the student is much smaller than the teacher, models
    between the two in size help.

    Args:
        teacher: A trained teacher, as `Distiller` takes it.
        students: List of `keras.Model`s to train: assistants from large to small, and the student last. All are trained in place.
        settings: `ChainSettings`.
        x: Training inputs, as `fit` takes them.
        y: Labels, or None.
        validation_data: As in `fit`; the metrics in the record are then of these data.

    Returns:
        `ChainRecord` with one generation for each model.

    Raises:
        ModelError: if the models do not fit each other, or one stands twice.
        ConfigurationError: if there is no student.
        DataError: if the data can be read once only.
    """
    check_students(students, 1)
    if any(model is teacher for model in students):
        raise ModelError(f"The teacher '{teacher.name}' stands among its students.", "models of their own")
    with ChainRunner("assistants", settings, (x, y, validation_data), len(students)) as trainings:
        for index, model in enumerate(students):
            trainings.distil(
                teacher, model, "student" if index == len(students) - 1 else "assistant", (getattr(teacher, "name", str(teacher)),)
            )
            teacher = model
    return trainings.record()


def born_again(build, generations, settings, x, y=None, validation_data=None, teacher=None, ensemble=None):
    """Trains generations of one architecture, each taught by the one before.

    Furlanello et al. 2018, "Born again neural networks", arXiv 1805.04770: students as large as their teacher surpass it, and their ensemble more so.

    Args:
        build: Function without arguments that makes a new, untrained `keras.Model`.
        generations: Number of generations after the first teacher, at least 1.
        settings: `ChainSettings`.
        x: Training inputs, as `fit` takes them.
        y: Labels, or None.
        validation_data: As in `fit`; the metrics in the record are then of these data.
        teacher: A trained first teacher, as `Distiller` takes it. If None, one more model is made and trained on the labels alone.
        ensemble: Function that makes one model of the list of generations, such as `tfdistill.distill.teachers.ensemble.Ensemble` (a given teacher is no part of
            it). If None there is no ensemble.

    Returns:
        `BornAgain`: the models that were made, the ensemble or None, and the `ChainRecord`.

    Raises:
        ConfigurationError: if `generations` is below 1, or there is neither a teacher nor a loss on the labels.
        ModelError: if `build` gives one model twice.
    """
    if isinstance(generations, bool) or not isinstance(generations, int) or generations < 1:
        raise ConfigurationError(f"generations is {generations!r}.", "a whole number of at least 1")
    count, made = generations + (teacher is None), []
    with ChainRunner("born_again", settings, (x, y, validation_data), count) as trainings:
        if teacher is None and (settings.loss is None or (y is None and isinstance(x, np.ndarray))):
            raise ConfigurationError(
                "There is no teacher, so the first generation learns from labels alone, and there is no loss on labels, or no labels.",
                "settings with a loss, and y, or a trained teacher",
            )
        for _ in range(count):
            model = build()
            check_students([*made, model], 1, "generations")
            if teacher is None:
                trainings.train(CompiledCopy(model), model, "generation", ())
            else:
                trainings.distil(teacher, model, "generation", (getattr(teacher, "name", str(teacher)),))
            made.append(model)
            teacher = model
        whole = ensemble(made) if ensemble is not None else None
        if whole is not None and settings.loss is not None:
            _note_alone(trainings, whole, "ensemble", [model.name for model in made])
    return BornAgain(tuple(made), whole, trainings.record())
