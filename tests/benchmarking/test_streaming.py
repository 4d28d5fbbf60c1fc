"""Throughput with a batch and several streams, pinned cores, and what the system shows of its processor."""

import os

import pytest
from peaks import folder

import tfdistill
from tfdistill.benchmarking import Timing
from tfdistill.benchmarking.again import _needed
from tfdistill.benchmarking.streaming import _run_between, stream_throughput
from tfdistill.benchmarking.targets.base import to_spec
from tfdistill.benchmarking.targets.cpu import Cpu
from tfdistill.errors import BenchmarkError, ConfigurationError
from tfdistill.utils.machine import clock_mhz, temperature_c

QUICK = Timing(warmup_seconds=0, warmup_runs=1, min_seconds=0.05, max_seconds=0.1, processes=1)


def test_batch_and_streams_are_in_the_record():
    record = tfdistill.benchmark(folder() / "int8.tflite", timing=QUICK, batch=2, streams=2)
    assert (record.batch, record.streams, record.input_shapes) == (2, 2, {"x": (2, 24, 24, 128)})
    assert record.macs == 2 * 24 * 24 * 9 * 128 * 128
    assert record.stream_p50_ms > 0
    assert record.throughput_per_s > 0
    alone = tfdistill.benchmark(folder() / "int8.tflite", timing=QUICK)
    assert (alone.batch, alone.streams, alone.stream_p50_ms) == (1, 1, None)
    assert alone.throughput_per_s == pytest.approx(1000 / alone.mean_ms)
    assert alone.arena_bytes < record.arena_bytes


def test_several_processes_share_the_runs():
    timing = Timing(warmup_seconds=0, warmup_runs=1, min_runs=18, min_seconds=0, max_seconds=60, processes=3, precision=0.99)
    record = tfdistill.benchmark(folder() / "int8.tflite", timing=timing)
    assert (record.processes, record.converged) == (3, True)
    assert record.warmup_runs >= 3
    assert record.p50_low_ms <= record.p50_ms <= record.p50_high_ms


@pytest.mark.parametrize(
    ("low", "high", "spent", "needed"),
    [
        (0.9, 1.1, 0.5, 9.5),  # 1.2 times 0.5 s times (10 % / 2 %) squared is above what is left
        (0.97, 1.03, 0.5, 1.35),
        (0.979, 1.0, 0.5, 1.0),  # at least twice as long
        (0.9, 1.1, 6.0, None),  # less is left than was spent
        (None, None, 0.5, 9.5),
    ],
)
def test_how_long_the_second_stage_takes(low, high, spent, needed):
    fields = {"p50_ms": 1.0, "p50_low_ms": low, "p50_high_ms": high}
    assert _needed(fields, Timing(), spent) == (None if needed is None else pytest.approx(needed))


def test_a_file_that_takes_long_to_open_is_measured_in_one_process():
    timing = Timing(warmup_seconds=0, warmup_runs=0, min_seconds=0, max_seconds=1e-4, processes=5)
    assert tfdistill.benchmark(folder() / "int8.tflite", timing=timing).processes == 1


def test_pinned_cores_are_in_the_record():
    before = os.sched_getaffinity(0)
    core = min(before)
    timing = Timing(warmup_seconds=0, min_seconds=0, max_seconds=0.05, processes=1, cores=[core])
    record = tfdistill.benchmark(folder() / "int8.tflite", timing=timing)
    assert record.pinned_cores == (core,)
    assert os.sched_getaffinity(0) == before
    with pytest.raises(BenchmarkError, match="4000"):
        tfdistill.benchmark(folder() / "int8.tflite", timing=Timing(cores=(4000,), processes=1))


@pytest.mark.parametrize(
    ("arguments", "match"), [({"batch": 0}, "batch=0"), ({"streams": 0}, "streams=0"), ({"batch": 2, "shapes": {}}, "contradict")]
)
def test_refused(arguments, match):
    with pytest.raises(ConfigurationError, match=match):
        tfdistill.benchmark(folder() / "int8.tflite", **arguments)


def test_streams_that_fail_are_errors(tmp_path):
    request = {"path": str(folder() / "int8.tflite"), "target": to_spec(Cpu()), "timing": {"warmup_seconds": 0}, "shapes": None}
    (tmp_path / "broken.tflite").write_bytes(b"nothing")
    with pytest.raises(BenchmarkError, match=r"A stream reports: .*cannot open"):
        stream_throughput({**request, "path": str(tmp_path / "broken.tflite")}, 2, 0.05, 30)
    with pytest.raises(BenchmarkError, match="still busy at the time limit"):
        stream_throughput({**request, "timing": {"warmup_seconds": 60}}, 2, 0.05, 1)
    with pytest.raises(BenchmarkError, match=r"A stream failed with exit code 1.\nIt said:"):
        stream_throughput({**request, "timing": {"no such setting": 1}}, 1, 0.05, 30)


def test_runs_that_end_late_are_not_counted():
    now = [0]

    def run():
        now[0] += 30

    found = _run_between(run, 0, 100, clock=lambda: now[0])
    assert found["inside"] == 3


def test_clock_and_temperature_are_read_where_they_are_shown(tmp_path):
    assert clock_mhz(system=tmp_path) is None
    assert temperature_c(system=tmp_path) is None
    for core, clock in enumerate((1_800_000, 2_400_000)):
        place = tmp_path / f"devices/system/cpu/cpu{core}/cpufreq"
        place.mkdir(parents=True)
        (place / "scaling_cur_freq").write_text(f"{clock}\n")
    assert (clock_mhz(system=tmp_path), clock_mhz((0,), tmp_path)) == (2400, 1800)
    for i, (kind, value) in enumerate([("acpitz", "90000"), ("x86_pkg_temp", "55500"), ("cpu-thermal", "48000"), ("soc", "no")]):
        zone = tmp_path / f"class/thermal/thermal_zone{i}"
        zone.mkdir(parents=True)
        (zone / "type").write_text(kind)
        (zone / "temp").write_text(value)
        if i == 0:
            assert temperature_c(tmp_path) == 90
    assert temperature_c(tmp_path) == 55.5
