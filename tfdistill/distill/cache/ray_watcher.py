"""Ends the processes of a local Ray cluster when the process that started it has ended: `python ray_watcher.py TOKEN PID`.

It waits until its standard input is closed or PID is no longer its parent. Then it kills Ray's processes that have TOKEN in their environment, until none
is left. Ray's own agents notice the end of their parent only after a minute. Only the standard library is imported, and Linux's /proc is needed.
"""

import contextlib
import os
import select
import signal
import sys
import time

POLL_SECONDS, PAUSE_SECONDS, LONGEST_SECONDS = 1.0, 0.1, 30.0


def marked(token):
    """Numbers of Ray's processes that have a token in their environment.

    Others may have it too: whatever another thread of the program started while the cluster was being started.
    """
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            # Processes of other users, and those that end meanwhile, cannot be read.
            with (
                contextlib.suppress(OSError),
                open(f"/proc/{name}/environ", "rb") as environment,
                open(f"/proc/{name}/cmdline", "rb") as line,
            ):
                # Paths in the package "ray", or a title such as "ray::IDLE".
                if token in environment.read() and b"ray" in line.read():
                    found.append(int(name))
    return found


def end(token):
    """Kills the marked processes, and looks again: one may just have started another."""
    deadline, quiet = time.monotonic() + LONGEST_SECONDS, 0
    while quiet < 3 and time.monotonic() < deadline:
        found = marked(token)
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        quiet = 0 if found else quiet + 1
        time.sleep(PAUSE_SECONDS)


def main():
    """Waits until the parent is gone or closes standard input, then ends the cluster: `ray_watcher.py TOKEN PARENT`."""
    token, parent = sys.argv[1].encode(), int(sys.argv[2])
    # Nothing is ever written to it: it becomes readable when it is closed. A fork of the parent may hold it open.
    while os.getppid() == parent and not select.select([sys.stdin], [], [], POLL_SECONDS)[0]:
        pass
    end(token)


if __name__ == "__main__":
    main()
