"""How calibration measures the ranges of activations: without labels and without training.

Both classes are what an `ActivationRounder` takes as `measuring`: `move(variables, lowest, highest)` moves a range when a tensor was seen, and
`count(variables, values)` looks at the values of the tensor; None where there is nothing to do. `variables` is `(minimum, maximum, batches)`. `rounding` says whether
the model rounds meanwhile.
"""

_NARROWEST = 1e-9


class Widest:
    """Widens each range until it holds every value that was seen.

    Args:
        rounding: Whether the model rounds meanwhile, as the file does. If not, only layers that are computed in a form round inside, as ranges there follow from
            it: the inverse of a deviation is at most that of one step.
    """

    count = None

    def __init__(self, rounding):
        self.rounding = rounding

    def move(self, variables, lowest, highest):
        import tensorflow as tf

        low, high, batches = variables
        first = tf.equal(batches, 0.0)
        widened = tf.where(first, lowest, tf.minimum(low, lowest)), tf.where(first, highest, tf.maximum(high, highest))
        with tf.control_dependencies(widened):
            moved = [low.assign(widened[0]), high.assign(widened[1])]
        with tf.control_dependencies([tf.convert_to_tensor(value) for value in moved]):
            batches.assign_add(1.0)


class Histograms:
    """Counts how often values fall into each of equal bins between the two ends of their range, which stays as it is.

    Zeros are left out, as 0 is always one of the steps.

    Args:
        wanted: Ids of the minimum variables of the ranges that are counted.
        bins: Number of bins.

    Attributes:
        counts: Dict of the id of a range's minimum variable to float32 tensor (bins,): the values of one call of the model.
    """

    move = None
    rounding = True

    def __init__(self, wanted, bins=2048):
        self._wanted, self._bins, self.counts = frozenset(wanted), bins, {}

    def count(self, variables, values):
        import tensorflow as tf

        low, high, _ = variables
        if id(low) not in self._wanted:
            return
        values = tf.reshape(values, (-1,))
        # Where only zeros were seen, as of a weight that starts with them, there is nothing to count between two ends that are one.
        ends = tf.stack([tf.convert_to_tensor(low), tf.maximum(tf.convert_to_tensor(high), low + _NARROWEST)])
        found = tf.cast(tf.histogram_fixed_width(tf.boolean_mask(values, tf.not_equal(values, 0.0)), ends, self._bins), tf.float32)
        self.counts[id(low)] = self.counts.get(id(low), 0.0) + found
