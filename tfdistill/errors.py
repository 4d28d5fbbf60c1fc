"""The exceptions of tfdistill.

Every message answers three questions: what happened, what was expected, and how to fix it. All of them derive from `TfdistillError`; those
that a caller would look for under a built-in name (`ValueError`, `ImportError`) derive from it as well, so code written for Keras keeps working.
"""

import difflib


class TfdistillError(Exception):
    """Base of every error of this library.

    Args:
        happened: What went wrong, with the caller's own names and values in it.
        expected: What would have been right. Optional.
        fix: What to do about it. Optional.
    """

    def __init__(self, happened, expected=None, fix=None):
        self.happened, self.expected, self.fix = happened, expected, fix
        parts = [happened]
        if expected:
            parts.append(f"Expected: {expected}")
        if fix:
            parts.append(f"Fix: {fix}")
        super().__init__("\n".join(parts))

    def __reduce__(self):
        return type(self), (self.happened, self.expected, self.fix)


class ConfigurationError(TfdistillError, ValueError):
    """Arguments that contradict each other or lie outside their range."""


class ModelError(TfdistillError, ValueError):
    """A model that does not fit its place: unbuilt, mismatched outputs, unknown layer."""


class DataError(TfdistillError, ValueError):
    """Data that cannot be used: NaN, empty, too small, of the wrong shape."""


class BridgeError(TfdistillError, ValueError):
    """A Keras 3 model that cannot be rebuilt in tf_keras, or whose copy computes something else."""


class InvariantError(TfdistillError, AssertionError):
    """A compression step's promise (zeros, clusters, rank) that no longer holds."""


class ExportError(TfdistillError, RuntimeError):
    """A conversion that failed, or whose file is not what was asked for."""


class VerificationError(TfdistillError, AssertionError):
    """A file that was written but does not compute what its Keras model computes."""


class RuntimeUnavailableError(TfdistillError, RuntimeError):
    """An interpreter, accelerator or delegate that is not there or did not run."""


class BenchmarkError(TfdistillError, RuntimeError):
    """A measurement that could not be made."""


class BudgetExceededError(TfdistillError, RuntimeError):
    """The calls that a remote teacher may be asked for are used up; the answers so far are kept."""


class MissingPackageError(TfdistillError, ImportError):
    """An optional package that is not installed."""


def nearest(name, candidates, count=3):
    """Says which of `candidates` the caller may have meant by `name`.

    Args:
        name: The string that was not found.
        candidates: Iterable of the strings that exist.
        count: Largest number of suggestions.

    Returns:
        A sentence to put after an error: the nearest names, or some of those that exist when none is near.
    """
    candidates = list(candidates)
    if not candidates:
        return "There are none."
    folded = {}
    for candidate in candidates:
        folded.setdefault(candidate.lower(), candidate)
    close = difflib.get_close_matches(name.lower(), list(folded), n=count, cutoff=0.5)
    if close:
        return "Nearest: " + ", ".join(f"'{folded[c]}'" for c in close) + "."
    shown = ", ".join(f"'{c}'" for c in candidates[:12])
    return f"There are: {shown}{', ...' if len(candidates) > 12 else ''}."
