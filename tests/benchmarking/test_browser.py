"""Files in a real browser: what LiteRT.js computes there, in which time, and everything that goes wrong on the way."""

import contextlib
import dataclasses
import functools
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from process_folder import new_folder
from remedies_of_source import Row, check
from small_files import free_file, int8_file

import tfdistill
from tfdistill.benchmarking import Browser, Timing, available
from tfdistill.benchmarking.browser import launch, measured, program
from tfdistill.benchmarking.browser.devtools import Connection, Page, PageError
from tfdistill.benchmarking.isolation import CrashError
from tfdistill.benchmarking.targets.base import from_spec, to_spec
from tfdistill.cli.target_text import parse_target
from tfdistill.errors import BenchmarkError, ConfigurationError, DataError, RuntimeUnavailableError, VerificationError
from tfdistill.runtime import litert_js
from tfdistill.runtime.interpreter import open_file

QUICK = Timing(warmup_seconds=0, min_seconds=0, max_seconds=0.3)
LONG = Timing(warmup_seconds=0, min_seconds=50, max_seconds=60)
IMAGES = np.random.default_rng(1).random((50, 8, 8, 1), dtype="float32")


@functools.cache
def folder():
    return new_folder()


def two_by_two():
    """Two inputs, of which one is indices, and two outputs of several ranks."""
    series, index = keras.Input((8, 4), name="series"), keras.Input((3,), dtype="int32", name="index")
    x = keras.layers.LSTM(6)(series)
    y = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(9, 6)(index))
    return keras.Model([series, index], {"scores": keras.layers.Dense(5)(x + y), "rows": keras.layers.Dense(2)(series)})


def samples_of_two(count):
    rng = np.random.default_rng(0)
    return {"series": rng.random((count, 8, 4), dtype="float32"), "index": rng.integers(0, 9, (count, 3), dtype="int32")}


@functools.cache
def file_of(name):
    """Files by what is special about them."""
    path = folder() / f"{name.replace(' ', '_')}.tflite"
    keras.utils.set_random_seed(0)
    if name == "two inputs":
        tfdistill.export_tflite(two_by_two(), path, verify_on=samples_of_two(4))
    elif name == "batch of 4":
        tfdistill.export_tflite(image_net(), path, batch_size=4)
    elif name == "state":
        model = keras.Sequential([keras.Input(batch_shape=(1, 5, 4), name="x"), keras.layers.LSTM(3, stateful=True, name="y")])
        tfdistill.export_tflite(model, path, states="inside")
    else:
        tfdistill.export_tflite(image_net(), path, name.split()[0], calibration=IMAGES, io=name.split()[1])
    return path


@functools.cache
def image_net():
    keras.utils.set_random_seed(3)
    inputs = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Flatten()(keras.layers.Conv2D(8, 3, activation="relu")(inputs))
    return keras.Model(inputs, keras.layers.Dense(10, name="logits")(x))


SAMPLES = {
    "float32 auto": {"image": IMAGES},
    "int8 uint8": {"image": IMAGES},
    "int8 float32": {"image": IMAGES},
    "batch of 4": {"image": IMAGES[:10]},  # the last batch has two samples
    "two inputs": samples_of_two(20),
    "state": np.random.default_rng(2).random((6, 5, 4), dtype="float32"),  # kept from sample to sample, as LiteRT keeps it
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLES)
def test_outputs_are_those_of_litert(name):
    path, x = file_of(name), SAMPLES[name]
    found, expected = Browser().outputs(path, x), open_file(path).run(x)
    assert list(found) == list(expected)
    for output, info in open_file(path).outputs.items():
        assert (found[output].dtype, found[output].shape) == (expected[output].dtype, expected[output].shape)
        assert np.abs(found[output] - expected[output]).max() <= (info.scale or 1e-5) * 1.001
        assert np.ptp(expected[output]) > 1e-3


@pytest.mark.slow
def test_many_samples_go_in_parts(monkeypatch):
    from tfdistill.benchmarking.browser import file

    monkeypatch.setattr(file, "_CHUNK_BYTES", 7 * 4 * 8 * 8)  # seven samples
    path = file_of("float32 auto")
    found = Browser().outputs(path, IMAGES)["logits"]
    np.testing.assert_allclose(found, open_file(path).run(IMAGES)["logits"], atol=1e-5)


