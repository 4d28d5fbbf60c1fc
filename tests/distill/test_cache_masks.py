"""A cache stores the padding masks of the teacher's outputs: training from it equals training with the teacher, where only the teacher masks too."""

import keras
import numpy as np
import pytest
from small import CLASSES, weights_of

from tfdistill import CacheOptions, Distiller, soft_targets
from tfdistill.losses import HiddenStates, LogitMatching, SoftTargets

ROWS, LENGTH, TOKENS, WIDTH = 12, 5, 9, 6
COUNTS = np.random.default_rng(0).integers(1, LENGTH + 1, ROWS)
X = np.where(np.arange(LENGTH)[None] < COUNTS[:, None], np.random.default_rng(1).integers(1, TOKENS, (ROWS, LENGTH)), 0).astype("int32")
Y = np.random.default_rng(2).integers(0, CLASSES, (ROWS, LENGTH)).astype("int32")


def net(name, mask_zero):
    inputs = keras.Input((LENGTH,), dtype="int32")
    x = keras.layers.Embedding(TOKENS, WIDTH, mask_zero=mask_zero)(inputs)
    x = keras.layers.Dense(WIDTH, activation="relu", name="hidden")(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="logits")(x), name=name)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return ROWS // 4

    def __getitem__(self, index):
        part = slice(4 * index, 4 * index + 4)
        return X[part], Y[part]


# Losses, what is stored, and the data set.
CASES = {
    "the outputs": ([SoftTargets(2.0)], {}, (X, Y)),
    "a layer": ([LogitMatching(), HiddenStates("hidden", "hidden", projection=None)], {"layers": ["hidden"]}, (X, Y)),
    "the largest logits": ([SoftTargets(2.0)], {"top_k": CLASSES - 1, "temperatures": (2.0,)}, (X, Y)),
    "views": ([SoftTargets(2.0)], {"views": 2, "augment": lambda x, seed: x}, (X, Y)),
    "a PyDataset": ([SoftTargets(2.0)], {}, Batches()),
}


def train(teacher, losses, data, student_masks):
    keras.utils.set_random_seed(3)
    student = net("student", student_masks)
    distiller = Distiller(teacher, student, losses)
    distiller.compile(keras.optimizers.SGD(0.5), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = data if isinstance(data, tuple) else (data, None)
    distiller.fit(x, y, batch_size=None if y is None else 4, epochs=2, shuffle=False, verbose=0)
    return weights_of(student)


@pytest.mark.parametrize("student_masks", [False, True], ids=["the teacher alone masks", "both mask"])
@pytest.mark.parametrize("case", CASES)
def test_padding_counts_from_a_cache_as_with_the_teacher(case, student_masks, tmp_path):
    losses, options, data = CASES[case]
    teacher = net("teacher", True)
    teacher.layers[-1].kernel.assign(3.0 * teacher.layers[-1].kernel)  # logits that no one takes for probabilities
    cache = soft_targets(teacher, data, tmp_path / "cache", options=CacheOptions(dtype="float32", batch_size=4, **options))
    joined = cache.join(data) if isinstance(data, Batches) else cache.join(data, batch_size=4, shuffle=False)
    expected = train(teacher, losses, data, student_masks)
    unmasked = net("teacher", False)
    unmasked.set_weights(teacher.get_weights())
    for a, b in zip(expected, train(cache, losses, joined, student_masks), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    if not student_masks:  # without the teacher's mask it is another training
        others = train(unmasked, losses, data, student_masks)
        assert max(np.abs(a - b).max() for a, b in zip(expected, others, strict=True)) > 1e-3


def test_a_cache_without_masks_stores_none(tmp_path):
    cache = soft_targets(net("teacher", False), (X, Y), tmp_path / "cache")
    assert {leaf.role for leaf in cache.manifest.settings.layout.leaves} == {"output", "scale"}
