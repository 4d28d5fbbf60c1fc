"""What labelling workers import: a teacher's file and a data set that takes its time."""

import time

import keras
import numpy as np

ELEMENTS = 96


def save_teacher(path):
    keras.utils.set_random_seed(1)
    keras.Sequential([keras.Input((6,)), keras.layers.Dense(12, activation="relu"), keras.layers.Dense(4)]).save(path)
    return path


def arrays():
    return np.random.default_rng(2).normal(size=(ELEMENTS, 6)).astype("float32")


class Slow(keras.utils.PyDataset):
    """Batches that take a while, so that a worker can be killed in the middle of a shard."""

    def __len__(self):
        return ELEMENTS // 8

    def __getitem__(self, index):
        time.sleep(0.2)
        return arrays()[8 * index : 8 * index + 8]


def slow_batches():
    return Slow()


def nothing():
    return arrays()[:0]
