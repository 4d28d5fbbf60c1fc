"""Teaches a student, compresses it step by step while the teacher goes on teaching, and exports the result."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras

from tfdistill.compress.step import Step
from tfdistill.convert.samples import MAX_CALIBRATION_SAMPLES, MIN_CALIBRATION_SAMPLES, collect
from tfdistill.convert.signature import describe
from tfdistill.convert.variants import VariantName, variant_named
from tfdistill.distill.cache.join import without_targets
from tfdistill.distill.chains.record import ChainRecord
from tfdistill.distill.chains.runner import ChainRunner
from tfdistill.distill.chains.settings import ChainSettings
from tfdistill.errors import ConfigurationError, DataError, ModelError
from tfdistill.graph.layers import loading_of
from tfdistill.tflite.destination import destination
from tfdistill.tflite.export import export_tflite
from tfdistill.tflite.export_record import ExportRecord
from tfdistill.utils.data import number_of_elements
from tfdistill.utils.types import Data, PathLike, Tensors

# Function of (steps per epoch, epochs) that makes a step for a training of that length.
StepMaker = Callable[[int, int], Step]


@dataclasses.dataclass(frozen=True)
class Road:
    """What `under_teacher` returns.

    Attributes:
        models: The student, and what `strip` of each step returned: one model for each training.
        record: `ChainRecord` with a `Generation` for each training, its metrics from `evaluate`.
        export: `ExportRecord` of the file; None without a path.

    Example:
        >>> settings = tfdistill.distill.ChainSettings(tfdistill.losses.SoftTargets(4.0), student_loss_weight=0.0)
        >>> road = tfdistill.under_teacher(teacher, student, [], settings, x)
        >>> road.model is student, road.export
        (True, None)
    """

    models: tuple[keras.Model, ...]
    record: ChainRecord
    export: ExportRecord | None

    @property
    def model(self) -> keras.Model:
        """The last of `models`: the compressed one; the student itself without steps."""
        return self.models[-1]

    def __str__(self) -> str:
        return str(self.record) if self.export is None else f"{self.record}\n{self.export}"


def under_teacher(
    teacher: Any,
    student: keras.Model,
    steps: Sequence[Step | StepMaker],
    settings: ChainSettings,
    x: Data,
    y: Tensors | None = None,
    validation_data: Data | None = None,
    *,
    step_settings: ChainSettings | Sequence[ChainSettings] | None = None,
    path: PathLike | None = None,
    variant: VariantName = "int8",
    verify_on: Data | None = None,
) -> Road:
    """Teaches a student, compresses it under the same teacher, and exports and verifies the result: all on one data set.

    The student is trained first. Then each step is applied, trained, stripped, and its invariant checked, now and after every later step. The ranges of
    quantization-aware training begin with those of 512 samples of the data.

    Args:
        teacher: The teacher, as `Distiller` takes it; a cache of its outputs with data that `cache.join` returned.
        student: A built Keras model. It is trained in place; the steps work on copies.
        steps: Compression steps in their order, quantization-aware training last; or functions of (steps per epoch, epochs) that make one, such as
            `functools.partial(Prune.for_training, sparsity=0.5)`.
        settings: `tfdistill.distill.ChainSettings` of the student's training: losses, optimizer, epochs.
        x: Inputs, or a dataset with labels, as `fit` takes them; no iterator, as it is read several times.
        y: Labels; None with a dataset, or without labels.
        validation_data: As `fit` takes it.
        step_settings: Settings of the trainings under the steps: one for all, or a list with one for each; None takes `settings`. A smaller
            learning rate and fewer epochs are usual.
        path: The .tflite file to write; None exports nothing.
        variant: Variant of the file. `x` shows an integer variant the ranges that no step has trained.
        verify_on: What the file is verified on; None takes `validation_data`, or the calibration data where that is None.

    Returns:
        A `Road`; `print(road)` shows its tables.

    Raises:
        ConfigurationError: if settings are no `ChainSettings`, or a step is none, or needs data, or there are not as many `step_settings` as steps, or the path or
            variant of the file is none.
        DataError: if the data is an iterator, or its length is unknown where a step is made for it, or it has less than 16 samples to calibrate with.
        ModelError, BridgeError, InvariantError, ExportError, VerificationError: as the steps and `export_tflite` raise them.

    Example:
        >>> from functools import partial
        >>> from tfdistill.compress import Prune, QuantizeAware
        >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        >>> settings = tfdistill.distill.ChainSettings(tfdistill.losses.SoftTargets(4.0), loss=loss, epochs=2, fit={"batch_size": 16})
        >>> steps = [partial(Prune.for_training, sparsity=0.5), QuantizeAware()]
        >>> road = tfdistill.under_teacher(teacher, student, steps, settings, x, y, path="road.tflite")
        >>> [generation.role for generation in road.record.generations], road.export.variant
        (['student', 'Prune', 'QuantizeAware'], 'int8')
    """
    _require_arguments(student, steps, path, variant)
    later = _for_each_step(step_settings, settings, len(steps))
    planned = [_step(step, x, own) for step, own in zip(steps, later, strict=True)]
    samples = without_targets(x) if y is None else (x, y)
    calibration = None
    if any(step.takes_calibration for step in planned):
        calibration = collect(samples, describe(student), "calibration", MIN_CALIBRATION_SAMPLES, MAX_CALIBRATION_SAMPLES).inputs
    models = [student]
    epochs = settings.epochs + sum(own.epochs for own in later)
    with ChainRunner("under_teacher", settings, (x, y, validation_data), 1 + len(planned), epochs) as runner:
        names = (getattr(teacher, "name", str(teacher)),)
        runner.distil(teacher, student, "student", names)
        for number, (step, own) in enumerate(zip(planned, later, strict=True)):
            wrapped = step.apply(models[-1], calibration) if step.takes_calibration else step.apply(models[-1])
            runner.distil(teacher, wrapped, type(step).__name__, names, **_under(step, own))
            models.append(step.strip(wrapped))
            for before in planned[: number + 1]:
                before.check(models[-1])
        record = runner.record()
    if path is None:
        return Road(tuple(models), record, None)
    checked = without_targets(validation_data) if verify_on is None else verify_on
    return Road(tuple(models), record, export_tflite(models[-1], path, variant, calibration=samples, verify_on=checked))


def _require_arguments(student, steps, path, variant):
    """Refuses before the training what the end of the road could not use."""
    if not isinstance(student, keras.Model):
        raise ModelError(f"The student is a {type(student).__name__}.", "a built keras.Model", loading_of(student))
    if not isinstance(steps, (list, tuple)):
        raise ConfigurationError(
            f"steps is a {type(steps).__name__}.", "a list of compression steps", "put it into a list, also if it is one: [step]"
        )
    if path is not None:
        destination(path)
        variant_named(variant)


def _for_each_step(given, settings, count):
    each = list(given) if isinstance(given, (list, tuple)) else [settings if given is None else given] * count
    for name, one in (("settings", settings), *(("step_settings", one) for one in each)):
        if not isinstance(one, ChainSettings):
            raise ConfigurationError(f"{name} is a {type(one).__name__}.", "a tfdistill.distill.ChainSettings")
    if len(each) != count:
        raise ConfigurationError(
            f"step_settings has {len(each)} settings for {count} steps.", "one for all, or a list with one for each step"
        )
    return each


def _step(step, x, settings):
    made = _made(step, x, settings)
    if made.needs_data:
        raise ConfigurationError(
            f"{made} takes data, and under_teacher gives steps the model alone.",
            "steps that need no data",
            "do this step yourself: apply(model, data), before under_teacher or on what it returns",
        )
    return made


def _made(step, x, settings):
    if isinstance(step, Step):
        return step
    if isinstance(step, type) or not callable(step):
        raise ConfigurationError(
            f"{step!r} is no step.",
            "a compression step, or a function of (steps per epoch, epochs) that makes one",
            "make one of the class with its settings, as in QuantizeAware() or functools.partial(Prune.for_training, sparsity=0.5)",
        )
    made = step(_steps_per_epoch(x, settings), settings.epochs)
    if not isinstance(made, Step):
        raise ConfigurationError(f"{step!r} returned {made!r}.", "a compression step")
    return made


def _steps_per_epoch(x, settings):
    given = settings.fit.get("steps_per_epoch")
    if given is not None:
        return given
    count = number_of_elements(x, settings.fit.get("batch_size", 32))
    if count in (None, 0, math.inf):
        raise DataError(
            "The number of batches of the dataset is unknown.",
            "a dataset of known length",
            "give fit={'steps_per_epoch': n} in the settings",
        )
    return count


def _under(step, settings):
    """Returns the settings of the training under a step, with the step's callbacks, as changes for `ChainRunner.distil`."""
    own = settings.fit.get("callbacks", list)
    changed = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    return {**changed, "fit": {**settings.fit, "callbacks": lambda: [*own(), *step.callbacks()]}}
