"""The figures behind a verification against independent formulas: intervals, spreads, extreme samples."""

import numpy as np
import pytest
from scipy import stats

from tfdistill.convert.variants import VARIANTS
from tfdistill.tflite.verification.comparison import compare
from tfdistill.tflite.verification.paired import accuracy_drop_interval, mean_interval, proportion_interval
from tfdistill.tflite.verification.ranges import stretching_samples
from tfdistill.tflite.verification.requirements import remarks


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (1, 1), (4, 4), (3, 10), (40, 60), (0, 500), (250, 500), (4000, 9000)])
def test_proportion_interval_is_clopper_and_pearsons(successes, trials):
    exact = stats.binomtest(successes, trials).proportion_ci(method="exact")
    np.testing.assert_allclose(proportion_interval(successes, trials), (exact.low, exact.high), atol=1e-9)


def right_or_wrong(both_right, lost, won, both_wrong):
    """Whether the Keras model and the file are right on each sample, with these counts."""
    keras = [True] * (both_right + lost) + [False] * (won + both_wrong)
    return np.array(keras), np.array([True] * both_right + [False] * lost + [True] * won + [False] * both_wrong)


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (5, 0), (6, 0), (10, 2), (10, 3), (30, 20), (40, 20), (0, 6), (100, 100)])
def test_drop_interval_excludes_zero_where_mcnemars_exact_test_rejects(lost, won):
    keras, file = right_or_wrong(500, lost, won, 50)
    low, high = accuracy_drop_interval(keras, file)
    rejected = lost + won > 0 and stats.binomtest(lost, lost + won).pvalue < 0.05
    assert (low > 0 or high < 0) == rejected
    assert low - 1e-9 <= keras.mean() - file.mean() <= high + 1e-9
    assert accuracy_drop_interval(file, keras) == pytest.approx((-high, -low))


def test_drop_interval_of_several_decisions_takes_the_sample_as_the_unit():
    rng = np.random.default_rng(0)
    keras = rng.random((300, 20)) < 0.9
    file = keras & ~(rng.random((300, 1)) < 0.1)  # whole samples are lost at once
    drops = keras.mean(1) - file.mean(1)
    expected = stats.norm.interval(0.95, drops.mean(), drops.std(ddof=1) / np.sqrt(300))
    np.testing.assert_allclose(accuracy_drop_interval(keras, file), expected)
    assert mean_interval([2.0]) == (2.0, 2.0)


def test_interval_covers_a_drop_by_chance():
    rng = np.random.default_rng(0)
    excluded = 0
    for _ in range(400):
        keras, file = rng.random((2, 200)) < 0.9
        low, high = accuracy_drop_interval(keras, file)
        excluded += low > 0 or high < 0
    assert excluded <= 0.05 * 400


STRETCHED = [
    ("none", np.linspace(-1, 1, 100), []),
    ("one", np.r_[np.linspace(-1, 1, 99), 50.0], [99]),
    ("one below", np.r_[-50.0, np.linspace(-1, 1, 99)], [0]),
    ("three", np.r_[np.linspace(-1, 1, 97), 50.0, 60.0, -40.0], [98, 97, 99]),
    ("too many", np.r_[np.linspace(-1, 1, 90), np.full(10, 50.0)], []),
    ("an offset far from 0", np.r_[300 + np.linspace(-1, 1, 99), 320.0], []),
    ("four times", np.r_[np.linspace(-1, 1, 99), 7.0], []),
    ("constant", np.r_[np.zeros(99), 7.0], []),
    ("few", np.r_[np.zeros(9) + 1, 700.0], []),
    ("normal", np.random.default_rng(0).normal(size=1000), []),
    ("exponential", np.random.default_rng(0).exponential(size=1000), []),
]


@pytest.mark.parametrize(("values", "found"), [row[1:] for row in STRETCHED], ids=[row[0] for row in STRETCHED])
def test_stretching_samples(values, found):
    assert stretching_samples(values, values).tolist() == found


def test_indices_against_numpy():
    rng = np.random.default_rng(0)
    expected = rng.normal(size=(80, 3)) * [1, 10, 0] + [0, 0, 7]
    actual = expected + rng.normal(size=(80, 3)) * [0.5, 0.5, 0.0]
    found = compare(expected, actual)
    r_squared = [1 - np.sum((expected[:, j] - actual[:, j]) ** 2) / np.sum((expected[:, j] - expected[:, j].mean()) ** 2) for j in (0, 1)]
    assert found.judged_indices == 2  # the third never varies
    assert [i.index for i in found.worst_indices] == [0, 1]
    np.testing.assert_allclose([i.r_squared for i in found.worst_indices], r_squared, rtol=1e-3)
    worst = found.worst_indices[0]
    apart = np.abs(expected - actual)[:, 0]
    assert (worst.spread, worst.max_abs_error) == (np.ptp(expected[:, 0]), apart.max())
    assert worst.mean_abs_error == pytest.approx(apart.mean())
    assert found.mean_error_of_spread == pytest.approx(apart.mean() / worst.spread, rel=2e-2)
    assert found.worst_samples[0] == np.argmax(apart)


@pytest.mark.parametrize("samples", [1, 2, 15])
def test_a_few_samples_are_compared_as_a_whole(samples):
    """So few do not tell how much an index varies."""
    values = np.random.default_rng(0).normal(size=(samples, 3))
    assert compare(values, values[::-1]).judged_indices == 0


def test_rounding_of_float32_is_no_error():
    """A model that subtracts two large numbers is right to the last bit of these only."""
    expected = (300 + 1e-2 * np.random.default_rng(0).normal(size=(50, 1))).astype("float32")
    found = compare(expected, np.nextafter(expected, np.float32(0)))
    assert found.lowest_r_squared == 1
    assert found.max_error_of_spread == 0


def test_an_extreme_sample_hides_nothing():
    """Neither what the file does to all others, nor what it does to the extreme one."""
    rng = np.random.default_rng(0)
    expected = np.r_[rng.normal(size=(99, 1)), [[1e4]]]
    constant = np.r_[np.zeros((99, 1)), [[1e4]]]
    found = compare(expected, constant)
    assert found.extreme_samples == (99,)
    assert found.lowest_r_squared < 0.1
    assert compare(expected, np.r_[expected[:99], [[0.0]]]).lowest_r_squared < 0.1


def test_near_ties_are_said():
    """All probabilities lie within a twentieth: the classes may agree or not, it means nothing, and without labels it is a warning."""
    rng = np.random.default_rng(0)
    scores = 0.33 + 0.01 * rng.random((200, 3))
    scores /= scores.sum(1, keepdims=True)
    output = compare(scores, scores[:, ::-1], task="multiclass")
    notes, warned = remarks("out", output, 200, VARIANTS["int8"].tolerances)
    assert output.decided == 0
    assert warned == [note for note in notes if "Keras decides clearly on 0 of 200" in note] != []
    labelled = compare(scores, scores, rng.integers(0, 3, 200), task="multiclass")
    notes, warned = remarks("out", labelled, 200, VARIANTS["int8"].tolerances)
    assert warned == []
    assert notes


def test_int16_is_held_to_more_than_int8():
    eight, sixteen = VARIANTS["int8"].tolerances, VARIANTS["int16x8"].tolerances
    assert sixteen.max_relative_mean_error < eight.max_relative_mean_error / 4
    assert sixteen.min_argmax_agreement > eight.min_argmax_agreement
    assert sixteen.min_r_squared > eight.min_r_squared
    assert sixteen.max_accuracy_drop < eight.max_accuracy_drop
