"""Several students averaged into one."""

import time

import keras
import numpy as np
import tensorflow as tf

from tfdistill.distill.chains.runner import ChainRunner, check_students
from tfdistill.distill.evaluation import CompiledCopy
from tfdistill.distill.teachers.ensemble import Ensemble
from tfdistill.errors import ConfigurationError, DataError, ModelError

HOW = ("distill", "average")


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
    with ChainRunner("many_to_one", settings, (x, y, validation_data), int(how == "distill")) as trainings:
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
    alone = CompiledCopy(model)
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
