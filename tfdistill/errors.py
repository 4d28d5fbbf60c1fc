"""The exceptions of tfdistill.

Every message says what happened, what was expected and how to fix it. All exceptions derive from `TfdistillError`. Those that Python has a
built-in class for (`ValueError`, `ImportError`) derive from it as well, so code that catches the built-in class keeps working.
"""

from __future__ import annotations

import difflib


class TfdistillError(Exception):
    """Base class of every exception of this library.

    Args:
        happened: What went wrong, with the names and values of the call in it.
        expected: What is accepted instead. Optional; a line `Expected: ...` of the message.
        fix: What to do about it. Optional; a line `Fix: ...` of the message.

    Attributes:
        happened: As given.
        expected: As given.
        fix: As given.

    Example:
        >>> try:
        ...     tfdistill.census("missing.tflite")
        ... except tfdistill.errors.TfdistillError as error:
        ...     print(error.happened)
        There is no file 'missing.tflite'.
    """

    def __init__(self, happened: str, expected: str | None = None, fix: str | None = None) -> None:
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
    """Arguments contradict each other or lie outside their range."""


class ModelError(TfdistillError, ValueError):
    """A model cannot be used here: it is not built, its outputs do not match, or it lacks a named layer."""


class DataError(TfdistillError, ValueError):
    """Data cannot be used: it is empty, too small, of the wrong shape, or holds NaN."""


class BridgeError(TfdistillError, ValueError):
    """A Keras 3 model cannot be rebuilt in tf_keras, or its copy computes something else."""


class InvariantError(TfdistillError, AssertionError):
    """A property that a compression step guarantees (zeros, clusters, rank) no longer holds."""


class ExportError(TfdistillError, RuntimeError):
    """A conversion failed, or its file is not of the requested kind."""


class VerificationError(TfdistillError, AssertionError):
    """A .tflite file does not compute what its Keras model computes."""


class RuntimeUnavailableError(TfdistillError, RuntimeError):
    """An interpreter, accelerator or delegate is not installed or does not run."""


class BenchmarkError(TfdistillError, RuntimeError):
    """A measurement could not be made."""


class DelegationError(BenchmarkError):
    """An accelerator did not run what it was to be measured with: operations ran on the CPU in its place."""


class BudgetExceededError(TfdistillError, RuntimeError):
    """The call budget of a remote teacher is used up; the outputs so far are kept."""


class MissingPackageError(TfdistillError, ImportError):
    """An optional package is not installed."""


def nearest(name, candidates, count=3):
    """Suggests which of `candidates` the caller may have meant by `name`.

    Args:
        name: The string that was not found.
        candidates: Iterable of the strings that exist.
        count: Largest number of suggestions.

    Returns:
        A sentence to append to an error: the nearest names, or the first of those that exist when none is near.
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
