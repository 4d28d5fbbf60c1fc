"""Writes tests/thorough.txt, the test functions that `make quick` leaves out, and tests/longest.txt, the modules that are run first, from two records.

    make test PYTEST_ADDOPTS=--junitxml=runs/fast.xml
    make test-slow PYTEST_ADDOPTS=--junitxml=runs/slow.xml
    python tests/find_thorough.py runs/fast.xml runs/slow.xml

The fast functions that take longest are thorough, until what is left of each room takes less than SECONDS with one process. Modules with a test of more
than LONG seconds are run first: a long test that begins last keeps all other processes waiting.
"""

import collections
import pathlib
import sys
import xml.etree.ElementTree as ElementTree

SECONDS, LONG = 60, 3
THOROUGH, LONGEST = (pathlib.Path(__file__).with_name(f"{name}.txt") for name in ("thorough", "longest"))


def cases(record):
    """Yields ("tests/room/file.py::function", its seconds) for each case of a record."""
    for case in ElementTree.parse(record).iter("testcase"):
        parts = case.get("classname").split(".")
        # The file is the first part that is called like a test; after it come classes.
        size = next(i for i, part in enumerate(parts) if part.startswith("test_")) + 1
        function = "::".join([*parts[size:], case.get("name").partition("[")[0]])
        yield f"{'/'.join(parts[:size])}.py::{function}", float(case.get("time"))


def seconds_by_function(record):
    """Returns a dict of "tests/room/file.py::function" to the seconds of all its cases."""
    seconds = collections.Counter()
    for function, took in cases(record):
        seconds[function] += took
    return seconds


def thorough(seconds, limit=SECONDS):
    """Returns the functions to leave out so that the rest of each room takes at most `limit` seconds."""
    rooms, left_out = collections.defaultdict(list), []
    for function in seconds:
        rooms[function.split("/")[1] if function.count("/") > 1 else ""].append(function)
    for functions in rooms.values():
        total = sum(seconds[function] for function in functions)
        for function in sorted(functions, key=seconds.__getitem__, reverse=True):
            if total <= limit:
                break
            left_out.append(function)
            total -= seconds[function]
    return sorted(left_out)


def longest(records, limit=LONG):
    """Returns the modules with a case of more than `limit` seconds, the one with the longest case first."""
    most = collections.defaultdict(float)
    for record in records:
        for function, took in cases(record):
            module = function.partition("::")[0]
            most[module] = max(most[module], took)
    return sorted((module for module in most if most[module] > limit), key=most.__getitem__, reverse=True)


if __name__ == "__main__":
    THOROUGH.write_text("\n".join([*thorough(seconds_by_function(sys.argv[1])), ""]), encoding="utf-8")
    LONGEST.write_text("\n".join([*longest(sys.argv[1:]), ""]), encoding="utf-8")
