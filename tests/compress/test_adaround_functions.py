"""The functions of learned rounding against NumPy's and numerical derivatives, and the steps that weights are rounded to."""

import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings

from tfdistill.bridge.integer.rounding import round_weights
from tfdistill.compress.rounding.functions import beta_at, inverse, rectified_sigmoid, regularizer
from tfdistill.compress.rounding.grid import grid_of

RNG = np.random.default_rng(0)


def h_of(v):
    return np.clip(1.2 / (1.0 + np.exp(-np.asarray(v, "float64"))) - 0.1, 0.0, 1.0)


def gradient_of_h(v):
    sigmoid = 1.0 / (1.0 + np.exp(-np.asarray(v, "float64")))
    stretched = 1.2 * sigmoid - 0.1
    return np.where((stretched > 0) & (stretched < 1), 1.2 * sigmoid * (1.0 - sigmoid), 0.0)


def pulled_by(h, beta):
    return float(np.sum(1.0 - np.abs(2.0 * h - 1.0) ** beta))


def gradient_of_pull(h, beta):
    return -2.0 * beta * np.sign(2.0 * h - 1.0) * np.abs(2.0 * h - 1.0) ** (beta - 1.0)


def require_equal(found, expected):
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("beta", [20.0, 7.5, 2.0])
def test_values_and_gradients_are_those_of_the_formulas(beta):
    v = tf.Variable(RNG.normal(0.0, 2.0, (6, 5)).astype("float32"))
    with tf.GradientTape() as tape:
        h = rectified_sigmoid(v)
        pull = regularizer(h, beta)
    require_equal(h, h_of(v.numpy()))
    require_equal(pull, pulled_by(h_of(v.numpy()), beta))
    require_equal(tape.gradient(pull, v), gradient_of_pull(h_of(v.numpy()), beta) * gradient_of_h(v.numpy()))


def test_the_formulas_have_the_gradients_that_differences_show():
    """The reference itself, by central differences; away from the edges of the clipping."""
    v, step = np.linspace(-2.0, 2.0, 41), 1e-6
    require_equal((h_of(v + step) - h_of(v - step)) / (2 * step), gradient_of_h(v))
    h = h_of(v[v != 0])
    slopes = [(pulled_by(np.array([x + step]), 5.0) - pulled_by(np.array([x - step]), 5.0)) / (2 * step) for x in h]
    require_equal(slopes, gradient_of_pull(h, 5.0))


def test_the_comparison_fails_on_purpose():
    with pytest.raises(AssertionError):
        require_equal(rectified_sigmoid(tf.constant([0.3])), h_of([0.3]) + 1e-4)


def test_the_inverse_gives_the_place_back():
    h = np.linspace(0.0, 1.0, 101)
    require_equal(rectified_sigmoid(tf.constant(inverse(h))), np.clip(h, 0.01, 0.99))


def test_beta_falls_from_twenty_to_two_after_a_fifth():
    found = [beta_at(share) for share in (0.0, 0.19, 0.2, 0.6, 1.0)]
    assert found[:2] == [None, None]
    np.testing.assert_allclose(found[2:], [20.0, 11.0, 2.0])
    assert all(regularizer(tf.constant([0.0, 1.0]), beta).numpy() == 0.0 for beta in (2.0, 20.0))


SHAPES = {"conv": ((3, 3, 4, 5), (3,)), "depthwise": ((3, 3, 6, 1), (2, 3)), "dense": ((9, 7), ())}
VALUES = st.floats(-8.0, 8.0, width=32)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(sorted(SHAPES)), st.sampled_from([4, 8]), st.sampled_from(["max", "mse"]))
def test_a_file_s_quantizer_finds_the_same_steps_again(data, name, bits, scales):
    shape, axes = SHAPES[name]
    value = data.draw(arrays.arrays("float32", shape, elements=VALUES))
    grid = grid_of(value, bits, axes, scales)
    up = data.draw(arrays.arrays("float32", shape, elements=st.sampled_from([0.0, 1.0])))
    rounded, steps = grid.rounded(up), grid.steps(up)
    others = tuple(axis for axis in range(len(shape)) if axis not in axes)
    # Every channel that is not all zeros, or as good as that, has a weight on its last step.
    assert np.all(np.abs(steps).max(others)[np.abs(value).max(others) > 1e-9] == grid.last)
    assert np.all(steps[value == 0] == 0)
    # Read back as the bridge, and the converter, round: by the largest weight.
    scale = np.maximum(np.abs(rounded).max(others, keepdims=True), 1e-9) / grid.last
    np.testing.assert_array_equal(np.round(rounded / scale), steps)
    again = round_weights(tf.constant(rounded), bits, axes).numpy()
    np.testing.assert_array_equal(np.round(again / scale), steps)
    np.testing.assert_allclose(again, rounded, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("name", SHAPES)
def test_each_weight_goes_to_one_of_its_two_neighbours(name):
    shape, axes = SHAPES[name]
    value = RNG.normal(size=shape).astype("float32")
    grid = grid_of(value, 4, axes, "max")
    for up in (0.0, 1.0):
        assert np.all(np.abs(grid.rounded(np.full(shape, up, "float32")) - value) < grid.scale * (1 + 1e-5))
    nearest = round_weights(tf.constant(value), 4, axes).numpy()
    np.testing.assert_allclose(grid.rounded(grid.nearest), nearest, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SHAPES)
def test_clipped_steps_have_the_least_squared_error(name):
    shape, axes = SHAPES[name]
    value = RNG.standard_t(2, size=shape).astype("float32")
    others = tuple(axis for axis in range(len(shape)) if axis not in axes)

    def error(grid):
        return ((grid.rounded(grid.nearest) - value).astype("float64") ** 2).sum(others)

    best = error(grid_of(value, 4, axes, "mse"))
    assert np.all(best <= error(grid_of(value, 4, axes, "max")) + 1e-9)
    largest = np.abs(value).max(others, keepdims=True)
    for share in np.linspace(0.3, 1.0, 29):  # an independent, coarser search
        scale = share * largest / 7
        tried = ((np.clip(np.round(value / scale), -7, 7) * scale - value) ** 2).sum(others)
        assert np.all(best <= tried * 1.03 + 1e-9)
