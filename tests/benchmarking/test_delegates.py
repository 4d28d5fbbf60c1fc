"""External delegates: one that the test compiles takes additions, or nothing, and fails or ends the process in every place."""

import os
import pathlib

import pytest
from remedies_of_source import Row, check
from target_files import QUICK, chain, delegate_library

import tfdistill
from tfdistill.benchmarking import BenchmarkRecord, Delegate
from tfdistill.errors import BenchmarkError, ConfigurationError, DelegationError
from tfdistill.runtime.delegated import delegation
from tfdistill.runtime.delegates import open_with_delegate
from tfdistill.runtime.interpreter import open_file

pytestmark = pytest.mark.slow
TAKES = {"take": "add"}


def measured(path, options=TAKES, **settings):
    return tfdistill.benchmark(path, Delegate(delegate_library(), options, **settings), timing=QUICK)


def test_a_file_that_it_takes_whole_is_proven(tmp_path):
    record = measured(chain(tmp_path / "m.tflite", "ADD", "ADD"))
    assert (record.operations, record.delegated_operations, record.partitions, record.left_operations) == (2, 2, 1, {})
    assert record.accelerator_proven
    assert record.reference_max_abs_error < 1e-6
    assert record.p50_ms > 0
    assert record.target == f"delegate {delegate_library()}, take=add"
    assert BenchmarkRecord.load(record.save(tmp_path / "record.json")) == record


@pytest.mark.parametrize("kernels", ["xnnpack", "builtin", "reference"])
def test_what_xnnpack_takes_is_not_the_delegates(kernels, tmp_path):
    path = chain(tmp_path / "m.tflite", "ADD", "NEG", "ADD", "ADD", "ABS")
    with pytest.raises(DelegationError, match=r"does not run 2 of the 5 operations .*: 1 ABS float32, 1 NEG float32") as caught:
        measured(path, kernels=kernels)
    assert "allow_partial=True" in caught.value.fix
    record = measured(path, kernels=kernels, allow_partial=True)
    assert (record.operations, record.delegated_operations, record.partitions) == (5, 3, 2)
    assert record.left_operations == {"ABS float32": 1, "NEG float32": 1}
    assert record.accelerator_proven
    assert record.reference_max_abs_error < 1e-6
    everything = delegation(open_with_delegate(path, delegate_library(), TAKES, kernels=kernels).interpreter)
    assert everything.delegated == (5 if kernels == "xnnpack" else 3)


def test_a_delegate_that_takes_nothing_never_counts(tmp_path):
    path = chain(tmp_path / "m.tflite", "ADD")
    for partial in (False, True):
        with pytest.raises(DelegationError, match="does not run 1 of the 1 operations") as caught:
            measured(path, {}, allow_partial=partial)
        assert caught.value.fix is None


def test_resized_inputs_are_counted_as_they_run(tmp_path):
    path = chain(tmp_path / "m.tflite", "ADD", "NEG")
    model = open_with_delegate(path, delegate_library(), TAKES, shapes={"a": (2, 64), "b": (2, 64)})
    assert (model.delegation().delegated, model.inputs["a"].shape) == (1, (2, 64))
    assert model.delegation().named_left() == {"NEG float32": 1}


@pytest.mark.parametrize("engine", ["ai_edge_litert", "tensorflow"])
def test_the_same_library_runs_in_every_interpreter(engine, tmp_path):
    record = measured(chain(tmp_path / "m.tflite", "ADD"), engine=engine)
    assert (record.engine, record.delegated_operations) == (engine, 1)


# Options -> what the message holds of the delegate's own words.
FAILING = {
    "create": ({"fail": "create"}, "does not start with the options.*test delegate: no device found"),
    "an unknown option": ({"speed": 3}, "does not start with the options.*test delegate: an unknown option"),
    "prepare": ({**TAKES, "fail": "prepare"}, "does not take .*test delegate: the device has no memory left"),
    "invoke": ({**TAKES, "fail": "invoke"}, "test delegate: the device does not answer"),
}


@pytest.mark.parametrize("where", FAILING)
def test_a_failure_holds_the_delegates_own_words(where, tmp_path):
    options, words = FAILING[where]
    with pytest.raises(BenchmarkError, match=words):
        measured(chain(tmp_path / "m.tflite", "ADD"), options)


