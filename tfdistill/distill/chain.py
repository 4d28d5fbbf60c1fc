"""Chains of distillation: more than one teacher, or more than one student, one after another or at once."""

import collections
import time

import keras
import numpy as np
import tensorflow as tf

from tfdistill.distill.chain_blocks import blockwise
from tfdistill.distill.chain_peers import mutual
from tfdistill.distill.chain_settings import Alone, ChainRecord, ChainSettings, Generation, Trainings, check_students
from tfdistill.distill.teachers import Ensemble
from tfdistill.errors import ConfigurationError, DataError, ModelError

__all__ = ["BornAgain", "ChainRecord", "ChainSettings", "Generation", "assistants", "blockwise", "born_again", "many_to_one", "mutual"]

HOW = ("distill", "average")

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
    with Trainings("assistants", settings, (x, y, validation_data), len(students)) as trainings:
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
        ensemble: Function that makes one model of the list of generations, such as `tfdistill.distill.teachers.Ensemble` (a given teacher is no part of
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
    with Trainings("born_again", settings, (x, y, validation_data), count) as trainings:
        if teacher is None and (settings.loss is None or (y is None and isinstance(x, np.ndarray))):
            raise ConfigurationError(
                "There is no teacher, so the first generation learns from labels alone, and there is no loss on labels, or no labels.",
                "settings with a loss, and y, or a trained teacher",
            )
        for _ in range(count):
            model = build()
            check_students([*made, model], 1, "generations")
            if teacher is None:
                trainings.train(Alone(model), model, "generation", ())
            else:
                trainings.distil(teacher, model, "generation", (getattr(teacher, "name", str(teacher)),))
            made.append(model)
            teacher = model
        whole = ensemble(made) if ensemble is not None else None
        if whole is not None and settings.loss is not None:
            _note_alone(trainings, whole, "ensemble", [model.name for model in made])
    return BornAgain(tuple(made), whole, trainings.record())


def many_to_one(students, student, settings, x, y=None, validation_data=None, how="distill", combine=Ensemble):
    """Makes one student of several trained ones, each from another initialization or another share of the data.

    "distill" teaches the student with what they say together (Hinton et al. 2015, arXiv 1503.02531, section 5); its architecture is free. "average"
    gives it the mean of their weights (Wortsman et al. 2022, "Model soups", arXiv 2203.05482): one architecture for all, no training, and the statistics of
    BatchNormalization computed anew on `x`, as those of an averaged network are not the averages. Averaging works for models that were trained on from
    common weights. Models from different initializations have their units in different orders (a permutation that changes no
    output), and the mean of such weights is usually no better than chance: distil those.

    Args:
        students: List of at least two trained `keras.Model`s; they are only read.
        student: The `keras.Model` that is changed.
        settings: `ChainSettings`; averaging uses its loss and metrics to evaluate, and its batch size.
        x: Training inputs, as `fit` takes them.
        y: Labels, or None.
        validation_data: As in `fit`; the metrics in the record are then of these data.
        how: "distill" or "average".
        combine: For "distill", the function that makes one teacher of the list. The default, `Ensemble`, averages the probabilities of students that answer logits
            and gives log-probabilities, which losses of logits take; for others: `lambda members: Ensemble(members, average=..., outputs=...)`.

    Returns:
        `ChainRecord`; its notes say what was recomputed.

    Raises:
        ConfigurationError: if `how` is neither.
        ModelError: if models to be averaged differ, with the first difference, or one stands twice.
    """
    check_students([*students, student], 3)
    if how not in HOW:
        raise ConfigurationError(f"how is {how!r}.", f"one of {HOW}")
    names = [model.name for model in students]
    with Trainings("many_to_one", settings, (x, y, validation_data), int(how == "distill")) as trainings:
        if how == "distill":
            trainings.distil(combine(list(students)), student, "student", names)
        else:
            _average(students, student)
            trainings.notes.append(
                "The weights are means; this holds for models trained on from common weights, others have their units in different orders."
            )
            norms = [layer for layer in student._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
            if norms:
                batches = _recompute_statistics(student, norms, x, settings.fit.get("batch_size") or 32)
                trainings.notes.append(f"The statistics of {len(norms)} BatchNormalization layers were computed anew on {batches} batches.")
            if settings.loss is not None:
                _note_alone(trainings, student, "average", names)
    return trainings.record()


def _note_alone(trainings, model, role, teachers):
    """Evaluates a model that needs no training and records it."""
    began = time.perf_counter()
    alone = Alone(model)
    alone.compile(**trainings.settings.compile_arguments())
    metrics = trainings.evaluate(alone)
    trainings.note(model, role, teachers, 0, time.perf_counter() - began, metrics)


def _average(students, student):
    """Gives `student` the mean of the students' weights, or raises before it changes anything."""
    columns = [[(w.path.rpartition("/")[2], tuple(w.shape), str(w.dtype)) for w in model.weights] for model in (student, *students)]
    for model, column in zip(students, columns[1:], strict=True):
        if column != columns[0]:
            places = [i for i, (a, b) in enumerate(zip(columns[0], column, strict=False)) if a != b]
            first = (
                f"weight {places[0]} is {columns[0][places[0]]} and {column[places[0]]}"
                if places
                else f"{len(columns[0])} and {len(column)} weights"
            )
            raise ModelError(
                f"The weights of '{student.name}' and '{model.name}' cannot be averaged: their architectures differ ({first}).",
                "models of one architecture",
                'distil them: how="distill"',
            )
        if _makeup(model) != _makeup(student):
            raise ModelError(
                f"'{student.name}' and '{model.name}' have equal weights in different layers, so their means compute something else.",
                "models of one architecture",
                'distil them: how="distill"',
            )
    values = []
    for own, *others in zip(student.weights, *(model.weights for model in students), strict=True):
        arrays = [keras.ops.convert_to_numpy(keras.ops.cast(w, "float64") if "float" in str(w.dtype) else w) for w in others]
        if "float" not in str(own.dtype) and any((a != arrays[0]).any() for a in arrays):
            raise ModelError(
                f"The weight '{own.path}' is {own.dtype} and differs from student to student.", "equal values, or floats to average"
            )
        values.append(np.mean(arrays, axis=0).astype("float32") if "float" in str(own.dtype) else arrays[0])
    for own, value in zip(student.weights, values, strict=True):
        own.assign(value)


def _makeup(model):
    """What the layers of a model are, without their names and what initialized them."""
    kinds = []
    for layer in model._flatten_layers(include_self=False):
        own = {
            k: v
            for k, v in layer.get_config().items()
            if k in ("activation", "strides", "padding", "dilation_rate", "epsilon", "axis", "equation")
        }
        kinds.append((type(layer).__name__, repr(sorted(own.items()))))
    return kinds


def _recompute_statistics(model, norms, x, batch_size):
    """Gives each BatchNormalization the plain mean, over batches, of the statistics that it sees in training mode.

    Returns:
        Number of batches.
    """
    before, count = [layer.momentum for layer in norms], 0
    try:
        for count, batch in enumerate(_batches(x, batch_size), start=1):
            for layer in norms:
                layer.momentum = (count - 1) / count
            model(batch, training=True)
    finally:
        for layer, momentum in zip(norms, before, strict=True):
            layer.momentum = momentum
    if not count:
        raise DataError("The training data is empty.", "at least one batch to compute the statistics of BatchNormalization on")
    return count


def _batches(x, batch_size):
    if isinstance(x, tf.data.Dataset):
        yield from (keras.utils.unpack_x_y_sample_weight(batch)[0] for batch in x)
    elif isinstance(x, keras.utils.PyDataset):
        yield from (keras.utils.unpack_x_y_sample_weight(x[i])[0] for i in range(len(x)))
    else:
        rows = keras.tree.flatten(x)[0].shape[0]
        for start in range(0, rows, batch_size):
            yield keras.tree.map_structure(lambda a, start=start: a[start : start + batch_size], x)
