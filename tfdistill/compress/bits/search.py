"""Finds the bits of each layer under budgets that are measured on files."""

import typing

from tfdistill.errors import ModelError


class Budgets(typing.NamedTuple):
    """What a file may take; None where there is no limit.

    Attributes:
        size_bytes: Largest size.
        max_error: Largest error.
        latency_ms: Longest time of one run.
        latency: Function of the path of a file that returns that time.
    """

    size_bytes: int | None
    max_error: float | None
    latency_ms: float | None
    latency: typing.Any


class Found(typing.NamedTuple):
    """The file that was found.

    Attributes:
        file: `MadeFile`.
        latency_ms: Its measured time; None if it was not asked for.
    """

    file: typing.Any
    latency_ms: float | None


class Search:
    """A search over files.

    Args:
        files: `Files`.
        paths: Paths of all layers.
        narrow: Paths of the layers that can have 4 bits, in the order in which they get them.
        wide: Paths of those that can have 16 bits, likewise.
        budgets: `Budgets`.
        name: Name of the model.
    """

    def __init__(self, files, paths, narrow, wide, budgets, name):
        self._files, self._paths, self._narrow, self._wide, self._budgets, self._name = files, paths, narrow, wide, budgets, name
        self._times = {}

    def run(self):
        """Returns `Found`.

        Raises:
            ModelError: if a budget cannot be met, with the closest that can.
        """
        budgets, narrowed = self._budgets, 0
        if budgets.size_bytes is not None:
            narrowed = self._first(len(self._narrow), lambda count: self.file(count, 0).size_bytes <= budgets.size_bytes)
            if narrowed is None:
                size = self.file(len(self._narrow), 0).size_bytes
                raise _cannot_be_met(
                    self._name,
                    f"size_bytes={budgets.size_bytes:,}",
                    f"{size:,} bytes, with 4 bits wherever it can",
                    f"size_bytes={size} or more",
                )
        widened = 0
        if budgets.max_error is not None:
            narrowed, widened = self._within_error(narrowed)
        elif budgets.latency_ms is not None:
            narrowed, widened = self._within_time(narrowed)
        file = self.file(narrowed, widened)
        took = self._time(file) if budgets.latency_ms is not None else None
        if took is not None and took > budgets.latency_ms:
            raise self._too_slow(took)
        return Found(file, took)

    def file(self, narrowed, widened):
        """Returns the `MadeFile` with so many layers at 4 bits, and so many of the others at 16."""
        bits = dict.fromkeys(self._paths, 8) | dict.fromkeys(self._narrow[:narrowed], 4)
        wider = [path for path in self._wide if bits[path] == 8][:widened]
        return self._files(bits | dict.fromkeys(wider, 16))

    def _within_error(self, narrowed):
        limit, sized = self._budgets.max_error, self._budgets.size_bytes is not None
        if self.file(narrowed, 0).error <= limit:
            # Without a budget of bytes: the smallest file that holds the error.
            return (narrowed if sized else self._last(len(self._narrow), lambda count: self.file(count, 0).error <= limit)), 0
        most = sum(path not in self._narrow[:narrowed] for path in self._wide)
        widened = self._first(most, lambda count: self.file(narrowed, count).error <= limit)
        if widened is None:
            tried = [self.file(narrowed, 0), self.file(narrowed, most)]
            best = min((file for file in tried if not sized or file.size_bytes <= self._budgets.size_bytes), key=lambda file: file.error)
            room = f" in {self._budgets.size_bytes:,} bytes" if sized else ""
            raise _cannot_be_met(
                self._name, f"max_error={limit:g}{room}", f"an error of {best.error:.4g}", f"max_error={_above(best.error)} or more"
            )
        size = self.file(narrowed, widened).size_bytes
        if sized and size > self._budgets.size_bytes:
            raise _cannot_be_met(
                self._name,
                f"max_error={limit:g} in {self._budgets.size_bytes:,} bytes",
                f"that error in {size:,} bytes, as layers of 16 bits take more",
                f"size_bytes={size} or more",
            )
        return narrowed, widened

    def _within_time(self, narrowed):
        budgets = self._budgets

        def fits(count):
            file = self.file(narrowed, count)
            return self._time(file) <= budgets.latency_ms and (budgets.size_bytes is None or file.size_bytes <= budgets.size_bytes)

        if fits(0):
            return narrowed, self._last(sum(path not in self._narrow[:narrowed] for path in self._wide), fits)
        return narrowed, 0

    def _time(self, file):
        if file.path not in self._times:
            self._times[file.path] = float(self._budgets.latency(file.path))
        return self._times[file.path]

    def _too_slow(self, took):
        fastest = min(self._times.values())
        return _cannot_be_met(
            self._name,
            f"latency_ms={self._budgets.latency_ms:g}",
            f"{took:.4g} ms; the fastest file took {fastest:.4g} ms",
            f"latency_ms={_above(fastest)} or more",
        )

    @staticmethod
    def _first(most, holds):
        """Returns the smallest number up to `most` for which a condition holds that, once it does, goes on to hold; None if it never does."""
        if holds(0):
            return 0
        if not holds(most):
            return None
        low, high = 0, most
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if holds(middle) else (middle, high)
        return high

    @staticmethod
    def _last(most, holds):
        """Returns the largest number up to `most` for which a condition holds that holds for 0 and, once it does not, never again."""
        if holds(most):
            return most
        low, high = 0, most
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if holds(middle) else (low, middle)
        return low


def _above(value):
    """A number a little above another, as text."""
    return f"{value * 1.005:.3g}" if float(f"{value * 1.005:.3g}") >= value else f"{value * 1.02:.3g}"


def _cannot_be_met(name, budget, closest, fix):
    return ModelError(f"No bits of the layers of '{name}' meet {budget}: the closest is {closest}.", "a budget that can be met", fix)
