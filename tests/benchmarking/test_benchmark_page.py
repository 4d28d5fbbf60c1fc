"""The page about benchmarks, the times of operations, and how near a file comes to what the machine can do."""

import dataclasses
import html.parser
import json
from unittest import mock

import pytest
from peaks import folder

import tfdistill
from tfdistill.benchmarking import (
    BenchmarkRecord,
    OperationProfile,
    Roofline,
    SpeedChange,
    TimedOperation,
    Timing,
    profile_operations,
    roofline,
)
from tfdistill.benchmarking.peak import _size_class
from tfdistill.cli.benchmark import _profile
from tfdistill.errors import ConfigurationError
from tfdistill.host import HostFingerprint
from tfdistill.report.benchmark_page import benchmark_page
from tfdistill.report.operation_picture import operation_picture
from tfdistill.runtime import profile

QUICK = Timing(warmup_seconds=0, warmup_runs=1, min_seconds=0.05, max_seconds=0.1, processes=1)


@pytest.fixture(scope="module")
def record():
    return tfdistill.benchmark(folder() / "int8.tflite", timing=QUICK)


@pytest.fixture(scope="module")
def roof(record):
    return roofline(record)


def test_roofline(record, roof, tmp_path):
    assert (roof.compute_type, roof.macs) == ("int8", record.macs)
    assert roof.gmac_per_s == pytest.approx(record.macs / record.p50_ms / 1e6)
    assert roof.roof_gmac_per_s == pytest.approx(min(roof.peak_gmac_per_s, roof.macs_per_byte * roof.peak_gbytes_per_s))
    assert (roof.bound == "compute") == (roof.roof_gmac_per_s == roof.peak_gmac_per_s)
    assert Roofline.load(roof.save(tmp_path / "r.json")) == roof


@pytest.mark.parametrize(("moved", "size"), [(0, 1 << 18), (1 << 20, 1 << 20), ((1 << 20) + 1, 1 << 21), (1 << 40, 1 << 28)])
def test_the_memory_is_measured_at_the_size_of_the_file(moved, size):
    assert _size_class(moved) == size


REFUSED = {
    "another machine": (lambda r: dataclasses.replace(r, host=dataclasses.replace(r.host, cpu_model="another")), "is of another machine"),
    "no multiplications": (lambda r: dataclasses.replace(r, macs=0), "not counted"),
    "not counted": (lambda r: dataclasses.replace(r, macs=None), "not counted"),
    "another type": (lambda r: dataclasses.replace(r, compute_type="int16"), "int16"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_roofline(name, record):
    change, match = REFUSED[name]
    with pytest.raises(ConfigurationError, match=match):
        roofline(change(record))


def test_operations_are_a_record(tmp_path):
    profile = profile_operations(folder() / "int8.tflite", runs=5)
    assert OperationProfile.load(profile.save(tmp_path / "p.json")) == profile
    assert sum(profile.by_name().values()) == pytest.approx(profile.total_us)
    assert profile.slowest(1)[0].mean_us == max(row.mean_us for row in profile.operations)
    assert "Convolution" in str(profile)


@pytest.mark.parametrize("settings", [{"kind": "gpu", "threads": 1}, {"kind": "cpu", "threads": 1, "kernels": "builtin"}])
def test_operations_are_not_shown_for_another_target(settings, record):
    with pytest.raises(ConfigurationError, match="with XNNPACK only"):
        _profile(dataclasses.replace(record, target_settings=settings))


@pytest.mark.parametrize("amx", [True, False, None])
def test_operations_are_timed_as_the_file_was(amx, record):
    """Records from before there was the setting, here None, were measured with AMX."""
    settings = {name: value for name, value in record.target_settings.items() if name != "amx"} | ({} if amx is None else {"amx": amx})
    with mock.patch.object(profile, "profile_operations", wraps=profile.profile_operations) as timed:
        _profile(dataclasses.replace(record, target_settings=settings))
    assert timed.call_args.kwargs["amx"] is (amx is not False)


def test_the_picture_of_operations(tmp_path):
    host = HostFingerprint("", "", 1, 1, None, "", "", {}, "")
    rows = tuple(TimedOperation(f"operation {i}", i % 3 > 0, 10.0 / (i + 1), 0.1) for i in range(25))
    path = operation_picture(OperationProfile("m.tflite", "0", 1, 5, rows, host), tmp_path / "operations.svg")
    drawn = path.read_text(encoding="utf-8")
    assert drawn.count("<path") > 25


class _Strict(html.parser.HTMLParser):
    """Collects the tags that are open, and what a page would fetch."""

    def __init__(self):
        super().__init__()
        self.open, self.fetched, self.text = [], [], []

    def handle_starttag(self, tag, attributes):
        self.fetched += [value for name, value in attributes if name in ("src", "href", "action")]
        if tag == "script":
            self.fetched.append(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(page):
    parser = _Strict()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    assert parser.fetched == []
    return " ".join(" ".join(parser.text).split())


def test_the_page_holds_what_was_measured(record, roof):
    profile = profile_operations(folder() / "int8.tflite", runs=5)
    change = SpeedChange("int8.tflite", 0.21, 0.24, "2026-11-20", -0.125, True, False, {})
    text = read(benchmark_page([record], {record.path: profile}, {record.path: roof}, {record.path: ["No <b>luck</b>."]}, [change]))
    for words in (
        "Benchmark: int8.tflite",
        "ms, median",
        "95% interval",
        "GMAC/s",
        "run by XNNPACK",
        "12 % faster",
        "No <b>luck</b>.",
        "x 1x24x24x128",
    ):
        assert words in text
    assert f"{record.runs:,} in 1 process" in text


def test_the_page_is_made_of_records_alone_and_of_hostile_names(record):
    hostile = "<script>alert(1)</script>\x1b[31m'\"&"
    one = dataclasses.replace(
        BenchmarkRecord.from_dict(json.loads(json.dumps(record.to_dict()))),
        **dict(
            path=hostile, input_shapes={hostile: (1,)}, p50_low_ms=None, p50_high_ms=None, converged=False, p95_ms=float("nan"), drift=0.2
        ),
    )
    two = dataclasses.replace(record, clock_mhz_before=2000.0, clock_mhz_after=1500.0, warmup_stable=False, load_average=99.0)
    text = read(benchmark_page([one, two]))
    for words in (
        "Benchmark: 2 files",
        "limit came before",
        "20% longer",
        "slowed down from 2,000 to 1,500 MHz",
        "still changed",
        "99.0 processes",
    ):
        assert words in text


def test_files_of_one_name_are_told_apart(record):
    page = benchmark_page([dataclasses.replace(record, path="a/m.tflite"), dataclasses.replace(record, path="b/m.tflite")])
    assert "a/m.tflite" in page
    assert "b/m.tflite" in page
