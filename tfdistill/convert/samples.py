"""Reads samples for calibration and verification from every form of data that Keras takes, and checks them before the conversion."""

import dataclasses
import math
import os

import keras
import numpy as np

from tfdistill.convert.image_folder import ImageFolder, chosen, class_of_each, read_images
from tfdistill.errors import DataError, nearest
from tfdistill.utils.data import ARRAYS, elements, form_of, number_of_elements
from tfdistill.utils.finite import is_finite

# With fewer samples the observed ranges depend on the choice of the samples.
MIN_CALIBRATION_SAMPLES = 16
# The ranges hardly change after a few hundred samples, and each sample takes a run of the uncompressed model.
MAX_CALIBRATION_SAMPLES = 512


@dataclasses.dataclass(frozen=True)
class Samples:
    """Checked samples in memory.

    Attributes:
        inputs: Dict of input name -> array (samples, ...) of the input's type.
        labels: The labels, in the caller's structure of arrays; None without labels.
        count: Number of samples, at least 1.
        positions: Index of each sample in the caller's data, (samples,).
    """

    inputs: dict
    labels: object
    count: int
    positions: np.ndarray

    def batches(self, size):
        """Yields dicts of input name -> array of at most `size` samples."""
        for start in range(0, self.count, size):
            yield {name: array[start : start + size] for name, array in self.inputs.items()}


def collect(data, signature, what="calibration", minimum=1, limit=None):
    """Reads samples and checks them.

    Args:
        data: An array (samples, ...), a list of arrays, one for each input, or a dict of input name -> array; a tuple (inputs, labels) or
            (inputs, labels, sample_weight) of these; or a `tf.data.Dataset`, a `keras.utils.PyDataset` or an iterator of batches or single
            samples of these; or a function that returns one of these, such as TensorFlow's `representative_dataset`, which is called; or an `ImageFolder`, or the
            path of a folder of images.
        signature: The model's `ModelSignature`.
        what: Name of the data in errors.
        minimum: Smallest number of samples.
        limit: Largest number of samples to keep: evenly spaced samples of arrays, of each class its share where there are labels of classes; the first samples of a
            dataset. None keeps all.

    Returns:
        `Samples`.

    Raises:
        DataError: for too few samples, unknown or missing inputs, wrong shapes, NaN or infinite values.
    """
    data = data() if callable(data) else data
    if isinstance(data, (str, os.PathLike)) and os.path.isdir(data):
        data = ImageFolder(data)
    if isinstance(data, ImageFolder):
        data = tuple(part for part in read_images(data, signature, limit) if part is not None)
    if isinstance(data, (str, bytes, os.PathLike)):
        raise DataError(
            f"The {what} data is {data!r}, a path.",
            "the samples themselves, or a folder of images",
            "load them first: np.load(file) for arrays",
        )
    if form_of(data) != ARRAYS:
        inputs, labels = _read_stream(data, signature, what, limit)
    else:
        x, labels = _split(data)
        inputs = _by_name(x, signature, what)
        labels = None if labels is None else keras.tree.map_structure(np.asarray, labels)
    for i in signature.inputs:
        _check_shape(inputs[i.name], i, what)
    counts = {name: len(array) for name, array in inputs.items()}
    for position, leaf in enumerate(keras.tree.flatten(labels) if labels is not None else []):
        counts[f"labels[{position}]"] = len(leaf) if np.ndim(leaf) else 0
    count = next(iter(counts.values()))
    if len(set(counts.values())) > 1:
        raise DataError(f"The {what} data has different numbers of samples: {counts}.", "one number for all inputs and labels")
    if count < minimum:
        raise DataError(
            f"The {what} data holds {count} {'sample' if count == 1 else 'samples'}.",
            f"at least {minimum}",
            "give more samples of real data, of the kind the model will meet; a few hundred are usual",
        )
    kept = np.arange(count)
    if limit is not None and count > limit:
        kept = chosen(count, limit, class_of_each(labels, count))
        inputs = {name: array[kept] for name, array in inputs.items()}
        labels = None if labels is None else keras.tree.map_structure(lambda leaf: leaf[kept], labels)
        count = limit
    inputs = {i.name: _cast(inputs[i.name], i, what) for i in signature.inputs}
    for name, array in inputs.items():
        if array.dtype.kind == "f" and not is_finite(array):
            bad = np.flatnonzero(~np.isfinite(array.reshape(count, -1)).all(axis=1))
            raise DataError(
                f"Input '{name}' of the {what} data is NaN or infinite in {len(bad)} of {count} samples; the first is sample {kept[bad[0]]}.",
                "finite values",
                "leave these samples out: x[np.isfinite(x).reshape(len(x), -1).all(axis=1)]; or mend them where they come from",
            )
    return Samples(inputs, labels, count, kept)


