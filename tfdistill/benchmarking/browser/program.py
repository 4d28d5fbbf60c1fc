"""Starts a headless Chromium or Chrome with a profile of its own, and ends it."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

from tfdistill.benchmarking.browser.devtools import Connection
from tfdistill.errors import RuntimeUnavailableError
from tfdistill.runtime.isolated import standard_descriptors_taken
from tfdistill.utils.files import temporary_folder

# Names that the program has on the search path.
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    *("--headless", "--remote-debugging-pipe", "--disable-gpu", "--no-first-run", "--no-default-browser-check", "--disable-extensions"),
    # Nothing is fetched from elsewhere: no updates, no lists, and no name or address but this machine's own.
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-breakpad", "--disable-quic"),
    *("--no-proxy-server", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"),
    # A page that is measured is not slowed down as one in the background; shared memory lies in files where /dev/shm is small, as in containers.
    *("--disable-renderer-backgrounding", "--disable-background-timer-throttling", "--disable-dev-shm-usage"),
)
# A socket's path has 103 bytes at most on macOS, 107 on Linux, and ends in /org.chromium.Chromium.XXXXXX/SingletonSocket.
_LONGEST_FOLDER, _SHORT_FOLDER = 55, "/tmp"
_LAUNCH = pathlib.Path(__file__).with_name("launch.py")
_GOODBYE_SECONDS = 5.0


def found_program(program=None):
    """Returns the path of a browser.

    Args:
        program: Its name or path; None for the first of `NAMES` that is installed.

    Raises:
        RuntimeUnavailableError: if there is none.
    """
    if program is not None:
        if path := shutil.which(program):
            return path
        raise RuntimeUnavailableError(f"There is no program '{program}'.", "the name or path of Chromium or Chrome")
    for name in NAMES:
        if path := shutil.which(name):
            return path
    raise RuntimeUnavailableError(
        f"No browser is installed: none of {', '.join(NAMES)} is on the search path.",
        "Chromium or Chrome",
        "install one (Debian has the package chromium), or give its path: Browser(program='/opt/google/chrome/chrome')",
    )


@contextlib.contextmanager
def started(program=None, flags=(), **waiting):
    """Starts a browser; ends it and removes its profile when the block ends.

    It is driven through two pipes, to which no other program has access: there is no port. It ends when the pipes close, so also when this process is killed.

    Args:
        program: Its name or path; None for the first that is installed.
        flags: Further options.
        **waiting: `seconds` and `on_wait` of the `Connection`.

    Yields:
        A `Connection`.

    Raises:
        RuntimeUnavailableError: if there is none, the system does not start it, or this is Windows.
    """
    if os.name == "nt":
        raise RuntimeUnavailableError(
            "Windows does not hand over the descriptors through which a browser is driven here.", "Linux or macOS"
        )
    path = found_program(program)
    # Chromium does not start as root with its sandbox. For everybody else it stays on.
    sandbox = ("--no-sandbox",) if hasattr(os, "geteuid") and os.geteuid() == 0 else ()
    with temporary_folder() as profile, _folder_of_sockets(profile) as sockets, tempfile.TemporaryFile() as log:
        command = [path, *FLAGS, *sandbox, *flags, f"--user-data-dir={profile}", "about:blank"]
        environment = {**os.environ, "HOME": str(profile), "TMPDIR": str(sockets)}
        with _running(command, environment, log) as (child, commands, messages):
            yield Connection(commands, messages, child, log, **waiting)


@contextlib.contextmanager
def _folder_of_sockets(profile):
    """Yields the folder below which Chromium makes a socket: the profile, or a shorter one where the path of the socket would be longer than systems allow."""
    if len(os.fsencode(profile)) <= _LONGEST_FOLDER or not os.access(_SHORT_FOLDER, os.W_OK):
        yield profile
        return
    with tempfile.TemporaryDirectory(prefix="tfdistill-", dir=_SHORT_FOLDER, ignore_cleanup_errors=True) as folder:
        yield folder


@contextlib.contextmanager
def _running(command, environment, log):
    """Yields the process and this side's ends of its pipes."""
    with standard_descriptors_taken():
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
    try:
        start = [sys.executable or "python", "-I", "-S", str(_LAUNCH), str(theirs_in), str(theirs_out), *command]
        # In a session of its own, so that Ctrl-C reaches this process alone, which then ends the browser in order.
        child = subprocess.Popen(
            start,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            pass_fds=(theirs_in, theirs_out),
            start_new_session=True,
        )
    except OSError as error:
        os.close(ours_in)
        os.close(ours_out)
        raise RuntimeUnavailableError(f"No process can be started for '{command[0]}': {error}") from error
    finally:
        os.close(theirs_in)
        os.close(theirs_out)
    try:
        yield child, ours_out, ours_in
    finally:
        os.close(ours_out)  # which asks it to end
        os.close(ours_in)
        _end(child)


def _end(child):
    """Waits for the browser, and ends it and what it started if it does not end by itself."""
    try:
        child.wait(_GOODBYE_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:  # after a second Ctrl-C too
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
