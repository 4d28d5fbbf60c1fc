"""Metrics of a distiller that Keras does not have."""

import keras


class MetricAlias(keras.metrics.Metric):
    """Shows another metric under a second name, without counting twice.

    Args:
        source: Function that returns the other metric.
        name: The second name.
    """

    def __init__(self, source, name):
        super().__init__(name=name)
        self._source = source

    def update_state(self, *args, **kwargs):
        """Does nothing: the other metric is updated by its owner."""

    def result(self):
        return self._source().result()


class LastValue(keras.metrics.Metric):
    """The value of the last step, for schedules, whose mean over an epoch says little."""

    def __init__(self, name):
        super().__init__(name=name)
        # All replicas have the same value; their sum, Keras's default, would be another.
        self.last = self.add_variable(shape=(), initializer="zeros", aggregation="mean", name="last")

    def update_state(self, value, sample_weight=None):
        self.last.assign(value)

    def result(self):
        return keras.ops.convert_to_tensor(self.last)
