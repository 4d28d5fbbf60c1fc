"""Channels that go together: a union-find over units, and which of them are removed."""

import numpy as np

# What stands in a label where an axis depends on no unit.
NONE = 0


class Units:
    """The units of a model. A unit is what is removed as a whole: a channel and all channels that are coupled to it, in every tensor and weight.

    The labels of an axis are an array of shape (size, k): the units that each of its elements depends on. An element is removed if one of its units is. None in
    place of an array is an axis that depends on none.
    """

    def __init__(self):
        self._parents = np.zeros(256, "int64")
        self._count = 1
        self._kept = []  # (labels, reason)

    def new(self, size):
        """Returns the labels of an axis of new units."""
        while self._count + size > len(self._parents):
            self._parents = np.concatenate([self._parents, np.zeros_like(self._parents)])
        labels = np.arange(self._count, self._count + size)
        self._parents[labels] = labels
        self._count += size
        return labels[:, None]

    def find(self, labels):
        """Returns labels with the first of all coupled units in place of each unit."""
        roots = self._parents[labels]
        while True:
            above = self._parents[roots]
            if np.array_equal(above, roots):
                return roots
            roots = above

    def join(self, first, second, reason):
        """Couples the elements of two axes of one size. Where one of them depends on no unit, the other one is kept.

        Args:
            first: Labels.
            second: Labels, or None.
            reason: Why units are kept that meet an axis without any.
        """
        if first is None or second is None:
            self.keep(second if first is None else first, reason)
            return
        plain = np.zeros(len(first), bool)
        if first.shape == second.shape:
            plain = ((first == NONE) == (second == NONE)).all(1)
        for column in range(first.shape[1]) if plain.any() else ():
            self._join_pairs(first[plain, column], second[plain, column])
        lone = ~plain & ((first == NONE).all(1) != (second == NONE).all(1))
        self.keep(first[lone], reason)
        self.keep(second[lone], reason)
        for row in np.flatnonzero(~plain & ~lone):
            self.join_all(np.concatenate([first[row], second[row]]))

    def _join_pairs(self, first, second):
        for a, b in np.unique(np.stack([self.find(first), self.find(second)], 1), axis=0):
            a, b = self.find(np.array([a, b]))
            self._parents[max(a, b)] = min(a, b)

    def join_all(self, labels):
        """Couples all units of an array with each other."""
        found = np.unique(self.find(labels))
        found = found[found != NONE]
        self._parents[found] = found[:1]

    def keep(self, labels, reason):
        """Keeps units whole: they are never removed.

        Args:
            labels: Labels, or None.
            reason: Why, for the plan.
        """
        if labels is not None and np.size(labels) and np.any(labels != NONE):
            self._kept.append((np.unique(labels), reason))

    def kept(self):
        """Returns a dict of each unit that is kept whole to the first reason."""
        found = {}
        for labels, reason in self._kept:
            for root in np.unique(self.find(labels)):
                if root != NONE:
                    found.setdefault(int(root), reason)
        return found

    def removal(self, roots=()):
        """Returns the `Removal` of units.

        Args:
            roots: What `find` returns of them.
        """
        return Removal(self, roots)


class Removal:
    """Units that are removed."""

    def __init__(self, units, roots):
        self._units = units
        self._gone = np.zeros(units._count, bool)
        self._gone[list(roots)] = True

    def mask(self, labels):
        """Returns which elements of an axis stay, as an array of bool."""
        return ~self._gone[self._units.find(labels)].any(1)

    def stay(self, labels):
        """Returns the indices of the elements of an axis that stay."""
        return np.flatnonzero(self.mask(labels))

    def size(self, labels, size):
        """Returns how many elements of an axis stay, of `size` in all."""
        return size if labels is None else int(self.mask(labels).sum())

    def shape(self, axes, shape):
        """Returns what remains of a shape.

        Args:
            axes: Labels or None for each axis.
            shape: Its shape.
        """
        return tuple(self.size(labels, n) for labels, n in zip(axes, shape, strict=True))
