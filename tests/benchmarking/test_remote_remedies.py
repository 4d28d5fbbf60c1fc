"""Every remedy in an error about boards and Android devices works."""

import contextlib
import os
import pty
import re
import shlex
import subprocess
import sys

import pytest
import sshd
from phone import OLDER, Phone
from remedies_of_source import Row, check
from small_files import int8_file

import tfdistill
from tfdistill.benchmarking import Ssh, Timing
from tfdistill.errors import BenchmarkError

QUICK = Timing(warmup_seconds=0, min_seconds=0, max_seconds=0.2)
SERVER = []


@pytest.fixture(scope="module", autouse=True)
def _server(tmp_path_factory):
    with sshd.serving(tmp_path_factory.mktemp("sshd") / "server") as running:
        SERVER.append(running)
        yield
        SERVER.clear()


def benchmark(target):
    assert tfdistill.benchmark(int8_file(), target, timing=QUICK).runs > 0


def board(**settings):
    return Ssh(**{"python": sys.executable, **SERVER[0].settings, **settings})


def command_of_the_remedy():
    """Returns the command that the error of a benchmark says to run, as a list."""
    try:
        benchmark(board())
    except BenchmarkError as error:
        return shlex.split(re.search(r": (ssh\S* .*)", error.fix)[1])
    raise AssertionError("there was no error")


def with_a_changed_key():
    SERVER[0].trust()
    SERVER[0].change_host_key()
    benchmark(board())


def remove_the_old_key():
    command = command_of_the_remedy()
    assert command[0] == "ssh-keygen"
    subprocess.run(command, check=True, capture_output=True)
    connect_once()


def connect_once():
    """Runs the command in a terminal, confirms the key and leaves; then the board is known."""
    command = command_of_the_remedy()
    child, terminal = pty.fork()
    if child == 0:
        os.execvp(command[0], command)
    said = b""
    with contextlib.suppress(OSError):  # the terminal closes with the program
        while block := os.read(terminal, 1000):
            said += block
            if b"(yes/no" in said:
                os.write(terminal, b"yes\nexit\n")
                said = b""
    os.waitpid(child, 0)
    os.close(terminal)
    benchmark(board())


def unknown():
    SERVER[0].known_hosts.write_text("")
    benchmark(board())


def phone(folder, **changes):
    made = Phone(folder / "phone")
    made.set(**changes)
    return made


SEVERAL = {"devices": {"emulator-5554": "device", "39071FDJH0001": "device"}}
ROWS = {
    "no Python": Row(
        "give the path that Python has there, such as python=",
        lambda folder: benchmark(board(python="python9")),
        lambda folder: benchmark(board(python=sys.executable)),
    ),
    "an unknown host key": Row("connect once and compare the fingerprint: ssh -p", lambda folder: unknown(), lambda folder: connect_once()),
    "a changed host key": Row(
        "if the board was set up anew, remove its old key: ssh-keygen",
        lambda folder: with_a_changed_key(),
        lambda folder: remove_the_old_key(),
    ),
    "no key of the user": Row(
        "give the file of such a key as identity=", lambda folder: benchmark(board(identity=None)), lambda folder: benchmark(board())
    ),
    "several devices": Row(
        "give one of them as serial=, such as 'emulator-5554'",
        lambda folder: benchmark(phone(folder, **SEVERAL).target()),
        lambda folder: benchmark(phone(folder, **SEVERAL).target(serial="emulator-5554")),
    ),
    "an old benchmark_model": Row(
        "give a newer build of it as benchmark_model=",
        lambda folder: benchmark(phone(folder, output=OLDER).target()),
        lambda folder: benchmark(phone(folder).target()),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_a_remedy_works(name, tmp_path):
    check(ROWS[name], tmp_path)
