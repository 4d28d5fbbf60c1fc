"""Every layer by every method: at full rank it is the layer, at half the rank what its factors multiply to."""

import functools
import math
import tracemalloc

import keras
import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st
from keras import layers
from low_rank_models import LAYERS, given, made
from tensorly import decomposition

import tfdistill
from tfdistill.compress import LowRank
from tfdistill.compress.low_rank import convolutions
from tfdistill.compress.low_rank.build import Factored, Factors, require_equal
from tfdistill.compress.low_rank.factorize import DegenerateFit, MatrixFactors, TuckerFactors, cp_factors, cp_product, share_lost
from tfdistill.compress.low_rank.forms import METHODS, Unfit, kernel_of
from tfdistill.compress.low_rank.layers import forms_of
from tfdistill.compress.low_rank.responses import responses
from tfdistill.errors import InvariantError
from tfdistill.graph.flat import flat_graph

ROWS = [(name, method) for name, (_, _, methods) in LAYERS.items() for method in methods]


@functools.cache
def original(name):
    return made(name)


def form_of(name, method):
    model = original(name)
    layer, graph = model.get_layer("layer"), flat_graph(model)
    return graph, forms_of(layer, graph.calls, method, {})[0]


def factored(name, method, rank):
    """Returns the model of a layer at a rank, compared with the product of its factors."""
    graph, form = form_of(name, method)
    kernels = form.kernels(rank)
    factors = {id(form.layer): Factors(form, rank, kernels, form.lost_by(rank, kernels), form.names("layer", str))}
    made_of_it = Factored(original(name), graph, factors)
    require_equal(original(name), graph, factors, made_of_it)
    return made_of_it.model, form, kernels


@pytest.mark.parametrize(("name", "method"), [(name, method) for name, method in ROWS if method != "cp"])
def test_at_full_rank_it_is_the_layer(name, method):
    _, form = form_of(name, method)
    model, form, kernels = factored(name, method, form.rank_of(10**6))
    expected, got = original(name)(given(name)), model(given(name))
    np.testing.assert_allclose(got, expected, atol=1e-4 * float(np.abs(expected).max()))
    np.testing.assert_allclose(form.product(kernels), form.kernel, atol=1e-5)


@pytest.mark.parametrize(("name", "method"), ROWS)
def test_at_a_small_rank_it_shrinks_and_is_the_product_of_its_factors(name, method):
    """The model is compared with the layer whose kernel is NumPy's product; parameters and multiply-accumulates with the profile."""
    rank = 4
    model, form, kernels = factored(name, method, form_of(name, method)[1].rank_of(rank))
    layer, counted = original(name).get_layer("layer"), tfdistill.profile(model)
    again = made(name)
    kernel_of(again.get_layer("layer")).assign(form.product(kernels))
    expected = again(given(name))
    np.testing.assert_allclose(model(given(name)), expected, atol=1e-4 * float(np.abs(expected).max()))
    assert counted.parameters == sum(form.sizes(form.rank_of(rank))) + layer.count_params() - form.kernel.size
    assert counted.macs == form.macs(form.rank_of(rank), flat_graph(original(name)).calls[0])
    assert counted.parameters < layer.count_params()
    last = model.layers[-1]
    assert last.name == "layer"
    assert [part.name for part in model.layers[1:-1]] == [f"layer_{n}" for n in ("first", "second", "third")][: len(kernels) - 1]
    assert getattr(last, "activation", None) == getattr(layer, "activation", keras.activations.linear)
    assert len({penalty_of(part) is None for part in (layer, *model.layers[1:])}) == 1


def penalty_of(layer):
    """Returns the penalty on the kernel of a layer, or None."""
    return next(filter(None, (getattr(layer, f"{name}_regularizer", None) for name in ("kernel", "pointwise", "embeddings"))), None)


@pytest.mark.parametrize("name", LAYERS)
def test_methods_that_do_not_work_say_why(name):
    for method in set(METHODS) - set(LAYERS[name][2]):
        with pytest.raises(Unfit, match=r"for convolutions|would be 'svd'|causal padding|same strides"):
            form_of(name, method)


def test_the_error_of_a_matrix_is_that_of_numpy():
    matrix = np.random.default_rng(0).normal(size=(9, 7))
    found, (u, s, v) = MatrixFactors(matrix), np.linalg.svd(matrix, full_matrices=False)
    first, second = found.factors(3)
    np.testing.assert_allclose(first @ second, (u[:, :3] * s[:3]) @ v[:3], atol=1e-5)
    assert found.losses()[3] == pytest.approx((s[3:] ** 2).sum() / (s**2).sum())
    np.testing.assert_allclose(np.linalg.norm(first, axis=0), np.linalg.norm(second, axis=1), rtol=1e-5)


@settings(max_examples=25, deadline=None)
@drawn(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.booleans(), st.integers(0, 10**6))
def test_any_matrix_loses_what_is_said(rows, columns, rank, data, seed):
    rng = np.random.default_rng(seed)
    matrix, x = rng.normal(size=(rows, columns)), rng.normal(size=(40, rows)) * rng.uniform(0, 3, rows)
    found = MatrixFactors(matrix, (x @ matrix).T @ (x @ matrix) if data else None)
    rank = min(rank, rows, columns)
    first, second = found.factors(rank)
    seen = x if data else np.eye(rows)
    lost = (((seen @ matrix) - seen @ (first.astype("float64") @ second)) ** 2).sum() / ((seen @ matrix) ** 2).sum()
    assert found.losses()[rank] == pytest.approx(lost, abs=1e-5)


