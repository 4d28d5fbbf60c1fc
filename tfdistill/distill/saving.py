"""What a saved Distiller consists of besides its sublayers: both models, the losses, shapes of projections, and random states."""

from __future__ import annotations

import typing

import keras

from tfdistill.distill.metrics.compiled import with_reports
from tfdistill.saveable import checks_config
from tfdistill.utils.types import Config

if typing.TYPE_CHECKING:
    from tfdistill.distill.distiller import Distiller


def _has_unbuilt_optimizer(model, config):
    optimizer = getattr(model, "optimizer", None)
    return config.get("compile_config") is not None and optimizer is not None and not optimizer.built


class SavedWithTeacher(keras.Model):
    """Base of `Distiller`, for the methods by which Keras saves and loads it."""

    def get_config(self) -> Config:
        """Returns what `from_config` takes: both models, the losses and their weights."""
        config = super().get_config()
        losses, weights = self._given
        serialize = keras.saving.serialize_keras_object
        # A callback saves while the teacher is frozen.
        with self._freeze.lifted():
            models = {"teacher": serialize(self._teacher_file or self.teacher), "student": serialize(self.student)}
        # Keras builds the optimizer of every model that it loads, and would miss the slots that one without training has not saved.
        unbuilt = {name: models[name].pop("compile_config") for name in models if _has_unbuilt_optimizer(getattr(self, name), models[name])}
        if unbuilt:
            config["unbuilt"] = unbuilt
        config.update(
            models,
            distillation_losses=serialize(losses if isinstance(losses, dict) else self.distillation_losses),
            distillation_loss_weights=serialize(weights if isinstance(losses, dict) else self.distillation_loss_weights),
            student_loss_weight=self.student_loss_weight,
        )
        return config

    @classmethod
    @checks_config
    def from_config(cls, config: Config) -> Distiller:
        """Makes a Distiller of what `get_config` returned.

        Args:
            config: The dict.

        Raises:
            ModelError: if the config is damaged.
        """
        revived = ("teacher", "student", "distillation_losses", "distillation_loss_weights")
        config = dict(config)
        unbuilt = config.pop("unbuilt", {})
        arguments = {k: keras.saving.deserialize_keras_object(v) if k in revived else v for k, v in config.items()}
        for name, compiled in unbuilt.items():
            arguments[name].compile(**keras.saving.deserialize_keras_object(compiled))
        return cls(**arguments)

    def __dir__(self):
        # Keras finds what to save by dir().
        return [name for name in super().__dir__() if name != "teacher" or self.__dict__.get("_teacher_file") is None]

    def _random_states(self):
        """The states of the student's random layers (dropout, augmentation), which Keras leaves out of its checkpoints."""
        others = {id(v) for v in (*self.student.weights, *self.student.metrics_variables)}
        return [v for v in self.student.variables if id(v) not in others]

    def save_own_variables(self, store: typing.Any) -> None:
        """Saves the states of the student's random layers; Keras calls it.

        Args:
            store: Dict-like, name to array.
        """
        for index, state in enumerate(self._random_states()):
            store[f"random_state_{index}"] = state

    def load_own_variables(self, store: typing.Any) -> None:
        """Restores the states of the student's random layers; Keras calls it. A restored run draws the numbers that it would have drawn.

        Args:
            store: Dict-like, name to array. A file of weights alone has no states, and changes none.
        """
        for index, state in enumerate(self._random_states()):
            if f"random_state_{index}" in store:
                state.assign(store[f"random_state_{index}"])

    def get_build_config(self) -> Config:
        """Returns the shapes of the features that are projected, which `build_from_config` takes."""
        return {"projections": self.projections.shapes()}

    def build_from_config(self, config: Config) -> None:
        """Makes the projections for these shapes; Keras calls it on a loaded model.

        Args:
            config: What `get_build_config` returned.
        """
        self.projections.restore(self._objective.terms, config.get("projections", {}))

    def get_compile_config(self) -> Config:
        """Returns the serialized arguments of `compile`, and whether the optimizer is built: one that is not has no slots to load."""
        config = super().get_compile_config()
        if not config:
            return config
        return {**with_reports(config, self.reports), "optimizer_built": bool(self.optimizer and self.optimizer.built)}

    def compile_from_config(self, config: Config) -> None:
        """Compiles with what `get_compile_config` returned.

        Args:
            config: The dict.
        """
        config = keras.saving.deserialize_keras_object(config)
        optimizer_built = config.pop("optimizer_built", False)
        self.compile(**config)
        if optimizer_built:
            # The variables that `fit` trains, without those that the student shares with its teacher.
            with self._freeze:
                self.optimizer.build(self.trainable_variables)