def require_variation(samples):
    """Refuses calibration samples that are all equal: the ranges of one sample.

    Args:
        samples: `Samples`.

    Raises:
        DataError: with the values that they have.
    """
    arrays = samples.inputs
    if all((array == array[:1]).all() for array in arrays.values()):
        shown = "; ".join(f"'{name}' from {array.min():.4g} to {array.max():.4g}" for name, array in arrays.items())
        raise DataError(
            f"All {samples.count} samples of the calibration data are equal: {shown}.",
            "samples that differ, as those that the model will meet",
            "give some hundred samples of real data",
        )


def _split(element):
    # As in Keras, a tuple is (inputs, labels, sample weights) and a list is several inputs.
    if isinstance(element, tuple):
        return element[0], element[1] if len(element) > 1 else None
    return element, None


def _read_stream(data, signature, what, limit):
    if limit is None and number_of_elements(data) == math.inf:
        raise DataError(f"The {what} dataset never ends.", "a finite one", "take a part of it: dataset.take(n)")
    parts, labels, count = [], [], 0
    for element in elements(data):
        x, y = _split(element)
        part = _by_name(x, signature, what)
        first = signature.inputs[0]
        single = np.ndim(part[first.name]) == len(first.shape)
        if single:
            part = {name: array[None] for name, array in part.items()}
        parts.append(part)
        if y is not None:
            labels.append(keras.tree.map_structure(lambda leaf, single=single: np.asarray(leaf)[None] if single else np.asarray(leaf), y))
        count += len(part[first.name])
        if limit is not None and count >= limit:
            break
    if not parts:
        raise DataError(f"The {what} dataset is empty.", "at least one batch", "an iterator can be read only once: make a new one")
    try:
        inputs = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
        joined = keras.tree.map_structure(lambda *leaves: np.concatenate(leaves), *labels) if labels else None
    except ValueError as error:
        raise DataError(f"The batches of the {what} dataset do not fit together: {error}.", "batches of one shape") from error
    if limit is not None and count > limit:
        inputs = {name: array[:limit] for name, array in inputs.items()}
        joined = None if joined is None else keras.tree.map_structure(lambda leaf: leaf[:limit], joined)
    return inputs, joined


def _by_name(x, signature, what):
    names = [i.key for i in signature.inputs]
    if isinstance(x, dict):
        by_key = {}
        for i in signature.inputs:
            key = i.key if i.key in x else i.name
            if key not in x:
                raise DataError(f"The {what} data has no input '{i.key}'.", f"the inputs {names}", nearest(i.key, [str(k) for k in x]))
            by_key[i.name] = np.asarray(x[key])
        unknown = sorted(set(x) - set(names) - set(by_key))
        if unknown:
            raise DataError(f"The {what} data has the inputs {unknown}, which the model does not have.", f"the inputs {names}")
        return by_key
    if len(signature.inputs) == 1:
        only = signature.inputs[0]
        if isinstance(x, (list, tuple)) and len(x) == 1 and np.ndim(x[0]) == len(only.shape) + 1:
            x = x[0]
        return {only.name: np.asarray(x)}
    if not isinstance(x, (list, tuple)) or len(x) != len(names):
        raise DataError(f"The {what} data is a {type(x).__name__}.", f"a dict, or a list of {len(names)} arrays, for the inputs {names}")
    return {i.name: np.asarray(array) for i, array in zip(signature.inputs, x, strict=True)}


def _check_shape(array, expected, what):
    fits = array.ndim == len(expected.shape) + 1 and all(
        want is None or have == want for have, want in zip(array.shape[1:], expected.shape, strict=True)
    )
    if not fits:
        shape = ", ".join(["samples", *("any" if s is None else str(s) for s in expected.shape)])
        raise DataError(
            f"Input '{expected.key}' of the {what} data has the shape {array.shape}.",
            f"({shape})",
            _other_shape(array.shape, expected.shape),
        )


def _other_shape(shape, expected):
    """Returns what to do about a shape that is near to `(samples, *expected)`; None where it is not."""

    def fits(sizes):
        return len(sizes) == len(expected) and all(want is None or have == want for have, want in zip(sizes, expected, strict=True))

    if fits(shape):
        return "this is one sample: give an array of many, as np.stack(list_of_samples) makes it"
    if shape and fits((*shape[2:], *shape[1:2])):
        return "its channels come first: give np.moveaxis(x, 1, -1)"
    if shape and fits((*shape[1:], 1)):
        return "give x[..., None], which has an axis of one channel"
    return None


def _cast(array, expected, what):
    if array.dtype.kind not in "fiub":
        raise DataError(f"Input '{expected.key}' of the {what} data has the type {array.dtype}.", f"numbers, for {expected.dtype}")
    if np.dtype(expected.dtype).kind in "iu" and array.dtype.kind == "f" and not np.array_equal(array, np.round(array)):
        raise DataError(f"Input '{expected.key}' of the {what} data holds fractions.", f"whole numbers, for {expected.dtype}")
    return np.ascontiguousarray(array, dtype=expected.dtype)
