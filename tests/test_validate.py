"""Checks of settings: what passes comes back in Python's own type; what does not is named with its value and what is expected."""

import math

import numpy as np
import pytest

from tfdistill.errors import ConfigurationError
from tfdistill.utils import validate

PASSES = [
    # function, value, further arguments, result
    ("whole_number", 1, {}, 1),
    ("whole_number", np.int64(3), {}, 3),
    ("whole_number", 0, {"at_least": 0}, 0),
    ("whole_number", -5, {"at_least": None}, -5),
    ("whole_number", 2**63 - 1, {"at_most": 2**63 - 1}, 2**63 - 1),
    ("number", 2, {}, 2.0),
    ("number", np.float32(0.5), {}, 0.5),
    ("number", -1e30, {}, -1e30),
    ("number", 0.0, {"at_least": 0}, 0.0),
    ("number", 1.0, {"at_most": 1}, 1.0),
    ("number", 0.1, {"above": 0, "below": 1}, 0.1),
    ("positive_number", 1e-9, {}, 1e-9),
    ("share", 0, {}, 0.0),
    ("share", 1, {}, 1.0),
    ("share", 0.5, {"zero": False, "one": False}, 0.5),
    ("boolean", True, {}, True),
    ("boolean", False, {}, False),
    ("one_of", "mse", {"allowed": ("mse", "mae")}, "mse"),
    ("one_of", np.str_("mse"), {"allowed": ("mse", "mae")}, "mse"),
    ("one_of", None, {"allowed": ("auto", None)}, None),
    ("one_of", np.int32(4), {"allowed": (4, 8)}, 4),
    ("one_of", True, {"allowed": ("auto", True, False)}, True),
]
REFUSED = [
    # function, value, further arguments, what happened, what is expected
    ("whole_number", 0, {}, "x=0 is out of range.", "a whole number of at least 1"),
    ("whole_number", True, {}, "x=True is a bool.", "a whole number of at least 1"),
    ("whole_number", 2.0, {}, "x=2.0 is a float.", "a whole number of at least 1"),
    ("whole_number", "2", {"at_least": None}, "x='2' is a str.", "a whole number"),
    ("whole_number", None, {}, "x=None is a NoneType.", "a whole number of at least 1"),
    ("whole_number", 9, {"at_most": 8}, "x=9 is out of range.", "a whole number between 1 and 8"),
    ("whole_number", 0, {"owner": "Thing"}, "Thing: x=0 is out of range.", "a whole number of at least 1"),
    ("number", "1", {}, "x='1' is a str.", "a finite number"),
    ("number", False, {}, "x=False is a bool.", "a finite number"),
    ("number", math.nan, {}, "x=nan is out of range.", "a finite number"),
    ("number", -math.inf, {}, "x=-inf is out of range.", "a finite number"),
    ("number", 10**400, {}, f"x={10**400} is out of range.", "a finite number"),
    ("number", -0.1, {"at_least": 0}, "x=-0.1 is out of range.", "a finite number of at least 0"),
    ("number", 2, {"above": 0, "at_most": 1}, "x=2 is out of range.", "a finite number greater than 0 and at most 1"),
    ("positive_number", 0.0, {"owner": "Thing"}, "Thing: x=0.0 is out of range.", "a finite number greater than 0"),
    ("share", 1.5, {}, "x=1.5 is out of range.", "a finite number between 0 and 1"),
    ("share", 0, {"zero": False}, "x=0 is out of range.", "a finite number greater than 0 and at most 1"),
    ("share", 1, {"one": False}, "x=1 is out of range.", "a finite number of at least 0 and less than 1"),
    ("boolean", 1, {}, "x=1 is a int.", "True or False"),
    ("boolean", "yes", {}, "x='yes' is a str.", "True or False"),
    ("one_of", "mes", {"allowed": ("mse", "kl", None)}, "x='mes' is unknown.", "one of 'mse', 'kl', None"),
    ("one_of", True, {"allowed": (1, 2)}, "x=True is unknown.", "one of 1, 2"),
    ("one_of", np.array([4, 8]), {"allowed": (4, 8)}, "x=array([4, 8]) is unknown.", "one of 4, 8"),
]


@pytest.mark.parametrize(("function", "value", "arguments", "result"), PASSES)
def test_a_permitted_value_comes_back(function, value, arguments, result):
    given = getattr(validate, function)("x", value, **arguments)
    assert given == result
    assert type(given) is type(result)


@pytest.mark.parametrize(("function", "value", "arguments", "happened", "expected"), REFUSED)
def test_another_value_is_refused(function, value, arguments, happened, expected):
    with pytest.raises(ConfigurationError) as caught:
        getattr(validate, function)("x", value, **arguments)
    assert (caught.value.happened, caught.value.expected) == (happened, expected)


MEANT = [
    # what is called, what is given, what the error says to write; None where nothing is clear
    ("share", 50, "for 50 % write 0.5"),
    ("share", 100, "for 100 % write 1"),
    ("share", 12.5, "for 12.5 % write 0.125"),
    ("share", np.int64(10), "for 10 % write 0.1"),
    ("share", "0.5", "write 0.5, without quotes"),
    ("share", "50 %", "for 50 % write 0.5"),
    ("share", "50", "for 50 % write 0.5"),
    ("share", "half", None),
    ("share", 200, None),
    ("share", -1, None),
    ("share", True, None),
    ("number", "4", "write 4, without quotes"),
    ("number", " 1e-3", "write 0.001, without quotes"),
    ("number", "inf", None),
    ("positive_number", "-4", None),
    ("positive_number", 0, None),
    ("whole_number", "4", "write 4, without quotes"),
    ("whole_number", "0", None),
    ("whole_number", "4.0", None),
]


@pytest.mark.parametrize(("function", "value", "fix"), MEANT)
def test_what_is_meant_is_said(function, value, fix):
    with pytest.raises(ConfigurationError) as caught:
        getattr(validate, function)("x", value)
    assert caught.value.fix == fix


def test_a_share_of_percent_is_one_that_is_permitted():
    with pytest.raises(ConfigurationError) as caught:
        validate.share("x", 100, one=False)
    assert caught.value.fix is None


def test_a_misspelled_choice_names_the_nearest():
    with pytest.raises(ConfigurationError, match="Nearest: 'reverse_kl'"):
        validate.one_of("divergence", "revers_kl", ("kl", "reverse_kl"))


@pytest.mark.parametrize(
    ("value", "arguments", "whole"),
    [(3, {}, True), (np.uint8(3), {}, True), (True, {}, False), (3.0, {}, False), (3, {"at_least": 4}, False), (3, {"at_most": 2}, False)],
)
def test_what_is_a_whole_number(value, arguments, whole):
    assert validate.is_whole_number(value, **arguments) is whole


@pytest.mark.parametrize(
    ("value", "number"), [(3, True), (np.float16(0.5), True), (math.nan, True), (False, False), ("1", False), (None, False), (1j, False)]
)
def test_what_is_a_number(value, number):
    assert validate.is_number(value) is number
