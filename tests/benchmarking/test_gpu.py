"""The GPU target on a real Vulkan driver that computes on the CPU: times there say nothing, results and refusals do."""

import pytest
from target_files import QUICK, chain, convolutions, no_gpu, software_gpu

import tfdistill
from tfdistill.benchmarking import BenchmarkRecord, Gpu
from tfdistill.errors import BenchmarkError, ConfigurationError, DelegationError

pytestmark = pytest.mark.slow


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    software_gpu(monkeypatch, tmp_path)


# Variant -> settings, largest difference to the CPU in real values and in steps.
WHOLE = {
    "float32": ("float32", {}, 1e-5, None),
    "float32 computed in float16": ("float32", {"precision": "float16"}, 5e-3, None),
    "float16": ("float16", {"precision": "float32"}, 1e-3, None),
    "dynamic range": ("dynamic_range", {}, 5e-2, None),
    "int8": ("int8", {}, 2 / 256 + 1e-6, 2),
}


@pytest.mark.parametrize("case", WHOLE)
def test_a_file_that_it_runs_whole(case, gpu, tmp_path):
    variant, settings, error, steps = WHOLE[case]
    record = tfdistill.benchmark(convolutions(variant), Gpu(**settings), timing=QUICK, variant=variant)
    assert record.accelerator_proven
    assert record.delegated_operations == record.operations > 5
    assert record.left_operations == {}
    assert record.reference_kernels == "builtin"
    assert record.reference_max_abs_error <= error
    assert (record.reference_max_steps is None) == (steps is None)
    assert steps is None or record.reference_max_steps <= steps
    assert 0 < record.min_ms <= record.p50_ms
    assert BenchmarkRecord.load(record.save(tmp_path / "record.json")) == record


def test_halves_are_seen_in_the_difference(gpu):
    whole, half = (
        tfdistill.benchmark(convolutions("float32"), Gpu(precision=precision), timing=QUICK).reference_max_abs_error
        for precision in ("float32", "float16")
    )
    assert whole < half / 10


def test_operations_that_stay_on_the_cpu(gpu):
    path = convolutions("int16x8")
    with pytest.raises(DelegationError, match=r"GPU does not run \d of the \d operations .* CONV_2D int16") as caught:
        tfdistill.benchmark(path, Gpu(), timing=QUICK)
    assert "Tensor type(INT16) is not supported" in str(caught.value)  # the delegate's own words
    record = tfdistill.benchmark(path, Gpu(allow_partial=True), timing=QUICK)
    assert 0 < record.delegated_operations < record.operations
    assert sum(record.left_operations.values()) == record.operations - record.delegated_operations
    assert record.left_operations["CONV_2D int16"] == 2
    assert record.accelerator_proven
    assert record.reference_max_steps is not None


def test_inputs_take_the_shapes_that_are_given(gpu, tmp_path):
    record = tfdistill.benchmark(chain(tmp_path / "m.tflite", "ADD", "ABS"), Gpu(), timing=QUICK, shapes={"a": (1, 64), "b": (1, 64)})
    assert record.input_shapes == {"a": (1, 64), "b": (1, 64)}
    assert record.delegated_operations == 2


def test_without_a_driver(monkeypatch, tmp_path):
    no_gpu(monkeypatch, tmp_path)
    for target in (Gpu(), Gpu(allow_partial=True)):
        with pytest.raises(BenchmarkError, match=r"GPU does not run(.|\n)*No adapters found"):
            tfdistill.benchmark(chain(tmp_path / "m.tflite", "ADD"), target, timing=QUICK)


@pytest.mark.parametrize("damage", [b"", b"\x08\x07\x12\x0connx" * 50])
def test_a_file_for_another_runtime(damage, gpu, tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(damage)
    with pytest.raises(BenchmarkError, match="GPU does not run"):
        tfdistill.benchmark(path, Gpu(), timing=QUICK)


@pytest.mark.parametrize("settings", [{"precision": "int8"}, {"allow_partial": 0}, {"threads": 0}])
def test_impossible_settings(settings):
    with pytest.raises(ConfigurationError):
        Gpu(**settings)
