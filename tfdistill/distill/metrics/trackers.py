"""Metrics of a distiller that Keras does not have."""

import keras


class SameAs(keras.metrics.Metric):
    """Another metric under a second name, without counting twice.

    Args:
        of: Function that returns the other metric.
        name: The second name.
    """

    def __init__(self, of, name):
        super().__init__(name=name)
        self._of = of

    def update_state(self, *args, **kwargs):
        """Nothing: the other metric is updated where it belongs."""

    def result(self):
        return self._of().result()


class LastValue(keras.metrics.Metric):
    """The value of the last step: for schedules, whose mean over an epoch says little."""

    def __init__(self, name):
        super().__init__(name=name)
        # Replicas have the same value: their sum, Keras's default, would be none.
        self.last = self.add_variable(shape=(), initializer="zeros", aggregation="mean", name="last")

    def update_state(self, value, sample_weight=None):
        self.last.assign(value)

    def result(self):
        return keras.ops.convert_to_tensor(self.last)
