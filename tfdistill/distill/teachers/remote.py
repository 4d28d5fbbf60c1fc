"""Remote teachers, such as an API: retries, rate limit and call budget."""

import dataclasses
import time
import typing
from collections.abc import Callable

import numpy as np

from tfdistill.errors import BudgetExceededError, ConfigurationError, DataError
from tfdistill.utils import validate


@dataclasses.dataclass(frozen=True)
class RetryPolicy:
    """How often and how fast a `RemoteTeacher` is called.

    Attributes:
        retries: How often a failed call is repeated, at least 0.
        wait_seconds: Pause before the first retry, in seconds; it doubles with each further one.
        longest_wait_seconds: Longest such pause.
        calls_per_second: Highest rate of calls, retries counted; None for no limit.
        budget: Largest number of calls that one `RemoteTeacher` object makes, retries counted; None for no limit.
        retry_on: Exceptions after which a call is repeated; others are raised at once.

    Raises:
        ConfigurationError: if a value is out of its range.

    Example:
        >>> policy = tfdistill.RetryPolicy(retries=2, calls_per_second=5.0, budget=1000, retry_on=(ConnectionError, TimeoutError))
        >>> policy.budget
        1000
    """

    retries: int = 4
    wait_seconds: float = 1.0
    longest_wait_seconds: float = 60.0
    calls_per_second: float | None = None
    budget: int | None = None
    retry_on: tuple[type[Exception], ...] | type[Exception] = (Exception,)

    def __post_init__(self):
        for name, least in (("retries", 0), ("budget", 1)):
            if getattr(self, name) is not None:
                validate.whole_number(name, getattr(self, name), at_least=least, owner="RetryPolicy")
        for name in ("wait_seconds", "longest_wait_seconds"):
            validate.number(name, getattr(self, name), at_least=0, owner="RetryPolicy")
        if self.calls_per_second is not None:
            validate.positive_number("calls_per_second", self.calls_per_second, owner="RetryPolicy")
        kinds = self.retry_on if isinstance(self.retry_on, tuple) else (self.retry_on,)
        if not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds):
            raise ConfigurationError(f"RetryPolicy: retry_on is {self.retry_on!r}.", "a tuple of exception classes")
        object.__setattr__(self, "retry_on", kinds)


class RemoteTeacher:
    """A teacher behind a function that may fail, such as an API or another program. `soft_targets` stores its outputs.

    Args:
        function: Takes a batch of inputs as NumPy arrays `(batch, ...)`, in the structure of the data set; returns an array `(batch, ...)`,
            or a list or dict of them. Raises when it fails.
        identity: Text that names the teacher and changes whenever its outputs do ("large-model, 2025-03, prompt 2"). A cache of its outputs
            is recognized by it.
        policy: `RetryPolicy`; None for the default one.
        clock: Function that returns the time in seconds, for tests.
        sleep: Function that waits for a number of seconds, for tests.

    Raises:
        ConfigurationError: if `function` is not callable, or `identity` is empty.

    Example:
        >>> def request(images):  # in real use, a call of an API
        ...     return np.tile(images.mean((1, 2, 3))[:, None], (1, 10))
        >>> remote = tfdistill.RemoteTeacher(request, "large-model, 2025-03", tfdistill.RetryPolicy(retries=2))
        >>> remote(x).shape, remote.calls
        ((64, 10), 1)
    """

    def __init__(
        self,
        function: Callable[[typing.Any], typing.Any],
        identity: str,
        policy: RetryPolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], typing.Any] = time.sleep,
    ):
        if not callable(function):
            raise ConfigurationError(f"RemoteTeacher: function is {function!r}.", "a function of a batch")
        if not isinstance(identity, str) or not identity.strip():
            raise ConfigurationError(f"RemoteTeacher: identity is {identity!r}.", "a text that says which teacher this is")
        self.function, self.identity = function, identity
        self.policy = policy or RetryPolicy()
        self.calls = 0
        self._clock, self._sleep = clock, sleep
        self._earliest: float | None = None

    @property
    def name(self) -> str:
        """The identity, under the name that models have for it."""
        return self.identity

    def __call__(self, inputs: typing.Any) -> typing.Any:
        """Calls the function on one batch, with retries.

        Args:
            inputs: Batch of arrays, in the structure that `function` takes.

        Returns:
            What `function` returns.

        Raises:
            BudgetExceededError: if no call is left.
            DataError: if every call failed, with the last failure as its cause.
        """
        policy = self.policy
        attempt = 0
        while True:
            if policy.budget is not None and self.calls >= policy.budget:
                raise BudgetExceededError(
                    f"The teacher '{self.identity}' was called {self.calls} times, which is its whole budget.",
                    fix="run again with another RemoteTeacher of this identity to go on from here: finished shards are kept",
                )
            self._wait_for_rate()
            self.calls += 1
            try:
                return self.function(inputs)
            except policy.retry_on as error:
                if attempt == policy.retries:
                    raise DataError(
                        f"The teacher '{self.identity}' failed {attempt + 1} times in a row; the last time with {type(error).__name__}: {error}",
                        "an answer",
                        "run again to go on from here: finished shards are kept",
                    ) from error
            self._sleep(min(policy.longest_wait_seconds, policy.wait_seconds * 2.0 ** min(attempt, 60)))
            attempt += 1

    def _wait_for_rate(self):
        if self.policy.calls_per_second is None:
            return
        now = self._clock()
        if self._earliest is not None and now < self._earliest:
            self._sleep(self._earliest - now)
            now = self._earliest
        self._earliest = now + 1.0 / self.policy.calls_per_second


def checked_outputs(outputs, rows, teacher):
    """Returns the outputs of a remote teacher as a structure of arrays.

    Raises:
        DataError: if it is no array, or has another number of rows than the batch.
    """
    import keras

    try:
        arrays = keras.tree.map_structure(np.asarray, outputs)
    except ValueError as error:
        raise DataError(f"The teacher '{teacher}' answered something that is no array: {error}", "an array (batch, ...)") from error
    for value in keras.tree.flatten(arrays):
        if value.dtype.kind not in "fiu" and "float" not in value.dtype.name:
            raise DataError(f"The teacher '{teacher}' answered with values of type {value.dtype}.", "numbers")
        if value.ndim < 1 or len(value) != rows:
            raise DataError(f"The teacher '{teacher}' answered a batch of {rows} with the shape {value.shape}.", f"({rows}, ...)")
    return arrays
