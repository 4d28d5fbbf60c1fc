"""Blockwise distillation: a student's blocks are trained one after another on the teacher's features."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfdistill.distill.chains.record import ChainRecord
from tfdistill.distill.chains.runner import ChainRunner
from tfdistill.distill.chains.settings import ChainSettings
from tfdistill.distill.objective import first_batch
from tfdistill.distill.objective.taps import Tap, Taps
from tfdistill.distill.teachers.convert import as_teacher
from tfdistill.distill.teachers.freeze import Freeze
from tfdistill.errors import ConfigurationError, DataError, ModelError
from tfdistill.graph.layers import child_layers
from tfdistill.losses.features import Hint
from tfdistill.utils.types import Data, Tensors


def blockwise(
    teacher: Any,
    student: keras.Model,
    blocks: Sequence[tuple[str, str]],
    settings: ChainSettings,
    x: Data,
    y: Tensors = None,
    validation_data: Data = None,
    feature_loss: Callable[[str, str], Any] = Hint,
    finish: bool = True,
) -> ChainRecord:
    """Trains a student block by block: each on the teacher's feature at its end, with the blocks before it frozen; then all together.

    Romero et al. 2015, "FitNets", arXiv 1412.6550, pretrain the first half of a network so; Wang et al. 2018, "Progressive blockwise
    knowledge distillation for neural network acceleration" (IJCAI), continue block by block. A block is what the student computes from the
    end of the block before to its own end, in any kind of model. Frozen layers run in inference mode (batch statistics too).

    Args:
        teacher: A trained teacher, as `Distiller` takes it, whose layers can be read.
        student: The `keras.Model` to train, built.
        blocks: List of (student layer, teacher layer) where blocks end, from input to output, by names or paths.
        settings: `ChainSettings`; its losses are those of the last training.
        x: Training inputs, as `fit` takes them.
        y: Labels, or None.
        validation_data: As in `fit`.
        feature_loss: Function (teacher layer, student layer) -> distillation loss of a block. The default is a `Hint`, with a learned
            projection where the widths differ.
        finish: Whether all of the student is trained with the settings' losses at the end.

    Returns:
        `ChainRecord`; its generations are named after the student, with the role "block: <layer>", then "student".

    Raises:
        ConfigurationError: if `blocks` is not a list of pairs, or two blocks end in one layer.
        ModelError: if a layer does not exist (with the nearest names), or a block has no trainable weights.

    Example:
        >>> settings = tfdistill.distill.ChainSettings(
        ...     tfdistill.losses.SoftTargets(4.0), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        ... )
        >>> record = tfdistill.blockwise(teacher, student, [("relu", "relu")], settings, x, y)
        >>> [generation.role for generation in record.generations]
        ['block: relu', 'student']
    """
    if not isinstance(blocks, (list, tuple)) or not blocks or any(not isinstance(b, (list, tuple)) or len(b) != 2 for b in blocks):
        raise ConfigurationError(f"blocks is {blocks!r}.", "a list of (student layer, teacher layer), from input to output")
    ends = [block[0] for block in blocks]
    if len(set(ends)) < len(ends):
        raise ConfigurationError(f"Two blocks end in one layer of the student: {ends}.", "each layer once")
    runner = ChainRunner("blockwise", settings, (x, y, validation_data), len(blocks) + bool(finish))
    teacher = as_teacher(teacher)
    Taps(teacher, [block[1] for block in blocks], "teacher")
    parts = _variables_of_blocks(student, ends, x, settings)
    with runner:
        for (student_layer, teacher_layer), part in zip(blocks, parts, strict=True):
            with _trainable_alone(student, part):
                runner.distil(
                    teacher,
                    student,
                    f"block: {student_layer}",
                    losses=feature_loss(teacher_layer, student_layer),
                    weights=None,
                    student_loss_weight=0.0,
                    loss=None,
                    metrics=(),
                )
        if finish:
            runner.distil(teacher, student, "student")
    return runner.record()


def _variables_of_blocks(student, ends, x, settings):
    """The variables of each block: those on which its end depends, and no earlier end does."""
    _, batch = first_batch.peek(x, batch_size=settings.fit.get("batch_size"))
    if batch is None:
        raise DataError(f"The training data is a {type(x).__name__}.", "arrays, a tf.data.Dataset or a PyDataset")
    inputs = batch[0]
    if not student.built:
        student(inputs, training=False)
    taps, parts, seen = Taps(student, ends, "student"), [], set()
    with tf.GradientTape(persistent=True) as tape:
        _, features = taps(inputs, training=False)
        # One scalar for each end, which depends on every element of the feature.
        sums = [sum(tf.reduce_sum(tf.square(f)) for f in keras.tree.flatten(features[Tap(end)])) for end in ends]
    variables = student.trainable_variables
    for end, value in zip(ends, sums, strict=True):
        gradients = tape.gradient(value, [v.value for v in variables])
        part = [v for v, g in zip(variables, gradients, strict=True) if g is not None and id(v) not in seen]
        if not part:
            raise ModelError(
                f"The student '{student.name}' has nothing to train between '{end}' and the block before it.",
                "ends of blocks from input to output, with trainable weights in each block",
            )
        seen |= {id(v) for v in part}
        parts.append(part)
    return parts


@contextlib.contextmanager
def _trainable_alone(model, variables):
    """While the block runs, these variables of a model are trainable and no others."""
    chosen = {id(v) for v in variables}
    with Freeze(model):
        # Outermost first: setting a layer's flag sets that of the layers inside it.
        for layer in _outermost_first(model):
            layer.trainable = any(id(w) in chosen for w in layer.weights)
        for variable in model.weights:
            if variable.trainable and id(variable) not in chosen:
                variable.trainable = False
        yield


def _outermost_first(model):
    layers, level = [], [model]
    while level:
        layers += level
        level = [child for layer in level for child in child_layers(layer)]
    return layers
