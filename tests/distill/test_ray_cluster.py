"""A local Ray cluster: nobody else can reach it, and it ends with the process that started it."""

import contextlib
import ipaddress
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import pytest

from tfdistill.distill.cache import ray_cluster, ray_watcher
from tfdistill.errors import RuntimeUnavailableError

# Starts a cluster with one actor in it; then does what its first argument says.
JOB = """
import sys, time
import ray
from tfdistill.distill.cache.ray_cluster import local_cluster

@ray.remote
class Actor:
    def one(self):
        return 1

with local_cluster(ray, 1):
    actor = Actor.remote()
    assert ray.get(actor.one.remote()) == 1
    print("up", flush=True)
    sys.stdin.read(1)
    if sys.argv[1] == "raise":
        raise ValueError
print("down", flush=True)
sys.stdin.read(1)
"""


def stat(pid):
    """Parent, session and start time of a process that is there and no zombie; else None."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else (int(fields[1]), int(fields[3]), int(fields[19]))


def of_session(session):
    """Process number -> start time of every process in a session, and of every descendant of such a process."""
    everyone = {int(name): found for name in os.listdir("/proc") if name.isdigit() and (found := stat(name))}
    chosen = {pid for pid, (_, own, _) in everyone.items() if own == session}
    while more := {pid for pid, (parent, _, _) in everyone.items() if parent in chosen} - chosen:
        chosen |= more
    return {pid: everyone[pid][2] for pid in chosen}


def listening(pids):
    """Addresses on which any of these processes listens, TCP of both kinds."""
    addresses = {}
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        table = pathlib.Path(f"/proc/net/{name}")
        for line in table.read_text().splitlines()[1:] if table.exists() else []:
            fields = line.split()
            if fields[3] == "0A":
                raw = bytes.fromhex(fields[1].split(":")[0])
                raw = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
                addresses[fields[9]] = socket.inet_ntop(family, raw)
    found = []
    for pid in pids:
        try:
            names = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        except FileNotFoundError:
            continue
        found += [addresses[inode[1]] for name in names if (inode := re.match(r"socket:\[(\d+)\]", name)) and inode[1] in addresses]
    return found


def is_loopback(address):
    address = ipaddress.ip_address(address)
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def wait_until_gone(processes, seconds=45):
    deadline = time.monotonic() + seconds
    while left := [pid for pid, began in processes.items() if (found := stat(pid)) and found[2] == began]:
        if time.monotonic() > deadline:
            return left
        time.sleep(0.1)
    return []


@pytest.fixture(params=["this environment", "a small environment"])
def job(request):
    """Starts JOB. Ray's processes overwrite a part of their environment, in a small one nearly all of it."""
    started = []
    # The paths of sockets are limited to 107 bytes.
    short = pathlib.Path(tempfile.mkdtemp(dir="/tmp"))
    inherited = os.environ if request.param == "this environment" else {"PATH": os.environ["PATH"]}

    def start(ending):
        child = subprocess.Popen(
            [sys.executable, "-c", JOB, ending],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # A cluster of its own is started all the same.
            env={**inherited, "RAY_ADDRESS": "192.0.2.1:6379", "RAY_TMPDIR": str(short), "PYTHONWARNINGS": "ignore"},
            cwd=pathlib.Path(__file__).parents[2],
        )
        started.append(child)
        assert child.stdout.readline() == "up\n"
        return child

    start.folder = short
    yield start
    for child in started:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()
    shutil.rmtree(short)


@pytest.mark.slow
def test_a_cluster_listens_on_loopback_alone_and_ends_with_a_killed_process(job):
    child = job("nothing")
    processes = of_session(child.pid)
    # gcs, raylet, two agents, the actor, the driver and the watcher at least
    assert len(processes) >= 7
    addresses = listening(processes)
    assert len(addresses) >= 5
    assert [address for address in addresses if not is_loopback(address)] == []
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert wait_until_gone(processes) == []
    assert list(job.folder.iterdir()) == []


