"""Writes tests/thorough.txt, the test functions that `make quick` leaves out, from a record of the fast tests.

    make test PYTEST_ADDOPTS=--junitxml=runs/fast.xml
    python tests/find_thorough.py runs/fast.xml

Those that take longest are listed until what is left of each room takes less than SECONDS with one process.
"""

import collections
import pathlib
import sys
import xml.etree.ElementTree as ElementTree

SECONDS = 60
FILE = pathlib.Path(__file__).with_name("thorough.txt")


def seconds_by_function(record):
    """Returns a dict of "tests/room/file.py::function" to the seconds of all its cases."""
    seconds = collections.Counter()
    for case in ElementTree.parse(record).iter("testcase"):
        parts = case.get("classname").split(".")
        # The file is the first part that is called like a test; after it come classes.
        size = next(i for i, part in enumerate(parts) if part.startswith("test_")) + 1
        function = "::".join([*parts[size:], case.get("name").partition("[")[0]])
        seconds[f"{'/'.join(parts[:size])}.py::{function}"] += float(case.get("time"))
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


if __name__ == "__main__":
    FILE.write_text("\n".join([*thorough(seconds_by_function(sys.argv[1])), ""]), encoding="utf-8")
