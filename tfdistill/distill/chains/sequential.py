"""Chains of students that train one after another: teacher assistants, and generations of one architecture."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from tfdistill.distill.chains.average import record_without_training
from tfdistill.distill.chains.record import ChainRecord
from tfdistill.distill.chains.runner import ChainRunner, check_students
from tfdistill.distill.chains.settings import ChainSettings
from tfdistill.distill.evaluation import CompiledCopy
from tfdistill.errors import ConfigurationError, ModelError
from tfdistill.utils import validate
from tfdistill.utils.types import Data, Tensors


class BornAgain(NamedTuple):
    """What `born_again` returns.

    Attributes:
        generations: The models that were made, first to last.
        ensemble: What `ensemble` made of them, or None.
        record: `ChainRecord`.
    """

    generations: tuple[keras.Model, ...]
    ensemble: keras.Model | None
    record: ChainRecord


def assistants(
    teacher: Any, students: Sequence[keras.Model], settings: ChainSettings, x: Data, y: Tensors = None, validation_data: Data = None
) -> ChainRecord:
    """Distils through teacher assistants: the teacher trains the first model, that one the next, and so on to the student.

    Mirzadeh et al. 2020, "Improved knowledge distillation via teacher assistant", arXiv 1902.03393: where the student is much smaller than
    the teacher, models between the two in size help.

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
        ModelError: if the models do not fit each other, or one is given twice.
        ConfigurationError: if there is no student.
        DataError: if the data is an iterator, which can be read only once.

    Example:
        >>> assistant = keras.models.clone_model(teacher)
        >>> settings = tfdistill.distill.ChainSettings(
        ...     tfdistill.losses.SoftTargets(4.0), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
        ... )
        >>> record = tfdistill.assistants(teacher, [assistant, student], settings, x, y)
        >>> [(generation.role, generation.parameters) for generation in record.generations]
        [('assistant', 394), ('student', 202)]
    """
    check_students(students, 1)
    if any(model is teacher for model in students):
        raise ModelError(f"The teacher '{teacher.name}' is among its students.", "models of their own")
    with ChainRunner("assistants", settings, (x, y, validation_data), len(students)) as runner:
        for index, model in enumerate(students):
            runner.distil(
                teacher, model, "student" if index == len(students) - 1 else "assistant", (getattr(teacher, "name", str(teacher)),)
            )
            teacher = model
    return runner.record()


def born_again(
    build: Callable[[], keras.Model],
    generations: int,
    settings: ChainSettings,
    x: Data,
    y: Tensors = None,
    validation_data: Data = None,
    teacher: Any = None,
    ensemble: Callable[[list[keras.Model]], keras.Model] | None = None,
) -> BornAgain:
    """Trains generations of one architecture, each with the one before as its teacher.

    Furlanello et al. 2018, "Born again neural networks", arXiv 1805.04770: students of the size of their teacher surpass it, and their
    ensemble even more.

    Args:
        build: Function without arguments that makes a new, untrained `keras.Model`.
        generations: Number of generations after the first teacher, at least 1.
        settings: `ChainSettings`.
        x: Training inputs, as `fit` takes them.
        y: Labels, or None.
        validation_data: As in `fit`; the metrics in the record are then of these data.
        teacher: A trained first teacher, as `Distiller` takes it. If None, one more model is made and trained on the labels alone.
        ensemble: Function that makes one model of the list of generations, such as `tfdistill.Ensemble`; a given teacher is not in the
            list. None makes no ensemble.

    Returns:
        `BornAgain`: the models that were made, the ensemble or None, and the `ChainRecord`.

    Raises:
        ConfigurationError: if `generations` is below 1, or there is neither a teacher nor a loss on the labels.
        ModelError: if `build` returns one model twice.

    Example:
        >>> settings = tfdistill.distill.ChainSettings(
        ...     tfdistill.losses.SoftTargets(4.0), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
        ... )
        >>> result = tfdistill.born_again(lambda: keras.models.clone_model(student), 1, settings, x, y, ensemble=tfdistill.Ensemble)
        >>> len(result.generations), [generation.role for generation in result.record.generations]
        (2, ['generation', 'generation', 'ensemble'])
    """
    validate.whole_number("generations", generations)
    count = generations + (teacher is None)
    made: list[keras.Model] = []
    with ChainRunner("born_again", settings, (x, y, validation_data), count) as runner:
        if teacher is None and (settings.loss is None or (y is None and isinstance(x, np.ndarray))):
            raise ConfigurationError(
                "There is no teacher, so the first generation is trained on labels alone, and the loss or the labels are missing.",
                "settings with a loss, and y, or a trained teacher",
            )
        for _ in range(count):
            model = build()
            check_students([*made, model], 1, "generations")
            if teacher is None:
                runner.train(CompiledCopy(model), model, "generation", ())
            else:
                runner.distil(teacher, model, "generation", (getattr(teacher, "name", str(teacher)),))
            made.append(model)
            teacher = model
        combined = ensemble(made) if ensemble is not None else None
        if combined is not None and settings.loss is not None:
            record_without_training(runner, combined, "ensemble", [model.name for model in made])
    return BornAgain(tuple(made), combined, runner.record())
