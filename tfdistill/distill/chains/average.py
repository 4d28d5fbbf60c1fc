"""Several students averaged into one."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import keras
import numpy as np

from tfdistill.distill.chains.record import ChainRecord
from tfdistill.distill.chains.runner import ChainRunner, check_students
from tfdistill.distill.chains.settings import ChainSettings
from tfdistill.distill.evaluation import CompiledCopy
from tfdistill.distill.teachers.ensemble import Ensemble
from tfdistill.errors import ConfigurationError, DataError, ModelError
from tfdistill.graph.layers import all_layers
from tfdistill.utils.data import input_batches
from tfdistill.utils.types import Data, Tensors

HOW = ("distill", "average")


def many_to_one(
    students: Sequence[keras.Model],
    student: keras.Model,
    settings: ChainSettings,
    x: Data,
    y: Tensors = None,
    validation_data: Data = None,
    how: Literal["distill", "average"] = "distill",
    combine: Callable[[list[keras.Model]], Any] = Ensemble,
) -> ChainRecord:
    """Makes one student of several trained ones, which differ in their initialization or their share of the data.

    "distill" trains the student on their combined outputs (Hinton et al. 2015, arXiv 1503.02531, section 5); its architecture is free.
    "average" gives it the mean of their weights (Wortsman et al. 2022, "Model soups", arXiv 2203.05482): one architecture for all, no
    training, and the statistics of BatchNormalization computed anew on `x`, as those of an averaged network are not the averages. Averaging
    works for models that were fine-tuned from common weights. Models from different initializations have their units in different orders,
    and the mean of such weights is usually no better than chance: use "distill" for those.

    Args:
        students: List of at least two trained `keras.Model`s; they are only read.
        student: The built `keras.Model` that is changed.
        settings: `ChainSettings`; averaging uses its loss and metrics to evaluate, and its batch size.
        x: Training inputs, as `fit` takes them.
        y: Labels, or None.
        validation_data: As in `fit`; the metrics in the record are then of these data.
        how: "distill" or "average".
        combine: For "distill", the function that makes one teacher of the list. The default, `Ensemble`, averages the probabilities of
            students with logits and returns log-probabilities, which losses of logits take; for others: `lambda members: Ensemble(members,
            average=..., outputs=...)`.

    Returns:
        `ChainRecord`; its notes say what was recomputed.

    Raises:
        ConfigurationError: if `how` is neither.
        ModelError: if models to be averaged differ, with the first difference, or one is given twice.

    Example:
        >>> runs = [keras.models.clone_model(student) for _ in range(2)]
        >>> settings = tfdistill.distill.ChainSettings(
        ...     tfdistill.losses.SoftTargets(4.0), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
        ... )
        >>> record = tfdistill.many_to_one(runs, student, settings, x, y, how="average")
        >>> print(record.notes[1])
        The statistics of 1 BatchNormalization layers were computed anew on 2 batches.
        >>> record.generations[0].teachers == tuple(run.name for run in runs)
        True
    """
    check_students([*students, student], 3)
    if how not in HOW:
        raise ConfigurationError(f"how is {how!r}.", f"one of {HOW}")
    names = [model.name for model in students]
    with ChainRunner("many_to_one", settings, (x, y, validation_data), int(how == "distill")) as runner:
        if how == "distill":
            runner.distil(combine(list(students)), student, "student", names)
        else:
            _average(students, student)
            runner.notes.append(
                "The weights are means; this holds for models fine-tuned from common weights, others have their units in different orders."
            )
            norms = [layer for layer in all_layers(student) if isinstance(layer, keras.layers.BatchNormalization)]
            if norms:
                batches = _recompute_statistics(student, norms, x, settings.fit.get("batch_size") or 32)
                runner.notes.append(f"The statistics of {len(norms)} BatchNormalization layers were computed anew on {batches} batches.")
            if settings.loss is not None:
                record_without_training(runner, student, "average", names)
    return runner.record()


def record_without_training(runner, model, role, teachers):
    """Evaluates a model that needs no training, and records it."""
    began = time.perf_counter()
    compiled = CompiledCopy(model)
    compiled.compile(**runner.settings.compile_arguments())
    metrics = runner.evaluate(compiled)
    runner.record_generation(model, role, teachers, 0, time.perf_counter() - began, metrics)


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
        if _operations(model) != _operations(student):
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


def _operations(model):
    """Lists the classes of a model's layers and the settings that change what they compute; names and initializers are left out."""
    kinds = []
    for layer in all_layers(model)[1:]:
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
        for count, batch in enumerate(input_batches(x, batch_size), start=1):
            for layer in norms:
                layer.momentum = (count - 1) / count
            model(batch, training=True)
    finally:
        for layer, momentum in zip(norms, before, strict=True):
            layer.momentum = momentum
    if not count:
        raise DataError("The training data is empty.", "at least one batch to compute the statistics of BatchNormalization on")
    return count
