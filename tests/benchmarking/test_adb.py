"""Android devices, with a stand-in for adb and a device (tests/benchmarking/stand_in_adb.py): what is pushed, run, read and removed, and how adb fails."""

import json
import math
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from phone import NEWER, OLDER, SAME, Phone
from small_files import free_file, int8_file

import tfdistill
from tfdistill.benchmarking import Adb, Timing
from tfdistill.benchmarking.remote.benchmark_model import parsed
from tfdistill.benchmarking.targets.base import from_spec, to_spec
from tfdistill.errors import BenchmarkError, ConfigurationError, RuntimeUnavailableError

QUICK = Timing(warmup_seconds=0, min_seconds=0, max_seconds=0.3)


@pytest.fixture
def phone(tmp_path):
    return Phone(tmp_path)


def test_the_record_of_a_device(phone, tmp_path):
    target = phone.target(threads=4)
    record = tfdistill.benchmark(int8_file(), target, timing=QUICK, variant="int8")
    assert (record.p50_ms, record.mean_ms, record.min_ms, record.runs, record.warmup_runs) == pytest.approx(
        (56.201, 56.2658, 54.669, 1061, 9)
    )
    assert math.isnan(record.p90_ms)
    assert math.isnan(record.p99_ms)
    assert (record.p50_low_ms, record.converged) == (None, False)
    assert (record.init_ms, record.peak_rss_bytes, record.baseline_rss_bytes) == (3.337, round(93.25 * 2**20), round(84.75 * 2**20))
    assert (record.host.cpu_model, record.host.os) == ("Google Pixel 8, Tensor G3", "Android 14")
    assert record.host.packages["benchmark_model"].startswith("sha256 ")
    assert record.input_shapes == {"image": (1, 8, 8, 1)}
    assert (record.sha256, record.size_bytes) == (tfdistill.census(int8_file()).sha256, pathlib.Path(int8_file()).stat().st_size)
    assert record.target == "Android: CPU, 4 threads, XNNPACK"
    assert from_spec(json.loads(json.dumps(to_spec(target)))) == target
    assert type(record).load(record.save(tmp_path / "record.json")).to_dict() == record.to_dict()
    assert "56.2" in str(record)
    assert phone.leftovers() == []


def test_what_is_run(phone):
    timing = Timing(warmup_seconds=0.25, warmup_runs=7, min_runs=50, min_seconds=0.5, max_seconds=3)
    tfdistill.benchmark(free_file(), phone.target(kernels="builtin"), timing=timing, shapes={"x": (2, 7, 4)})
    program, *given = (phone.folder / "log").read_text().split()
    assert program.endswith("/benchmark_model")
    assert set(given) >= {
        *("--num_threads=1", "--use_xnnpack=false", "--warmup_runs=7", "--warmup_min_secs=0.25", "--num_runs=50", "--min_secs=0.5"),
        *("--max_secs=3", "--input_layer=x", "--input_layer_shape=2,7,4", "--report_peak_memory_footprint=true"),
    }


def test_an_input_without_a_fixed_size_is_refused(phone):
    with pytest.raises(ConfigurationError, match="'x': \\(None, None, 4\\)"):
        tfdistill.benchmark(free_file(), phone.target(), timing=QUICK)


def test_all_runs_the_same(phone):
    phone.set(SAME)
    record = tfdistill.benchmark(int8_file(), phone.target(), timing=QUICK)
    assert (record.p50_ms, record.min_ms, record.mean_ms, record.runs) == (0.012, 0.012, 0.012, 100)


def test_how_the_operations_are_shared_is_read():
    found = parsed(NEWER)
    assert (found["operations"], found["delegated_operations"], found["partitions"]) == (60, 58, 2)
    whole = parsed(NEWER.replace("partially executed by the delegate w/ 2 delegate kernels", "completely executed by the delegate"))
    assert whole["partitions"] == 1
    assert parsed("\n".join(line for line in NEWER.splitlines() if "delegate" not in line))["partitions"] is None


