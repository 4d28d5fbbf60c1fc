"""Calibration: the difference between a model's confidence and its accuracy."""

import keras
from keras import ops

from tfdistill.errors import ConfigurationError, ModelError
from tfdistill.losses import spaces
from tfdistill.losses.reduction import at_least_float32
from tfdistill.saveable import checks_config
from tfdistill.utils import validate


@keras.saving.register_keras_serializable(package="tfdistill")
class CalibrationError(keras.metrics.Metric):
    """Expected calibration error: how far confidence and accuracy lie apart.

    Guo et al. 2017, "On calibration of modern neural networks", arXiv 1706.04599. The predictions are sorted by confidence (the largest
    probability) into `bins` bins of equal width, (0, 1/bins], ..., (1 - 1/bins, 1]; the error is the mean over samples of |accuracy of the
    bin - mean confidence of the bin|.

    Args:
        outputs: The space of the predictions: "logits", "log_probabilities" or "probabilities".
        bins: Number of bins, at least 1. 15 in the paper.
        name: Name of the metric.

    Raises:
        ConfigurationError: if a setting is out of range.
    """

    def __init__(self, outputs="logits", bins=15, name="calibration_error"):
        super().__init__(name=name)
        if outputs not in spaces.SPACES:
            raise ConfigurationError(f"outputs is {outputs!r}.", f"one of {spaces.SPACES}")
        validate.whole_number("bins", bins)
        self.outputs, self.bins = outputs, bins
        # Per bin: sum of weights, of confidences, of right answers.
        self.sums = self.add_variable(shape=(3, bins), initializer="zeros", name="sums")

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Adds a batch.

        Args:
            y_true: Class indices `(batch, ...)` or `(batch, ..., 1)`, or one-hot (or soft) labels `(batch, ..., classes)`.
            y_pred: `(batch, ..., classes)`, or `(batch, ..., 1)` for one yes-no output.
            sample_weight: None or `(batch,)`.
        """
        p = probabilities(y_pred, self.outputs)
        confidence = ops.reshape(ops.max(p, axis=-1), (-1,))
        right = ops.reshape(ops.cast(ops.equal(ops.argmax(p, axis=-1), class_indices(y_true, y_pred)), "float32"), (-1,))
        weight = spread(sample_weight, p)
        place = ops.clip(ops.cast(ops.ceil(confidence * self.bins), "int32") - 1, 0, self.bins - 1)
        member = ops.one_hot(place, self.bins, dtype="float32")
        rows = ops.stack([weight, weight * confidence, weight * right])
        self.sums.assign_add(ops.matmul(rows, member))

    def result(self):
        weight, confidence, right = ops.unstack(self.sums.value, 3)
        return ops.sum(ops.abs(right - confidence)) / ops.maximum(ops.sum(weight), keras.config.epsilon())

    def get_config(self):
        return {"outputs": self.outputs, "bins": self.bins, "name": self.name}

    @classmethod
    @checks_config
    def from_config(cls, config):
        return cls(**config)


def probabilities(values, space):
    """Converts a model's outputs to class probabilities; one yes-no output becomes the two classes "no" and "yes".

    Args:
        values: `(batch, ..., classes)`, or `(batch, ..., 1)`.
        space: "logits", "log_probabilities" or "probabilities".

    Returns:
        `(batch, ..., classes)`, float32 or wider.
    """
    values = at_least_float32(ops.convert_to_tensor(values))
    if len(values.shape) < 2:
        raise ModelError(f"The outputs have the shape {tuple(values.shape)}.", "(batch, classes) or (batch, ..., classes)")
    if values.shape[-1] == 1:
        yes = ops.sigmoid(values) if space == "logits" else ops.exp(values) if space == "log_probabilities" else values
        return ops.concatenate([1.0 - yes, yes], axis=-1)
    return values if space == "probabilities" else ops.softmax(values, axis=-1)


def class_indices(y, outputs):
    """Converts labels to class indices; they may be indices (with or without a last axis of 1) or one-hot.

    Args:
        y: Labels.
        outputs: The outputs that they belong to, `(batch, ..., classes)`.

    Returns:
        int32, `(batch, ...)`.
    """
    y = ops.convert_to_tensor(y)
    if len(y.shape) == len(outputs.shape):
        y = ops.squeeze(y, axis=-1) if y.shape[-1] == 1 else ops.argmax(y, axis=-1)
    return ops.cast(y, "int32")


def spread(sample_weight, p):
    """Returns one weight for each position of each sample, flat."""
    ones = ops.ones(ops.shape(p)[:-1], dtype="float32")
    if sample_weight is not None:
        weight = ops.cast(ops.convert_to_tensor(sample_weight), "float32")
        ones = ones * ops.reshape(weight, (*ops.shape(weight), *(1,) * (len(ones.shape) - len(weight.shape))))
    return ops.reshape(ones, (-1,))
