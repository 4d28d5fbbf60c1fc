"""Batches as structures of arrays, data in every form that Keras takes, and checksums of files."""

import hashlib
import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdistill.utils.arrays import inputs_of, rechunked, rows_of, slices
from tfdistill.utils.data import are_arrays, elements, first_element, form_of, input_batches, number_of_elements
from tfdistill.utils.hashing import sha256_of

X = {"a": np.arange(10), "b": np.arange(20).reshape(10, 2)}


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return X["a"][index * 5 : index * 5 + 5], X["b"][index * 5 : index * 5 + 5]


@pytest.mark.parametrize(
    ("batches", "rows"),
    [
        (lambda: slices(X, 4), [4, 4, 2]),
        (lambda: slices(X, 4, first=1), [4, 2]),
        (lambda: slices(X, 5), [5, 5]),
        (lambda: slices(X, 20), [10]),
        (lambda: rechunked(slices(X, 3), 4), [4, 4, 2]),
        (lambda: rechunked(slices(X, 10), 5), [5, 5]),
        (lambda: rechunked([], 5), []),
        (lambda: input_batches(X, 4), [4, 4, 2]),
    ],
)
def test_batches_have_the_elements_in_order(batches, rows):
    found = list(batches())
    assert [rows_of(batch) for batch in found] == rows
    if rows:
        np.testing.assert_array_equal(np.concatenate([b["a"] for b in found]), X["a"][-sum(rows) :])
        np.testing.assert_array_equal(np.concatenate([b["b"] for b in found]), X["b"][-sum(rows) :])


@pytest.mark.parametrize("data", [lambda: tf.data.Dataset.from_tensor_slices((X["a"], X["b"])).batch(5), Batches])
def test_data_sets_give_batches_of_their_own(data):
    np.testing.assert_array_equal([np.asarray(batch) for batch in input_batches(data(), 3)], X["a"].reshape(2, 5))


class Endless(keras.utils.PyDataset):
    num_batches = None

    def __getitem__(self, index):
        return np.full(3, index)


class Empty(Batches):
    def __len__(self):
        return 0


def rows(numbers=8):
    return tf.data.Dataset.from_tensor_slices(np.arange(numbers)).batch(3)


# Data -> its form, the number of its elements, the first two of them.
FORMS = {
    "an array": (lambda: np.arange(8), "arrays", 3, [[0, 1, 2], [3, 4, 5]]),
    "a structure": (lambda: (np.arange(8), np.arange(8)), "arrays", 3, [([0, 1, 2], [0, 1, 2]), ([3, 4, 5], [3, 4, 5])]),
    "a dataset": (rows, "tf.data.Dataset", 3, [[0, 1, 2], [3, 4, 5]]),
    "an endless dataset": (lambda: rows().repeat(), "tf.data.Dataset", math.inf, [[0, 1, 2], [3, 4, 5]]),
    "a dataset of unknown length": (lambda: rows().filter(lambda x: True), "tf.data.Dataset", None, [[0, 1, 2], [3, 4, 5]]),
    "an empty dataset": (lambda: rows(0), "tf.data.Dataset", 0, []),
    "a PyDataset": (Batches, "keras.utils.PyDataset", 2, [(X["a"][:5], X["b"][:5]), (X["a"][5:], X["b"][5:])]),
    "an endless PyDataset": (Endless, "keras.utils.PyDataset", math.inf, [[0, 0, 0], [1, 1, 1]]),
    "an empty PyDataset": (Empty, "keras.utils.PyDataset", 0, []),
    "a generator": (lambda: (np.full(2, i) for i in range(5)), "iterator", None, [[0, 0], [1, 1]]),
}


def numbers(structure):
    return [int(number) for leaf in keras.tree.flatten(structure) if leaf is not None for number in np.ravel(leaf)]


@pytest.mark.parametrize("kind", FORMS)
def test_data_in_every_form(kind):
    make, form, number, first = FORMS[kind]
    assert (form_of(make()), number_of_elements(make(), 3)) == (form, number)
    found = list(itertools.islice(elements(make(), 3), 2))
    assert len(found) == len(first)
    assert numbers(found) == numbers(first)
    if form != "arrays":
        assert numbers(first_element(make())) == numbers(first[0] if first else None)


@pytest.mark.parametrize(
    ("data", "expected"), [(X, True), ((X, None), True), ([tf.zeros(2)], True), ([1.0], False), ({"a": X["a"], "b": "b"}, False)]
)
def test_arrays_are_told_from_what_is_none(data, expected):
    assert are_arrays(data) == expected


@pytest.mark.parametrize("batch", [X["a"], (X["a"],), (X["a"], 1), (X["a"], 1, 2)])
def test_inputs_of_a_batch(batch):
    np.testing.assert_array_equal(inputs_of(batch), X["a"])


@pytest.mark.parametrize("size", [0, 3, (1 << 20) + 7])
def test_the_checksum_of_a_file_is_that_of_its_bytes(tmp_path, size):
    (tmp_path / "f").write_bytes(b"x" * size)
    assert sha256_of(tmp_path / "f") == hashlib.sha256(b"x" * size).hexdigest()
    (tmp_path / "link").symlink_to(tmp_path / "f")
    with pytest.raises(OSError, match="symbolic link"):
        sha256_of(tmp_path / "link")
