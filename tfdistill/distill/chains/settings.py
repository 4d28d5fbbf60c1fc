"""Settings that all trainings of a chain share."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras

from tfdistill.distill.objective.terms import make_terms
from tfdistill.errors import ConfigurationError
from tfdistill.utils import validate
from tfdistill.utils.data import DATASET, form_of
from tfdistill.utils.types import Data

# `fit` arguments that the functions of a chain take themselves.
_TAKEN = ("x", "y", "validation_data", "epochs", "self")


@dataclasses.dataclass(frozen=True)
class ChainSettings:
    """The settings of each training of a chain: the arguments of `Distiller`, `compile` and `fit` that all trainings share.

    Attributes:
        losses: Distillation losses, as `Distiller` takes them.
        weights: Their weights, as `Distiller` takes them.
        student_loss_weight: Share of the loss on the labels, from 0 to 1.
        optimizer: Function without arguments that makes a new optimizer; each training gets its own.
        loss: Loss on the labels; may be None only where `student_loss_weight` is 0.
        metrics: Metrics of each student: names, functions or metric objects (each training gets copies).
        epochs: Number of epochs of each training, at least 1.
        fit: Further arguments of `fit`, such as `batch_size` or `sample_weight`. Callbacks have a state, so "callbacks" is a function
            without arguments that makes a new list. "verbose" is 0 where it is not given.
        compile: Further arguments of `compile`, such as `jit_compile` or `steps_per_execution`.

    Raises:
        ConfigurationError: if settings contradict each other or are out of range.

    Example:
        >>> settings = tfdistill.distill.ChainSettings(
        ...     tfdistill.losses.SoftTargets(4.0),
        ...     student_loss_weight=0.1,
        ...     optimizer=lambda: keras.optimizers.Adam(1e-3),
        ...     loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        ...     epochs=2,
        ...     fit={"batch_size": 16},
        ... )
        >>> record = tfdistill.assistants(teacher, [student], settings, x, y)
        >>> record.generations[0].epochs
        2
    """

    losses: Any
    weights: Any = None
    student_loss_weight: float = 0.5
    optimizer: Callable[[], Any] = keras.optimizers.Adam
    loss: Any = None
    metrics: Sequence[Any] = ()
    epochs: int = 1
    fit: dict[str, Any] = dataclasses.field(default_factory=dict)
    compile: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        make_terms(self.losses, self.weights)
        weight = self.student_loss_weight
        validate.share("student_loss_weight", weight)
        if self.loss is None and weight > 0:
            raise ConfigurationError(
                f"loss is None, but student_loss_weight is {weight}.", "the loss on the labels, or student_loss_weight=0"
            )
        if not callable(self.optimizer) or isinstance(self.optimizer, keras.optimizers.Optimizer):
            raise ConfigurationError(
                f"optimizer is {self.optimizer!r}.",
                "a function that makes a new optimizer for each training",
                "for example optimizer=lambda: keras.optimizers.Adam(1e-3)",
            )
        validate.whole_number("epochs", self.epochs)
        if not isinstance(self.metrics, (list, tuple)):
            raise ConfigurationError(f"metrics is {self.metrics!r}.", "a list of metrics")
        taken = sorted(set(self.fit) & set(_TAKEN))
        if taken:
            raise ConfigurationError(
                f"fit has {taken}.", f"none of {list(_TAKEN[:-1])}", "give data to the chain's function, and epochs by the setting"
            )
        if "callbacks" in self.fit and not callable(self.fit["callbacks"]):
            raise ConfigurationError(
                "fit has callbacks whose state would pass from one training to the next.", "a function that makes a new list"
            )
        taken = sorted(set(self.compile) & {"optimizer", "loss", "metrics"})
        if taken:
            raise ConfigurationError(f"compile has {taken}.", "further arguments only", "give them by the settings of these names")
        object.__setattr__(self, "metrics", tuple(self.metrics))
        object.__setattr__(self, "fit", dict(self.fit))
        object.__setattr__(self, "compile", dict(self.compile))

    def compile_arguments(self) -> dict[str, Any]:
        """Returns the arguments of one `compile`: a new optimizer, and new copies of metrics."""
        metrics = [type(m).from_config(m.get_config()) if isinstance(m, keras.metrics.Metric) else m for m in self.metrics]
        return {**self.compile, "optimizer": self.optimizer(), "loss": self.loss, "metrics": metrics}

    def fit_arguments(self, advance: Callable[[], Any], x: Data) -> dict[str, Any]:
        """Returns the arguments of one `fit` on `x`, without the data; `advance` is called after each epoch."""
        own = self.fit.get("callbacks", list)()
        progress = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: advance())
        # Keras shuffles by default, and warns that it cannot where a Dataset does so itself.
        order = {"shuffle": False} if form_of(x) == DATASET else {}
        return {"verbose": 0, **order, **self.fit, "epochs": self.epochs, "callbacks": [*own, progress]}

    def evaluate_arguments(self) -> dict[str, Any]:
        """Returns the arguments of `evaluate`, without the data."""
        return {"verbose": 0, "return_dict": True, **{k: v for k, v in self.fit.items() if k == "batch_size"}}
