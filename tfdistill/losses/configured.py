"""Objects that are described by the arguments of their constructor: configuration, equality and `repr` are made from these."""

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import keras
from keras.optimizers.schedules import LearningRateSchedule

from tfdistill.saveable import checks_config
from tfdistill.utils.types import Config


class Configured:
    """Mixin of the losses and schedules. A subclass keeps each argument of its constructor as an attribute of the same name."""

    former_settings: ClassVar[Mapping[str, str]] = {}
    """Former names of settings, as saved files may have them, with the present names."""
    shorthands: ClassVar[tuple[str, ...]] = ()
    """Arguments of the constructor that stand for others, and are not saved."""

    @classmethod
    def _settings(cls) -> list[str]:
        return [name for name in inspect.signature(cls).parameters if name not in cls.shorthands]

    def as_code(self, **changes: Any) -> str:
        """Returns the line of Python that makes such an object with `changes`; what the defaults say is left out."""
        parameters = inspect.signature(type(self)).parameters
        values = {**{name: getattr(self, name) for name in self._settings()}, **changes}
        shown = [f"{name}={value!r}" for name, value in values.items() if value != parameters[name].default]
        module = "tfdistill.losses." if type(self).__module__.startswith("tfdistill.") else ""
        return f"{module}{type(self).__name__}({', '.join(shown)})"

    def get_config(self) -> Config:
        """Returns the constructor's arguments, with schedules serialized."""
        values = {name: getattr(self, name) for name in self._settings()}
        return {
            name: keras.saving.serialize_keras_object(value) if isinstance(value, LearningRateSchedule) else value
            for name, value in values.items()
        }

    @classmethod
    @checks_config
    def from_config(cls, config: Config) -> Any:
        """Makes the object from what `get_config` returned, now or under the former names of its settings."""
        arguments = {}
        for name, value in config.items():
            serialized = isinstance(value, dict) and "class_name" in value
            arguments[cls.former_settings.get(name, name)] = keras.saving.deserialize_keras_object(value) if serialized else value
        return cls(**arguments)

    def __repr__(self) -> str:
        given = ((name, getattr(self, name)) for name in self._settings())
        shown = (f"{name}={value!r}" for name, value in given if not (name.endswith("_layer_name") and value is None))
        return f"{type(self).__name__}({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, Configured) and self.get_config() == other.get_config()

    def __hash__(self) -> int:
        return hash(repr(self))