@pytest.mark.slow
def test_the_record(tmp_path):
    path = file_of("int8 uint8")
    record = tfdistill.benchmark(path, Browser(), timing=QUICK, variant="int8")
    here = tfdistill.benchmark(path, timing=dataclasses.replace(QUICK, processes=1))
    for name in ("sha256", "size_bytes", "input_shapes", "confidence", "path", "macs", "moved_bytes", "batch"):
        assert getattr(record, name) == getattr(here, name), name
    assert record.p50_low_ms <= record.p50_ms <= record.p50_high_ms
    assert 0 < record.min_ms <= record.p50_ms <= record.p90_ms <= record.p99_ms <= record.max_ms
    assert (record.status, record.target, record.processes) == ("measured", "browser, LiteRT.js (wasm)", 1)
    assert record.engine.startswith("LiteRT.js 2.5.3 in ")
    assert record.host.packages["@litertjs/core"] == "2.5.3"
    # XNNPACK's kernels for WebAssembly round otherwise than LiteRT's own, by a step at most.
    assert record.reference_kernels == "builtin"
    assert record.reference_max_steps <= 1
    assert record.runs % record.runs_per_time == 0
    assert record.runs_per_time > 1, "the net takes some ten microseconds"
    assert any(f"mean of {record.runs_per_time} runs" in remark for remark in record.remarks)
    assert from_spec(record.target_settings) == Browser()
    assert type(record).load(record.save(tmp_path / "record.json")) == record


@pytest.mark.slow
def test_the_figures_of_verification_are_those_of_the_host():
    path, y = file_of("int8 uint8"), np.arange(50) % 10
    here, there = (tfdistill.verify(path, image_net(), IMAGES, y, target=target) for target in (None, Browser()))
    assert there.engine == Browser().describe()
    step = open_file(path).outputs["logits"].scale * 1.001
    assert abs(there.max_abs_error - here.max_abs_error) <= step
    assert (there.samples, there.keras_accuracy) == (here.samples, here.keras_accuracy)
    with pytest.raises(VerificationError):
        tfdistill.verify(int8_file("uint8"), image_net(), IMAGES, target=Browser())


