"""The union-find of channels, and what reshaping makes of them, against masks of whole tensors."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfdistill.compress.channels.call import LeaveWhole
from tfdistill.compress.channels.rules.shapes import concatenated, reshaped
from tfdistill.compress.channels.units import Units


class Call:
    """As much of a call as the functions here need."""

    def __init__(self, units):
        self.units = units

    def join(self, first, second):
        self.units.join(first, second, "reason")
        return None if first is None or second is None else first

    def keep(self, labels, reason):
        self.units.keep(labels, reason)


def mask(removal, axes, shape):
    """Which elements of a tensor stay."""
    found = np.ones(shape, bool)
    for axis, (labels, n) in enumerate(zip(axes, shape, strict=True)):
        along = np.ones(n, bool) if labels is None else removal.mask(labels)
        found &= along.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return found


def free_roots(units, axes):
    kept = units.kept()
    found = {int(unit) for labels in axes if labels is not None for unit in np.unique(units.find(labels))}
    return sorted(found - set(kept) - {0})


@st.composite
def shapes(draw):
    """Two shapes of the same number of elements, and which axes of the first one have units."""
    factors = draw(st.lists(st.sampled_from([1, 2, 3, 4]), min_size=1, max_size=5))

    def grouped():
        ends = sorted(draw(st.sets(st.integers(1, len(factors)), max_size=3)) | {len(factors)})
        return tuple(math.prod(factors[a:b]) for a, b in itertools.pairwise([0, *ends]))

    before = grouped()
    return before, grouped(), draw(st.lists(st.booleans(), min_size=len(before), max_size=len(before))), draw(st.randoms())


@settings(max_examples=200, deadline=None)
@given(shapes())
def test_reshaping_removes_the_same_elements(example):
    before, after, labelled, random = example
    units = Units()
    axes = tuple(units.new(n) if yes else None for n, yes in zip(before, labelled, strict=True))
    try:
        found = reshaped(Call(units), axes, before, after)
    except LeaveWhole:
        return
    again = reshaped(Call(units), found, after, before)
    roots = free_roots(units, [*axes, *found])
    removal = units.removal([root for root in roots if random.random() < 0.4])
    expected = mask(removal, axes, before).reshape(after)
    np.testing.assert_array_equal(mask(removal, found, after), expected)
    np.testing.assert_array_equal(mask(removal, again, before), expected.reshape(before))


@pytest.mark.parametrize(
    ("before", "after", "labelled", "units_left"),
    [
        ((4, 3), (12,), (0, 1), 3),  # a flattened map: a channel is every third element
        ((12,), (4, 3), (1,), 4),  # heads: three channels go together
        ((4, 3), (12,), (1, 1), 7),  # heads and their width, each of its own
        ((2, 6), (2, 3, 2), (0, 1), 3),
        ((None, 6), (None, 2, 3), (0, 1), 2),
        ((None, 2, 3), (None, 6), (0, 1, 1), 5),
        ((1, 1, 6), (6,), (0, 0, 1), 6),
        ((6,), (1, 6, 1), (1,), 6),
    ],
)
def test_how_many_units_are_left(before, after, labelled, units_left):
    units = Units()
    axes = tuple(units.new(n) if yes else None for n, yes in zip(before, labelled, strict=True))
    found = reshaped(Call(units), axes, before, after)
    assert len(free_roots(units, found)) == units_left


@pytest.mark.parametrize(("before", "after"), [((4, 6), (3, 8)), ((None, 6), (6, None)), ((None, 6), (None,))])
def test_what_cannot_be_matched_is_left_whole(before, after):
    units = Units()
    axes = (None, units.new(6))
    if after == (3, 8):
        found = reshaped(Call(units), axes, before, after)
        removal = units.removal(free_roots(units, axes)[:1])
        np.testing.assert_array_equal(mask(removal, found, after), mask(removal, axes, before).reshape(after))
    else:
        with pytest.raises(LeaveWhole):
            reshaped(Call(units), axes, before, after)


def test_joined_units_go_together():
    units = Units()
    a, b, c = units.new(4), units.new(4), units.new(4)
    units.join(a, b, "")
    units.join(b[::-1], c, "")
    removal = units.removal(units.find(a[:1, 0]))
    assert [list(removal.stay(labels)) for labels in (a, b, c)] == [[1, 2, 3], [1, 2, 3], [0, 1, 2]]
    units.join(a, None, "they meet what stays")
    assert set(units.kept().values()) == {"they meet what stays"}
    assert free_roots(units, [a, b, c]) == []


def test_elements_of_several_units_join_as_wholes():
    units = Units()
    heads, widths, flat = units.new(2), units.new(3), units.new(6)
    pairs = reshaped(Call(units), (heads, widths), (2, 3), (6,))[0]
    units.join(pairs, flat, "")
    removal = units.removal(free_roots(units, [flat]))
    assert len(free_roots(units, [flat])) == 1
    assert removal.size(flat, 6) == removal.size(heads, 2) == 0


def test_what_is_concatenated_keeps_its_units():
    units = Units()
    a, b = units.new(3), units.new(2)
    found = concatenated(Call(units), [((None, a), (4, 3)), ((None, None), (4, 5)), ((None, b), (4, 2))], -1)
    removal = units.removal([int(a[1, 0]), int(b[0, 0])])
    assert list(removal.stay(found[1])) == [0, 2, 3, 4, 5, 6, 7, 9]
    assert found[0] is None
