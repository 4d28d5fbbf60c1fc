"""Asking a teacher about batches, so that its answers can be kept."""

import collections.abc
import dataclasses

import keras
import numpy as np
import tensorflow as tf

from tfdistill.distill.cache.format import FLOATS, Layout, Leaf, with_scales
from tfdistill.distill.objective.first_batch import refuse_nonfinite_inputs
from tfdistill.distill.objective.taps import Tap, Taps
from tfdistill.distill.teachers.black_box import BlackBox, own_errors
from tfdistill.distill.teachers.ensemble import Ensemble
from tfdistill.distill.teachers.finite import refuse_hidden_nan
from tfdistill.distill.teachers.remote import RemoteTeacher, checked_outputs
from tfdistill.errors import ConfigurationError, DataError, ModelError
from tfdistill.losses.spaces import SUM_TOLERANCE


@dataclasses.dataclass(frozen=True)
class CacheOptions:
    """What of a teacher's answers is kept.

    Attributes:
        layers: Names or paths of layers whose outputs are kept besides the final ones.
        dtype: "float16", "bfloat16" or "float32".
        top_k: Number of largest logits, or None for all.
        temperatures: Those at which the log-sum of the rest is kept.
        views: Number of augmented views of each element.
        augment: Function of one element's inputs and a seed, int32 of shape (2,); or None.

    Raises:
        ConfigurationError: if they contradict each other, or one is out of its range.
    """

    layers: tuple = ()
    dtype: str = "float16"
    top_k: int | None = None
    temperatures: tuple = ()
    views: int = 1
    augment: object = None

    def __post_init__(self):
        if self.dtype not in FLOATS:
            raise ConfigurationError(f"dtype is {self.dtype!r}.", f"one of {FLOATS}")
        object.__setattr__(self, "layers", tuple(self.layers or ()))
        for name in ("top_k", "views"):
            value = getattr(self, name)
            if value is None and name == "top_k":
                continue
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise ConfigurationError(f"{name} is {value!r}.", "a whole number of at least 1")
        if self.views > 1 and self.augment is None:
            raise ConfigurationError(
                f"views is {self.views}, but without augment all views are the same.", "augment=f(x, seed), or views=1"
            )
        if self.augment is not None and not callable(self.augment):
            raise ConfigurationError(f"augment is {self.augment!r}.", "a function of one element and a seed")
        temperatures = tuple(self.temperatures) if self.top_k else ()
        if self.top_k and (not temperatures or not all(isinstance(t, (int, float)) and 0 < t < float("inf") for t in temperatures)):
            raise ConfigurationError(f"temperatures is {self.temperatures!r}.", "at least one number above 0")
        object.__setattr__(self, "temperatures", tuple(float(t) for t in temperatures))


