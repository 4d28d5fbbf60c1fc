"""Processes that hold what could crash or hang: started isolated, and ended with the process that started them."""

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
PACKAGES = ("numpy", "flatbuffers", "ai_edge_litert", "tflite_runtime", "tensorflow")
_BOOTSTRAP = pathlib.Path(__file__).with_name("bootstrap.py")
_POLL_SECONDS = 0.02


@dataclasses.dataclass(frozen=True)
class Finished:
    """A child that ended, or was ended.

    Attributes:
        code: Its exit code; negative is the signal that killed it. None if it was ended at the time limit.
        answer: What it wrote to its descriptor for answers, as bytes.
        said: The last lines of what it printed, by native code too.
    """

    code: int | None
    answer: bytes
    said: str

    @property
    def death(self):
        """How it ended, as the rest of a sentence, or None if it ended by itself without an error."""
        return None if self.code == 0 else death(self.code)


def death(code):
    """Puts an exit code into words: `"was killed by SIGSEGV"`."""
    if code is None:
        return "was still busy at the time limit and was ended"
    if code > 0:
        return f"failed with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def start(module, stdout, stderr, paths=(), dies_with_thread=True, lifetime_seconds=None):
    """Starts `module.main(answers)` in a Python process of its own, with a pipe as its standard input; `answers` is a descriptor, see `stdout`.

    The process reads no environment variable of Python's, no `sitecustomize`, and never the working folder: it finds tfdistill by the folder it runs
    from here, and NumPy and the interpreter by the folders that this process has them from, after the standard library. It is killed when this
    process ends, however that ends.

    Args:
        module: Name of the module.
        stdout: File or `subprocess` constant, for what the module writes to `answers`.
        stderr: The same, for what anybody prints, to standard output too.
        paths: Further folders to import from.
        dies_with_thread: Whether the kernel may kill it when the thread that starts it ends (Linux has no other link to a parent). False for a
            process that serves several threads; it then watches its standard input, which ends with this process.
        lifetime_seconds: The kernel ends it after this long, where there is nobody else to do it. None for no limit.

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
    """Keeps what is opened in the block out of the places of standard input, output and error, which a service may have closed.

    Whatever anybody prints would go there.
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


def run(module, message, seconds, paths=(), each=None):
    """Runs `module.main(answers)` in a process of its own until it ends, and ends it at a time limit.

    Args:
        module: Name of the module. It reads `message` from its standard input, which stays open as long as this process lives.
        message: Bytes.
        seconds: Time limit.
        paths: Further folders to import from.
        each: Called now and then with the seconds passed.

    Returns:
        A `Finished`. No file is left behind, also if this process is killed.
    """
    # Files without a name, not pipes: a child that floods or never reads must not make this process wait beyond the limit.
    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as noise:
        child = start(module, answer, noise, paths, lifetime_seconds=seconds + 10)
        threading.Thread(target=_write, args=(child.stdin, message), daemon=True).start()
        began, finished = time.monotonic(), True
        try:
            while finished and child.poll() is None:
                elapsed = time.monotonic() - began
                finished = elapsed <= seconds
                if each is not None:
                    each(elapsed)
                time.sleep(_POLL_SECONDS)
        finally:
            if child.poll() is None:
                child.kill()
            child.wait()
            _close(child.stdin)
        answer.seek(0)
        return Finished(child.returncode if finished else None, answer.read(), last_lines(noise))


def last_lines(file, lines=30, most=1 << 16):
    """Returns the last lines of an open binary file as text: where a native library says why it failed."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - most, 0))
    return "\n".join(file.read().decode("utf-8", errors="replace").strip().splitlines()[-lines:])


def _write(pipe, message):
    try:
        pipe.write(message)
        pipe.flush()
    except (OSError, ValueError):
        return  # the child ended before it read all; how it ended says more


def _close(pipe):
    try:
        pipe.close()
    except OSError:
        return  # what was left in the buffer has no reader any more


def _directories():
    """The folders that this process has the child's packages from, in its own order; the working folder comes last, and only if one is there."""
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
