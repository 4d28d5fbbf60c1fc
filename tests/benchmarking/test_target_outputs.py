"""Verification on targets: the same figures, of what the target computes."""

import keras
import numpy as np
import pytest
from remedies_of_source import Row, check
from target_files import chain, delegate_library, images, software_gpu

import tfdistill
from tfdistill.benchmarking import Cpu, Delegate, Gpu, Micro
from tfdistill.errors import BenchmarkError, ConfigurationError, DelegationError, VerificationError
from tfdistill.runtime.interpreter import open_file

layers = keras.layers


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((12, 12, 3), name="image")
    x = layers.Flatten()(layers.Conv2D(8, 3, strides=3, activation="relu")(inputs))
    return keras.Model(inputs, layers.Dense(6, name="logits")(x))


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("answers")
    return {
        variant: tfdistill.export_tflite(model, folder / f"{variant}.tflite", variant, calibration=images()).path
        for variant in ("float32", "int8")
    }


@pytest.mark.parametrize("target", [Cpu(kernels="builtin"), Cpu(kernels="reference"), Micro()], ids=lambda target: target.describe())
@pytest.mark.parametrize("variant", ["float32", "int8"])
def test_a_target_is_verified_as_the_host_is(target, variant, model, files):
    x, y = images(20, seed=1), np.arange(20) % 6
    here = tfdistill.verify(files[variant], model, x, y, tolerances=tfdistill.tflite.Tolerances())
    there = tfdistill.verify(files[variant], model, x, y, tolerances=tfdistill.tflite.Tolerances(), target=target)
    assert there.engine == target.describe()
    assert there.samples == 20
    step = (open_file(files[variant]).outputs["logits"].scale or 1e-5) * 1.01
    assert abs(there.max_abs_error - here.max_abs_error) <= step
    assert there.keras_accuracy == here.keras_accuracy


def test_outputs_are_those_of_the_file(files):
    x = {"image": images(5, seed=2)}
    expected = open_file(files["float32"], kernels="builtin").run(x)
    found = Cpu(kernels="builtin").outputs(files["float32"], x)
    assert list(found) == list(expected)
    np.testing.assert_array_equal(Cpu(kernels="builtin").outputs(files["float32"], x["image"])["logits"], expected["logits"])
    np.testing.assert_array_equal(found["logits"], expected["logits"])


def test_another_model_fails_there_too(model, files):
    other = keras.models.clone_model(model)
    with pytest.raises(VerificationError):
        tfdistill.verify(files["float32"], other, images(), target=Micro())


@pytest.mark.slow
def test_a_gpu(model, files, monkeypatch, tmp_path):
    software_gpu(monkeypatch, tmp_path)
    record = tfdistill.verify(files["float32"], model, images(10), target=Gpu())
    assert record.engine == "GPU"
    assert record.max_abs_error < 1e-4


@pytest.mark.slow
def test_what_does_not_run_there(tmp_path):
    path = chain(tmp_path / "m.tflite", "ADD", "NEG")
    x = {name: np.ones((2, 64), "float32") for name in "ab"}
    with pytest.raises(DelegationError, match="NEG float32"):
        Delegate(delegate_library(), {"take": "add"}).outputs(path, x)
    found = Delegate(delegate_library(), {"take": "add"}, allow_partial=True).outputs(path, x)
    np.testing.assert_array_equal(found["neg_1"], -2 * np.ones((2, 64)))
    with pytest.raises(BenchmarkError, match="SIGABRT"):
        Delegate(delegate_library(), {"take": "add", "end": "invoke"}, allow_partial=True).outputs(path, x)


def data_of_small_net():
    return keras.Sequential([keras.Input((6,), name="x"), layers.Dense(3)]), np.random.default_rng(0).random((20, 6), dtype="float32")


def small_file(folder, target):
    model, x = data_of_small_net()
    path = tfdistill.export_tflite(model, folder / "m.tflite").path
    return tfdistill.verify(path, model, x, target=target)


ROWS = {
    "what runs no samples": Row(
        "verify(path, model, x, target=tfdistill.benchmarking.Cpu())",
        lambda folder: small_file(folder, "micro"),
        lambda folder: small_file(folder / "again", Cpu()),
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_remedies(name, tmp_path):
    check(ROWS[name], tmp_path)


def test_threads_are_the_hosts(model, files):
    with pytest.raises(ConfigurationError, match="contradict"):
        tfdistill.verify(files["int8"], model, images(), threads=2, target=Micro())


def test_a_missing_file(tmp_path):
    with pytest.raises(ConfigurationError, match="There is no file"):
        Cpu().outputs(tmp_path / "none.tflite", images(1))
