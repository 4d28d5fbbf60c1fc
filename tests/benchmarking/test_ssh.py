"""Boards by ssh: a real sshd on the loopback interface, this machine's Python or an emulated Raspberry Pi behind it, and everything that goes wrong on the way."""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import environments
import keras
import numpy as np
import pytest
import sshd
from small_files import int8_file

import tfdistill
from tfdistill.benchmarking import Ssh, Timing
from tfdistill.benchmarking.remote import session
from tfdistill.benchmarking.targets.base import from_spec, to_spec
from tfdistill.errors import BenchmarkError, ConfigurationError, DataError, RuntimeUnavailableError, VerificationError
from tfdistill.runtime.interpreter import open_file

QUICK = Timing(warmup_seconds=0, min_seconds=0, max_seconds=0.3)
LONG = Timing(warmup_seconds=0, min_seconds=50, max_seconds=60)
IMAGES = np.random.default_rng(1).random((50, 8, 8, 1), dtype="float32")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with sshd.serving(tmp_path_factory.mktemp("sshd") / "server") as running:
        yield running


@pytest.fixture(scope="module")
def file():
    return int8_file()


def board(server, **settings):
    return Ssh(**{"python": sys.executable, **server.settings, **settings})


@pytest.mark.slow
def test_a_board_sends_the_record_that_the_desk_makes(server, file, tmp_path):
    here = tfdistill.benchmark(file, timing=QUICK)
    there = tfdistill.benchmark(file, board(server), timing=QUICK, variant="int8")
    for name in ("sha256", "size_bytes", "engine", "input_shapes", "arena_bytes", "confidence", "path", "macs", "moved_bytes"):
        assert getattr(there, name) == getattr(here, name), name
    assert 0 < there.min_ms <= there.p50_ms <= there.p90_ms <= there.p99_ms
    assert there.host.packages["numpy"] == here.host.packages["numpy"]
    assert (there.host.cpu_model, there.host.library_version) == (here.host.cpu_model, here.host.library_version)
    assert (there.reference_kernels, there.reference_max_abs_error, there.reference_max_steps) == ("xnnpack", 0.0, 0)
    assert there.macs > 0
    assert there.gmac_per_s == pytest.approx(there.macs / there.p50_ms / 1e6)
    assert (there.variant, there.target) == ("int8", "127.0.0.1: CPU, 1 thread, XNNPACK")
    assert from_spec(there.target_settings) == board(server)
    assert type(there).load(there.save(tmp_path / "record.json")) == there
    assert server.leftovers() == []


@pytest.mark.slow
def test_a_budget_of_time_is_measured_on_a_board(server):
    wide = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Conv2D(64, 3, name="conv"), keras.layers.Conv2D(64, 3)])
    ratio = tfdistill.pipeline.LatencyRatio(None, "float32", seconds=0.6, target=board(server))
    narrow = tfdistill.compress.PruneChannels(keep_latency=0.8, latency=ratio).apply(wide)
    assert narrow.get_layer("conv").filters < 64
    assert server.leftovers() == []


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["xnnpack", "builtin", "reference"])
def test_outputs_of_a_board_are_those_of_the_desk(kernels, server, file):
    found = board(server, kernels=kernels).outputs(file, IMAGES)
    same = "xnnpack" if kernels == "xnnpack" else "builtin"
    expected = open_file(file, xnnpack=same == "xnnpack").run(IMAGES)
    assert list(found) == list(expected)
    for name in expected:
        assert found[name].dtype == expected[name].dtype
        # The reference kernels round otherwise than the fast ones, by a step at most.
        step = open_file(file).outputs[name].scale if kernels == "reference" else 0
        assert np.abs(found[name] - expected[name]).max() <= step * 1.001
    assert server.leftovers() == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pi4", "pi5"])
def test_an_emulated_raspberry_pi_computes_the_same_to_the_bit(name, server, file):
    python = str(environments.emulated_boards("ai-edge-litert==2.3.0", "numpy==2.4.6") / name)
    record = tfdistill.benchmark(file, board(server, python=python), timing=QUICK)
    assert (record.host.machine, record.host.cpu_model) == ("aarch64", {"pi4": "Cortex-A72", "pi5": "Cortex-A76"}[name])
    assert record.arena_bytes == tfdistill.benchmark(file, timing=QUICK).arena_bytes
    assert (record.reference_kernels, record.reference_max_steps) == ("xnnpack", 0)
    images = np.random.default_rng(2).random((200, 8, 8, 1), dtype="float32")
    found, expected = board(server, python=python).outputs(file, images), open_file(file).run(images)
    np.testing.assert_array_equal(found["logits"], expected["logits"])
    assert server.leftovers() == []


