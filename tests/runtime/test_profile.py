"""The operations of a file are timed one by one."""

import keras
import numpy as np
import pytest

from tfdistill import export_tflite
from tfdistill.errors import ConfigurationError, ExportError, RuntimeUnavailableError
from tfdistill.runtime.profile import OperationTime, profile_operations, summarize

layers = keras.layers


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, x = tmp_path_factory.mktemp("profile"), np.random.default_rng(0).normal(size=(32, 16, 16, 8)).astype("float32")
    keras.utils.set_random_seed(7)
    decided = keras.initializers.RandomNormal(stddev=30.0, seed=1)  # classes that are no near ties, which verification remarks on
    image = keras.Input((16, 16, 8), name="image")
    wide = layers.Conv2D(64, 3, padding="same", name="wide")(image)
    whole = keras.Model(
        image, layers.Softmax(name="softmax")(layers.Dense(4, kernel_initializer=decided)(layers.GlobalAveragePooling2D()(wide)))
    )
    small, large = keras.Input((2,), name="small"), keras.Input((64,), name="large")
    two = keras.Model([small, large], {"b": layers.Dense(3)(large), "a": layers.Concatenate()([small, large])})
    export_tflite(whole, folder / "int8.tflite", "int8", calibration=x)
    export_tflite(whole, folder / "float32.tflite")
    export_tflite(two, folder / "two.tflite")
    return folder


# File -> part of the names that are in it, in their order, and whether XNNPACK runs them.
NAMES = {
    "int8": [("Convolution", True), ("Mean", True), ("Fully Connected", True), ("SOFTMAX", False)],
    "float32": [("Convolution", True), ("Mean", True), ("Fully Connected", True), ("Softmax", True)],
}


@pytest.mark.parametrize("variant", NAMES)
def test_operations_are_named_in_their_order(files, variant):
    found = [
        row for row in profile_operations(files / f"{variant}.tflite", runs=10) if "Reshape" not in row.name and "RESHAPE" not in row.name
    ]
    assert len(found) == len(NAMES[variant])
    for row, (name, delegated) in zip(found, NAMES[variant], strict=True):
        assert name in row.name
        assert row.delegated is delegated
    assert max(found, key=lambda row: row.mean_us) is found[0]


def test_inputs_and_outputs_are_matched_by_name(files):
    """Of other sizes than LiteRT expects they would end the process, or the call."""
    assert {row.name.split(" (")[0] for row in profile_operations(files / "two.tflite", runs=2)}


def test_shares_add_up_and_disturbed_runs_do_not_count():
    quiet = [("A", True, 30), ("B", False, 10)]
    found = summarize([quiet] * 8 + [[("A", True, 3000), ("B", False, 10)]] * 2)
    assert found == (OperationTime("A", True, 30.0, 0.75), OperationTime("B", False, 10.0, 0.25))


def test_runs_that_differ_are_refused():
    with pytest.raises(RuntimeUnavailableError, match="2 different sequences"):
        summarize([[("A", True, 1)], [("B", True, 1)]])


MISTAKES = {
    "no file": (lambda f: dict(path=f / "none.tflite"), ConfigurationError, "There is no file"),
    "no runs": (lambda f: dict(path=f / "int8.tflite", runs=0), ConfigurationError, "runs"),
    "no threads": (lambda f: dict(path=f / "int8.tflite", threads=0), ConfigurationError, "threads"),
    "too little time": (lambda f: dict(path=f / "int8.tflite", timeout_seconds=0.01), RuntimeUnavailableError, "time limit"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named(files, mistake):
    arguments, error, text = MISTAKES[mistake]
    with pytest.raises(error, match=text):
        profile_operations(**arguments(files))


def test_a_damaged_file_is_refused(files, tmp_path):
    content = (files / "int8.tflite").read_bytes()
    (tmp_path / "half.tflite").write_bytes(content[: len(content) // 2])
    with pytest.raises((ExportError, RuntimeUnavailableError), match=r"half|damaged|truncated|outside|beyond"):
        profile_operations(tmp_path / "half.tflite")
