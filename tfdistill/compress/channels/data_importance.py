"""How much a channel counts, by data: gradients of a loss, ranks of feature maps, and what the output loses."""

import dataclasses
import math
from typing import Any

import keras
import numpy as np

from tfdistill.compress.channels.importance import by_unit, normalized, per_element
from tfdistill.compress.channels.proof import zeroed_outputs
from tfdistill.compress.channels.reads import Reads
from tfdistill.compress.replay import batches_of, in_order, require_usable
from tfdistill.errors import ConfigurationError, DataError, ModelError

TAYLOR, FISHER, HRANK, OUTPUT_DISTANCE = "taylor", "fisher", "hrank", "output_distance"
NEEDS_DATA = (TAYLOR, FISHER, HRANK, OUTPUT_DISTANCE)
_GRADIENTS = (TAYLOR, FISHER)
# Numbers that the activations of all examples of a run may take, and examples of a run at most, where each channel has a run of its own.
_MOST_NUMBERS, _MOST_AT_ONCE = 16_000_000, 256


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

    def losses(self):
        """Yields pairs of the inputs of a batch, and a function of the outputs that computes their mean loss."""
        loss = None if self.loss is None else keras.losses.get(self.loss)

        def mean_square(theirs, ours):
            return sum(keras.ops.mean((a - b) ** 2) for a, b in _pairs(theirs, ours))

        for x, y in self.batches():
            if self.teacher is not None:
                theirs = self.teacher(x, training=False)
                yield x, lambda outputs, theirs=theirs: mean_square(theirs, outputs)
            else:
                yield x, lambda outputs, y=y: keras.ops.mean(loss(y, outputs))


def _pairs(theirs, ours):
    """Returns pairs of the outputs of a teacher and of the model, which must have equal shapes."""
    theirs, ours = keras.tree.flatten(theirs), keras.tree.flatten(ours)
    shapes = [[tuple(x.shape) for x in outputs] for outputs in (theirs, ours)]
    if shapes[0] != shapes[1]:
        raise ModelError(f"The teacher's outputs have the shapes {shapes[0]}.", f"those of the model's: {shapes[1]}")
    return zip(theirs, ours, strict=True)


def gradient_scores(trace, model, groups, examples, criterion):
    """Scores by gradients of a loss with respect to channels, example by example.

    `"taylor"` is the mean magnitude of the first-order change of an example's loss when the channel is removed: the sum of value times gradient wherever the channel is read
    (Molchanov et al. 2017, https://arxiv.org/abs/1611.06440). `"fisher"` is half the mean of its square, the second-order change with the diagonal Fisher information of
    a factor on the channel in place of the Hessian (Theis et al. 2018, https://arxiv.org/abs/1801.05787). Of channels that a layer has inside, as heads of attention, it is
    the sum of weight times gradient over its kernels, batch by batch.

    Returns:
        Dict of the number of a group to an array with a score for each unit.
    """
    import tensorflow as tf

    reads, power = Reads(trace), 2 if criterion == FISHER else 1
    inside = {group.number: [(known, axis) for known, axis in group.weights if known.kernel] for group in groups if not reads.holds(group)}
    variables = list({id(known.variable): known.variable for several in inside.values() for known, _ in several}.values())
    found: dict[int, Any] = {group.number: np.zeros(len(group.units)) for group in groups}
    count, structure = 0, trace.graph.views[id(model)].output
    for x, loss in examples.losses():
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([variable.value for variable in variables])
            outputs, ones = reads.run(x, tape.watch)
            value = loss(keras.tree.pack_sequence_as(structure, outputs))
        if not np.isfinite(float(value)):
            raise DataError(f"criterion={criterion!r}: the loss is {float(value)} on examples from {count} on.", "a finite loss")
        read, weighted = tape.gradient(value, ([one for _, one in ones], [variable.value for variable in variables]))
        size = len(keras.tree.flatten(x)[0])
        count += size
        changes = [(labels, _by_example(gradient, size)) for (labels, _), gradient in zip(ones, read, strict=True) if gradient is not None]
        products = {
            id(variable): np.zeros(variable.shape) if gradient is None else np.asarray(tf.convert_to_tensor(gradient)) * variable.numpy()
            for variable, gradient in zip(variables, weighted, strict=True)
        }
        for group in groups:
            if group.number in inside:
                summed = [
                    (known.axes[axis], size * per_element(products[id(known.variable)], axis).sum(1, dtype="float64")[:, None])
                    for known, axis in inside[group.number]
                ]
            else:
                summed = changes
            change = sum((by_unit(trace, group, labels, values) for labels, values in summed), np.zeros((len(group.units), 1)))
            found[group.number] += (np.abs(change) ** power).mean(1) * size / power
    if groups and not any(scores.any() for scores in found.values()):
        raise DataError(
            f"criterion={criterion!r} is zero for every channel: to first order the loss does not change with any of them.",
            "a loss that changes with the outputs; a teacher that is not the model itself",
        )
    return {number: scores / count for number, scores in found.items()}


def _by_example(gradient, size):
    """Returns the gradient of a mean loss, by factors of channels, as an array of (channels, examples) for the loss of each example."""
    rows = np.asarray(gradient, "float64").reshape(gradient.shape[0], -1)
    if len(rows) % size:  # a tensor that is the same for all examples
        return np.repeat(rows.sum(0)[:, None], size, 1)
    return size * rows.reshape(size, -1, rows.shape[-1]).sum(1).T


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


def _at_once(graph, least):
    """Returns how many examples fit into a run whose activations take little memory, at least so many."""
    numbers = sum(math.prod(n or 1 for n in value.shape[1:]) for call in graph.calls for value in call.outputs)
    return max(least, min(_MOST_AT_ONCE, _MOST_NUMBERS // max(numbers, 1)))


def distance_scores(trace, groups, examples):
    """Mean square of what the outputs lose when a channel is zero: against the teacher, or against the model itself. A run of the model for every channel.

    Returns:
        Dict of the number of a group to an array with a score for each unit.
    """
    found: dict[int, Any] = {group.number: np.zeros(len(group.units)) for group in groups}
    count = 0
    for x, _ in dataclasses.replace(examples, batch_size=_at_once(trace.graph, examples.batch_size)).batches():
        flat = in_order(trace.graph, x)
        whole = zeroed_outputs(trace, trace.units.removal(), flat) if examples.teacher is None else examples.teacher(x, training=False)
        for group in groups:
            for place, unit in enumerate(group.units):
                got = zeroed_outputs(trace, trace.units.removal([unit]), flat)
                distance = sum(float(keras.ops.mean((theirs - ours) ** 2)) for theirs, ours in _pairs(whole, got))
                found[group.number][place] += len(flat[0]) * distance
        count += len(flat[0])
    return {number: scores / count for number, scores in found.items()}


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
