"""The rounding of quantization-aware training, as functions of tensors."""

import contextlib
import functools
import math

from tfdistill.bridge.integer import hiding
from tfdistill.bridge.integer.measuring import Widest
from tfdistill.bridge.integer.shared_ranges import SharedRanges
from tfdistill.bridge.integer.wide import clipped, round_wide

# Activations whose range the converter fixes: one that is trained would be rounded to a second time, in float.
FIXED_RANGES = {"softmax": (0.0, 255 / 256), "sigmoid": (0.0, 255 / 256), "tanh": (-1.0, 127 / 128)}
# "Bits" of a weight that is not rounded.
FLOAT = 32
# The most entries of a table of integers.
_MOST_INTEGERS = 4096
# Name of the form of what is computed in float, in the file too.
FLOAT_FORM = "float"
# A product by this number is a product by one, which no converter removes.
ONE = 1.0000001192092896
# The largest magnitude of an all-zero channel, whose scale must not be zero; and the smallest step of what is divided by.
_TINY = 1e-9
# Name of the range of what a layer returns; and the one that the file has where all was zero, as behind a ReLU without a positive input. Any range holds zeros,
# but no kernel multiplies products of integers by what leads to a range without width.
_OUTPUT, _WHERE_ALL_IS_ZERO = "output", (0.0, 1.0)


def round_weights(value, bits, axes=(), of=None):
    """Rounds a weight to a symmetric grid without the lowest integer (-127 to 127 for 8 bits), the gradient passing straight through.

    The range is the weight's own at this moment, so there is none to store, and an exported weight is never clipped.

    Args:
        value: float32 tensor.
        bits: 8, 4 or `FLOAT`.
        axes: Axes with a scale for each index; empty for one scale. With less than 8 bits they must be the last ones.
        of: The whole weight where `value` is a part of it with its one scale; None for `value` itself.

    Returns:
        float32 tensor of the same shape.
    """
    import tensorflow as tf

    if bits == FLOAT:
        return value
    others, whole = [axis for axis in range(value.shape.rank) if axis not in axes], value if of is None else of
    limit = tf.maximum(tf.stop_gradient(tf.reduce_max(tf.abs(whole), others if of is None else None, keepdims=True)), _TINY)
    if not axes:
        limit = tf.reshape(limit, ())
        return tf.quantization.fake_quant_with_min_max_vars(value, -limit, limit, num_bits=bits, narrow_range=True)
    if bits < 8:
        # The converter takes 4 bits from this operation alone.
        limit, flat = tf.reshape(limit, (-1,)), tf.reshape(value, (*(value.shape[axis] for axis in others), -1))
        rounded = tf.quantization.fake_quant_with_min_max_vars_per_channel(flat, -limit, limit, num_bits=bits, narrow_range=True)
        return tf.reshape(rounded, value.shape)
    # As plain arithmetic, which the converter folds into a constant and puts on this same grid by itself; the operation for channels fails there wherever
    # a kernel is reshaped or transposed on its way (Conv1D, Conv2DTranspose).
    return _snap()(value, limit / (2 ** (bits - 1) - 1))


@functools.cache
def _snap():
    import tensorflow as tf

    @tf.custom_gradient
    def snap(value, scale):
        return tf.round(value / scale) * scale, lambda upstream: (upstream, None)

    return snap


def cluster_means(value, members, count):
    """Gives each weight the mean of its cluster; so does the gradient.

    Args:
        value: float32 tensor of weights.
        members: int32 tensor of its shape: the index of each weight's cluster.
        count: Number of clusters.

    Returns:
        float32 tensor of the same shape.
    """
    import tensorflow as tf

    sizes = tf.math.unsorted_segment_sum(tf.ones_like(value), members, count)
    means = tf.math.unsorted_segment_sum(value, members, count) / tf.maximum(sizes, 1.0)
    return tf.gather(means, members)


