"""Reads data in every form that Keras takes: which form it is, how many elements it has, and the elements themselves.

| form | an element is | their number |
|---|---|---|
| arrays: one, or a structure of them | a batch of the size that is asked for | known |
| `tf.data.Dataset` | what the dataset gives | known, unknown, or endless |
| `keras.utils.PyDataset` | a batch of its own | known, or endless |
| iterator, such as a generator | what it gives; it can be read once | unknown |
"""

import collections.abc
import itertools
import math

import keras
import numpy as np
import tensorflow as tf

from tfdistill.utils.arrays import inputs_of, rows_of, slices

ARRAYS, DATASET, PYDATASET, ITERATOR = "arrays", "tf.data.Dataset", "keras.utils.PyDataset", "iterator"


def form_of(data):
    """Returns the form of data, one of the constants of this module. What is none of the others counts as arrays: see `are_arrays`."""
    if isinstance(data, tf.data.Dataset):
        return DATASET
    if isinstance(data, keras.utils.PyDataset):
        return PYDATASET
    return ITERATOR if isinstance(data, collections.abc.Iterator) else ARRAYS


def are_arrays(structure):
    """Tells whether all leaves of a structure are arrays or tensors; None, for what is left out, is neither for nor against."""
    return all(isinstance(leaf, (np.ndarray, tf.Tensor, tf.Variable)) for leaf in keras.tree.flatten(structure) if leaf is not None)


def number_of_elements(data, size=None):
    """Returns the number of elements: `math.inf` for endless data, None where it is unknown.

    Args:
        data: Data in any form.
        size: Number of samples in a batch of arrays.
    """
    form = form_of(data)
    if form == DATASET:
        number = int(data.cardinality())
        return {tf.data.INFINITE_CARDINALITY: math.inf, tf.data.UNKNOWN_CARDINALITY: None}.get(number, number)
    if form == PYDATASET:
        return math.inf if data.num_batches is None else data.num_batches
    return None if form == ITERATOR else math.ceil(rows_of(data) / size)


def elements(data, size=None):
    """Returns an iterator over the elements, in their order.

    Args:
        data: Data in any form.
        size: Number of samples in a batch of arrays.
    """
    form = form_of(data)
    if form == PYDATASET:
        number = number_of_elements(data)
        return (data[i] for i in (itertools.count() if number == math.inf else range(number)))
    return slices(data, size) if form == ARRAYS else iter(data)


def input_batches(data, size):
    """Returns an iterator over the inputs of training data in batches: of `size` samples where they are arrays, else those that the data has."""
    return elements(data, size) if form_of(data) == ARRAYS else map(inputs_of, elements(data))


def first_element(data):
    """Returns the first element of data that is no arrays, or None where it is empty. An iterator has given it away then.

    Of a `tf.data.Dataset` no more than this element is read.
    """
    return next(elements(data.take(1) if form_of(data) == DATASET else data), None)