class TeacherQuery:
    """A teacher, and what is wanted of it.

    Args:
        teacher: A built `keras.Model`, or a `RemoteTeacher`.
        wanted: `CacheOptions`.

    Raises:
        ModelError: if a layer is not there, or layers of a black box are wanted.
    """

    def __init__(self, teacher, wanted):
        self.teacher, self.wanted = teacher, wanted
        self.remote = isinstance(teacher, RemoteTeacher)
        self._structure = None
        if self.remote:
            if wanted.layers:
                raise ModelError(f"The teacher '{teacher.name}' is a black box: it has no layers {list(wanted.layers)}.", "layers=None")
            self._shrunk = tf.function(self._shrink, autograph=False)
        else:
            self._taps = Taps(teacher, [Tap(path) for path in wanted.layers], "teacher")
            self._ask = tf.function(self._ask_model, autograph=False, reduce_retracing=True)
        self._augmented = tf.function(augmented_by(wanted.augment), reduce_retracing=True) if wanted.augment else None

    def ask(self, inputs, first):
        """Asks about one batch.

        Args:
            inputs: Structure of arrays `(rows, ...)`.
            first: Number of its first element in the data set.

        Returns:
            For each view a list of arrays, one for each leaf of the layout.

        Raises:
            DataError: if an input holds NaN or infinity.
        """
        return [self._answer(self.view(inputs, first, number), first) for number in range(self.wanted.views)]

    def view(self, inputs, first, number):
        """The inputs as the teacher sees them in one view."""
        if self._augmented is None:
            return inputs
        rows = len(keras.tree.flatten(inputs)[0])
        return keras.tree.map_structure(
            lambda t: t.numpy(), self._augmented(inputs, seeds(tf.range(first, first + rows, dtype=tf.int64), number))
        )

    def refuse_hidden_nan(self, inputs):
        """Raises `DataError` if a first batch, which was asked about already, gives NaN where the graph's fused operations do not show it."""
        if self.remote or isinstance(self.teacher, BlackBox):
            return

        def compute(part):
            outputs, features = self._taps(part, training=False)
            return [*keras.tree.flatten(outputs), *(features[Tap(path)] for path in self.wanted.layers)]

        names = [f"output '{name}'" for name in self._structure[1]] + [f"layer '{path}'" for path in self.wanted.layers]
        with own_errors(self.teacher):
            refuse_hidden_nan(compute, self.view(inputs, 0, 0), names)

    def _answer(self, inputs, first):
        # The answer need not show it (see `finite_teacher`).
        refuse_nonfinite_inputs(inputs, f"in the batch that begins with element {first}", "clean the data, and what augment makes of it")
        if self.remote:
            rows = len(keras.tree.flatten(inputs)[0])
            answer = checked_outputs(self.teacher(inputs), rows, self.teacher.name)
            self._note_structure(answer)
            leaves = self._shrunk(keras.tree.flatten(answer)) if self.wanted.top_k else keras.tree.flatten(answer)
        else:
            with own_errors(self.teacher):
                if self._structure is None and isinstance(self.teacher, Ensemble):
                    self.teacher.check_members(inputs)
                leaves = self._ask(inputs)
        return [np.asarray(leaf) for leaf in leaves]

    def _ask_model(self, inputs):
        outputs, features = self._taps(inputs, training=False)
        self._note_structure(outputs)
        layers = [features[Tap(path)] for path in self.wanted.layers]
        for path, feature in zip(self.wanted.layers, layers, strict=True):
            if not hasattr(feature, "shape"):
                raise ModelError(f"The layer '{path}' of the teacher has several outputs.", "a layer with one output")
        flat = keras.tree.flatten(outputs)
        return [tf.convert_to_tensor(t) for t in (*(self._shrink(flat) if self.wanted.top_k else flat), *layers)]

    def _note_structure(self, outputs):
        """Keeps how the final outputs come, which a flat list of arrays does not say."""
        if isinstance(outputs, collections.abc.Mapping):
            kind, names = "dict", sorted(outputs)
        elif isinstance(outputs, (list, tuple)):
            own = getattr(self.teacher, "output_names", None) or []
            kind, names = "list", list(own) if len(own) == len(outputs) else [f"output_{i}" for i in range(len(outputs))]
        else:
            kind, names = "single", ["output"]
        flat = keras.tree.flatten(outputs)
        if len(flat) != len(names):
            raise ModelError(f"The teacher '{self.teacher.name}' has nested outputs.", "one output, a list or a dict of outputs")
        top_k = self.wanted.top_k
        for name, value in zip(names, flat, strict=True):
            if top_k and (len(value.shape) < 2 or value.shape[-1] <= top_k):
                raise ConfigurationError(
                    f"top_k is {top_k}, but the teacher's {name} has the shape {tuple(value.shape)}.",
                    "more classes than top_k, on the last axis",
                )
        self._structure = (kind, tuple(names), tuple(int(v.shape[-1]) for v in flat) if top_k else None)

    def _shrink(self, outputs):
        """Of each output: its largest logits, their classes, and the log-sums of the rest."""
        k, found = self.wanted.top_k, []
        for logits in outputs:
            ordered, indices = tf.math.top_k(tf.cast(logits, tf.float32), k=logits.shape[-1])
            rest = [tf.reduce_logsumexp(ordered[..., k:] / t, axis=-1) for t in self.wanted.temperatures]
            found += [ordered[..., :k], indices[..., :k], tf.stack(rest, axis=-1)]
        return found

    def describe(self, answers, scaled=True):
        """Finds the layout of the rows from the answers to a first batch.

        Args:
            answers: What `ask` returned.
            scaled: Whether float16 has scales; not in format 1.

        Returns:
            Fields of `Settings`: layout, structure, output_names, classes.

        Raises:
            ConfigurationError: if the largest logits are wanted of outputs that are probabilities.
        """
        kind, names, classes = self._structure
        leaves, queue = [], list(answers[0])
        for number, _ in enumerate(names):
            if self.wanted.top_k:
                values, _, rest = (queue.pop(0) for _ in range(3))
                self._refuse_probabilities(values)
                index_type = "uint16" if classes[number] <= 1 << 16 else "int32"
                kinds = (("values", values, self.wanted.dtype), ("indices", values, index_type), ("rest", rest, self.wanted.dtype))
            else:
                kinds = (("output", queue.pop(0), self.wanted.dtype),)
            leaves += [Leaf(role, str(number), tuple(int(s) for s in value.shape[1:]), dtype) for role, value, dtype in kinds]
        for path, value in zip(self.wanted.layers, queue, strict=True):
            leaves.append(Leaf("layer", path, tuple(int(s) for s in value.shape[1:]), self.wanted.dtype))
        leaves = with_scales(leaves) if scaled else tuple(leaves)
        return {"layout": Layout(leaves, self.wanted.views), "structure": kind, "output_names": names, "classes": classes}

    def _refuse_probabilities(self, values):
        if values.min() >= 0 and np.all(values.sum(-1) <= 1 + SUM_TOLERANCE):
            raise ConfigurationError(
                f"top_k is {self.wanted.top_k}, but the teacher's outputs look like probabilities: its largest are between 0 and 1 and sum to at most 1.",
                "logits, of which the log-sum of the rest means something",
                "take the softmax off the teacher, or let it return the logarithm of its probabilities",
            )


def seeds(elements, view):
    """The seeds of elements in a view: int32 of shape (n, 2), the element's number and the view's."""
    numbers = tf.cast(elements % (1 << 31), tf.int32)
    return tf.stack([numbers, tf.broadcast_to(tf.cast(view, tf.int32), tf.shape(numbers))], axis=-1)


def augmented_by(augment):
    """Makes `f(inputs, seeds)` of a function that augments one element; writing and training both use this one."""

    def augmented(inputs, seeds):
        inputs = tf.nest.map_structure(tf.convert_to_tensor, inputs)
        types = tf.nest.map_structure(lambda t: t.dtype, inputs)
        return tf.map_fn(lambda pair: augment(*pair), (inputs, seeds), fn_output_signature=types)

    return augmented


def refuse_shaky_augmentation(asker, inputs):
    """Raises `DataError` if augmenting the same batch twice gives different results."""
    first, second = (keras.tree.flatten(asker.view(inputs, 0, 0)) for _ in range(2))
    if not all(np.array_equal(a, b) for a, b in zip(first, second, strict=True)):
        raise DataError(
            "The function augment gives another result for the same element and seed.",
            "a stateless function: equal arguments, equal results",
            "use tf.image.stateless_random_* or tf.random.stateless_* with the seed that it is given",
        )
