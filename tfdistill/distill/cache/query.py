"""Runs a teacher on batches and returns the tensors to store."""

import collections.abc

import keras
import numpy as np
import tensorflow as tf

from tfdistill.distill.cache import augmentation
from tfdistill.distill.cache.format import Layout, Leaf, with_scales
from tfdistill.distill.objective.first_batch import refuse_nonfinite_inputs
from tfdistill.distill.objective.taps import Tap, Taps
from tfdistill.distill.teachers.black_box import BlackBox, own_errors
from tfdistill.distill.teachers.ensemble import Ensemble
from tfdistill.distill.teachers.finite import refuse_hidden_nan
from tfdistill.distill.teachers.remote import RemoteTeacher, checked_outputs
from tfdistill.errors import ConfigurationError, ModelError
from tfdistill.graph.functional import last_activations
from tfdistill.losses import masking
from tfdistill.losses.spaces import SUM_TOLERANCE
from tfdistill.utils.arrays import rows_of


class TeacherQuery:
    """A teacher, and which of its outputs are stored.

    Args:
        teacher: A built `keras.Model`, or a `RemoteTeacher`.
        options: `CacheOptions`.

    Raises:
        ModelError: if a layer does not exist, or the options name layers of a black box.
    """

    def __init__(self, teacher, options):
        self.teacher, self.options = teacher, options
        self.remote = isinstance(teacher, RemoteTeacher)
        self._structure = None
        # What of the teacher's outputs carries a padding mask: "output/0", "layer/path".
        self._masked = ()
        if self.remote:
            if options.layers:
                raise ModelError(
                    f"The teacher '{teacher.name}' is a black box: it has no layers {list(options.layers)}.", fix="leave layers out"
                )
            self._reduce = tf.function(self._top_k_with_rest, autograph=False)
        else:
            self._taps = Taps(teacher, [Tap(path) for path in options.layers], "teacher")
            self._run = tf.function(self._run_model, autograph=False, reduce_retracing=True)
        self._augment = tf.function(augmentation.on_batches(options.augment), reduce_retracing=True) if options.augment else None

    def outputs(self, inputs, first):
        """Runs the teacher on one batch.

        Args:
            inputs: Structure of arrays `(rows, ...)`.
            first: Number of the batch's first element in the data set.

        Returns:
            For each view a list of arrays, one for each leaf of the layout.

        Raises:
            DataError: if an input holds NaN or infinity.
        """
        return [self._outputs_of_view(self.view(inputs, first, number), first) for number in range(self.options.views)]

    def view(self, inputs, first, number):
        """The inputs that the teacher gets in one view."""
        if self._augment is None:
            return inputs
        rows = rows_of(inputs)
        seeds = augmentation.element_seeds(tf.range(first, first + rows, dtype=tf.int64), number)
        return keras.tree.map_structure(lambda t: t.numpy(), self._augment(inputs, seeds))

    def refuse_hidden_nan(self, inputs):
        """Raises `DataError` if a first batch, given to `outputs` before, gives NaN that fused operations of the graph hide."""
        if self.remote or isinstance(self.teacher, BlackBox):
            return

        def compute(part):
            outputs, features = self._taps(part, training=False)
            return [*keras.tree.flatten(outputs), *(features[Tap(path)] for path in self.options.layers)]

        names = [f"output '{name}'" for name in self._structure[1]] + [f"layer '{path}'" for path in self.options.layers]
        with own_errors(self.teacher):
            refuse_hidden_nan(compute, self.view(inputs, 0, 0), names)

    def _outputs_of_view(self, inputs, first):
        # NaN in the inputs need not show in the outputs: a ReLU may turn it into 0.
        refuse_nonfinite_inputs(inputs, f"in the batch that begins with element {first}", "clean the data, and what augment makes of it")
        if self.remote:
            rows = rows_of(inputs)
            outputs = checked_outputs(self.teacher(inputs), rows, self.teacher.name)
            self._record_structure(outputs)
            leaves = self._reduce(keras.tree.flatten(outputs)) if self.options.top_k else keras.tree.flatten(outputs)
        else:
            with own_errors(self.teacher):
                if self._structure is None and isinstance(self.teacher, Ensemble):
                    self.teacher.check_members(inputs)
                leaves = self._run(inputs)
        return [np.asarray(leaf) for leaf in leaves]

    def _run_model(self, inputs):
        outputs, features = self._taps(inputs, training=False)
        self._record_structure(outputs)
        layers = [features[Tap(path)] for path in self.options.layers]
        for path, feature in zip(self.options.layers, layers, strict=True):
            if not hasattr(feature, "shape"):
                raise ModelError(f"The layer '{path}' of the teacher has several outputs.", "a layer with one output")
        flat = keras.tree.flatten(outputs)
        named = [
            *((f"output/{number}", t) for number, t in enumerate(flat)),
            *((f"layer/{p}", t) for p, t in zip(self.options.layers, layers, strict=True)),
        ]
        masks = {name: mask for name, t in named if (mask := masking.mask_of(t)) is not None}
        self._masked = tuple(masks)
        return [tf.convert_to_tensor(t) for t in (*(self._top_k_with_rest(flat) if self.options.top_k else flat), *layers, *masks.values())]

    def _record_structure(self, outputs):
        """Remembers whether the final outputs are one tensor, a list or a dict, and their names: a flat list of arrays does not tell."""
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
        top_k = self.options.top_k
        for name, value in zip(names, flat, strict=True):
            if top_k and (len(value.shape) < 2 or value.shape[-1] <= top_k):
                raise ConfigurationError(
                    f"top_k is {top_k}, but the teacher's {name} has the shape {tuple(value.shape)}.",
                    "more classes than top_k, on the last axis",
                )
        self._structure = (kind, tuple(names), tuple(int(v.shape[-1]) for v in flat) if top_k else None)

    def _top_k_with_rest(self, outputs):
        """Of each output: its largest logits, their classes, and the log-sum-exp of the other logits at each temperature."""
        k, found = self.options.top_k, []
        for logits in outputs:
            ordered, indices = tf.math.top_k(tf.cast(logits, tf.float32), k=logits.shape[-1])
            rest = [tf.reduce_logsumexp(ordered[..., k:] / t, axis=-1) for t in self.options.temperatures]
            found += [ordered[..., :k], indices[..., :k], tf.stack(rest, axis=-1)]
        return found

    def describe(self, outputs, scaled=True):
        """Finds the layout of the rows from the outputs for a first batch.

        Args:
            outputs: What `outputs` returned.
            scaled: Whether float16 has scales; not in format 1.

        Returns:
            Fields of `Settings`: layout, structure, output_names, classes.

        Raises:
            ConfigurationError: if the options name a number of largest logits, and the outputs are probabilities.
        """
        kind, names, classes = self._structure
        leaves, queue, dtype = [], list(outputs[0]), self.options.dtype
        for number, _ in enumerate(names):
            if self.options.top_k:
                values, _, rest = (queue.pop(0) for _ in range(3))
                self._refuse_probabilities(values, number)
                index_type = "uint16" if classes[number] <= 1 << 16 else "int32"
                kinds = (("values", values, dtype), ("indices", values, index_type), ("rest", rest, dtype))
            else:
                kinds = (("output", queue.pop(0), dtype),)
            leaves += [Leaf(role, str(number), tuple(int(s) for s in value.shape[1:]), type_) for role, value, type_ in kinds]
        for path in self.options.layers:
            leaves.append(Leaf("layer", path, tuple(int(s) for s in queue.pop(0).shape[1:]), dtype))
        for name, value in zip(self._masked, queue, strict=True):
            leaves.append(Leaf("mask", name, tuple(int(s) for s in value.shape[1:]), "uint8"))
        leaves = with_scales(leaves) if scaled else tuple(leaves)
        return {"layout": Layout(leaves, self.options.views), "structure": kind, "output_names": names, "classes": classes}

    def _refuse_probabilities(self, values, number):
        if last_activations(self.teacher)[number : number + 1] == ["linear"]:
            return  # logits, whatever those of one batch look like
        if values.min() >= 0 and np.all(values.sum(-1) <= 1 + SUM_TOLERANCE):
            raise ConfigurationError(
                f"top_k is {self.options.top_k}, but the teacher's outputs look like probabilities: its largest are between 0 and 1 and sum to at most 1.",
                "logits, as the log-sum-exp of the other logits is stored",
                "take the softmax off the teacher, or let it return the logarithm of its probabilities",
            )