@pytest.mark.parametrize(("name", "method"), [(name, method) for name, method in ROWS if method in ("svd", "spatial_svd")])
def test_what_is_lost_on_data_is_measured(name, method):
    model, x = original(name), given(name, 24)
    graph, form = form_of(name, method)
    grams = responses(graph, [form], x)
    if name == "einsum of trailing dots":
        assert not grams
        return
    (weighed,) = forms_of(form.layer, graph.calls, method, grams)
    linear, _ = weighed.linear()
    if name == "embedding":
        linear = layers.Embedding(20, 12)
    linear.build((None, *model.input_shape[1:]))
    weighed.begin([linear])
    outputs = []
    for kernel in (weighed.kernel, weighed.product(weighed.kernels(4))):
        kernel = kernel if method == "svd" else kernel.transpose(0, 2, 1, 3).reshape(kernel_of(linear).shape)
        kernel_of(linear).assign(kernel)
        outputs.append(keras.ops.convert_to_numpy(linear(x)))
    lost = ((outputs[0] - outputs[1]) ** 2).sum() / (outputs[0] ** 2).sum()
    assert weighed.lost(4) == pytest.approx(lost, rel=1e-3)
    assert (weighed.by, form.by) == ("outputs", "weights")


def test_tucker_is_as_good_as_tensorly():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 9, 7))
    first, core, second = TuckerFactors(kernel).factors((4, 3))
    ours = share_lost(kernel, np.einsum("hwab,ia,bo->hwio", core, first, second))
    (their_core, (a, b)), _ = decomposition.partial_tucker(kernel, (4, 3), modes=[2, 3], tol=1e-9)
    theirs = share_lost(kernel, np.einsum("hwab,ia,ob->hwio", their_core, a, b))
    assert ours <= theirs + 1e-4
    assert ours <= TuckerFactors(kernel).losses()[4, 3] + 1e-9


def test_cp_finds_the_components():
    rng = np.random.default_rng(0)
    kernel = cp_product([rng.normal(size=(n, 2)) for n in (3, 3, 6, 5)])
    assert share_lost(kernel, cp_product(cp_factors(kernel, 2))) < 1e-4
    assert not np.any(cp_factors(np.zeros((3, 4, 5)), 2)[0])


def test_a_degenerate_cp_fit_is_refused():
    """At this rank a fit may be exact by components that cancel each other."""
    reasons = []
    for seed in range(8):
        kernel = np.random.default_rng(seed).normal(size=(2, 2, 2))
        try:
            assert share_lost(kernel, cp_product(cp_factors(kernel, 4))) < 1e-3
        except DegenerateFit as error:
            reasons.append(error.reason)
    assert 0 < len(reasons) < 8
    assert all("its components have" in reason for reason in reasons)
    a, b = np.eye(2)
    symmetric = sum(np.einsum("i,j,k->ijk", *three) for three in ((a, a, b), (a, b, a), (b, a, a)))  # has no best approximation of rank 2
    with pytest.raises(DegenerateFit, match="CP at rank 2 has no fit: Singular matrix"):
        cp_factors(symmetric, 2)


def test_a_cp_fit_above_the_size_of_an_axis_takes_little_memory():
    """A start by the whole singular matrix of an unfolding would take the square of the other axes: 1.2 GB here."""
    kernel = np.random.default_rng(0).normal(size=(3, 3, 64, 64)).astype("float32")
    tracemalloc.start()
    cp_factors(kernel, 80, iterations=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


def test_a_rank_whose_fit_diverges_late_keeps_what_it_was_chosen_by(monkeypatch):
    """Such a kernel was not found, so the divergence is made up."""

    def diverges(kernel, rank, iterations):
        if iterations > convolutions._TRIED:
            raise DegenerateFit("it diverged")
        return cp_factors(kernel, rank, iterations=iterations)

    monkeypatch.setattr(convolutions, "cp_factors", diverges)
    _, form = form_of("conv same", "cp")
    with pytest.raises(DegenerateFit, match="it diverged"):
        form.kernels(4)
    assert form.lost(4) == share_lost(form.kernel, form.product(form.kernels(4)))


def test_factors_that_are_not_those_of_the_layer_are_found_out():
    graph, form = form_of("dense", "svd")
    kernels = form.kernels(4)
    found = Factors(form, 4, kernels, 0.0, form.names("layer", str))
    made_of_it = Factored(original("dense"), graph, {id(form.layer): found})
    made_of_it.parts[id(form.layer)][0].kernel.assign(kernels[0] * 1.1)
    with pytest.raises(InvariantError, match=r"differs by .* from the layer with their product"):
        require_equal(original("dense"), graph, {id(form.layer): found}, made_of_it)


def test_strides_dilation_and_padding_are_shared_out():
    model, *_ = factored("conv strided", "spatial_svd", 4)
    first, last = model.layers[1:]
    assert (first.kernel_size, first.strides, last.kernel_size, last.strides) == ((3, 1), (2, 1), (1, 3), (1, 2))
    model, *_ = factored("conv strided", "cp", 4)
    assert [math.prod(part.strides) for part in model.layers[1:]] == [1, 4, 1]
    assert isinstance(model.layers[2], layers.DepthwiseConv2D)


@pytest.mark.parametrize("name", ["dense", "conv same", "embedding"])
def test_frozen_layers_stay_frozen(name):
    model = made(name)
    model.get_layer("layer").trainable = False
    with pytest.warns(UserWarning, match="LowRank approximates kernels in frozen layers"):
        small = LowRank(rank=4).apply(model)
    assert not small.trainable_weights
    assert LowRank(rank=4, layers="layer").apply(model).weights  # without the warning, as it says
