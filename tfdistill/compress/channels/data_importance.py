"""How much a channel counts, by data: gradients of a loss, ranks of feature maps, and what the output loses."""

import dataclasses
from typing import Any

import keras
import numpy as np

from tfdistill.compress.channels.importance import by_unit, normalized, per_element
from tfdistill.compress.channels.proof import zeroed_outputs
from tfdistill.compress.replay import batches_of, in_order, require_usable
from tfdistill.errors import ConfigurationError, DataError, ModelError

TAYLOR, FISHER, HRANK, OUTPUT_DISTANCE = "taylor", "fisher", "hrank", "output_distance"
NEEDS_DATA = (TAYLOR, FISHER, HRANK, OUTPUT_DISTANCE)
_GRADIENTS = (TAYLOR, FISHER)


@dataclasses.dataclass(frozen=True)
class Examples:
    """Data for a criterion.

    Attributes:
        x: Inputs: an array, or a list or dict of arrays as the model takes them.
        y: Labels, or None.
        loss: Loss of the labels: a Keras loss, its name or a function of (labels, outputs); or None.
        teacher: Model whose outputs are to be kept, or None.
        batch_size: Examples at a time.
    """

    x: Any = None
    y: Any = None
    loss: Any = None
    teacher: Any = None
    batch_size: int = 16

    def require(self, criterion):
        """Refuses data that a criterion cannot do with, and data that it does not use.

        Raises:
            ConfigurationError: if something is missing, or too much.
            DataError: if they are no arrays, empty, of different lengths or hold NaN.
        """
        if criterion not in NEEDS_DATA:
            if any(given is not None for given in (self.x, self.y, self.loss, self.teacher)):
                raise ConfigurationError(
                    f"criterion={criterion!r} looks at weights alone, and got data.",
                    fix=f"leave it out, or take one of {', '.join(NEEDS_DATA)}",
                )
            return
        if self.x is None:
            raise ConfigurationError(
                f"criterion={criterion!r} got no data.",
                "some hundred examples",
                "give x=, to plan and to apply; or take criterion='l2', which needs none",
            )
        if criterion in _GRADIENTS and (self.teacher is None) == (self.y is None or self.loss is None):
            raise ConfigurationError(
                f"criterion={criterion!r} needs the gradient of a loss, and got "
                + ", ".join(
                    f"{n}={'given' if v is not None else None}" for n, v in (("y", self.y), ("loss", self.loss), ("teacher", self.teacher))
                )
                + ".",
                "labels and their loss, or a teacher",
                "give y= and loss=, or teacher= (the model itself is no teacher: its difference to itself has no gradient)",
            )
        if criterion == HRANK and any(given is not None for given in (self.y, self.loss, self.teacher)):
            raise ConfigurationError("criterion='hrank' uses no labels and no teacher.", "x= alone")
        if criterion == OUTPUT_DISTANCE and any(given is not None for given in (self.y, self.loss)):
            raise ConfigurationError("criterion='output_distance' uses no labels.", "x=, and teacher= where it is not the model itself")
        self._require_functions()
        require_usable(x=self.x, y=self.y)

    def _require_functions(self):
        if self.teacher is not None and not callable(self.teacher):
            raise ConfigurationError(f"teacher= is a {type(self.teacher).__name__}.", "a model")
        try:
            keras.losses.get(self.loss)
        except (ValueError, TypeError) as error:
            raise ConfigurationError(f"loss={self.loss!r}.", "a Keras loss, its name, or a function of (labels, outputs)") from error

    def batches(self):
        """Yields pairs of inputs and labels."""
        yield from batches_of((self.x, self.y), self.batch_size)

    def losses(self, model):
        """Yields functions that compute the loss of a batch."""
        loss = None if self.loss is None else keras.losses.get(self.loss)

        def mean_square(theirs, ours):
            return sum(keras.ops.mean((a - b) ** 2) for a, b in _pairs(theirs, ours))

        for x, y in self.batches():
            if self.teacher is not None:
                theirs = self.teacher(x, training=False)
                yield lambda x=x, theirs=theirs: mean_square(theirs, model(x, training=False))
            else:
                yield lambda x=x, y=y: keras.ops.mean(loss(y, model(x, training=False)))


def _pairs(theirs, ours):
    """Returns pairs of the outputs of a teacher and of the model, which must have equal shapes."""
    theirs, ours = keras.tree.flatten(theirs), keras.tree.flatten(ours)
    shapes = [[tuple(x.shape) for x in outputs] for outputs in (theirs, ours)]
    if shapes[0] != shapes[1]:
        raise ModelError(f"The teacher's outputs have the shapes {shapes[0]}.", f"those of the model's: {shapes[1]}")
    return zip(theirs, ours, strict=True)