@pytest.mark.slow
def test_a_file_is_verified_on_a_board(server, file):
    import keras

    inputs = keras.Input((8, 8, 1), name="image")
    model = keras.Model(inputs, keras.layers.Dense(10, name="logits")(keras.layers.Flatten()(inputs)))
    path = tfdistill.export_tflite(model, pathlib.Path(file).with_name("verified.tflite"), "int8", calibration=IMAGES).path
    here, there = tfdistill.verify(path, model, IMAGES), tfdistill.verify(path, model, IMAGES, target=board(server))
    assert there.engine == "127.0.0.1: CPU, 1 thread, XNNPACK"
    assert dataclasses.replace(there, engine=here.engine) == here
    with pytest.raises(VerificationError):
        tfdistill.verify(file, model, IMAGES, target=board(server))


@pytest.mark.slow
def test_shapes_and_samples_by_batches(server, tmp_path):
    from small_files import free_file

    path = free_file()
    with pytest.raises(BenchmarkError, match="no fixed size") as error:
        tfdistill.benchmark(path, board(server), timing=QUICK)
    assert "shapes" in str(error.value)
    record = tfdistill.benchmark(path, board(server), timing=QUICK, shapes={"x": (3, 7, 4)})
    assert record.input_shapes == {"x": (3, 7, 4)}
    values = np.random.default_rng(0).normal(size=(8, 7, 4)).astype("float32")
    found = board(server).outputs(path, {"x": values}, shapes={"x": (3, 7, 4)})  # the last batch has two samples
    expected = open_file(path, shapes={"x": (3, 7, 4)}).run(values)
    np.testing.assert_array_equal(found["y"], expected["y"])


