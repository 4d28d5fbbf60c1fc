"""A Ray cluster on this machine that other machines cannot reach, and that ends with the process that started it."""

import contextlib
import ipaddress
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from tfdistill.errors import RuntimeUnavailableError

_WATCHER = pathlib.Path(__file__).with_name("ray_watcher.py")
# Ray's processes have ended by themselves, or the watcher ends them, well within this.
_END_SECONDS = 60


@contextlib.contextmanager
def local_cluster(ray, cpus=None):
    """Runs a Ray cluster of one node for the length of a block.

    All its processes listen on the loopback interface alone. On Linux they end with this process however it ends, `kill -9` included: a
    small watcher process kills what is left of exactly this cluster. On other systems Ray itself ends them.

    Args:
        ray: The module.
        cpus: Number of CPUs that the cluster has; None for all.

    Raises:
        RuntimeUnavailableError: if Ray listens on another interface.
    """
    with _watched_folder() as folder:
        try:
            with _loopback():
                # Without "local" Ray joins a cluster that RAY_ADDRESS names, or that runs on this machine.
                ray.init(
                    address="local",
                    num_cpus=cpus,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level="ERROR",
                    _node_ip_address="127.0.0.1",
                    _temp_dir=folder,
                )
            address = ray.util.get_node_ip_address()
            if not ipaddress.ip_address(address).is_loopback:
                raise RuntimeUnavailableError(
                    f"Ray {ray.__version__} made a local cluster that listens on {address}.",
                    "the loopback interface alone",
                    "start a cluster yourself and give its address",
                )
            yield
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _loopback():
    """Makes Ray use the loopback address for its node, as it does on macOS and Windows."""
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextlib.contextmanager
def _watched_folder():
    """A folder for the cluster's logs and sockets. When the block or process ends, the watcher kills Ray's processes and removes it."""
    # Not TMPDIR: paths of sockets are limited to 107 bytes, of which macOS's TMPDIR takes too many.
    place = os.environ.get("RAY_TMPDIR") or ("/tmp" if os.path.isdir("/tmp") else None)
    folder = os.path.realpath(tempfile.mkdtemp(prefix="tfdistill-cluster-", dir=place))
    try:
        if sys.platform.startswith("linux"):
            with _watched(folder):
                yield folder
        else:
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _watched(folder):
    # In a session of its own, so that Ctrl-C does not end it before the others.
    watcher = subprocess.Popen(
        [sys.executable, "-I", "-S", str(_WATCHER), folder, str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        watcher.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            watcher.wait(_END_SECONDS)
