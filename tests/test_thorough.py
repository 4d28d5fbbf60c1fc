"""What `make quick`, and the tests of every change, leave out: the lists name functions that exist, and are as long as the time asks for."""

import pathlib
import subprocess
import types

import conftest
import pytest
from conftest import LONGEST, SAMPLED, THOROUGH, not_sampled
from find_thorough import longest, seconds_by_function, thorough

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize("name", sorted(THOROUGH | set(SAMPLED)))
def test_a_listed_function_exists(name):
    path, *classes, function = name.split("::")
    # Classes are those of Keras's own tests, which the file imports.
    assert classes or f"def {function}(" in (ROOT / path).read_text(encoding="utf-8")
    assert (ROOT / path).is_file()


def test_each_nth_row_stays_from_the_first_on():
    items = [types.SimpleNamespace(nodeid=f"tests/test_x.py::{name}") for name in ("a[1]", "a[2]", "b", "a[3]", "a[4]", "c[1]", "c[2]")]
    assert [item.nodeid[17:] for item in not_sampled(items, {"tests/test_x.py::a": 3})] == ["a[2]", "a[3]"]
    assert min(SAMPLED.values()) > 1


def test_a_fast_test_runs_no_program_of_the_packages_for_slow_ones(monkeypatch):
    subprocess.run(["true"], check=True)
    monkeypatch.setattr(conftest, "OF_PACKAGES", {"true"})
    with pytest.raises(AssertionError, match="mark it slow"):
        subprocess.run(["true"], check=True)


def test_listed_modules_exist():
    assert [path for path in LONGEST if not (ROOT / path).is_file()] == []


def test_the_longest_are_left_out_until_a_room_fits():
    seconds = {"tests/a/test_x.py::one": 5.0, "tests/a/test_x.py::two": 3.0, "tests/a/test_y.py::three": 1.0, "tests/test_z.py::four": 3.5}
    assert thorough(seconds, limit=4) == ["tests/a/test_x.py::one"]
    assert thorough(seconds, limit=3) == ["tests/a/test_x.py::one", "tests/a/test_x.py::two", "tests/test_z.py::four"]


def test_cases_are_added_up(tmp_path):
    case = '<testcase classname="tests.a.test_x" name="{}" time="{}"/>'
    rows = [case.format("one[1]", 0.5), case.format("one[2]", 0.25), case.format("two", 1.0)]
    rows.append(case.format("three", 2.0).replace("test_x", "test_x.TestClass"))
    rows.append(case.format("one", 2.5).replace("test_x", "test_y"))
    (tmp_path / "record.xml").write_text(f"<testsuites><testsuite>{''.join(rows)}</testsuite></testsuites>")
    assert seconds_by_function(tmp_path / "record.xml") == {
        "tests/a/test_x.py::one": 0.75,
        "tests/a/test_x.py::two": 1.0,
        "tests/a/test_x.py::TestClass::three": 2.0,
        "tests/a/test_y.py::one": 2.5,
    }
    assert longest([tmp_path / "record.xml"], limit=1) == ["tests/a/test_y.py", "tests/a/test_x.py"]
    assert longest([tmp_path / "record.xml"], limit=2) == ["tests/a/test_y.py"]