CRASHING = {
    "abort at create": ({"end": "create"}, "SIGABRT"),
    "abort at prepare": ({**TAKES, "end": "prepare"}, "SIGABRT"),
    "abort at invoke": ({**TAKES, "end": "invoke"}, "SIGABRT"),
    "a null pointer at invoke": ({**TAKES, "crash": "invoke"}, "SIGSEGV"),
    "another layout of the structures": ({"entry": "none"}, "SIGSEGV"),
}


@pytest.mark.parametrize("where", CRASHING)
def test_a_crash_is_a_record(where, tmp_path):
    options, signal = CRASHING[where]
    path = chain(tmp_path / "m.tflite", "ADD")
    record = measured(path, options)
    assert record.status == "crashed"
    assert signal in record.failure
    assert record.p50_ms != record.p50_ms  # NaN: nothing was timed
    assert record.size_bytes == pathlib.Path(path).stat().st_size
    assert not record.accelerator_proven
    read = BenchmarkRecord.load(record.save(tmp_path / "record.json"))
    assert (read.status, read.failure, read.sha256) == ("crashed", record.failure, record.sha256)
    assert "crashed" in str(record)
    assert not list(children())


def test_a_budget_of_time_hears_of_a_crash(tmp_path):
    library = Delegate(delegate_library(), CRASHING["abort at invoke"][0])
    with pytest.raises(BenchmarkError, match=r"has no time on .*: crashed, .*SIGABRT"):
        tfdistill.pipeline.FileLatency(seconds=0.1, target=library)(chain(tmp_path / "m.tflite", "ADD"))


def children():
    """Yields the processes whose parent is this one."""
    for entry in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid() and "worker" in entry.with_name("cmdline").read_text(errors="replace"):
            yield entry.parent.name


def library_of_another_machine(folder):
    """A file that begins as a library of 64-bit ARM."""
    content = bytearray(pathlib.Path(delegate_library()).read_bytes())
    content[18:20] = (183).to_bytes(2, "little")  # e_machine: AArch64
    path = folder / "libarm.so"
    path.write_bytes(content)
    return path


LIBRARIES = {
    "missing": (lambda folder: folder / "none.so", "cannot be loaded: .*cannot open shared object file"),
    "no library": (lambda folder: chain(folder / "text.so", "ADD"), "cannot be loaded: .*invalid ELF header"),
    "of another machine": (library_of_another_machine, "cannot be loaded: .*(wrong ELF|cannot open shared object file|invalid)"),
    "without the entry point": (lambda folder: "libz.so.1", "no external delegate: .*undefined symbol: tflite_plugin_create_delegate"),
}


@pytest.mark.parametrize("kind", LIBRARIES)
def test_a_library_that_cannot_be_loaded(kind, tmp_path):
    make, words = LIBRARIES[kind]
    path = chain(tmp_path / "m.tflite", "ADD")
    with pytest.raises(BenchmarkError, match=words):
        tfdistill.benchmark(path, Delegate(make(tmp_path)), timing=QUICK)


def test_a_file_for_another_runtime(tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(b"\x08\x07\x12\x0connx" * 50)
    with pytest.raises(BenchmarkError, match=r"does not take .*not a valid Flatbuffer"):
        tfdistill.benchmark(path, Delegate(delegate_library(), TAKES), timing=QUICK)


ROWS = {
    "a part on the CPU": Row(
        "measure both together with Delegate(..., allow_partial=True), which reports the share",
        lambda folder: measured(chain(folder / "m.tflite", "ADD", "NEG")),
        lambda folder: measured(folder / "m.tflite", allow_partial=True),
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_remedies(name, tmp_path):
    check(ROWS[name], tmp_path)


def test_the_share_is_not_xnnpacks_alone(tmp_path):
    """The way to count that is not used: all nodes together, of which a file opened so seems to be delegated whole."""
    path = chain(tmp_path / "m.tflite", "ADD", "NEG")
    assert delegation(open_file(path, trusted=True).interpreter).share == 1
    with pytest.raises(DelegationError):
        measured(path)


REFUSED = [
    {"library": ""},
    {"library": "a\0b"},
    {"options": [1]},
    {"options": {1: "x"}},
    {"options": {"x": None}},
    {"allow_partial": 1},
    {"threads": 0},
    {"kernels": "fast"},
    {"engine": "onnx"},
]


@pytest.mark.parametrize("settings", REFUSED)
def test_impossible_settings(settings):
    with pytest.raises(ConfigurationError):
        Delegate(**{"library": "libx.so", **settings})
