"""Searches for the fewest wider layers with which a file holds a limit of lost accuracy."""

import warnings

import numpy as np

from tfdistill.convert.variants import Tolerances
from tfdistill.errors import DataError, VerificationError


class Search:
    """Files of more and more layers that are wider.

    Its subclasses say which layers these are, and how a file with the first of them is made: `measure_layers`, `made_with` and `kept`.

    Args:
        export: `export_tflite`.
        model: The model.
        settings: Dict of its other arguments.
        limit: Most points of accuracy that may be lost.
        folder: Folder for the files.

    Attributes:
        road: The road of the files.
        calibrates: Whether calibration data is needed.
        order: List of (name, bits) of what gets wider, the first first; empty until `measure_layers`.
    """

    road: str
    calibrates: bool

    def __init__(self, export, model, settings, limit, folder):
        self.export, self.model, self.settings, self.folder, self._limit = export, model, settings, folder, limit
        self._drops, self._measured, self.order = {}, False, []

    def measure_layers(self):
        """Finds `order`: what is won by each layer for each byte."""
        raise NotImplementedError

    def made_with(self, count):
        """Returns a context manager in which `export` makes the first `count` of the order wider."""
        raise NotImplementedError

    def kept(self, count):
        """Returns the `WiderLayer`s of the first `count` of the order."""
        raise NotImplementedError

    def smallest(self):
        """Returns the smallest number of wider layers that suffices.

        Raises:
            VerificationError: if all of them do not.
        """
        if self._holds(0):
            return 0
        self._measure()
        most = len(self.order)
        if not most or not self._holds(most):
            best = min(self._drops, key=self._drops.get)
            names = ", ".join(f"'{name}'" for name, _ in self.order[:best]) or "no layer"
            raise VerificationError(
                f"No {self.settings['variant']} file of '{self.model.name}' loses at most {self._limit:g} points of accuracy: the best loses "
                f"{self._drops[best]:.2f}, with {names} kept wider. Nothing was written.",
                f"a drop of at most {self._limit:g} points on verify_on",
                f"give max_accuracy_drop_points={np.ceil(self._drops[best] * 100) / 100:g}, or train with tfdistill.compress.QuantizeAware",
            )
        low, high = 0, most
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._holds(middle) else (middle, high)
        return high

    def _measure(self):
        if not self._measured:
            self.measure_layers()
            self._measured = True

    def _holds(self, count):
        if count not in self._drops:
            plain = {"tolerances": Tolerances(), "metadata": None, "road": self.road}
            with warnings.catch_warnings(), self.made_with(count):
                warnings.simplefilter("ignore")  # the export of the file that is found says them
                record = self.export(self.model, self.folder / f"{count}.tflite", **{**self.settings, **plain})
            self._drops[count] = drop_points(record)
        return self._drops[count] <= self._limit + 1e-9


def drop_points(record):
    """Returns the points of accuracy that a file loses against its Keras model: 100 times the difference; of several outputs the largest.

    Args:
        record: `ExportRecord` with labels in its verification.

    Raises:
        DataError: if there is no accuracy.
    """
    outputs = record.verification.outputs.values() if record.verification else ()
    drops = [100 * (o.keras_accuracy - o.accuracy) for o in outputs if o.accuracy is not None and o.keras_accuracy is not None]
    if not drops:
        raise no_accuracy()
    return max(drops)


def no_accuracy():
    """Returns the error about data that gives no accuracy."""
    return DataError(
        "max_accuracy_drop_points needs an accuracy, and verify_on gives none.",
        "held-out samples with labels of classes or decisions",
        "give the labels along with the inputs: verify_on=(x, y)",
    )
