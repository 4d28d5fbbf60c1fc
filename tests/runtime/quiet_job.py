"""Threads that capture native output, or open files, while others print and warn; run by a test in a process with real descriptors.

Arguments: name of the scenario, a .tflite file. Ends with an error if descriptors, filters or streams are not what they were; its output is checked by
the test.
"""

import contextlib
import ctypes
import logging
import os
import sys
import threading
import warnings

from tfdistill.runtime.capture import captured_output
from tfdistill.runtime.interpreter import open_file

LINES = 60
C = ctypes.CDLL(None)


def capture(number, path):
    for turn in range(8):
        with captured_output() as outer:
            C.puts(f"secret native {number} {turn}".encode())
            print("secret python", number, turn)
            warnings.warn(f"secret warning {number} {turn}", UserWarning, stacklevel=1)
            with captured_output() as inner:
                os.write(2, b"secret inner\n")
        assert inner.text == "secret inner\n", inner.text
        for what in ("native", "python", "warning"):
            assert f"secret {what} {number} {turn}\n" in outer.text, outer.text


def capture_and_fail(number, path):
    for turn in range(8):
        with contextlib.suppress(ValueError), captured_output() as captured:
            os.write(1, b"secret before\n")
            raise ValueError(number, turn)
        assert captured.text == "secret before\n", captured.text


def open_again_and_again(number, path):
    for turn in range(12):
        opened = open_file(path, threads=1 + turn % 2, trusted=number % 2 == 0)
        assert opened.outputs


def capture_and_open(number, path):
    (capture if number % 2 else open_again_and_again)(number, path)


SCENARIOS = {"capture": capture, "exception": capture_and_fail, "open": open_again_and_again, "both": capture_and_open}


def print_and_warn(number, go, logger):
    go.wait()
    for line in range(LINES):
        sys.stdout.write(f"out {number} {line}\n")  # `print` writes the end of a line apart, with or without us
        sys.stderr.write(f"err {number} {line}\n")
        logger.warning("log %s %s", number, line)
        warnings.warn(f"warn {number} {line}", RuntimeWarning, stacklevel=1)
        if line % 20 == 0:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                warnings.warn("never shown", RuntimeWarning, stacklevel=1)


def state():
    return {
        "descriptors": [(s.st_dev, s.st_ino) for s in map(os.fstat, (0, 1, 2))],
        "filters": list(warnings.filters),
        "showwarning": warnings.showwarning,
        "streams": (sys.stdout, sys.stderr, dict(vars(sys.stdout)), dict(vars(sys.stderr))),
        "open": len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0,
    }


def main(scenario, path):
    """Runs one scenario.

    Args:
        scenario: Key of `SCENARIOS`.
        path: A .tflite file.
    """
    warnings.simplefilter("always", RuntimeWarning)
    logger = logging.getLogger("job")
    logger.addHandler(logging.StreamHandler(sys.stderr))
    open_file(path)  # its helper process and its one log file stay
    before, failures, go = state(), [], threading.Event()

    def run(function, *arguments):
        try:
            function(*arguments)
        except BaseException as error:
            failures.append(repr(error))
            raise

    workers = [threading.Thread(target=run, args=(SCENARIOS[scenario], number, path)) for number in range(4)]
    printers = [threading.Thread(target=run, args=(print_and_warn, number, go, logger)) for number in range(3)]
    for thread in (*printers, *workers):
        thread.start()
    go.set()
    for thread in (*workers, *printers):
        thread.join()
    after = state()
    wrong = [name for name in before if before[name] != after[name]]
    if failures or wrong:
        sys.exit(f"failures {failures}, changed {[(n, before[n], after[n]) for n in wrong]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
