"""The protocol of every compression step, and what the steps share in their settings, plans and warnings."""

import abc
import dataclasses
import typing
import warnings

import keras

from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.adopt.adopt import AdoptedModel
from tfdistill.compress import kernels
from tfdistill.compress.plan import Plan
from tfdistill.compress.rebuild import refuse_distiller
from tfdistill.compress.selection import selectors
from tfdistill.errors import ModelError
from tfdistill.utils import validate

AUTO: typing.Final = "auto"
# Type of a setting that is True, False, or decided by what the model holds.
AutoOrBool = bool | typing.Literal["auto"]
NO_KERNEL = "has no kernel"
FROZEN = "frozen"


class Step(abc.ABC):
    """One compression step: frozen settings, and the five methods that every step has.

    Steps are frozen dataclasses; contradictory settings are refused when a step is made. A step holds no state of any model, so one step may serve
    many. The order of use is `plan`, `apply`, training with `callbacks()`, `strip`, `check`; and `check` again after each later step.

    Example:
        >>> step = tfdistill.compress.Cluster(4)
        >>> isinstance(step, tfdistill.compress.Step)
        True
        >>> clustered = step.apply(student)
        >>> clustered.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> history = clustered.fit(x, y, epochs=1, verbose=0, callbacks=step.callbacks())
        >>> smaller = step.strip(clustered)
        >>> step.check(smaller)
        >>> len(np.unique(smaller.get_layer("conv").kernel))
        4
    """

    def __repr__(self) -> str:
        # What was not set would hide what was.
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.repr}  # type: ignore[arg-type]
        defaults = {field.name: field.default for field in dataclasses.fields(self)}  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in given.items() if value != defaults[name])})"

    @property
    def needs_data(self) -> bool:
        """Whether `apply` takes data beside the model: to calibrate with, or to score channels on."""
        return False

    @property
    def takes_calibration(self) -> bool:
        """Whether `apply` takes calibration data that it can do without."""
        return False

    @abc.abstractmethod
    def plan(self, model: keras.Model) -> Plan:
        """Lists layer by layer what the step would do to `model`. The model is not changed.

        Args:
            model: A built Keras 3 model, or an `AdoptedModel`.

        Returns:
            A `Plan`.
        """

    @abc.abstractmethod
    def apply(self, model: keras.Model) -> keras.Model:
        """Returns a new model, ready to be trained under this step. `model` is not changed.

        A model class's own `train_step`, `compute_loss` and the like are not carried over; a `UserWarning` names them.

        Args:
            model: A built Keras 3 model, or an `AdoptedModel`.

        Returns:
            An `AdoptedModel` with the same weights; of `PruneChannels` and `LowRank` a smaller Keras 3 model.

        Raises:
            ModelError: if there is nothing to do, or the step does not work on a layer that was named.
            BridgeError: if the model cannot be converted exactly, or `strip` could not convert it back.
        """

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """Returns the Keras 3 callbacks that training under this step needs, for `adopted.fit` or a Distiller's `fit`."""
        return []

    @abc.abstractmethod
    def strip(self, model: AdoptedModel) -> keras.Model:
        """Removes the step's wrappers from a trained model.

        Args:
            model: The `AdoptedModel` that `apply` returned, after training.

        Returns:
            A plain Keras 3 model, or an `AdoptedModel` without wrappers where `apply` got a tf_keras model. For quantization-aware training it is the adopted
            model itself, as export needs its ranges.

        Raises:
            ModelError: if the step was not applied to the model.
            BridgeError: if no Keras 3 model can be made of the trained weights. They are saved in a file first, which the message names.
        """

    @abc.abstractmethod
    def check(self, model: keras.Model) -> None:
        """Checks that the weights have the structure that the step gives them, in its own result or in that of any later step.

        Args:
            model: An `AdoptedModel` or a Keras 3 model.

        Raises:
            InvariantError: naming the layers and their figures.
        """


def why_no_kernel(layer):
    """Returns the reason why no kernel is found in a layer: `NO_KERNEL`, or that its class is not known."""
    kind = introspection.kind_of(layer)
    without = not kernels.parameters(layer) or kind in kernels.NORMALIZATIONS
    return NO_KERNEL if without else f"no kernel is known in a {kind}"


def why_left_out(setting, value):
    """Returns the reason in the plan of a layer that was not selected.

    Args:
        setting: Name of the setting that selects layers if it is a dict.
        value: Its value.
    """
    return f"left out by {setting if isinstance(value, dict) else 'layers'}= or exclude="


def frozen_note(layer, consequence):
    """Returns a list with a remark for the plan if a live layer is frozen, an empty one if it is not.

    Args:
        layer: Live layer, wrapped or not.
        consequence: What follows from that.
    """
    return [f"{FROZEN}, {consequence}"] if not layer.trainable and kernels.parameters(layer) else []


def warn_of_frozen(effect, model_name, layers, done, named):
    """Warns that a step changes the weights of frozen layers, for which no training compensates. Layers that the user named outright are not listed.

    Args:
        effect: Name of the step and what it does: `"Prune makes zeros"`.
        model_name: Name of the model.
        layers: Dict of path to live layer.
        done: Paths of the layers that the step changes.
        named: Paths of those that the user named outright.
    """
    frozen = [path for path in layers if path in done and path not in named and not layers[path].trainable]
    if frozen:
        shown = ", ".join(f"'{path}'" for path in frozen[:5]) + (f" and {len(frozen) - 5} more" if len(frozen) > 5 else "")
        warnings.warn(
            f"{effect} in frozen layers of '{model_name}' (trainable=False), which no training makes up for: {shown}. "
            f"To leave them as they are, give exclude={frozen[:5]!r}; to do it all the same without this warning, name them in layers=.",
            UserWarning,
            stacklevel=3,
        )


def require_applied(model, wrapped, without, step):
    """Refuses a model that is not what a step's `apply` returned.

    Args:
        model: What `strip` got.
        wrapped: Function of an `AdoptedModel` that lists the step's wrappers in it.
        without: What the error says of a model without them: `"carries no pruning"`.
        step: Name of the step.

    Raises:
        ModelError: if `model` is no `AdoptedModel` or has no such wrappers.
    """
    if not isinstance(model, AdoptedModel) or not wrapped(model):
        refuse_distiller(model)
        if not isinstance(model, keras.Model):
            raise ModelError(f"{step}.strip got a {type(model).__name__}.", f"the model that {step}.apply returned")
        raise ModelError(
            f"'{model.name}' {without}.",
            f"the model that {step}.apply returned, after training",
            "a model without the wrappers of the step needs no strip: use it as it is",
        )


def set_selectors(step):
    """Gives the settings `layers` and `exclude` of a new step the form that `select` takes.

    Raises:
        ConfigurationError: if one of them selects no layers.
    """
    for name in ("layers", "exclude"):
        object.__setattr__(step, name, selectors(getattr(step, name), name))


def require_auto_or_bool(step, *settings):
    """Refuses settings of a step that are not `"auto"`, True or False.

    Raises:
        ConfigurationError: naming the setting and its value.
    """
    for name in settings:
        validate.one_of(name, getattr(step, name), (AUTO, True, False))
