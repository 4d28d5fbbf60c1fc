"""tflite-micro from its wheel: memory, operations to register, and outputs beside LiteRT's."""

import math

import keras
import numpy as np
import pytest
from remedies_of_source import Row, check
from target_files import QUICK, chain, convolutions
from test_benchmark_shapes import counter_file
from zoo_models import SMALL

import tfdistill
from tfdistill.benchmarking import BenchmarkRecord, Micro
from tfdistill.errors import BenchmarkError, ConfigurationError
from tfdistill.runtime.interpreter import open_file
from tfdistill.runtime.micro import MicroFile

layers = keras.layers


def test_a_record_without_times(tmp_path):
    path = convolutions("int8")
    record = tfdistill.benchmark(path, Micro(), timing=QUICK)
    assert record.engine == "tflite_micro"
    assert all(math.isnan(time) for time in (record.p50_ms, record.p90_ms, record.p99_ms, record.mean_ms, record.min_ms))
    assert (record.runs, record.converged) == (0, False)
    assert record.operators == ("ADD", "CONV_2D", "FULLY_CONNECTED", "MEAN", "SOFTMAX")
    sections = record.arena_sections
    assert sections["head"] + sections["tail"] == record.arena_bytes
    assert sum(size for name, size in sections.items() if name not in ("head", "tail")) <= sections["tail"]
    assert sections["head"] >= 2 * 12 * 12 * 8  # both operands of the addition
    assert record.reference_max_steps <= 1
    assert "nan" not in str(record)
    assert BenchmarkRecord.load(record.save(tmp_path / "record.json")).operators == record.operators


