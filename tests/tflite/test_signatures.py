"""Files of several signatures: each computes what its model's own file computes, and equal weights stand once."""

import functools
import pathlib
import tempfile

import blame_models
import keras
import numpy as np
import pytest

import tfdistill
from tfdistill.convert.merging import merged
from tfdistill.errors import ConfigurationError, ModelError, VerificationError
from tfdistill.runtime.interpreter import open_file
from tfdistill.runtime.schema import schema
from tfdistill.tflite import FileMetadata, export_tflite, verify

L = keras.layers
X = np.random.default_rng(0).normal(size=(32, 12)).astype("float32")


@functools.cache
def pair():
    """A classifier whose weights are nearly all in its features, and these."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((12,), name="x")
    features = L.Dense(64, activation="relu", name="hidden2")(L.Dense(64, activation="relu", name="hidden1")(inputs))
    return {"serving_default": keras.Model(inputs, L.Dense(3, name="scores")(features)), "features": keras.Model(inputs, features)}


@functools.cache
def exported(variant="float32"):
    path = pathlib.Path(tempfile.mkdtemp()) / "two.tflite"
    return export_tflite(pair(), path, variant, X if variant in ("int8", "int16x8") else None, X)


@pytest.mark.parametrize(
    "variant", ["float32", "int8", *(pytest.param(v, marks=pytest.mark.slow) for v in ("float16", "dynamic_range", "int16x8"))]
)
def test_both_signatures_compute_their_models_and_share_their_weights(variant):
    record = exported(variant)
    opened = open_file(record.path)
    tensors = opened.inputs["x"]
    for key, signature in record.signatures.items():
        (output,) = signature.outputs
        found = np.concatenate([opened.run_signature(key, {"x": tensors.quantize(x[None])})[output.name] for x in X]).astype("float32")
        if output.scale is not None:
            found = (found - output.zero_point) * output.scale
        expected = np.asarray(pair()[key](X))
        assert np.abs(found - expected).max() < 0.05 * np.ptp(expected)
        assert signature.verification.path == record.path
        assert signature.verification.samples == len(X)
    alone = [signature.alone_bytes for signature in record.signatures.values()]
    # The features are the larger part of both, and stand once: what the second signature adds is its graph.
    weights = {"float32": 4, "dynamic_range": 1, "int8": 1, "int16x8": 1, "float16": 2}[variant] * 64 * (12 + 64)
    assert record.size_bytes < sum(alone) - 0.9 * weights


def test_the_first_signature_is_what_other_programs_run():
    record = exported()
    assert list(open_file(record.path).outputs) == ["scores"]
    assert record.outputs[0].shape == (1, 3)
    assert verify(record.path, pair()["serving_default"], X).max_abs_error < 1e-5
    assert tfdistill.inspect(record.path).census.sha256 == record.sha256
    assert type(record).load(record.save(pathlib.Path(record.path).with_suffix(".json"))) == record


@pytest.mark.slow
def test_loops_keep_their_own_bodies(tmp_path):
    inputs = keras.Input((6, 4), name="frames")
    first, second = (keras.Model(inputs, L.Dense(2)(kind(5)(inputs))) for kind in (L.GRU, L.LSTM))
    x = np.random.default_rng(0).normal(size=(16, 6, 4)).astype("float32")
    record = export_tflite({"one": first, "other": second}, tmp_path / "m.tflite", verify_on=x)
    assert record.census.subgraphs > 4 if hasattr(record.census, "subgraphs") else True
    opened = open_file(record.path)
    for key, model in (("one", first), ("other", second)):
        (found,) = opened.run_signature(key, {"frames": x[:1]}).values()
        np.testing.assert_allclose(found, model(x[:1]), atol=1e-5)


@pytest.mark.slow
def test_each_signature_can_have_data_of_its_own(tmp_path):
    models = {"net": blame_models.model("perceptron"), "image": blame_models.model("convnet")}
    data = {"net": blame_models.data("perceptron"), "image": blame_models.data("convnet")}
    record = export_tflite(models, tmp_path / "m.tflite", "int8", calibration=data)
    assert [s.inputs[0].name for s in record.signatures.values()] == ["x", "image"]
    assert all(signature.verification.samples == 64 for signature in record.signatures.values())


def test_a_joined_file_has_each_code_and_buffer_once():
    content = pathlib.Path(exported().path).read_bytes()
    classes = schema()
    parsed = classes.ModelT.InitFromObj(classes.Model.GetRootAs(content, 0))
    assert [s.signatureKey for s in parsed.signatureDefs] == [b"serving_default", b"features"]
    assert len({(c.builtinCode, c.version) for c in parsed.operatorCodes}) == len(parsed.operatorCodes)
    data = [bytes(bytearray(buffer.data)) for buffer in parsed.buffers if buffer.data is not None]
    assert len(set(data)) == len(data)
    inputs = [graph.tensors[graph.inputs[0]].name for graph in parsed.subgraphs]
    assert inputs == [b"serving_default_x:0", b"features_x:0"]
    again = merged({"only": pathlib.Path(blame_models.file("convnet")).read_bytes()})
    assert len(again) == pytest.approx(pathlib.Path(blame_models.file("convnet")).stat().st_size, rel=0.1)


def stateful():
    frames = keras.Input(batch_shape=(1, 3, 4), name="frames")
    return keras.Model(frames, L.GRU(3, stateful=True, name="gru")(frames))


REFUSED = {
    "no names": (dict, {}, ConfigurationError, "signatures are called"),
    "a name with a space": (lambda: {"the net": pair()["features"]}, {}, ConfigurationError, "signatures are called"),
    "metadata": (pair, {"metadata": FileMetadata(author="Ada")}, ConfigurationError, "metadata="),
    "a state inside": (lambda: {"one": stateful(), "two": stateful()}, {}, ModelError, "keeps the state of 'gru' inside"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused(case, tmp_path):
    make, arguments, kind, text = REFUSED[case]
    with pytest.raises(kind, match=text):
        export_tflite(make(), tmp_path / "m.tflite", **arguments)
    assert not list(tmp_path.iterdir())


def test_a_signature_that_fails_leaves_nothing(tmp_path):
    from tfdistill.tflite import Tolerances

    with pytest.raises(VerificationError):
        export_tflite(pair(), tmp_path / "m.tflite", "int8", X, tolerances=Tolerances(max_relative_error=1e-9))
    assert not list(tmp_path.iterdir())


def test_states_of_several_signatures_are_explicit(tmp_path):
    x = np.random.default_rng(0).normal(size=(16, 3, 4)).astype("float32")
    record = export_tflite({"one": stateful(), "two": stateful()}, tmp_path / "m.tflite", verify_on=x, states="explicit")
    assert [len(signature.inputs) for signature in record.signatures.values()] == [2, 2]
