"""Versions of other packages: what is tested lies in the ranges that setup.py gives, at its lower end and at its upper one."""

import ast
import importlib.util
import pathlib
import re

import keras
import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = pathlib.Path(__file__).parents[1]


def ranges(source):
    """Reads `install_requires` of a setup.py: a dict of package to its range."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.keyword) and node.arg == "install_requires"]
    requirements = [Requirement(text) for text in ast.literal_eval(calls[0].value)]
    return {requirement.name: requirement.specifier for requirement in requirements}


def pins(text):
    """Reads a requirements file: a dict of package to the versions that it pins, one for each Python that has its own."""
    found = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE):
        found.setdefault(name, []).append(Version(version))
    return found


RANGES = ranges((ROOT / "setup.py").read_text(encoding="utf-8"))
LOWEST = pins((ROOT / "requirements-lowest.txt").read_text(encoding="utf-8"))
TESTED = pins((ROOT / "requirements.txt").read_text(encoding="utf-8"))


def test_a_setup_file_and_a_requirements_file_are_read():
    assert ranges("setup(name='x', install_requires=['a-b>=1.2,<3', 'c>=4'])") == {"a-b": ">=1.2,<3", "c": ">=4"}
    text = "# a comment\na-b==1.2 ; python_version < '3.11'\na-b==1.4 ; python_version >= '3.11'\nc==4\n"
    assert pins(text) == {"a-b": [Version("1.2"), Version("1.4")], "c": [Version("4")]}


@pytest.mark.parametrize("package", RANGES)
def test_the_lowest_version_of_each_range_is_tested(package):
    (lowest,) = LOWEST[package]
    (bound,) = [Version(part.version) for part in RANGES[package] if part.operator == ">="]
    # The first release of tf-keras 2.20 is 2.20.1.
    assert lowest.release[: len(bound.release)] == bound.release
    assert lowest in RANGES[package]
    assert lowest <= min(TESTED[package])


@pytest.mark.parametrize("package", RANGES)
def test_the_pinned_versions_lie_in_the_ranges(package):
    assert all(version in RANGES[package] for version in TESTED[package])


@pytest.mark.parametrize("package", ["keras", "tensorflow", "tf-keras", "numpy"])
def test_ranges_have_an_upper_end(package):
    assert [part.version for part in RANGES[package] if part.operator == "<"]


def test_the_readme_names_the_keras_of_each_python():
    older, newer = sorted(TESTED["keras"])
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"Python 3.10 gets Keras {older.major}.{older.minor}" in text
    assert f"Python 3.11 to 3.13 get Keras {newer.major}.{newer.minor}" in text


def test_keras_is_installed_with_its_own_tests_where_they_have_to_run():
    """tests/conftest.py leaves out what runs Keras's own tests where a release of Keras comes without them."""
    there = importlib.util.find_spec("keras.src.distillation.distiller_test") is not None
    assert there or Version(keras.__version__) not in TESTED["keras"]
