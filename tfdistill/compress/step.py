"""The protocol of every compression step, and the plan that it makes before it touches a model."""

import abc
import warnings

import numpy as np

from tfdistill.bridge.adopt import introspection
from tfdistill.compress import kernels
from tfdistill.errors import ConfigurationError

AUTO = "auto"
NO_KERNEL = "has no kernel"
FROZEN = "frozen"


class Step(abc.ABC):
    """One compression step: frozen settings and five verbs.

    Steps are frozen dataclasses that refuse contradictory settings when they are made. They hold no state of any model, so one step may serve
    many. The order of use is `plan`, `apply`, training with `callbacks()`, `strip`, `check`; and `check` again after each later step.
    """

    @abc.abstractmethod
    def plan(self, model):
        """Says what would be done to `model`, layer by layer, and changes nothing.

        Args:
            model: A built Keras 3 model, or an `AdoptedModel`.

        Returns:
            A `Plan`.
        """

    @abc.abstractmethod
    def apply(self, model):
        """Returns a new model, ready to be trained under this step. `model` is left as it was.

        A model class's own `train_step`, `compute_loss` and the like are not carried over; a `UserWarning` names them.

        Args:
            model: A built Keras 3 model, or an `AdoptedModel`.

        Returns:
            An `AdoptedModel` with the same weights.

        Raises:
            ModelError: if there is nothing to do, or a layer that was named cannot be treated.
            BridgeError: if the model cannot be converted exactly, or `strip` could not convert it back.
        """

    def callbacks(self):
        """Returns the Keras 3 callbacks that training under this step needs, for `adopted.fit` or a Distiller's `fit`."""
        return []

    @abc.abstractmethod
    def strip(self, model):
        """Takes the step's scaffolding off a trained model.

        Args:
            model: The `AdoptedModel` that `apply` returned, after training.

        Returns:
            A plain Keras 3 model, or an `AdoptedModel` without wrappers where `apply` got a tf_keras model; for quantization-aware training the adopted
            model itself, as the ranges are what the export needs.

        Raises:
            ModelError: if the model does not carry this step.
            BridgeError: if no Keras 3 model can be made of the trained weights. They are saved in a file first, which the message names.
        """

    @abc.abstractmethod
    def check(self, model):
        """Asserts what the step promised, on its own result or on that of any later step.

        Args:
            model: An `AdoptedModel` or a Keras 3 model.

        Raises:
            InvariantError: naming the layers and their figures.
        """


def why_no_kernel(layer):
    """Says why no kernel is found in a layer: `NO_KERNEL`, or that its class is not known."""
    kind = introspection.kind_of(layer)
    without = not kernels.parameters(layer) or kind in kernels.NORMALIZATIONS
    return NO_KERNEL if without else f"no kernel is known in a {kind}"


def frozen_note(layer, what):
    """Returns a list with a remark for the plan if a live layer is frozen, an empty one if it is not.

    Args:
        layer: Live layer, wrapped or not.
        what: What follows from that.
    """
    return [f"{FROZEN}, {what}"] if not layer.trainable and kernels.parameters(layer) else []


def warn_of_frozen(step, model_name, layers, done, named):
    """Warns that a step changes the weights of frozen layers, which no training will make up for; layers that the user named outright are left out.

    Args:
        step: Name of the step and what it does: `"Prune makes zeros"`.
        model_name: Name of the model.
        layers: Dict of path to live layer.
        done: Paths of the layers that the step changes.
        named: Paths of those that the user named outright.
    """
    frozen = [path for path in layers if path in done and path not in named and not layers[path].trainable]
    if frozen:
        shown = ", ".join(f"'{path}'" for path in frozen[:5]) + (f" and {len(frozen) - 5} more" if len(frozen) > 5 else "")
        warnings.warn(
            f"{step} in frozen layers of '{model_name}' (trainable=False), which no training makes up for: {shown}. "
            f"To leave them as they are, give exclude={frozen[:5]!r}; to do it all the same without this warning, name them in layers=.",
            UserWarning,
            stacklevel=3,
        )


def is_whole(value, least):
    """Whether a setting is a whole number of at least `least`."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= least


def require_auto_or_bool(step, *settings):
    """Refuses settings of a step that are not `"auto"`, True or False.

    Raises:
        ConfigurationError: naming the setting and its value.
    """
    for name in settings:
        value = getattr(step, name)
        if not isinstance(value, bool) and value != AUTO:
            raise ConfigurationError(f"{name}={value!r}.", "'auto', True or False")
