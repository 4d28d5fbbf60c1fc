"""Bits by layer: errors are those of files with these bits, budgets hold on the file, and the search takes the first that does."""

import contextlib
import functools

import hypothesis
import keras
import numpy as np
import pytest
import wide_models
from hypothesis import strategies as st

from tfdistill.compress import BitAssignment, Quantize, assign_bits
from tfdistill.compress.bits.files import MadeFile
from tfdistill.compress.bits.order import narrowing, widening
from tfdistill.compress.bits.record import LayerBits
from tfdistill.compress.bits.search import Budgets, Search
from tfdistill.compress.bits.switches import share_of_spread
from tfdistill.errors import ModelError
from tfdistill.runtime.interpreter import open_file
from tfdistill.tflite import Tolerances, export_tflite

L = keras.layers
X = np.random.default_rng(0).normal(size=(96, 12)).astype("float32")


@functools.cache
def net():
    """The `outlier` has a unit that nothing reads and that stretches the range of all others; `coarse` has a weight that stretches the steps of 4 bits."""
    keras.utils.set_random_seed(1)
    stack = [L.Dense(24, activation="relu", name=name) for name in ("first", "outlier", "coarse")]
    model = keras.Sequential([keras.Input((12,), name="x"), *stack, L.Dense(4, name="last")], name="net")
    kernel, bias = model.get_layer("outlier").get_weights()
    kernel[:, 0] *= 60
    model.get_layer("outlier").set_weights([kernel, bias])
    kernel, bias = model.get_layer("coarse").get_weights()
    kernel[0] = 0
    kernel[0, :] = 3.0  # of the unit that was stretched, whose output is 0 below
    model.get_layer("coarse").set_weights([kernel * (np.arange(24) > 0)[:, None], bias])
    return model


@functools.cache
def assigned(**budgets):
    return assign_bits(net(), X, **budgets)


@functools.cache
def unlimited():
    return assigned(max_error=10.0)


def made(found, folder):
    step = Quantize(weight_bits=found.weight_bits, activation_bits=found.activation_bits)
    return export_tflite(step.apply(net(), X), folder / "mixed.tflite", "int8", tolerances=Tolerances())


def test_the_assignment_is_that_of_the_file(tmp_path):
    found = unlimited()
    record = made(found, tmp_path)
    (outputs,) = open_file(record.path, trusted=True).run(X).values()
    assert record.size_bytes == found.size_bytes < found.size_bytes_all_8
    assert share_of_spread(np.asarray(net()(X)), outputs) == pytest.approx(found.error, rel=1e-6)
    assert set(found.weight_bits.values()) == {4}
    assert found.wide_layers == ()
    assert "first" in str(found)


@pytest.mark.slow
def test_rows_have_the_errors_of_models_with_these_bits():
    """Each layer alone at other bits: what a model gives that is quantized so, without corrected biases, as an independent measure."""
    exact, plain = np.asarray(net()(X)), {"bias_correction": False}
    for row in unlimited().layers:
        for bits, setting, expected in (
            (4, {"weight_bits": {row.name: 4}}, row.error_4_bits),
            (16, {"activation_bits": {row.name: 16}}, row.error_16_bits),
        ):
            if row.name in ("outlier", "last") and expected is not None:
                quantized = Quantize(**plain, **setting).apply(net(), X)
                assert share_of_spread(exact, np.asarray(quantized(X))) == pytest.approx(expected, rel=0.02), (row.name, bits)
    assert unlimited().row("last").error_16_bits is None


def test_the_layer_that_wins_most_is_widened_first(tmp_path):
    whole = unlimited()
    limit = 0.5 * whole.error_all_8
    found = assigned(max_error=limit)
    assert found.error <= limit < found.error_all_8
    assert found.wide_layers == ("outlier",)
    assert found.row("outlier").error_16_bits < 0.6 * found.row("outlier").error_8_bits
    assert "output of the file" in found.row("last").why
    assert made(found, tmp_path).wide_layers == ("outlier",)


