"""A Keras model in a file as a teacher: it is loaded in safe mode, and saved as the file's path and hash."""

from __future__ import annotations

import os
import pathlib
import typing

import keras

from tfdistill.bridge.adopt.check_config import in_safe_mode
from tfdistill.bridge.load import load_model
from tfdistill.distill.teachers.files import found
from tfdistill.errors import ModelError
from tfdistill.saveable import checks_config
from tfdistill.utils.types import Config, PathLike

SUFFIXES = (".keras", ".h5", ".hdf5")


@keras.saving.register_keras_serializable(package="tfdistill")
class KerasFile:
    """What a saved `Distiller` holds of a teacher that was given as the path of a Keras file: the path and the file's SHA-256.

    Args:
        path: The .keras or .h5 file.
        sha256: SHA-256 that the file must have, hexadecimal; None for any.

    Raises:
        ModelError: if there is no such file, or it has another hash.
    """

    def __init__(self, path: PathLike, sha256: str | None = None):
        self.path, self.sha256 = found(path, "Keras file", sha256)

    @classmethod
    def of(cls, teacher: typing.Any) -> KerasFile | None:
        """Returns the file that a teacher is given as, or None where it is given in another way."""
        if isinstance(teacher, cls):
            return teacher
        is_path = isinstance(teacher, (str, os.PathLike))
        return cls(teacher) if is_path and pathlib.Path(teacher).suffix in SUFFIXES and pathlib.Path(teacher).is_file() else None

    def load(self) -> keras.Model:
        """Loads the model, of either Keras, which is not compiled; in safe mode, but where Keras's own is off.

        Raises:
            ModelError: if the file is damaged, holds no model, or safe mode refuses it.
        """
        if in_safe_mode():
            return load_model(self.path)
        try:
            model = keras.saving.load_model(self.path, compile=False, safe_mode=False)
        except Exception as error:  # the class depends on which part of the file is damaged
            raise ModelError(
                f"The teacher file '{self.path}' cannot be loaded: {type(error).__name__}: {error}",
                "a file of a Keras model",
                "save it again",
            ) from error
        if not isinstance(model, keras.Model):
            raise ModelError(f"The teacher file '{self.path}' holds a {type(model).__name__}.", "a keras.Model")
        return model

    def get_config(self) -> Config:
        """Returns what `from_config` takes: the path and the SHA-256."""
        return {"path": str(self.path), "sha256": self.sha256}

    @classmethod
    @checks_config
    def from_config(cls, config: Config) -> KerasFile:
        """Finds the file that the config names.

        Args:
            config: What `get_config` returned.

        Raises:
            ModelError: as the constructor.
        """
        return cls(**config)