def gradient_scores(trace, model, groups, examples, criterion):
    """Scores by gradients of a loss with respect to the weights of a channel, batch by batch.

    `"taylor"` is the square of the first-order change of the loss when the channel is removed, the sum of weight times gradient (Molchanov et al., "Importance
    estimation for neural network pruning", 2019, https://arxiv.org/abs/1906.10771) over all kernels that make, filter and read it; `"fisher"` the second-order change with the
    diagonal Fisher information in place of the Hessian, half the sum of squared weight times squared gradient.

    Returns:
        Dict of the number of a group to an array with a score for each unit.
    """
    import tensorflow as tf

    places = {group.number: [(known, axis) for known, axis in group.weights if known.kernel] for group in groups}
    variables = list({id(known.variable): known.variable for several in places.values() for known, _ in several}.values())
    found: dict[int, Any] = {group.number: np.zeros(len(group.units)) for group in groups}
    count = 0
    for loss in examples.losses(model):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([variable.value for variable in variables])
            value = loss()
        if not np.isfinite(float(value)):
            raise DataError(
                f"criterion={criterion!r}: the loss is {float(value)} on examples from {count * examples.batch_size} on.", "a finite loss"
            )
        gradients = tape.gradient(value, [variable.value for variable in variables])
        products = {
            id(variable): np.zeros(variable.shape) if gradient is None else np.asarray(tf.convert_to_tensor(gradient)) * variable.numpy()
            for variable, gradient in zip(variables, gradients, strict=True)
        }
        for group in groups:
            change = np.zeros(len(group.units))
            for known, axis in places[group.number]:
                rows = per_element(products[id(known.variable)], axis)
                summed = (rows**2).sum(1, dtype="float64") / 2 if criterion == FISHER else rows.sum(1, dtype="float64")
                change += by_unit(trace, group, known.axes[axis], summed)
            found[group.number] += change if criterion == FISHER else change**2
        count += 1
    if groups and not any(scores.any() for scores in found.values()):
        raise DataError(
            f"criterion={criterion!r} is zero for every channel: to first order the loss does not change with any of them.",
            "a loss that changes with the outputs; a teacher that is not the model itself",
        )
    return {number: scores / count for number, scores in found.items()}


def _maps(trace):
    """Returns a dict of id of each tensor with two spatial axes that something else reads than what passes it on, to the axis of its channels and their labels.

    That is behind the activation, where a convolution, a dense layer or a pooling reads it.
    """
    found = {}
    for call in trace.graph.calls:
        for value in call.values():
            axes = trace.axes[id(value)]
            labelled = [axis for axis, labels in enumerate(axes) if labels is not None]
            passed = any(trace.axes[id(output)] is axes for output in call.outputs)
            if len(axes) == 4 and len(labelled) == 1 and not passed:
                found[id(value)] = (labelled[0], axes[labelled[0]])
    return found


def rank_scores(trace, groups, examples):
    """Mean rank of the feature maps of a channel (Lin et al., "HRank", 2020, https://arxiv.org/abs/2002.10179); None for groups without maps of two axes.

    Returns:
        Dict of the number of a group to an array with a score for each unit, or None.
    """
    maps = _maps(trace)
    sums: dict[int, Any] = {group.number: None for group in groups}

    def watch(call, outputs):
        for value, output in zip(call.outputs, outputs, strict=True):
            if id(value) not in maps:
                continue
            axis, labels = maps[id(value)]
            ranks = np.linalg.matrix_rank(np.moveaxis(keras.ops.convert_to_numpy(output).astype("float32"), axis, 1)).mean(0)
            for group in groups:
                found = by_unit(trace, group, labels, ranks)
                if found.any():
                    before = sums[group.number]
                    sums[group.number] = found if before is None else before + found

    for x, _ in examples.batches():
        zeroed_outputs(trace, trace.units.removal(), in_order(trace.graph, x), watch=watch)
    return sums


def distance_scores(trace, groups, examples):
    """Mean square of what the outputs lose when a channel is zero: against the teacher, or against the model itself. A run of the model for every channel.

    Returns:
        Dict of the number of a group to an array with a score for each unit.
    """
    found: dict[int, Any] = {group.number: np.zeros(len(group.units)) for group in groups}
    for x, _ in examples.batches():
        flat = in_order(trace.graph, x)
        whole = zeroed_outputs(trace, trace.units.removal(), flat) if examples.teacher is None else examples.teacher(x, training=False)
        for group in groups:
            for place, unit in enumerate(group.units):
                got = zeroed_outputs(trace, trace.units.removal([unit]), flat)
                found[group.number][place] += sum(float(keras.ops.mean((theirs - ours) ** 2)) for theirs, ours in _pairs(whole, got))
    return found


def data_scores(trace, model, groups, examples, criterion):
    """Returns a dict of the number of each group to normalized scores of its units, or None where the criterion has none for it.

    Args:
        trace: `ChannelTrace`.
        model: The model.
        groups: List of `Group`s.
        examples: `Examples`.
        criterion: One of `NEEDS_DATA`.
    """
    if criterion in _GRADIENTS:
        found = gradient_scores(trace, model, groups, examples, criterion)
    elif criterion == HRANK:
        found = rank_scores(trace, groups, examples)
    else:
        found = distance_scores(trace, groups, examples)
    return {number: None if scores is None else normalized(scores) for number, scores in found.items()}
