"""What a soft-target cache keeps of a teacher's outputs, and in what portions."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from tfdistill.distill.cache.format import FLOATS
from tfdistill.errors import ConfigurationError
from tfdistill.utils import validate

TEMPERATURES = (1.0, 2.0, 4.0)


@dataclasses.dataclass(frozen=True)
class CacheOptions:
    """What `soft_targets` and `label_with_ray` keep of a teacher's outputs, and in what portions.

    Attributes:
        layers: Names or paths of layers whose outputs are kept besides the final ones. Their size is printed before anything is written.
        dtype: Type of the numbers in the files: "float32" (exact), "bfloat16" (a relative error of at most 2**-8) or "float16" with a scale
            for each tensor of each element: a relative error of at most 2**-11 for numbers of at least 2**-28 of the largest magnitude in
            the same tensor of the same element, for smaller ones an error of at most 2**-39 of that magnitude; the largest number is 65504.
        top_k: Number of largest logits kept of each final output `(batch, ..., classes)`, with the log-sum-exp of the other logits; None
            keeps all. `tfdistill.losses.SoftTargets` works with these; other losses refuse them.
        temperatures: With `top_k`, the temperatures, above 0, for which the log-sum-exp of the other logits is kept. Training at another
            temperature is refused.
        views: Number of augmented views of each element for which the teacher is run (consistent teaching, Beyer et al. 2022, arXiv
            2106.05237).
        augment: Function `(x, seed)` of one element's inputs (without batch axis) and an int32 tensor of shape (2,). It is stateless: equal
            arguments give equal results. Training draws one of the views, and gives the student what the teacher saw.
        batch_size: Number of elements in a batch of the teacher. None stands for 256, for a `RemoteTeacher` for 32.
        shard_elements: Number of elements in a file, rounded up to whole batches: the work that a killed run repeats. None stands for at
            most 8192 elements and 4 MiB, for a `RemoteTeacher` for one batch. `label_with_ray` has `num_shards` instead.

    Raises:
        ConfigurationError: if a value is out of its range, or there are views without `augment`.

    Example:
        >>> options = tfdistill.CacheOptions(layers=["pool"], dtype="float32", batch_size=32)
        >>> cache = tfdistill.soft_targets(teacher, x, "cache", options, log_fn=lambda text: None)
        >>> list(cache.named_layers())
        ['pool']
        >>> tfdistill.CacheOptions(top_k=5).temperatures
        (1.0, 2.0, 4.0)
    """

    layers: Sequence[str] = ()
    dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    top_k: int | None = None
    temperatures: Sequence[float] = TEMPERATURES
    views: int = 1
    augment: Callable[[Any, Any], Any] | None = None
    batch_size: int | None = None
    shard_elements: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.layers, str):
            raise ConfigurationError(f"layers is {self.layers!r}.", "a list of names or paths", f"layers=[{self.layers!r}]")
        object.__setattr__(self, "layers", tuple(self.layers or ()))
        if self.dtype not in FLOATS:
            raise ConfigurationError(f"dtype is {self.dtype!r}.", f"one of {FLOATS}")
        for name in ("top_k", "views", "batch_size", "shard_elements"):
            value = getattr(self, name)
            if value is not None or name == "views":
                validate.whole_number(name, value)
        if self.views > 1 and self.augment is None:
            raise ConfigurationError(
                f"views is {self.views}, but without augment all views are the same.", "augment=f(x, seed), or views=1"
            )
        if self.augment is not None and not callable(self.augment):
            raise ConfigurationError(f"augment is {self.augment!r}.", "a function of one element and a seed")
        temperatures = tuple(self.temperatures or ())
        if (self.top_k and not temperatures) or not all(_is_temperature(t) for t in temperatures):
            raise ConfigurationError(f"temperatures is {self.temperatures!r}.", "at least one number above 0")
        object.__setattr__(self, "temperatures", tuple(map(float, temperatures)))


def checked_options(options: CacheOptions | None) -> CacheOptions:
    """Returns the options, or the default ones for None.

    Raises:
        ConfigurationError: if they are of another class.
    """
    if options is None:
        return CacheOptions()
    if not isinstance(options, CacheOptions):
        raise ConfigurationError(
            f"options is a {type(options).__name__}.", "a tfdistill.CacheOptions", "options=tfdistill.CacheOptions(...)"
        )
    return options


def _is_temperature(value):
    return validate.is_number(value) and 0 < value < math.inf