def test_the_arena_that_is_measured_suffices_and_half_of_it_does_not():
    path = convolutions("int8")
    needed = tfdistill.benchmark(path, Micro(), timing=QUICK).arena_bytes
    assert tfdistill.benchmark(path, Micro(needed + 1024), timing=QUICK).arena_bytes == needed
    with pytest.raises(BenchmarkError, match=r"does not fit into an arena of \d+ bytes"):
        tfdistill.benchmark(path, Micro(needed // 2), timing=QUICK)


def test_a_missing_operation_is_named(tmp_path):
    inputs = keras.Input((6,))
    path = tfdistill.export_tflite(keras.Model(inputs, keras.ops.top_k(layers.Dense(8)(inputs), 2)[0]), tmp_path / "m.tflite").path
    with pytest.raises(BenchmarkError, match="tflite-micro does not have TOPK_V2"):
        tfdistill.benchmark(path, Micro(), timing=QUICK)


def test_a_state_is_compared_from_its_beginning(tmp_path):
    record = tfdistill.benchmark(counter_file(tmp_path / "m.tflite"), Micro(), timing=QUICK)
    assert record.reference_max_abs_error == 0


@pytest.mark.slow
def test_it_computes_what_litert_computes(tmp_path):
    """The demo's student on the digits, trained a little: at most a step from LiteRT, and the same class for 100 images."""
    from sklearn.datasets import load_digits

    from tfdistill.demo.models import student

    keras.utils.set_random_seed(0)
    digits = load_digits()
    x, y = (digits.images[..., None] / 16).astype("float32"), digits.target
    model = student(x.shape[1:], 10)
    model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    model.fit(x, y, epochs=3, batch_size=64, verbose=0)
    path = tmp_path / "digits.tflite"
    tfdistill.export_tflite(model, path, "int8", calibration=x[:200])
    micro, litert = MicroFile(path), open_file(path, kernels="builtin", trusted=True)
    (name,), (entry,) = micro.outputs, micro.inputs
    differences, same = [], 0
    for image in x[-100:]:
        integers = {entry: micro.inputs[entry].quantize(image[None])}
        outputs = []
        for file in (micro, litert):
            file.set_inputs(integers)
            file.invoke()
            outputs.append(file.read_outputs()[name].astype(int))
        differences.append(np.abs(outputs[0] - outputs[1]).max())
        same += outputs[0].argmax() == outputs[1].argmax()
    assert max(differences) <= 1
    assert same == 100
    assert tfdistill.benchmark(path, Micro()).arena_bytes < 20_000


ROWS = {
    "an arena that is too small": Row(
        "take Micro(), which measures what the file needs",
        lambda folder: tfdistill.benchmark(chain(folder / "m.tflite", "ADD"), Micro(1200), timing=QUICK),
        lambda folder: tfdistill.benchmark(folder / "m.tflite", Micro(), timing=QUICK),
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_remedies(name, tmp_path):
    check(ROWS[name], tmp_path)


def test_shapes_are_the_files_own(tmp_path):
    path = chain(tmp_path / "m.tflite", "ADD")
    assert tfdistill.benchmark(path, Micro(), timing=QUICK, shapes={"a": (1, 64)}).input_shapes["a"] == (1, 64)
    with pytest.raises(BenchmarkError, match="does not fit"):
        tfdistill.benchmark(path, Micro(), timing=QUICK, shapes={"a": (2, 64)})


@pytest.mark.parametrize("content", [b"", b"\x08\x07\x12\x0connx" * 50])
def test_a_file_for_another_runtime(content, tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(content)
    with pytest.raises(BenchmarkError, match=r"not a \.tflite file"):
        tfdistill.benchmark(path, Micro(), timing=QUICK)


@pytest.mark.parametrize("size", [0, -1, 1.5, "1k", True])
def test_impossible_settings(size):
    with pytest.raises(ConfigurationError):
        Micro(size)


def samples(model):
    """Data for a model of the zoo, as its inputs are named."""
    rng = np.random.default_rng(0)
    made = {
        tensor.name: rng.integers(0, 5, (32, *tensor.shape[1:])).astype("int32")
        if "int" in tensor.dtype
        else rng.random((32, *tensor.shape[1:]), dtype="float32")
        for tensor in model.inputs
    }
    return made if len(made) > 1 else next(iter(made.values()))


# Small model of the zoo, variant -> the operation that tflite-micro lacks; None where it runs, at most a step or a rounding from LiteRT.
ZOO = {
    ("conv1d_net", "int8"): None,
    ("gru", "int8"): None,
    ("lstm", "int8"): None,
    ("nested", "int8"): None,
    ("ops_graph", "int8"): None,
    ("separable", "int8"): None,
    ("siamese", "int8"): None,
    ("two_in_two_out", "int8"): None,
    ("unet", "int8"): None,
    ("conv1d_net", "float32"): None,
    ("gru", "float32"): None,
    ("unet", "float32"): None,
    ("bidirectional_gru", "float32"): "SELECT",
    ("bidirectional_gru", "int8"): "UNPACK",
    ("transformer_encoder", "int8"): "GELU",
    ("vit", "float32"): "GELU",
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "variant"), ZOO)
def test_small_models_run_or_name_what_is_missing(name, variant, tmp_path):
    model = SMALL[name]()
    path = tfdistill.export_tflite(model, tmp_path / "m.tflite", variant, calibration=samples(model) if variant == "int8" else None).path
    if lacking := ZOO[name, variant]:
        with pytest.raises(BenchmarkError, match=rf"tflite-micro does not (have|run)(.|\n)*{lacking}"):
            tfdistill.benchmark(path, Micro(), timing=QUICK)
        return
    record = tfdistill.benchmark(path, Micro(), timing=QUICK)
    assert record.arena_bytes > 0
    assert record.reference_max_steps is None or record.reference_max_steps <= 1
    assert record.reference_max_steps is not None or record.reference_max_abs_error < 1e-5


@pytest.mark.slow
def test_a_wrong_answer_is_in_the_record(tmp_path):
    """tflite-micro runs two loops of floats in a row without an error, and with other results than LiteRT."""
    path = tfdistill.export_tflite(SMALL["lstm"](), tmp_path / "m.tflite").path
    record = tfdistill.benchmark(path, Micro(), timing=QUICK)
    assert "WHILE" in record.operators
    assert record.reference_max_abs_error > 1e-3
