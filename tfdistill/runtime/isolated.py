"""Runs code that may crash or hang in isolated child processes, which end together with the process that started them."""

import contextlib
import dataclasses
import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time

from tfdistill.errors import RuntimeUnavailableError

# What a child may import besides the standard library and tfdistill's own modules.
PACKAGES = ("numpy", "flatbuffers", "ai_edge_litert", "tflite_runtime", "tflite_micro", "tensorflow")
_BOOTSTRAP = pathlib.Path(__file__).with_name("bootstrap.py")
_POLL_SECONDS = 0.02


@dataclasses.dataclass(frozen=True)
class Finished:
    """The result of a child process that has ended.

    Attributes:
        code: Its exit code; a negative number is the signal that killed it. None if it was killed at the time limit.
        output: The bytes that it wrote to its result descriptor.
        log: The last lines that it printed, those of native code included.
    """

    code: int | None
    output: bytes
    log: str

    @property
    def failure(self):
        """How it failed, as the end of a sentence; None if it ended without an error."""
        return None if self.code == 0 else describe_exit(self.code)


def describe_exit(code):
    """Describes an exit code: `"was killed by SIGSEGV"`."""
    if code is None:
        return "was still busy at the time limit and was ended"
    if code > 0:
        return f"failed with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def start(module, stdout, stderr, paths=(), dies_with_thread=True, lifetime_seconds=None):
    """Starts `module.main(result_fd)` in a new Python process whose standard input is a pipe.

    The process ignores Python's environment variables, `sitecustomize` and the working folder. It imports tfdistill from the folder of this
    file, and NumPy and the interpreter from the folders that this process imports them from, after the standard library. It is killed when
    this process ends.

    Args:
        module: Name of the module. Its `main` gets the descriptor to write its result to.
        stdout: File or `subprocess` constant that receives the result.
        stderr: File or `subprocess` constant that receives all printed text, to standard output too.
        paths: Further folders to import from.
        dies_with_thread: Whether the kernel may kill the process when the thread that started it ends, which is how Linux ties a process to
            its parent. False for a process that serves several threads; it must then watch its standard input, which closes when this
            process ends.
        lifetime_seconds: The kernel kills the process after this time. None for no limit.

    Returns:
        The `subprocess.Popen`.

    Raises:
        RuntimeUnavailableError: if the system starts no process.
    """
    settings = {
        "module": module,
        "package": str(_BOOTSTRAP.parents[1]),
        "paths": [*(str(path) for path in paths), *_directories()],
        "parent": os.getpid(),
        "dies_with_thread": dies_with_thread,
        "lifetime_seconds": lifetime_seconds,
    }
    command = [sys.executable or "python", "-I", "-S", str(_BOOTSTRAP), json.dumps(settings)]
    try:
        with standard_descriptors_taken():
            return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stdout, stderr=stderr)
    except OSError as error:
        raise RuntimeUnavailableError(
            f"No process can be started as '{command[0]}': {error}", "a Python interpreter at sys.executable"
        ) from error


@contextlib.contextmanager
def standard_descriptors_taken():
    """Prevents files that are opened in the block from getting the descriptors 0, 1 and 2, which a service may have closed.

    Printed text would be written into such files.
    """
    taken = []
    try:
        while (descriptor := os.open(os.devnull, os.O_RDWR)) < 3:
            taken.append(descriptor)
        os.close(descriptor)
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)


def run(module, message, seconds, paths=(), on_wait=None):
    """Runs `module.main(result_fd)` in a new process until it ends, and kills it at the time limit.

    Args:
        module: Name of the module. It reads `message` from its standard input, which stays open as long as this process lives.
        message: Bytes.
        seconds: Time limit.
        paths: Further folders to import from.
        on_wait: Function that is called regularly with the elapsed seconds.

    Returns:
        A `Finished`. No file is left behind, even if this process is killed.
    """
    # Unnamed files, not pipes: a child that prints without end or never reads must not block this process beyond the limit.
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as log:
        child = start(module, output, log, paths, lifetime_seconds=seconds + 10)
        threading.Thread(target=_write, args=(child.stdin, message), daemon=True).start()
        began, finished = time.monotonic(), True
        try:
            while finished and child.poll() is None:
                elapsed = time.monotonic() - began
                finished = elapsed <= seconds
                if on_wait is not None:
                    on_wait(elapsed)
                time.sleep(_POLL_SECONDS)
        finally:
            if child.poll() is None:
                child.kill()
            child.wait()
            _close(child.stdin)
        output.seek(0)
        return Finished(child.returncode if finished else None, output.read(), last_lines(log))


def last_lines(file, lines=30, most=1 << 16):
    """Returns the last lines of an open binary file as text, where native libraries report why they failed."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - most, 0))
    return "\n".join(file.read().decode("utf-8", errors="replace").strip().splitlines()[-lines:])


def _write(pipe, message):
    try:
        pipe.write(message)
        pipe.flush()
    except (OSError, ValueError):
        return  # the child ended before it read everything; its exit code is reported


def _close(pipe):
    try:
        pipe.close()
    except OSError:
        return  # nothing reads the rest of the buffer


def _directories():
    """Returns the folders that this process imports the child's packages from, in its order, but the working folder last."""
    found = [path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages")]
    for name in PACKAGES:
        try:
            spec = getattr(sys.modules.get(name), "__spec__", None) or importlib.util.find_spec(name)
        except (ImportError, ValueError):
            continue
        found += [os.path.dirname(path) for path in (spec and spec.submodule_search_locations) or ()]
    try:
        working = os.getcwd()
    except OSError:  # it was removed
        working = None
    known = {os.path.abspath(path): None for path in found if os.path.isabs(path) or working}
    order = {os.path.abspath(path): index for index, path in reversed(list(enumerate(sys.path))) if os.path.isabs(path)}
    return sorted(known, key=lambda path: (path == working, order.get(path, len(order))))