@pytest.mark.slow
def test_bytes_are_saved_where_they_cost_least():
    whole = unlimited()
    found = assigned(size_bytes=(whole.size_bytes + whole.size_bytes_all_8) // 2)
    order = narrowing(whole.layers)
    narrow = [row.name for row in found.layers if row.bits == 4]
    assert found.size_bytes <= (whole.size_bytes + whole.size_bytes_all_8) // 2
    assert set(narrow) == set(order[: len(narrow)])
    assert 0 < len(narrow) < len(order)


@pytest.mark.slow
def test_what_time_allows_is_widened():
    """The time is that of a function that the caller gives: here one of the size, so that the test does not measure."""
    whole = unlimited()
    seen = []

    def latency(path):
        seen.append(path)
        return open_file(path, trusted=True).path.stat().st_size / 1000

    found = assign_bits(net(), X, latency_ms=whole.size_bytes_all_8 / 1000 + 1, latency=latency)
    assert seen
    assert found.wide_layers
    assert found.latency_ms == found.size_bytes / 1000
    with pytest.raises(ModelError, match="the fastest file took"):
        assign_bits(net(), X, latency_ms=0.001, latency=latency)


@pytest.mark.parametrize(
    ("budgets", "closest"),
    [
        ({"size_bytes": 500}, "4 bits wherever it can"),
        pytest.param({"max_error": 1e-5}, "an error of", marks=pytest.mark.slow),
        pytest.param({"max_error": 0.02, "size_bytes": 3000}, "", marks=pytest.mark.slow),
    ],
)
def test_budgets_that_cannot_be_met_are_refused_with_the_closest(budgets, closest):
    with pytest.raises(ModelError, match="No bits of the layers") as caught:
        assigned(**budgets)
    assert closest in str(caught.value)


def test_the_record_is_saved_and_loaded(tmp_path):
    assert BitAssignment.load(unlimited().save(tmp_path / "bits.json")) == unlimited()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["folded", "attention", "multiply", "concatenate", "dense"])
def test_models_of_all_kinds_get_bits(name):
    found = assign_bits(wide_models.model(name), wide_models.data(name), max_error=10.0)
    assert found.size_bytes < found.size_bytes_all_8
    assert all(row.bits == 4 for row in found.layers if row.error_4_bits is not None)


def row(name, error_4=None, error_16=None, size=100):
    return LayerBits(name, 8, "", 0.1, error_4, error_16, size, size // 2, size + 8)


def test_orders_are_by_error_for_each_byte():
    rows = (row("a", 0.2, 0.09), row("b", 0.15, 0.05), row("c", 0.2, 0.11, size=1000), row("d", None, None))
    assert narrowing(rows) == ["c", "b", "a"]
    assert widening(rows) == ["b", "a"]


class Numbers:
    """Files that are numbers: each layer at 4 bits saves 10 bytes and adds an error, each at 16 costs 5 bytes and takes one away."""

    def __init__(self, costs, gains):
        self.costs, self.gains, self.made = costs, gains, 0

    def __call__(self, bits):
        self.made += 1
        size = 1000 - sum(10 for one in bits.values() if one == 4) + sum(5 for one in bits.values() if one == 16)
        error = 1.0 + sum(self.costs[p] for p, one in bits.items() if one == 4) - sum(self.gains[p] for p, one in bits.items() if one == 16)
        return MadeFile(dict(bits), str(sorted(bits.items())), size, error)


@hypothesis.given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), min_size=1, max_size=9),
    st.one_of(st.none(), st.integers(880, 1040)),
    st.one_of(st.none(), st.integers(0, 500)),
)
def test_the_search_keeps_budgets_or_says_that_none_can(layers, size, error):
    costs, gains = ({f"l{i}": pair[part] / 100 for i, pair in enumerate(layers)} for part in (0, 1))
    paths = list(costs)
    order = [sorted(paths, key=costs.get), sorted(paths, key=lambda path: -gains[path])]
    hypothesis.assume(size is not None or error is not None)
    limit = None if error is None else error / 100
    files = Numbers(costs, gains)
    search = Search(files, paths, *order, Budgets(size, limit, None, None), "net")
    found = None
    with contextlib.suppress(ModelError):
        found = search.run().file
    if found is None:
        every = [search.file(n, w) for n in range(len(paths) + 1) for w in range(len(paths) + 1 - n)]
        # Nothing of what is tried, so many layers first, would have done: for bytes as few narrow layers as fit, then wide ones.
        least = next((n for n in range(len(paths) + 1) if size is None or search.file(n, 0).size_bytes <= size), None)
        fitting = [file for file in every if file.size_bytes <= (size or 10**9) and file.error <= (limit if limit is not None else 10**9)]
        counts = {sum(one == 4 for one in file.bits.values()) for file in fitting}
        assert least is None or least not in counts
        return
    assert size is None or found.size_bytes <= size
    assert limit is None or found.error <= limit + 1e-9
    assert files.made < 40
