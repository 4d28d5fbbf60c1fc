"""A function of NumPy arrays as a teacher."""

from __future__ import annotations

import collections.abc
import typing

import keras

from tfdistill.distill.teachers.black_box import BlackBox
from tfdistill.errors import ConfigurationError, ModelError
from tfdistill.saveable import checks_config
from tfdistill.utils.types import Config


@keras.saving.register_keras_serializable(package="tfdistill")
class CallableTeacher(BlackBox):
    """A function of NumPy arrays as a teacher: another framework's model, a program, an API. Its weights are never seen.

    For a function that returns probabilities, use `SoftTargets(teacher_outputs="probabilities")`.

    A Distiller with such a teacher can be saved if the function is registered with `keras.saving.register_keras_serializable()`, or is an
    object of a registered class with `get_config` and `from_config`. Otherwise saving it is an error; the student alone can always be
    saved.

    A function that itself runs TensorFlow functions, such as another model's `predict`, needs a second thread beside the one that runs the training step: on a
    machine of one core, training says what to set.

    Args:
        function: Takes one batch as NumPy arrays `(batch, ...)` in the structure that the Distiller is trained on, returns an array
            `(batch, ...)` of finite numbers, or a dict of output name to array. Calls never overlap.
        output_shape: Shape of its output without the batch axis, `(classes,)`, or a dict of output name to shape. None finds it with the
            first batch of `fit`.
        name: Name of the model. Defaults to the function's.

    Raises:
        ConfigurationError: if `function` is not callable, or `output_shape` is no shape.

    Example:
        >>> weights = np.random.default_rng(0).normal(size=(64, 10))
        >>> linear = tfdistill.distill.CallableTeacher(lambda images: images.reshape(-1, 64) @ weights, output_shape=(10,), name="linear")
        >>> linear(x).shape
        TensorShape([64, 10])
    """

    def __init__(
        self,
        function: collections.abc.Callable[[typing.Any], typing.Any],
        output_shape: tuple[int | None, ...] | dict[str, tuple[int | None, ...]] | None = None,
        name: str | None = None,
    ):
        if not callable(function) or isinstance(function, type):
            raise ConfigurationError(f"The teacher function is {function!r}.", "a function of a batch")
        shapes = None if output_shape is None else _checked_shapes(output_shape)
        own_name = getattr(function, "__name__", type(function).__name__)
        super().__init__("callable", name or ("teacher_function" if own_name == "<lambda>" else own_name), shapes)
        # Keras must not track it: variables of an object that holds some are no part of this model.
        object.__setattr__(self, "function", function)

    def run(self, inputs: typing.Any) -> typing.Any:
        """Calls the function.

        Args:
            inputs: One batch as NumPy arrays `(batch, ...)`, in the structure of the training data.

        Returns:
            Array `(batch, ...)`, or a dict of output name to array.
        """
        return self.function(inputs)

    def get_config(self) -> Config:
        """Returns what `from_config` takes.

        Raises:
            ConfigurationError: if the function is not registered with Keras.
        """
        found = self.function if hasattr(self.function, "__name__") else type(self.function)
        registered = keras.saving.get_registered_object(keras.saving.get_registered_name(found)) is found
        if not registered or (found is not self.function and not (hasattr(found, "get_config") and hasattr(found, "from_config"))):
            raise ConfigurationError(
                f"The teacher '{self.name}' is a callable that loading could not find, so what holds it cannot be saved.",
                "a function, or a class with get_config and from_config, decorated with @keras.saving.register_keras_serializable()",
                "register it, or save the student alone: distiller.student.save(...)",
            )
        shapes = self._box.shapes
        return {
            "name": self.name,
            "function": keras.saving.serialize_keras_object(self.function),
            "output_shape": {n: list(s) for n, s in shapes.items()} if isinstance(shapes, dict) else shapes and list(shapes),
        }

    @classmethod
    @checks_config
    def from_config(cls, config: Config) -> CallableTeacher:
        """Makes the teacher of what `get_config` returned. Its function must be registered with Keras, or be one of the `custom_objects`.

        Args:
            config: The dict.

        Raises:
            ModelError: if the function is not registered, or the config is damaged.
        """
        saved = config.get("function")
        entry = saved if isinstance(saved, dict) else {}
        name = entry.get("config") if entry.get("class_name") == "function" else entry.get("registered_name")
        if not isinstance(name, str) or keras.saving.get_registered_object(name) is None:
            raise ModelError(
                f"The teacher '{config.get('name')}' is the function {name!r}, which is not registered.",
                "a function or class decorated with @keras.saving.register_keras_serializable()",
                "import the module that defines it before loading",
            )
        return cls(**{**config, "function": keras.saving.deserialize_keras_object(saved)})


def _checked_shapes(output_shape):
    """Returns a shape, or a dict of name to shape, as tuples; the names are sorted."""
    named = isinstance(output_shape, collections.abc.Mapping)
    for shape in output_shape.values() if named else [output_shape]:
        if not isinstance(shape, (tuple, list)) or not all(s is None or (isinstance(s, int) and s > 0) for s in shape):
            raise ConfigurationError(f"output_shape is {output_shape!r}.", "a shape without the batch axis, for example (10,)")
    return {n: tuple(output_shape[n]) for n in sorted(output_shape)} if named else tuple(output_shape)
