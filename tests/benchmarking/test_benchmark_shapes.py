"""Benchmarks of files without fixed sizes, and of files whose memory cannot be measured."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfdistill
from tfdistill.benchmarking import BenchmarkRecord, Cpu, Timing, worker
from tfdistill.benchmarking.isolation import run_child
from tfdistill.errors import BenchmarkError, ConfigurationError, RuntimeUnavailableError
from tfdistill.runtime import tensorflow_lite
from tfdistill.runtime.capture import captured_output
from tfdistill.runtime.interpreter import open_file
from tfdistill.tflite import export_tflite

QUICK = Timing(warmup_seconds=0, warmup_runs=0, min_runs=1, min_seconds=0, max_seconds=0.05, processes=1)
layers = keras.layers


def _one(shape, *body):
    return keras.Sequential([keras.Input(shape, name="image"), *body])


def _two():
    image, words = keras.Input((None, None, 2), name="image"), keras.Input((None, 3), name="words")
    pooled = [layers.GlobalAveragePooling2D()(layers.Conv2D(3, 3, padding="same")(image)), layers.GlobalAveragePooling1D()(words)]
    return keras.Model([image, words], layers.Dense(2)(layers.Concatenate()(pooled)))


MODELS = {
    "height and width": lambda: _one((None, None, 2), layers.Conv2D(3, 3, padding="same"), layers.GlobalAveragePooling2D()),
    "length": lambda: _one((None, 3), layers.Conv1D(4, 3, padding="same"), layers.GlobalMaxPooling1D()),
    "batch": lambda: _one((6,), layers.Dense(2)),
    "two inputs": _two,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    return {name: export_tflite(make(), folder / f"{i}.tflite", batch_size=None).path for i, (name, make) in enumerate(MODELS.items())}


# File -> (shapes that are requested, shapes that run); None is refused.
SHAPES = [
    ("height and width", None, None),
    ("height and width", {"image": (1, 24, 32, 2)}, {"image": (1, 24, 32, 2)}),
    ("height and width", {"image": [3, 8, 8, 2]}, {"image": (3, 8, 8, 2)}),
    ("length", None, None),
    ("length", {"image": (1, 50, 3)}, {"image": (1, 50, 3)}),
    ("batch", None, {"image": (1, 6)}),
    ("batch", {"image": (8, 6)}, {"image": (8, 6)}),
    ("two inputs", {"image": (1, 8, 8, 2)}, None),
    ("two inputs", {"image": (1, 8, 8, 2), "words": (1, 5, 3)}, {"image": (1, 8, 8, 2), "words": (1, 5, 3)}),
]


@pytest.mark.parametrize(("name", "requested", "ran"), SHAPES)
def test_free_sizes_are_asked_for_and_recorded(name, requested, ran, files, tmp_path):
    if ran is None:
        with pytest.raises(BenchmarkError, match=r"no fixed size: \{.*None") as caught:
            tfdistill.benchmark(files[name], timing=QUICK, shapes=requested)
        # The remedy is a line to run.
        text = str(caught.value).rpartition("benchmark(path, shapes=")[2].rpartition(")")[0]
        ran = {**(requested or {}), **eval(text)}
        requested = ran
    record = tfdistill.benchmark(files[name], timing=QUICK, shapes=requested)
    assert record.input_shapes == ran
    assert BenchmarkRecord.load(record.save(tmp_path / "record.json")) == record


REFUSED = [
    ({"picture": (1, 8, 8, 2)}, "'picture', which is no input"),
    ({"image": (8, 8, 2)}, "does not fit"),
    ({"image": (1, 8, 8, 3)}, "does not fit"),
]
IMPOSSIBLE = [{"image": (1, 0, 8, 2)}, {"image": (1, None, 8, 2)}, {"image": (1, 8.5, 8, 2)}, {"image": (True, 8, 8, 2)}]


@pytest.mark.parametrize(("shapes", "match"), REFUSED)
def test_shapes_that_do_not_fit(shapes, match, files):
    with pytest.raises(BenchmarkError, match=match):
        tfdistill.benchmark(files["height and width"], timing=QUICK, shapes=shapes)
    for trusted in (True, False):
        with pytest.raises(ConfigurationError, match=match):
            open_file(files["height and width"], shapes=shapes, trusted=trusted)


@pytest.mark.parametrize("shapes", IMPOSSIBLE)
def test_impossible_shapes(shapes, files):
    for run in (tfdistill.benchmark, open_file):
        with pytest.raises(ConfigurationError, match="shapes="):
            run(files["height and width"], shapes=shapes)


def test_shapes_and_batch_contradict_each_other(files):
    with pytest.raises(ConfigurationError, match="contradict"):
        open_file(files["batch"], batch_size=2, shapes={"image": (2, 6)})


def test_a_file_opened_at_shapes_computes_what_its_model_computes(files):
    model, x = MODELS["height and width"](), np.random.default_rng(0).random((3, 9, 7, 2), dtype="float32")
    path = export_tflite(model, str(files["height and width"]) + ".again.tflite", batch_size=None).path
    opened = open_file(path, shapes={"image": x.shape})
    np.testing.assert_allclose(next(iter(opened.run(x).values())), model(x), atol=1e-5)
    assert opened.inputs["image"].signature == (None, None, None, 2)


RESULT = "import json, os\ndef main(result_fd):\n    os.write(result_fd, json.dumps({'record': 1}).encode() + b'\\n')\n    "
# What measuring the memory may do after the times are known.
AFTERWARDS = {
    "killed": "os.kill(os.getpid(), 9)",
    "aborted": "os.abort()",
    "segmentation fault": "import ctypes; ctypes.string_at(0)",
    "raises": "raise OSError('no memory')",
    "hangs": "import time; time.sleep(60)",
    "writes half a result": "os.write(result_fd, b'{\"record\": 2')",
    "writes another result": "os.write(result_fd, b'{\"record\": 2}\\n')",
}


@pytest.mark.parametrize("what", AFTERWARDS)
def test_memory_never_costs_the_times(what, tmp_path):
    (tmp_path / "afterwards.py").write_text(RESULT + AFTERWARDS[what])
    assert run_child({}, timeout_seconds=2, module="afterwards", paths=[tmp_path]) == (2 if what == "writes another result" else 1)


def test_memory_is_none_where_the_plain_kernels_refuse(files, monkeypatch):
    request = {"path": str(files["batch"]), "shapes": None}
    assert worker.measure_arena(request, Cpu()) > 0

    def refuse(*arguments, **options):
        raise RuntimeUnavailableError("No kernel for CUSTOM.")

    monkeypatch.setattr(worker, "open_file", refuse)
    assert worker.measure_arena(request, Cpu()) is None
    assert json.dumps(request)


def counter_file(path):
    """Writes a file with a resource variable, to which every run adds its input; returns the path."""

    class Counter(tf.Module):
        def __init__(self):
            self.count = tf.Variable(np.zeros(3, "float32"))

        @tf.function(input_signature=[tf.TensorSpec((3,), tf.float32)])
        def serve(self, x):
            self.count.assign_add(x)
            return self.count * 2.0

    module = Counter()
    with captured_output():
        converter = tensorflow_lite.converter_class().from_concrete_functions([module.serve.get_concrete_function()], module)
        converter.experimental_enable_resource_variables = True
        path.write_bytes(converter.convert())
    return path


def test_a_file_with_a_state_is_measured(tmp_path):
    """A resource variable: its handle has no memory to be measured, and every run has other outputs, so the first ones are compared."""
    record = tfdistill.benchmark(counter_file(tmp_path / "state.tflite"), timing=QUICK)
    assert record.input_shapes == {"x": (3,)}
    assert record.runs >= 1
    assert record.arena_bytes > 0
    assert record.reference_max_abs_error == 0