# What is asked for -> the error, before a browser is started.
REFUSED = {
    "int8 inputs": (lambda: Browser().outputs(int8_file(), IMAGES), ConfigurationError, "'image' int8, 'logits' int8"),
    "free sizes": (lambda: Browser().outputs(free_file(), IMAGES), ConfigurationError, r"'x' of .* \(None, None, 4\)"),
    "free sizes, timed": (lambda: tfdistill.benchmark(free_file(), Browser()), ConfigurationError, "fixed sizes alone"),
    "other sizes": (
        lambda: Browser().outputs(file_of("float32 auto"), IMAGES, shapes={"image": (2, 8, 8, 1)}),
        ConfigurationError,
        r"shapes has \(2, 8, 8, 1\)",
    ),
    "no such input": (lambda: Browser().outputs(file_of("float32 auto"), IMAGES, shapes={"i": (1,)}), ConfigurationError, "are no inputs"),
    "no file": (lambda: Browser().outputs("none.tflite", IMAGES), ConfigurationError, "There is no file"),
    "no such program": (
        lambda: Browser("/no/chrome").outputs(file_of("float32 auto"), IMAGES),
        RuntimeUnavailableError,
        "There is no program '/no/chrome'",
    ),
    "settings of processes": (lambda: tfdistill.benchmark(int8_file(), Browser(), streams=2), ConfigurationError, "streams=2"),
    "a number": (lambda: Browser(3), ConfigurationError, "program=3"),
    "nothing": (lambda: Browser(""), ConfigurationError, "program=''"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused(case):
    ask, kind, words = REFUSED[case]
    with pytest.raises(kind, match=words):
        ask()


def test_texts():
    assert parse_target("browser") == Browser()
    assert parse_target("browser:program=chromium") == parse_target("browser://chromium") == Browser("chromium")
    assert from_spec(to_spec(Browser("chromium"))) == Browser("chromium")


class Clock:
    """A page whose clock has steps, where every run takes the same time."""

    def __init__(self, seconds, step):
        self.seconds, self.step, self.now, self.clock_step_seconds = seconds, step, 0.0, step

    def read(self):
        return math.floor(self.now / self.step) * self.step

    def time(self, count, group):
        found = []
        for _ in range(count):
            before = self.read()
            self.now += self.seconds * group
            found.append((self.read() - before) / group)
            self.now += 0.37 * self.step  # what lies between two times
        return found


@given(st.floats(1e-6, 3e-2), st.sampled_from([5e-6, 1e-4]))
@settings(max_examples=30, deadline=None)
def test_a_coarse_clock_does_not_show_in_the_median(seconds, step):
    page = Clock(seconds, step)
    group, mean, _ = measured.settled_group(page, 5 * seconds)
    assert 98 * step <= group * seconds
    assert group == 1 or (group - 1) * seconds <= 102 * step
    timing = Timing(min_runs=40, min_seconds=0, max_seconds=5, warmup_seconds=0)
    timed = measured.timed_by(measured.Blocks(page, group, mean), group, timing)
    assert len(timed.seconds) >= 40
    assert np.median(timed.seconds) == pytest.approx(seconds, rel=0.015)


def test_durations_are_those_of_all_runs():
    """Of 0.2 s of runs that take a millisecond, 200 are timed, in groups too: they are one duration and not one for each of a group."""
    for group in (1, 4):
        page = Clock(1e-3, 1e-9)
        timing = Timing(min_runs=1, min_seconds=0.2, max_seconds=0.2, warmup_seconds=0, warmup_runs=0, precision=0.9)
        timed = measured.timed_by(measured.Blocks(page, group, 1e-3), group, timing)
        assert 0.15 <= timed.seconds.sum() * group <= 0.25


def fake(folder, text):
    """Writes a program that stands where a browser should."""
    path = folder / "browser"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_browser_that_does_not_start_says_why(tmp_path):
    path = fake(tmp_path, "echo 'libnss3.so: cannot open' >&2; exit 127")
    with pytest.raises(RuntimeUnavailableError, match=r"(?s)does not start: its process failed with exit code 127.*libnss3\.so"):
        Browser(path).outputs(file_of("float32 auto"), IMAGES)


def test_windows_is_told_that_it_has_no_such_target(monkeypatch):
    monkeypatch.setattr(os, "name", "nt")
    with pytest.raises(RuntimeUnavailableError, match="Windows does not hand over"), program.started():
        pass
    monkeypatch.undo()


def test_a_browser_that_says_nothing_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(program, "_GOODBYE_SECONDS", 0.1)
    path = fake(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 1000")
    with pytest.raises(BenchmarkError, match=r"still busy after 0\.5 s"):
        Browser(path).outputs(file_of("float32 auto"), IMAGES, timeout_seconds=0.5)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize(("user", "off"), [(0, True), (1000, False)])
def test_the_sandbox_is_off_for_root_alone(user, off, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: user)
    path = fake(tmp_path, f'echo "$@" > {tmp_path}/given')
    with program.started(path) as browser, pytest.raises(RuntimeUnavailableError):
        browser.page()
    options = (tmp_path / "given").read_text().split()
    assert ("--no-sandbox" in options) == off
    assert "--remote-debugging-pipe" in options
    assert not any(option.startswith("--remote-debugging-port") for option in options)


def test_pipes_come_where_the_browser_looks_for_them(tmp_path):
    """Whatever numbers they have before: those that are wanted, the wrong way round too."""
    code = "import os; os.write(4, os.read(3, 9) + b'!')"
    script = f"""
import os, subprocess, sys
(a, b), (c, d) = os.pipe(), os.pipe()
for number, wanted in ((a, 20), (b, 21), (c, 22), (d, 23)): os.dup2(number, wanted)
for number in range(3, 20):
    try: os.close(number)
    except OSError: pass
os.dup2(20, {{0}}); os.dup2(23, {{1}})
child = subprocess.Popen([sys.executable, {launch.__file__!r}, "{{0}}", "{{1}}", sys.executable, "-c", {code!r}], pass_fds=({{0}}, {{1}}))
os.write(21, b"hello")
print(os.read(22, 9).decode()); child.wait()
"""
    for numbers in ((3, 4), (4, 3), (7, 5)):
        text = script.replace("{0}", str(numbers[0])).replace("{1}", str(numbers[1]))
        done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60)
        assert done.stdout == "hello!\n", done.stderr


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12))
@settings(max_examples=25, deadline=None)
def test_messages_are_whole_however_they_arrive(sizes):
    """An answer between events, cut anywhere."""
    events = [{"method": "Page.event", "params": {"text": "a\u00e9" * n}} for n in sizes]
    data = b"".join(json.dumps(one).encode() + b"\0" for one in [*events, {"id": 1, "result": {"value": 7}}])
    (from_us, commands), (messages, to_us) = os.pipe(), os.pipe()
    seen, at, parts = [], 0, []
    for size in [*sizes, len(data)]:
        parts.append(data[at : at + size])
        at += size
    writer = threading.Thread(target=lambda: [os.write(to_us, part) for part in parts if part])
    writer.start()
    try:
        assert Connection(commands, messages, None, None).call("Some.method", on_event=seen.append, count=3) == {"value": 7}
        assert json.loads(os.read(from_us, 1000).rstrip(b"\0")) == {"id": 1, "method": "Some.method", "params": {"count": 3}}
    finally:
        writer.join()
        for descriptor in (from_us, commands, messages, to_us):
            os.close(descriptor)
    assert seen == events


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """A folder for temporary files, by which a browser is known: its profile is there. Its path is too long for Chromium's socket."""
    folder = tmp_path / ("long" * 20)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