@pytest.mark.slow
def test_a_cluster_is_gone_when_the_block_ends(job):
    child = job("end")
    processes = of_session(child.pid)
    child.stdin.write("x")
    child.stdin.flush()
    assert child.stdout.readline() == "down\n"
    processes.pop(child.pid)
    assert wait_until_gone(processes, seconds=1) == []
    assert list(job.folder.iterdir()) == []
    assert stat(child.pid)


def sleeper(title, folder=None):
    """A process with a command line, and with its output in a folder."""
    with (folder / "out.log").open("a") if folder else contextlib.nullcontext() as out:
        return subprocess.Popen([title, "-c", "import time; time.sleep(60)"], executable=sys.executable, stdout=out)


def ended(child, seconds=20):
    try:
        return child.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


@pytest.mark.parametrize("end", ["its input is closed", "its parent is killed", "its parent is killed, whose fork holds the input"])
def test_the_watcher_ends_exactly_the_cluster(end, tmp_path):
    folder, longer = tmp_path / "cluster", tmp_path / "cluster-2"
    folder.mkdir()
    longer.mkdir()
    member, *others = (
        sleeper("ray::IDLE", folder),
        sleeper("ray::IDLE", longer),
        sleeper("a program of the user's, /home/ray", folder),
        sleeper("ray::IDLE"),
    )
    code = (
        "import os, subprocess, sys, time\n"
        "watcher = subprocess.Popen([sys.executable, '-I', '-S', sys.argv[1], sys.argv[3], str(os.getpid())], stdin=subprocess.PIPE)\n"
        "child = os.fork() if 'fork' in sys.argv[2] else None\n"
        "if child == 0: time.sleep(60)\n"
        "print(child, flush=True)\n"
        "sys.stdin.read(1)\n"
        "watcher.stdin.close(); watcher.wait(); sys.stdin.read(1)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, ray_watcher.__file__, end, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    fork = parent.stdout.readline().strip()
    try:
        assert member.poll() is None
        if "killed" in end:
            parent.kill()
        else:
            parent.stdin.write("x")
            parent.stdin.flush()
        assert ended(member) == -signal.SIGKILL
        assert [child.poll() for child in others] == [None] * 3
        deadline = time.monotonic() + 20
        while folder.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not folder.exists()
        assert longer.exists()
    finally:
        for child in (member, *others, parent):
            child.kill()
            child.wait()
        parent.stdin.close()
        parent.stdout.close()
        if fork != "None":
            os.kill(int(fork), signal.SIGKILL)


def test_neither_the_watcher_nor_the_parent_is_a_member(tmp_path):
    child = sleeper("ray::IDLE", tmp_path)
    try:
        deadline = time.monotonic() + 20
        while ray_watcher.members(str(tmp_path), os.getpid()) != [child.pid] and time.monotonic() < deadline:
            time.sleep(0.05)
        assert ray_watcher.members(str(tmp_path), os.getpid()) == [child.pid]
        assert ray_watcher.members(str(tmp_path), child.pid) == []
    finally:
        child.kill()
        child.wait()
    assert ray_watcher.members(str(tmp_path), os.getpid()) == []


class FakeRay:
    """A Ray that does not keep to loopback."""

    __version__ = "99"

    def __init__(self):
        self.up, self.folder, self.util = None, None, self

    def init(self, **settings):
        self.up, self.folder = settings, pathlib.Path(settings["_temp_dir"])
        assert self.folder.is_dir()

    def get_node_ip_address(self):
        return "192.0.2.7"

    def shutdown(self):
        self.up = None


def test_a_ray_that_listens_elsewhere_is_refused():
    ray = FakeRay()
    with pytest.raises(RuntimeUnavailableError, match=r"listens on 192\.0\.2\.7"), ray_cluster.local_cluster(ray, 1):
        pass
    assert ray.up is None
    assert not ray.folder.exists()
