"""Blockwise distillation: a student's blocks are trained one after another on the teacher's features."""

import contextlib

import keras
import tensorflow as tf

from tfdistill.distill.chains.runner import ChainRunner
from tfdistill.distill.objective import first_batch
from tfdistill.distill.objective.taps import Tap, Taps
from tfdistill.distill.teachers.freeze import Freeze
from tfdistill.errors import ConfigurationError, DataError, ModelError
from tfdistill.losses import Hint


def blockwise(teacher, student, blocks, settings, x, y=None, validation_data=None, feature_loss=Hint, finish=True):
    """Trains a student block by block: each on the teacher's feature at its end, with the blocks before it held still; then all together.

    Romero et al. 2015, "FitNets", arXiv 1412.6550, do the first half of a network so; Wang et al. 2018, "Progressive blockwise knowledge distillation for
    neural network acceleration" (IJCAI), go on block by block. A block is what the student computes from the end of the one before to its own, whatever the
    form of the model. Layers held still run in inference mode while they are (batch statistics too).

    Args:
        teacher: A trained `keras.Model`.
        student: The `keras.Model` to train, built.
        blocks: List of (student layer, teacher layer) where blocks end, from input to output, by names or paths.
        settings: `ChainSettings`; its losses are those of the last training.
        x: Training inputs, as `fit` takes them.
        y: Labels, or None.
        validation_data: As in `fit`.
        feature_loss: Function (teacher layer, student layer) -> distillation loss of a block. The default is a `Hint`, with a learned projection where
            the widths differ.
        finish: Whether all of the student is trained with the settings' losses at the end.

    Returns:
        `ChainRecord`; its generations are named after the student, with the role "block: <layer>", then "student".

    Raises:
        ConfigurationError: if `blocks` is no list of pairs, or two blocks end in one place.
        ModelError: if a layer does not exist (with the nearest names), or a block has nothing to train.
    """
    if not isinstance(blocks, (list, tuple)) or not blocks or any(not isinstance(b, (list, tuple)) or len(b) != 2 for b in blocks):
        raise ConfigurationError(f"blocks is {blocks!r}.", "a list of (student layer, teacher layer), from input to output")
    own = [block[0] for block in blocks]
    if len(set(own)) < len(own):
        raise ConfigurationError(f"Two blocks end in one layer of the student: {own}.", "each layer once")
    trainings = ChainRunner("blockwise", settings, (x, y, validation_data), len(blocks) + bool(finish))
    Taps(teacher, [block[1] for block in blocks], "teacher")
    parts = _parts(student, own, x, settings)
    with trainings:
        for (ours, theirs), part in zip(blocks, parts, strict=True):
            with _only(student, part):
                trainings.distil(
                    teacher,
                    student,
                    f"block: {ours}",
                    losses=feature_loss(theirs, ours),
                    weights=None,
                    student_loss_weight=0.0,
                    loss=None,
                    metrics=(),
                )
        if finish:
            trainings.distil(teacher, student, "student")
    return trainings.record()


def _parts(student, ends, x, settings):
    """The variables of each block: those that its end depends on, and no earlier end."""
    _, batch = first_batch.peek(x, batch_size=settings.fit.get("batch_size"))
    if batch is None:
        raise DataError(f"The training data is a {type(x).__name__}.", "arrays, a tf.data.Dataset or a PyDataset")
    inputs = batch[0]
    if not student.built:
        student(inputs, training=False)
    taps, parts, seen = Taps(student, ends, "student"), [], set()
    with tf.GradientTape(persistent=True) as tape:
        _, features = taps(inputs, training=False)
        # One scalar per end that every element has a part in.
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
def _only(model, variables):
    """While the block runs, these variables of a model are trainable and no others."""
    wanted = {id(v) for v in variables}
    with Freeze(model):
        # Outermost first: a layer's flag is handed down to what is inside it.
        for layer in _outermost_first(model):
            layer.trainable = any(id(w) in wanted for w in layer.weights)
        for variable in model.weights:
            if variable.trainable and id(variable) not in wanted:
                variable.trainable = False
        yield


def _outermost_first(model):
    layers, level = [], [model]
    while level:
        layers += level
        level = [child for layer in level for child in layer._flatten_layers(include_self=False, recursive=False)]
    return layers