# Folder -> the groups of processes of browsers that were seen there.
GROUPS = {}


def processes(folder, words=b""):
    """Process ids of a browser with its profile in a folder, and of all processes of its group, whose command has these words."""
    commands = {}
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            commands[int(entry.name)] = (entry / "cmdline").read_bytes(), os.getpgid(int(entry.name))
    groups = GROUPS.setdefault(folder, set())
    groups |= {group for command, group in commands.values() if f"--user-data-dir={folder}/".encode() in command}
    return [pid for pid, (command, group) in commands.items() if group in groups and command and words in command]


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def nothing_is_left(folder):
    return wait_for(lambda: not processes(folder) and not list(folder.glob(".tfdistill-*")), 20)


def when_it_measures(folder, act):
    """Starts a thread that waits until a page of a browser runs for a while, and then acts on the browser's processes."""

    def wait():
        wait_for(lambda: processes(folder, b"--type=renderer"))
        time.sleep(2)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def kill(pids):
    for pid in pids:
        os.kill(pid, signal.SIGSEGV)


# What crashes -> how it is found, and what the record says.
CRASHES = {
    "the page": (b"--type=renderer", "The page crashed: its process"),
    "the browser": (b"--remote-debugging-pipe", "The browser ended in the middle: its process was killed by SIGSEGV"),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", CRASHES)
def test_a_crash_is_a_result(what, own_folder):
    words, said = CRASHES[what]
    path = file_of("float32 auto")
    thread = when_it_measures(own_folder, lambda: kill(pid for pid in processes(own_folder, words)))
    record = tfdistill.benchmark(path, Browser(), timing=LONG)
    thread.join()
    assert record.status == "crashed"
    assert said in record.failure
    assert math.isnan(record.p50_ms)
    assert nothing_is_left(own_folder)


@pytest.mark.slow
def test_a_crash_while_samples_run_is_an_error(own_folder):
    with program.started() as browser:
        page = browser.page()
        kill(processes(own_folder, b"--type=renderer"))
        with pytest.raises(CrashError, match="The page crashed"):
            page.until("false")


@pytest.mark.slow
def test_the_time_limit(own_folder):
    with pytest.raises(BenchmarkError, match=r"still busy after 6 s") as caught:
        tfdistill.benchmark(file_of("float32 auto"), Browser(), timing=LONG, timeout_seconds=6)
    assert "raise timeout_seconds" in caught.value.fix
    assert nothing_is_left(own_folder)


ENDS = {"Ctrl-C": signal.SIGINT, "a kill": signal.SIGKILL}


@pytest.mark.slow
@pytest.mark.parametrize("end", ENDS)
def test_the_browser_ends_with_this_process(end, own_folder):
    code = f"""
import signal, tfdistill
signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal, also where a shell runs this in the background
from tfdistill.benchmarking import Browser, Timing
tfdistill.benchmark({str(file_of("float32 auto"))!r}, Browser(), timing=Timing(warmup_seconds=0, min_seconds=50, max_seconds=60))
"""
    child = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    wait_for(lambda: processes(own_folder, b"--type=renderer"))
    time.sleep(2)
    child.send_signal(ENDS[end])
    said = child.communicate(timeout=60)[1]
    assert wait_for(lambda: not processes(own_folder), 20)
    if end == "Ctrl-C":
        assert "KeyboardInterrupt" in said
        assert nothing_is_left(own_folder)


@pytest.mark.slow
def test_what_a_page_throws_is_said_in_its_words(tmp_path):
    from tfdistill.bridge.imports import tf_keras
    from tfdistill.runtime.tensorflow_lite import converter_class

    inputs = tf_keras().Input((5, 4), batch_size=1, name="x")
    converter = converter_class().from_keras_model(tf_keras().Model(inputs, tf_keras().layers.LSTM(3)(inputs)))
    (tmp_path / "fused.tflite").write_bytes(converter.convert())
    with pytest.raises(
        BenchmarkError, match=r"(?s)LiteRT\.js 2\.5\.3 in .* does not open .*fused.*Variable tensors not yet supported"
    ) as caught:
        Browser().outputs(tmp_path / "fused.tflite", np.zeros((2, 5, 4), "float32"))
    assert isinstance(caught.value.__cause__, PageError)
    with pytest.raises(DataError, match="holds NaN"):
        Browser().outputs(file_of("int8 uint8"), np.full_like(IMAGES, np.nan))


@pytest.mark.slow
def test_a_page_reaches_nothing_but_its_own_machine():
    with program.started() as browser:
        page = browser.page()
        for address in ("http://127.0.0.2/", "http://example.org/", "https://pypi.org/"):
            with pytest.raises(PageError, match="ERR_NAME_NOT_RESOLVED"):
                page.open(address)
        with pytest.raises(PageError, match="Error: so it is"):
            page.evaluate("(() => { throw new Error('so it is'); })()")
        with pytest.raises(BenchmarkError, match=r"The browser refuses Page\.none"):
            page.call("Page.none")
        assert isinstance(page, Page)
        assert page.evaluate("new Promise((done) => setTimeout(() => done([1, 2]), 10))") == [1, 2]


@pytest.mark.slow
def test_it_is_listed_with_the_targets(monkeypatch, tmp_path):
    litert_js.files()
    (record,) = available.available_targets(["browser"])
    assert (record.target, record.usable) == ("Browser()", True)
    assert record.found.startswith("LiteRT.js 2.5.3, ")
    monkeypatch.setenv("PATH", str(tmp_path))
    (record,) = available.available_targets(["browser"])
    assert "No browser is installed" in record.reason
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (record,) = available.available_targets(["browser"])
    assert "is not here yet" in record.reason


def with_path(folder, call):
    """Calls a function where the search path has one folder alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(folder))
        return call()


def without_a_browser(folder, target):
    litert_js.files()
    return with_path(folder, lambda: target.outputs(file_of("float32 auto"), IMAGES[:2]))


def with_one_installed(folder):
    (folder / "chromium").symlink_to(program.found_program())
    os.environ["PATH"], before = f"{folder}:/bin:/usr/bin", os.environ["PATH"]
    try:
        Browser().outputs(file_of("float32 auto"), IMAGES[:2])
    finally:
        os.environ["PATH"] = before
    Browser(program.found_program()).outputs(file_of("float32 auto"), IMAGES[:2])


def sequences(folder, size, batch_size):
    inputs = keras.Input((size, 4), name="x")
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling1D()(keras.layers.Dense(3)(inputs)))
    path = folder / "m.tflite"
    tfdistill.export_tflite(model, path, batch_size=batch_size, verify_on=np.zeros((2, 7, 4), "float32"))
    return Browser().outputs(path, np.zeros((2, 7, 4), "float32"), shapes={"x": (2, 7, 4)})


def images_of(folder, **arguments):
    path = folder / "m.tflite"
    tfdistill.export_tflite(image_net(), path, "int8", calibration=IMAGES, **arguments)
    return Browser().outputs(path, IMAGES[:2])


ROWS = {
    "no browser": Row(
        "install one (Debian has the package chromium), or give its path: Browser(program=",
        lambda folder: without_a_browser(folder, Browser()),
        with_one_installed,
    ),
    "free sizes": Row(
        "export the model with these sizes in keras.Input; batch_size= of export_tflite is that of the batch",
        lambda folder: sequences(folder, None, None),
        lambda folder: sequences(folder, 7, 2),
    ),
    "integers that it does not take": Row(
        "export it with io='uint8' or io='float32'; the file computes in the same integers",
        lambda folder: images_of(folder),
        lambda folder: (images_of(folder, io="uint8"), images_of(folder, io="float32")),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_remedies(name, tmp_path):
    check(ROWS[name], tmp_path)
