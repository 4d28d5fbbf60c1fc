"""A file holds nothing that its result does not need, equal parts stand once, and the rewriting that sees to it is exact."""

import collections
import pathlib
import sys

import keras
import pytest
from edited_files import NAMES, assert_same, assert_without_waste, operations, parsed

from tfdistill.convert.finish import finish
from tfdistill.runtime.structure import check_structure
from tfdistill.tflite import Tolerances, export, export_tflite

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "zoo"))
import zoo_models
from zoo_rows import data_for

L = keras.layers


def recurrent(layer, steps):
    return lambda: keras.Sequential([keras.Input((steps, 8)), layer(12), L.Dense(3)])


MODELS = {
    **{name: zoo_models.SMALL[name] for name in ("conv1d_net", "siamese", "two_in_two_out", "unet", "nested", "ops_graph")},
    "GRU": recurrent(L.GRU, 8),
    "transformer_encoder": zoo_models.SMALL["transformer_encoder"],
}


def files_of(model, folder, monkeypatch):
    """Returns the bytes that the converter wrote, and those of the exported file."""
    written = []
    monkeypatch.setattr(export, "finish", lambda content: written.append(content) or finish(content))
    record = export_tflite(model, folder / "m.tflite", "int8", calibration=data_for(model), tolerances=Tolerances())
    return written[-1], pathlib.Path(record.path).read_bytes()


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in ("GRU", "transformer_encoder") else ()) for n in MODELS])
def test_the_file_of_a_model_has_no_waste(name, tmp_path, monkeypatch):
    keras.utils.set_random_seed(0)
    before, after = files_of(MODELS[name](), tmp_path, monkeypatch)
    check_structure(after)
    assert len(after) < 0.8 * len(before)
    assert_same(before, after)
    assert_same(before, after, engine="tensorflow", xnnpack=False)
    model = parsed(after)
    assert_without_waste(model, after)
    ops, graph = operations(model), model.subgraphs[0]
    assert sorted(collections.Counter(o for o, _, _ in ops)) == sorted(
        {NAMES[max(c.builtinCode, c.deprecatedBuiltinCode)] for c in model.operatorCodes}
    )
    assert [t.name for t in graph.tensors if t.name.startswith((b"serving_default_", b"StatefulPartitionedCall:"))]


# Layer that is written out -> (function that makes it, number of its directions).
WRITTEN_OUT = {
    "GRU": (lambda: L.GRU(12), 1),
    "GRU, reset before": (lambda: L.GRU(12, reset_after=False), 1),
    "LSTM": (lambda: L.LSTM(12, return_sequences=True), 1),
    "SimpleRNN": (lambda: L.SimpleRNN(12), 1),
    "both directions": (lambda: L.Bidirectional(L.GRU(6), name="a_layer_whose_name_is_not_short"), 2),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_a_step_that_is_written_out_is_small(name, tmp_path):
    make, directions = WRITTEN_OUT[name]
    sizes = {}
    for steps in (8, 24):
        keras.utils.set_random_seed(0)
        model = recurrent(lambda _: make(), steps)()
        record = export_tflite(model, tmp_path / "m.tflite", "int8", calibration=data_for(model), tolerances=Tolerances())
        sizes[steps] = record.size_bytes
        counts = collections.Counter()
        for op in record.census.ops:
            counts[op.name] += op.count
        # One for the inputs of all steps, and one or two for the state; the gates are cut apart in one or two.
        assert counts["FULLY_CONNECTED"] <= (2 if "before" in name else 1) * directions * steps + 2
        assert counts["SPLIT"] <= 2 * directions * steps
        assert counts["STRIDED_SLICE"] <= 8 * directions  # in the first step, which has no state
        # The oldest runtime that keeps the axes of what is multiplied.
        assert [int(part) for part in record.census.min_runtime_version.split(".")] >= [2, 0, 0]
    assert (sizes[24] - sizes[8]) / 16 < 1536 * directions


@pytest.mark.release
def test_the_last_of_many_steps_is_as_small(tmp_path):
    keras.utils.set_random_seed(0)
    model = recurrent(L.GRU, 128)()
    record = export_tflite(model, tmp_path / "m.tflite", "int8", calibration=data_for(model), tolerances=Tolerances())
    assert record.size_bytes < 128 * 1536 + 6144
