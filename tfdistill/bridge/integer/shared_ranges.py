"""Ranges of tensors that are computed several times in one call of a layer, as in the steps of a recurrent one."""

import contextlib


class SharedRanges:
    """The ranges of an `ActivationRounder` while all tensors of one name count as one: each is read once, and moves once, by the lowest and highest of them.

    Nothing here has a gradient. In a loop, TensorFlow would carry one through all of its steps.

    Args:
        variables: Function of the name of a tensor: its range's variables `(minimum, maximum, batches)`, scalars.
        move: Function of `(variables, lowest, highest)` that moves a range; None if ranges stay as they are.
    """

    def __init__(self, variables, move):
        self._variables, self._move = variables, move
        self._ends, self._seen = {}, {}

    def ends(self, what):
        """Returns the range of a name as scalar tensors `(minimum, maximum, known)`, as it is before it moves.

        `known` says whether the range holds more than zero yet: that of a first batch is known only when all of it was seen, and where only zeros were seen,
        rounding would leave nothing to see behind it. It is None if ranges stay as they are.
        """
        import tensorflow as tf

        if what not in self._ends:
            low, high, batches = self._variables(what)
            low, high = tf.stop_gradient(low), tf.stop_gradient(high)
            self._ends[what] = low, high, None if self._move is None else (batches > 0.0) & (high > low)
        return self._ends[what]

    def see(self, what, values, margins=()):
        """Takes the values of a tensor into account, where ranges move.

        Args:
            what: Name of the range.
            values: float32 tensor.
            margins: How far the range goes on below and above all values of that name, scalars; empty if it does not.
        """
        import tensorflow as tf

        if self._move is not None:
            found = tuple(map(tf.stop_gradient, (tf.reduce_min(values), tf.reduce_max(values), *margins)))
            self._seen[what] = _wider(self._seen[what], found) if what in self._seen else found

    def read_for_loop(self, step):
        """Reads the ranges of all tensors of a loop's step, once and before the loop.

        Args:
            step: Function without arguments, which is traced apart from everything else to know them. It returns its dict of `step_of_loop`.

        Returns:
            That dict as it is before the first step.
        """
        import tensorflow as tf

        before, self._ends = self._ends, {}
        seen = tf.function(step, autograph=False).get_concrete_function().structured_outputs
        names, self._ends = list(self._ends), before
        for what in names:
            self.ends(what)
        # A range always holds 0.
        return {what: tuple(tf.constant(0.0) for _ in found) for what, found in seen.items()}

    @contextlib.contextmanager
    def step_of_loop(self, seen):
        """While open, what is seen is added to a dict that the loop carries from step to step, in place; `add` takes it when the loop has ended."""
        before, self._seen = self._seen, seen
        try:
            yield
        finally:
            self._seen = before

    def add(self, seen):
        """Takes into account what was seen in a loop."""
        for what, found in seen.items():
            self._seen[what] = _wider(self._seen[what], found) if what in self._seen else found

    def move(self):
        """Moves each range by all that was seen."""
        import tensorflow as tf

        for what, (lowest, highest, *margins) in self._seen.items():
            below, above = margins or (0.0, 0.0)
            self._move(self._variables(what), tf.minimum(lowest, 0.0) - below, tf.maximum(highest, 0.0) + above)


def _wider(one, other):
    import tensorflow as tf

    lowest, highest = tf.minimum(one[0], other[0]), [tf.maximum(a, b) for a, b in zip(one[1:], other[1:], strict=True)]
    return tuple(map(tf.stop_gradient, (lowest, *highest)))