class ActivationRounder:
    """Rounds the activations of one call of a layer to 256 steps over a moving average of their range.

    A range is the plain mean of those of the first 100 batches, and a moving average with a momentum of 0.99 from there on. It always holds 0, which has to be
    one of the steps.

    Args:
        variables: Function of the name of a tensor: its range's variables `(minimum, maximum, batches)`, scalars.
        training: Python bool: whether the ranges move.
        rounding: Python bool: whether anything is rounded; without it, the ranges alone move.
        in_the_file: Python bool: whether this call is traced for an integer file.
        measuring: How calibration measures the ranges instead, whatever `training` is; see `tfdistill.bridge.integer.measuring`. None if it does not.
        positive: Positions of the tensors that the layer is called on of which its graph shows that they are not negative.
        scores: Whether what it computes is only read by softmaxes, so that numbers which hide scores may be others that do.
        hides: Whether such numbers may come, as far as the graph shows: then whether they did is remembered beside each range, and ranges are of what is seen.
        replaced: Pairs (name of a form, name of the one that is computed in its place).
        wide: Whether tensors are rounded to 65,536 steps around 0. A file is traced with 256 of them, and widened afterwards.

    Attributes:
        ready: List of the results that have a range already, and are not to be rounded to another one.
    """

    def __init__(
        self,
        variables,
        training,
        rounding=True,
        in_the_file=False,
        measuring=None,
        positive=(),
        scores=False,
        replaced=(),
        hides=False,
        wide=False,
    ):
        self._replaced, self._wide = dict(replaced), wide and not in_the_file
        self._variables, self._rounding, self._in_the_file, self.positive = variables, rounding, in_the_file, positive
        self.scores, self._hides = scores, scores and hides
        self._move = measuring.move if measuring is not None else _move_range if training else None
        self._count = None if measuring is None else measuring.count
        self._shared, self.ready = None, []

    @property
    def in_the_file(self):
        """Whether this call is traced for an integer file."""
        return self._in_the_file

    @property
    def counts(self):
        """Whether the values of tensors are counted, as some calibration does."""
        return self._count is not None

    def form_of(self, name):
        """Returns the name of the form that is computed in place of the one of that name; the name itself if it is not replaced."""
        return self._replaced.get(name, name)

    def is_float(self, name):
        """Whether the form of that name is computed in float, in the file too."""
        return self._replaced.get(name) == FLOAT_FORM

    def unrounded(self, x):
        """Returns a rounded tensor as one of floats, from which the file computes in float until the next rounding."""
        return ONE * x if self._in_the_file else x

    def __call__(self, x, what, symmetric=False, positive=False, counted=None, low=None, high=None, hidden=None, scores=False):
        """Rounds a tensor.

        Args:
            x: float tensor.
            what: Name of its range.
            symmetric: Whether 0 is the middle one of the steps: the zero point of an int8 tensor is then 0.
            positive: Whether `x` is above 0 and something is divided by it: what would round to 0 becomes one step. A file needs no operation for
                that: TFLite's integer RSQRT gives its largest output for an input of 0.
            counted: bool tensor that broadcasts to `x`: the entries that belong to the range; None for all. The others may be clipped.
            low, high: Bounds that `x` is clipped to, None for none. The file needs no operation for that, as its integers end there. Bounds of which
                none is 0 are moved by up to half a step, for 0 to be one of the steps.
            hidden: bool tensor of the shape of `x`: scores that a mask hides, for which `x` has `-hiding.HIDING`; None for none.
            scores: Whether softmaxes alone read `x`, as is always so where the layer has `scores`.

        Returns:
            Tensor of the type and shape of `x`.
        """
        import tensorflow as tf

        scores = scores or self.scores
        if scores and self._rounding and tf.get_static_value(x) is not None:
            x = hiding.without_large_numbers(x)
        wide, x = tf.cast(x, tf.float32), clipped(x, low, high)
        # What is beyond the range that follows is clipped to its ends, here and in the file.
        seen, margins = tf.cast(x, tf.float32), None
        if counted is not None:
            seen = tf.where(counted, seen, 0.0)
        if hidden is not None:
            seen, margins = tf.where(hidden, 0.0, seen), (hiding.MARGIN, 0.0)
        elif scores:
            seen, margins = hiding.seen_and_margins(seen)
        # A range that ends below what is seen is not clipped: that distance is what hides.
        hides = hidden is not None or (scores and not self.scores) or (self._hides and self._shared is not None)
        low, high, known = self._ends_of(what, seen, margins, clipped=not hides)
        if not self._rounding:
            return x
        if symmetric:
            scale = tf.maximum(high / 127.0, -low / 128.0)
            low, high = -128.0 * scale, 127.0 * scale
        # What is not clipped yet ends at the last of the steps, as it does in the file, and not halfway between two of them.
        rounded = round_wide(wide, low, high) if self._wide else tf.quantization.fake_quant_with_min_max_vars(wide, low, high)
        if positive and not self._in_the_file:
            rounded = tf.maximum(rounded, tf.maximum((high - low) / 255.0, _TINY))
        rounded = tf.cast(rounded, x.dtype)
        return rounded if known is None else tf.where(known, rounded, x)

    def _ends_of(self, what, seen, margins, clipped):
        """Moves a range by the values that are seen, where ranges move.

        Args:
            what: Name of the range.
            seen: float32 tensor.
            margins: How far the range goes on below and above the values, scalars; None if it does not.
            clipped: Whether it may be clipped to fewer values.

        Returns:
            Its two ends, scalar tensors, and a bool tensor that says whether they are known yet; None if they are.
        """
        import tensorflow as tf

        variables = self._variables(what)
        if self._count is not None and clipped:
            self._count(variables, seen)
        if self._shared is not None:
            self._shared.see(what, seen, margins or ())
            return (*variables[:2], None) if self._in_the_file else self._shared.ends(what)
        apart = self._variables(f"{what}_hiding") if self._hides else None
        if self._move is not None:
            below, above = margins or (0.0, 0.0)
            if apart:
                Widest(self._rounding).move(apart, -below, above)
                below, above = 0.0, 0.0
            self._move(variables, tf.minimum(tf.reduce_min(seen), 0.0) - below, tf.maximum(tf.reduce_max(seen), 0.0) + above)
        if apart:
            return (*hiding.ends_with_margins(*variables[:2], *apart[:2]), None)
        if what.partition("@")[0] == _OUTPUT and self._ends(what) == [0.0, 0.0]:
            return (*_WHERE_ALL_IS_ZERO, None)
        return (*variables[:2], None)

    def looked_up(self, x, table):
        """Rounds what was looked up in a rounded table to the steps of the table, which changes nothing: where a product shares the table, the converter would
        make floats of what is looked up if nothing said its range."""
        return round_weights(x, 8, of=table) if self._rounding else x

    def fixed(self, x, activation):
        """Rounds what an activation of `FIXED_RANGES` gave, as the file's operation for it does."""
        import tensorflow as tf

        if not self._rounding:
            return x
        ends, bits = ((-1.0, 32767 / 32768), 16) if self._wide else (FIXED_RANGES[activation], 8)
        return tf.cast(tf.quantization.fake_quant_with_min_max_args(tf.cast(x, tf.float32), *ends, num_bits=bits), x.dtype)

    def within(self, x, low, high):
        """Clips to a range that is known beforehand, one end of which is 0, and rounds to 256 steps of it."""
        import tensorflow as tf

        if not self._rounding:
            return tf.clip_by_value(x, tf.cast(low, x.dtype), tf.cast(high, x.dtype))
        rounded = round_wide if self._wide else tf.quantization.fake_quant_with_min_max_args
        return tf.cast(rounded(tf.cast(x, tf.float32), low, high), x.dtype)

    def divisor(self, x, what):
        """Rounds a tensor of numbers that are not negative; what would become 0 becomes one step, in the file too."""
        import tensorflow as tf

        rounded = self(x, what, positive=True)
        if not self._rounding or not self._in_the_file:
            return rounded
        low, high, _ = self._variables(what)
        return tf.maximum(rounded, tf.cast(tf.maximum((high - low) / 255.0, _TINY), x.dtype))

    def integers(self, x, what):
        """Makes floats of integers, which TFLite can only in float: the file looks them up in a table of those in the range, or of every nth where they are many.

        Args:
            x: Tensor of integers.
            what: Name of their range.

        Returns:
            float32 tensor, rounded over the range.
        """
        import tensorflow as tf

        ends = self._ends(what) if self._rounding else None
        if ends is None:
            return self(tf.cast(x, tf.float32), what)
        first, last = math.floor(ends[0]), math.ceil(ends[1])
        step = -(-(last - first + 1) // _MOST_INTEGERS)
        table = self(tf.range(first, last + 1, step, tf.float32) + (step - 1) / 2, what)
        index = tf.clip_by_value(tf.cast(x, tf.int32), first, last) - first
        return tf.gather(table, index if step == 1 else index // step)

    def _ends(self, what):
        """Returns the two ends of a range as numbers where they are known, as they are when a file is made; None elsewhere."""
        import tensorflow as tf

        ends = self._variables(what)[:2]
        if not self._in_the_file:
            return None
        with tf.init_scope():
            # Ranges that are assumed are constants; variables of several devices are numbers only once they are read.
            return [float(x.read_value() if isinstance(x, tf.Variable) else tf.get_static_value(x)) for x in ends]

    @contextlib.contextmanager
    def together(self):
        """While open, all tensors of one name count as one: its range moves once, at the end, by the lowest and highest of them."""
        if self._shared is not None:  # a function inside a step, too, may bring tensors together
            yield self._shared
            return
        self._shared = SharedRanges(self._variables, self._move)
        yield self._shared
        self._shared.move()
        self._shared = None


def _move_range(variables, lowest, highest):
    import tensorflow as tf

    low, high, batches = variables
    momentum = tf.minimum(batches / (batches + 1.0), 0.99)
    moved = [variable.assign_sub((variable - value) * (1.0 - momentum)) for variable, value in ((low, lowest), (high, highest))]
    with tf.control_dependencies([tf.convert_to_tensor(value) for value in moved]):
        batches.assign_add(1.0)
