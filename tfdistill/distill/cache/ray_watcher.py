"""Ends the processes of a local Ray cluster when the process that started it has ended: `python ray_watcher.py FOLDER PID`.

It waits until its standard input is closed or PID is no longer its parent. Then it kills Ray's processes that have a file open in FOLDER,
the cluster's own temporary folder, until none is left, and removes the folder. A mark in the environment does not work: Ray's processes
overwrite theirs with their titles. Ray's own agents notice the end of their parent only after a minute. Only the standard library is
imported, and Linux's /proc is needed.
"""

import contextlib
import os
import select
import shutil
import signal
import sys
import time

POLL_SECONDS, PAUSE_SECONDS, LONGEST_SECONDS = 1.0, 0.1, 30.0


def members(folder, parent):
    """Numbers of Ray's processes that have a file open in a folder: all of the cluster do, as their output goes to files there.

    Args:
        folder: The cluster's temporary folder, as an absolute path without links.
        parent: Number of the process that started the cluster. It may have such files open too, and is never a member.
    """
    found = []
    for name in os.listdir("/proc"):
        # Processes that are not Ray's may read the cluster's logs.
        if name.isdigit() and int(name) != parent and any(path.startswith(folder + "/") for path in _open_files(name)) and _is_of_ray(name):
            found.append(int(name))
    return found


def _open_files(pid):
    # Processes of other users, and those that have just ended, cannot be read.
    with contextlib.suppress(OSError):
        for number in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                yield os.readlink(f"/proc/{pid}/fd/{number}")


def _is_of_ray(pid):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as line:
        command = line.read()
        # A path in the package "ray", or a title such as "ray::IDLE".
        return b"/ray/" in command or command.startswith(b"ray::")
    return False


def end(folder, parent):
    """Kills the members until none is found three times in a row, as one may have just started another. Then removes the folder."""
    deadline, quiet = time.monotonic() + LONGEST_SECONDS, 0
    while quiet < 3 and time.monotonic() < deadline:
        found = members(folder, parent)
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        quiet = 0 if found else quiet + 1
        time.sleep(PAUSE_SECONDS)
    shutil.rmtree(folder, ignore_errors=True)


def main():
    """Waits until the parent is gone or closes standard input, then ends the cluster."""
    folder, parent = sys.argv[1], int(sys.argv[2])
    # Standard input becomes readable when it is closed: nothing is written to it. A fork of the parent may hold it open: the parent counts, too.
    while os.getppid() == parent and not select.select([sys.stdin], [], [], POLL_SECONDS)[0]:
        pass
    end(folder, parent)


if __name__ == "__main__":
    main()