UNREACHABLE = {
    "no such name": ({"host": "nowhere.invalid"}, "nowhere.invalid cannot be reached.*ould not resolve"),
    "no server": ({"port": 1}, "cannot be reached.*onnection refused"),
    "no key": ({"identity": None}, "does not let this user in.*Permission denied"),
    "no python": ({"python": "python9"}, r"does not run 'python9'.*python9"),
    "a folder as python": ({"python": "/tmp"}, "does not run '/tmp'"),
    "another program": ({"python": "/bin/false"}, "'/bin/false' on 127.0.0.1 ended with exit code 1"),
    "no packages": ({"python": "/usr/bin/python3"}, "reports: (NumPy|No TFLite runtime) is(.|\n)*Fix: "),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", UNREACHABLE)
def test_the_error_has_the_words_of_who_knows(name, server, file):
    settings, match = UNREACHABLE[name]
    with pytest.raises(BenchmarkError, match=f"(?s){match}"):
        tfdistill.benchmark(file, board(server, **settings), timing=QUICK)
    assert server.leftovers() == []


@pytest.mark.slow
def test_an_unknown_and_a_changed_host_key_are_refused(server, file, monkeypatch):
    server.known_hosts.write_text("")
    with pytest.raises(BenchmarkError, match=r"(?s)not known here.*Host key verification failed"):
        tfdistill.benchmark(file, board(server), timing=QUICK)
    server.trust()
    server.change_host_key()
    with pytest.raises(BenchmarkError, match=r"(?s)another one than before.*REMOTE HOST IDENTIFICATION HAS CHANGED"):
        tfdistill.benchmark(file, board(server), timing=QUICK)
    server.trust()
    assert tfdistill.benchmark(file, board(server), timing=QUICK).runs > 0


def test_without_ssh_it_is_said(file, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(RuntimeUnavailableError, match="'ssh' cannot be started"):
        tfdistill.benchmark(file, Ssh("pi@board"), timing=QUICK)


@contextlib.contextmanager
def small_disk(folder, kib):
    """Mounts a file system of a few KiB on a folder."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "none", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
def test_a_full_disk_on_the_board_is_said(server, file):
    with small_disk(server.temporary, 16), pytest.raises(BenchmarkError, match=r"has no room for the files in .*No space left on device"):
        tfdistill.benchmark(file, board(server), timing=QUICK)
    with small_disk(server.temporary, 512):
        large = {"image": np.zeros((100_000, 8, 8, 1), "float32")}  # 25 MB, of which the connection holds only a part at once
        with pytest.raises(BenchmarkError, match="has no room"):
            board(server).outputs(file, large)
        assert server.leftovers() == []


@pytest.mark.slow
def test_a_damaged_file_is_an_error(server, file, tmp_path):
    (tmp_path / "cut.tflite").write_bytes(pathlib.Path(file).read_bytes()[:300])
    with pytest.raises(BenchmarkError, match=r"cannot open 'model\.tflite'|was killed by SIG"):
        tfdistill.benchmark(tmp_path / "cut.tflite", board(server), timing=QUICK)
    with pytest.raises(BenchmarkError, match=r"The inputs \['picture'\] do not fit the file, which has \['image'\]"):
        board(server).outputs(file, {"picture": IMAGES})
    with pytest.raises(BenchmarkError, match=r"Input 'image' was given the shape \(2, 3\)"):
        board(server).outputs(file, np.zeros((2, 3), "float32"))
    assert server.leftovers() == []


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def measuring(server):
    """Waits until the board runs the file; returns the ids of the processes that do."""
    return wait_for(lambda: processes_in(server)) and processes_in(server)


def processes_in(server):
    """Returns the processes whose working folder is one of the board's temporary ones."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if os.readlink(entry / "cwd").startswith(f"{server.temporary}/tfdistill-"):
                    found.append(int(entry.name))
    return found


VANISHING = {
    "the connection is cut": (signal.SIGKILL, "ended in the middle of the run.*closed by remote host|ended in the middle of the run"),
    "the board freezes": (signal.SIGSTOP, "ended in the middle of the run.*not responding"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", VANISHING)
def test_a_board_that_vanishes_is_said(name, server, file):
    number, match = VANISHING[name]
    options = {**server.settings["options"], "ServerAliveInterval": "1", "ServerAliveCountMax": "1"}
    frozen = []

    def vanish():
        if measuring(server):
            frozen.extend(server.connections())
            for pid in frozen:
                os.kill(pid, number)

    breaker = threading.Thread(target=vanish)
    breaker.start()
    try:
        with pytest.raises(BenchmarkError, match=f"(?s){match}"):
            tfdistill.benchmark(file, board(server, options=options), timing=LONG)
    finally:
        breaker.join()
        for pid in frozen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    # The board notices that the connection has gone, ends the run and removes the files by itself.
    assert wait_for(lambda: not server.leftovers() and not processes_in(server))


@pytest.mark.slow
def test_a_crash_on_the_board_is_said(server, file):
    killer = threading.Thread(target=lambda: [os.kill(pid, signal.SIGKILL) for pid in measuring(server)])
    killer.start()
    with pytest.raises(BenchmarkError, match="was killed by SIGKILL; the board may have run out of memory"):
        tfdistill.benchmark(file, board(server), timing=LONG)
    killer.join()
    assert server.leftovers() == []


@pytest.mark.slow
def test_a_time_limit_ends_the_run_there_too(server, file):
    with pytest.raises(BenchmarkError, match="still busy after 3 s"):
        tfdistill.benchmark(file, board(server), timing=LONG, timeout_seconds=3)
    assert server.leftovers() == []
    assert processes_in(server) == []


# Where tests run in the background of a shell, Ctrl-C is ignored, which processes inherit.
INTERRUPTED = """
import json, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from tfdistill.benchmarking import Ssh, Timing, benchmark
benchmark(sys.argv[1], Ssh(**json.loads(sys.argv[2])), timing=Timing(warmup_seconds=0, min_seconds=50, max_seconds=60))
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_stays_behind_after_ctrl_c_or_a_kill(number, server, file):
    settings = json.dumps({"python": sys.executable, **server.settings})
    desk = subprocess.Popen([sys.executable, "-c", INTERRUPTED, file, settings], stderr=subprocess.PIPE, text=True)
    assert measuring(server)
    desk.send_signal(number)
    _, said = desk.communicate(timeout=60)
    assert desk.returncode == -number
    assert number != signal.SIGINT or "KeyboardInterrupt" in said
    assert wait_for(lambda: not server.leftovers() and not processes_in(server))
    assert wait_for(lambda: not server.connections())


NO_MESSAGES = ["", "3", "{", "[]", "[" * 100_000, '{"line": 3}', '{"ended": "well"}', '{"failed": 3}']
HOSTILE = [
    "3",
    '{"ready": "/tmp", "ended": 0}',
    '{"line": {"record": 3}}\n{"ended": 0}',
    '{"line": {"record": {"host": {}}}}\n{"ended": 0}',
    '{"line": {"record": {"host": {"cpu_model": 3}, "p50_ms": "fast"}}}\n{"ended": 0}',
    '{"line": {"error": {"a": 1}, "fix": 7}}',
]
ARRAYS = [
    {"array": "y"},
    {"array": "y", "dtype": "object", "shape": [1], "data": "AAAA"},
    {"array": "y", "dtype": "float32", "shape": [5], "data": "AAAA"},
    {"array": "y", "dtype": "float32", "shape": [-1, 10**30], "data": "AAAAAA=="},
    {"array": "y", "dtype": "nothing", "shape": [1], "data": "AAAAAA=="},
    {"array": "y", "dtype": "float32", "shape": [1], "data": "?"},
    {"array": "y", "dtype": "float32", "shape": "1", "data": 3},
]
# Takes the place of Python on the board: reads what is sent, and answers with lines of its own.
ANSWERING = """#!{python}
import json, sys
read = sys.stdin.buffer
read.read(int(read.readline()))
token = json.loads(read.readline())["token"]
for line in open({lines!r}):
    print(token + line, end="", flush=True)
"""


@pytest.mark.slow
def test_a_board_that_answers_nonsense_is_an_error(server, file, tmp_path):
    lines = tmp_path / "lines"
    program = tmp_path / "python"
    program.write_text(ANSWERING.format(python=sys.executable, lines=str(lines)))
    program.chmod(0o755)
    for text in HOSTILE:
        lines.write_text(text + "\n")
        with pytest.raises((BenchmarkError, DataError)):
            tfdistill.benchmark(file, board(server, python=str(program)), timing=QUICK)
    lines.write_text(json.dumps({"line": ARRAYS[0]}) + "\n" + '{"ended": 0}\n')
    with pytest.raises(BenchmarkError, match="sent an output that cannot be read"):
        board(server, python=str(program)).outputs(file, IMAGES)


@pytest.mark.parametrize("text", NO_MESSAGES, ids=lambda text: text[:10])
def test_what_is_no_message_is_refused(text):
    with pytest.raises(BenchmarkError, match="board sent a message"):
        session._read_message(text.encode(), Ssh("board"))


@pytest.mark.parametrize("message", ARRAYS, ids=repr)
def test_what_is_no_array_is_refused(message):
    with pytest.raises(BenchmarkError, match="board sent an output that cannot be read"):
        Ssh("board")._array(message)


@pytest.mark.slow
def test_a_login_script_may_print(server, file, tmp_path):
    talking = tmp_path / "python"
    talking.write_text(f'#!/bin/sh\nprintf "Welcome to "\nexec {sys.executable} "$@"\n')
    talking.chmod(0o755)
    assert tfdistill.benchmark(file, board(server, python=str(talking)), timing=QUICK).runs > 0


REFUSED = [
    {"host": "-oProxyCommand=touch"},
    {"host": "pi@-x"},
    {"host": "pi@board; rm -rf"},
    {"host": "pi@board\n"},
    {"host": ""},
    {"host": "a b"},
    {"host": "board:22", "port": 23},
    {"host": "board:0"},
    {"host": "[board]"},
    {"host": "$(id)@board"},
    {"host": None},
    {"python": "python3 -c pass"},
    {"python": "-V"},
    {"python": "python3;id"},
    {"python": "`id`"},
    {"port": 0},
    {"port": 65536},
    {"port": "22"},
    {"threads": 0},
    {"kernels": "fast"},
    {"identity": "/nonexistent"},
    {"options": {"ProxyCommand": "touch"}},
    {"options": {"StrictHostKeyChecking": "no"}},
    {"options": {"LocalCommand": "id"}},
    {"options": {"KnownHostsCommand": "/bin/true"}},
    {"options": {"ConnectTimeout": "1 -oProxyCommand=x"}},
    {"options": {"ConnectTimeout": "1\nProxyCommand x"}},
]


@pytest.mark.parametrize("settings", REFUSED, ids=repr)
def test_what_could_be_taken_for_something_else_is_refused(settings):
    with pytest.raises(ConfigurationError):
        Ssh(**{"host": "pi@board", **settings})


ACCEPTED = [
    {"host": "board"},
    {"host": "pi@192.168.1.20"},
    {"host": "pi@raspberrypi.local"},
    {"host": "fe80::1%eth0"},
    {"host": "pi@board:2222"},
    {"host": "[::1]:22"},
    {"host": "pi@::1"},
    {"python": "~/venv/bin/python", "port": 2222},
    {"options": {"ProxyJump": "user@gate:22,other", "connecttimeout": "3"}},
]


@pytest.mark.parametrize("settings", ACCEPTED, ids=repr)
def test_a_target_survives_json(settings):
    target = Ssh(**{"host": "pi@board", **settings})
    assert from_spec(json.loads(json.dumps(to_spec(target)))) == target
    command = target.command()
    assert command[-2:] == ["--", target.host]
    assert target.host in ("board", "pi@board", "pi@192.168.1.20", "pi@raspberrypi.local", "fe80::1%eth0", "pi@::1", "::1")
    assert (target.port is None) == ("-p" not in command)
    assert "BatchMode=yes" in command
    assert not any("StrictHostKeyChecking" in part for part in command)
    assert sum(part.lower().startswith("connecttimeout=") for part in command) == 1
