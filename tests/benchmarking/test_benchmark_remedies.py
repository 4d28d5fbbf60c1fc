"""What errors about benchmarks say to do works."""

import dataclasses
import os
from unittest import mock

import pytest
from peaks import folder as files
from remedies_of_source import Row, check

import tfdistill
from tfdistill.benchmarking import Timing, pinning, roofline
from tfdistill.benchmarking.streaming import stream_throughput
from tfdistill.benchmarking.targets.base import KINDS, to_spec
from tfdistill.benchmarking.targets.cpu import Cpu
from tfdistill.cli.benchmark import _refuse_with_compare, _target
from tfdistill.runtime import amx

QUICK = Timing(warmup_seconds=0, warmup_runs=1, min_seconds=0.03, max_seconds=0.05, processes=1)
TURNS = dataclasses.replace(QUICK, processes=3)


def pair():
    return [files() / "int8.tflite", files() / "int8.tflite"]


def measured():
    return tfdistill.benchmark(pair()[0], timing=QUICK)


def elsewhere():
    record = measured()
    return dataclasses.replace(record, host=dataclasses.replace(record.host, cpu_model="another"))


def streams(seconds):
    request = {"path": str(pair()[0]), "target": to_spec(Cpu()), "timing": {"warmup_seconds": 0.5}, "shapes": None}
    return stream_throughput(request, 2, 0.05, seconds)


def pinned_where_none_can_be(cores):
    with mock.patch.dict(vars(os)):
        del os.sched_setaffinity
        pinning.pin(cores)


class WithoutFilters:
    """A stand-in for the C library of a kernel that filters no system calls."""

    def prctl(self, *call):
        return -1


def opened_without_filters(**settings):
    with mock.patch.object(amx, "has_amx", return_value=True), mock.patch.object(amx.ctypes, "CDLL", return_value=WithoutFilters()):
        return Cpu(**settings).open(pair()[0])


@dataclasses.dataclass(frozen=True)
class WithoutThreads:
    """A target that has none."""

    kind = "without"


def target_of(threads):
    with mock.patch.dict(KINDS, {"without": WithoutThreads}):
        return _target("without", threads)


ROWS = {
    "one file to compare": Row(
        "compare_speed([before, after])",
        lambda folder: tfdistill.compare_speed(pair()[0], timing=TURNS),
        lambda folder: tfdistill.compare_speed(pair(), timing=TURNS),
    ),
    "two processes": Row(
        "Timing(processes=8)",
        lambda folder: tfdistill.compare_speed(pair(), timing=dataclasses.replace(TURNS, processes=2)),
        lambda folder: tfdistill.compare_speed(pair(), timing=dataclasses.replace(TURNS, processes=8)),
    ),
    "a record of another machine": Row(
        "benchmark the file here", lambda folder: roofline(elsewhere()), lambda folder: roofline(measured())
    ),
    "a system that pins nothing": Row(
        "leave cores out", lambda folder: pinned_where_none_can_be((0,)), lambda folder: pinned_where_none_can_be(None)
    ),
    "streams without time": Row("raise timeout_seconds, or ask for fewer streams", lambda folder: streams(0.1), lambda folder: streams(60)),
    "a kernel that filters no calls": Row(
        "leave out amx=False", lambda folder: opened_without_filters(amx=False), lambda folder: opened_without_filters()
    ),
    "threads of nothing": Row("leave --threads out", lambda folder: target_of(2), lambda folder: target_of(None)),
    "a comparison with a page": Row(
        "leave --html out, or --compare",
        lambda folder: _refuse_with_compare(html="page.html"),
        lambda folder: _refuse_with_compare(html=None),
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_what_an_error_says_to_do_works(row, tmp_path):
    check(ROWS[row], tmp_path)