TWO = {"emulator-5554": "device", "192.168.1.7:5555": "device"}
FAILING = {
    "no device": ({"devices": {}}, {}, "adb lists no device; connected: none"),
    "another device": ({}, {"serial": "other"}, "adb lists no device 'other'; connected: 39071FDJH0001"),
    "several devices": ({"devices": TWO}, {}, "Several devices are connected: emulator-5554"),
    "unauthorized": ({"devices": {"a": "unauthorized"}}, {}, "is unauthorized; unlock it"),
    "offline": ({"devices": {"a": "offline"}}, {}, "is offline; connect it anew"),
    "no room": ({"room": 50}, {}, "has no room to take model.tflite.*No space left on device"),
    "it vanishes": ({"vanishes": True}, {}, "went away in the middle of the run .run benchmark_model"),
    "an old program": ({"output": OLDER}, {}, "prints no median"),
    "no statistics": ({"output": "INFO: STARTING!\n"}, {}, "printed no statistics"),
    "too slow": ({"seconds": 30}, {}, "still busy after 1 s"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAILING)
def test_the_error_has_the_words_of_adb(name, phone):
    changes, settings, match = FAILING[name]
    phone.set(**changes)
    with pytest.raises(BenchmarkError, match=f"(?s){match}"):
        tfdistill.benchmark(int8_file(), phone.target(**settings), timing=QUICK, timeout_seconds=1)
    if name != "it vanishes":
        assert phone.leftovers() == []
        assert running_in(phone) == []


def running_in(phone):
    listed = subprocess.run(["pgrep", "-f", f"[/]{str(phone.tmp)[1:]}/tfdistill-"], capture_output=True, text=True).stdout
    return listed.split()


def test_one_of_several_devices(phone):
    phone.set(devices=TWO)
    assert tfdistill.benchmark(int8_file(), phone.target(serial="192.168.1.7:5555"), timing=QUICK).runs == 1061


def test_a_damaged_file_and_a_missing_adb(phone, tmp_path):
    (tmp_path / "cut.tflite").write_bytes(pathlib.Path(int8_file()).read_bytes()[:300])
    with pytest.raises(RuntimeUnavailableError, match="cannot open"):
        tfdistill.benchmark(tmp_path / "cut.tflite", phone.target(), timing=QUICK)
    with pytest.raises(RuntimeUnavailableError, match="'no-adb' cannot be started"):
        tfdistill.benchmark(int8_file(), phone.target(adb="no-adb"), timing=QUICK)
    (phone.folder / "bin/chmod").symlink_to("/bin/false")
    with pytest.raises(BenchmarkError, match="failed to run chmod"):
        tfdistill.benchmark(int8_file(), phone.target(), timing=QUICK)
    assert phone.leftovers() == []


# Where tests run in the background of a shell, Ctrl-C is ignored, which processes inherit.
INTERRUPTED = """
import json, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from tfdistill.benchmarking import Adb, Timing, benchmark
benchmark(sys.argv[1], Adb(**json.loads(sys.argv[2])), timing=Timing(warmup_seconds=0, min_seconds=50, max_seconds=60))
"""


@pytest.mark.slow
def test_nothing_stays_behind_after_ctrl_c(phone):
    phone.set(seconds=60)
    settings = json.dumps({"benchmark_model": str(phone.program), "adb": str(phone.adb)})
    desk = subprocess.Popen([sys.executable, "-c", INTERRUPTED, int8_file(), settings], stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not (phone.folder / "log").exists() and time.monotonic() < end:
        time.sleep(0.05)
    desk.send_signal(signal.SIGINT)
    _, said = desk.communicate(timeout=60)
    assert "KeyboardInterrupt" in said
    assert phone.leftovers() == []
    assert running_in(phone) == []


REFUSED = [
    {"serial": "-s other"},
    {"serial": "a b"},
    {"serial": "$(id)"},
    {"benchmark_model": "none"},
    {"benchmark_model": ""},
    {"adb": "-version"},
    {"threads": 0},
    {"kernels": "reference"},
    {"folder": "/data/$(id)"},
    {"folder": "data"},
]


@pytest.mark.parametrize("settings", REFUSED, ids=repr)
def test_what_could_be_taken_for_something_else_is_refused(settings):
    with pytest.raises(ConfigurationError):
        Adb(**{"benchmark_model": __file__, **settings})
