"""Loads a saved model of either Keras, in safe mode, as a Keras 3 model."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import typing
import warnings
import zipfile
from collections.abc import Mapping

import keras

from tfdistill.bridge.adopt.adopt import adopt
from tfdistill.bridge.adopt.check_config import check_config
from tfdistill.bridge.adopt.loading import checked_tf_keras_model
from tfdistill.bridge.convert.to_keras import to_keras
from tfdistill.bridge.saved_files import ModelSource, open_source
from tfdistill.errors import BridgeError, ConfigurationError, ModelError, TfdistillError, nearest
from tfdistill.utils.files import temporary_folder
from tfdistill.utils.types import PathLike

_SAVE = "write one: model.save('model.keras')"
_TRUST = "if you trust where it comes from, keras.saving.load_model(path, safe_mode=False)"


def load_model(path: PathLike, custom_objects: Mapping[str, typing.Any] | None = None) -> keras.Model:
    """Loads a saved model of Keras 3 or Keras 2 (tf_keras) as a Keras 3 model, in safe mode.

    Every class and function that the file names is checked before anything is made of it: those of Keras, tf_keras and TFMOT, registered ones, and
    `custom_objects` are loaded; no module is imported and no Python code of the file runs. A model of Keras 2 is rebuilt in Keras 3 with the same
    weights, to the bit, and compared with the original.

    Args:
        path: A `.keras` or `.h5` file of either Keras, or the folder of a SavedModel that Keras 2 wrote.
        custom_objects: Dict of name to class or function that the file names and that is not registered.

    Returns:
        `keras.Model`, not compiled. A model of Keras 2 with a layer that Keras 3 lacks is adopted as it is (`tfdistill.bridge.AdoptedModel`): it trains,
        saves, is compressed and exported all the same.

    Raises:
        ConfigurationError: if there is no such file.
        ModelError: if the file is damaged, holds weights alone or no model of Keras, or names what may not be loaded.

    Warns:
        UserWarning: if a model of Keras 2 had to be adopted, with the layer and the reason.

    Example:
        >>> loaded = tfdistill.load_model("student.keras")
        >>> np.array_equal(loaded(x), keras.saving.load_model("student.keras")(x))
        True
    """
    if not isinstance(path, (str, os.PathLike)):
        raise ConfigurationError(
            f"load_model got a {type(path).__name__}.", "the path of a saved model", "what is in memory needs no loading: use it as it is"
        )
    path = pathlib.Path(path)
    if not path.exists():
        others = [p.name for p in path.parent.iterdir() if p.suffix in (".keras", ".h5")] if path.parent.is_dir() else []
        raise ConfigurationError(
            f"There is no file '{path}'.",
            "a .keras or .h5 file, or the folder of a SavedModel",
            nearest(path.name, others) if others else _SAVE,
        )
    owner = f"'{path}'"
    try:
        source = open_source(path)
        with keras.saving.custom_object_scope(dict(custom_objects)) if custom_objects else contextlib.nullcontext():
            return _of_keras_2(source, owner) if source.keras_2 else _of_keras_3(source, owner)
    except TfdistillError:
        raise
    except Exception as error:  # whatever Keras, tf_keras, zip and HDF5 raise at a damaged file
        raise ModelError(
            f"{owner} cannot be loaded: {type(error).__name__}: {error}",
            "a model that Keras saved, whole and in safe mode",
            f"save it again; {_TRUST}",
        ) from error


def _of_keras_3(source, owner):
    check_config(source.config, owner, True)
    model = keras.saving.load_model(source.path, compile=False, safe_mode=True)
    if not isinstance(model, keras.Model):
        raise ModelError(f"{owner} holds a {type(model).__name__}.", "a keras.Model")
    return model


def _of_keras_2(source, owner):
    model = checked_tf_keras_model(json.dumps(source.config), owner, True)
    _load_weights(model, source, owner)
    try:
        return to_keras(model)
    except BridgeError as error:
        warnings.warn(
            f"{owner} is adopted as it is, a tf_keras model behind the interface of Keras 3: {error.happened}", UserWarning, stacklevel=4
        )
        return adopt(model)


def _load_weights(model, source: ModelSource, owner):
    if source.kind == "SavedModel":
        import tensorflow as tf

        status = tf.train.Checkpoint(root=model).read(str(source.path / "variables" / "variables"))
        status.assert_existing_objects_matched().expect_partial()
        return
    if source.kind == "h5":
        model.load_weights(str(source.path))
        return
    with zipfile.ZipFile(source.path) as archive, temporary_folder() as folder:
        kept = [name for name in archive.namelist() if name.startswith("assets")]
        if kept:
            raise ModelError(
                f"{owner} holds tables that its layers look up ({', '.join(kept[:3])}).",
                "a model of numbers",
                "save the model without its lookup layers (StringLookup, IntegerLookup, TextVectorization), and run those in the data pipeline",
            )
        model.load_weights(archive.extract("model.weights.h5", folder))
