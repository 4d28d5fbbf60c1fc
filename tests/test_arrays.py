"""Batches as structures of arrays, and checksums of files."""

import hashlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdistill.utils.arrays import input_batches, inputs_of, rechunked, rows_of, slices
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
