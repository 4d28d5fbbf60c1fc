"""Teachers that are files: a .tflite file, for example a compressed model, and a SavedModel folder."""

from __future__ import annotations

import collections.abc
import hashlib
import pathlib
import re
import typing

import keras
import tensorflow as tf

from tfdistill.bridge.adopt.check_config import in_safe_mode
from tfdistill.distill.teachers.black_box import BlackBox
from tfdistill.errors import ConfigurationError, ModelError, RuntimeUnavailableError, nearest
from tfdistill.runtime.interpreter import open_file, read_file
from tfdistill.runtime.resized import computes_the_same, has_free_batch
from tfdistill.saveable import checks_config
from tfdistill.utils.hashing import update_from
from tfdistill.utils.types import Config, PathLike, Tensors

# Interpreters kept open: one for each batch size. Training, its last batch, validation and its last batch have four.
_OPEN = 4
# A saved Distiller names its teacher's path; a new one takes another path, and the saved weights.
_PUT_BACK = "put it back; or make the Distiller anew, with the new path of the teacher, and restore the student with distiller.load_weights(the saved file)"


def from_path(path):
    """Opens a path, a .tflite file or a SavedModel folder, as a teacher.

    Args:
        path: The file or folder.

    Raises:
        ModelError: if there is nothing, or something else, at the path.
    """
    path = pathlib.Path(path)
    if path.is_file() and path.suffix == ".tflite":
        return TFLiteTeacher(path)
    if path.is_dir():
        return SavedModelTeacher(path)
    if path.is_file():
        raise ModelError(
            f"The teacher file '{path}' is of no kind that can be given by its path.",
            "a .keras, .h5 or .tflite file, or a SavedModel folder",
        )
    raise ModelError(
        f"Teacher must be a keras.Model or something that becomes one; '{path}' was given, but there is no such file or folder.",
        "an existing .keras, .h5 or .tflite file, or a SavedModel folder",
    )


def found(path, kind, sha256):
    """Returns the absolute path and its hash, after comparing that with the one expected.

    Raises:
        ModelError: if there is nothing at the path, or it has another hash.
    """
    path = _there(pathlib.Path(path).absolute(), kind, sha256)
    own = _hash(path)
    _require_hash(path, kind, own, sha256)
    return path, own


def _there(path, kind, sha256):
    if not path.exists():
        fix = "give its new path" if sha256 is None else _PUT_BACK
        raise ModelError(f"The teacher '{path}' ({kind}) is not there.", "an existing file", fix)
    return path


def _require_hash(path, kind, own, sha256):
    if sha256 is not None and own != sha256:
        raise ModelError(
            f"The teacher '{path}' ({kind}) is not the one that was saved: its SHA-256 is {own[:16]}...", f"{sha256[:16]}...", _PUT_BACK
        )


def _hash(path):
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        if file != path:
            digest.update(f"{file.relative_to(path).as_posix()}\0{file.stat().st_size}\0".encode())
        with open(file, "rb") as opened:
            update_from(digest, opened)
    return digest.hexdigest()


def _model_name(path):
    return re.sub(r"\W", "_", path.stem) or "teacher"


def _named_inputs(inputs, names, teacher):
    """Returns a dict of the input names of a file to the inputs; several are never matched by their order, which a file need not keep."""
    names = list(names)
    if isinstance(inputs, collections.abc.Mapping):
        if set(inputs) == set(names):
            return dict(inputs)
        raise ModelError(
            f"The teacher '{teacher.name}' ({teacher.kind}) has the inputs {sorted(names)}, but is fed {sorted(inputs)}.", "the same names"
        )
    flat = keras.tree.flatten(inputs)
    if len(flat) == len(names) == 1:
        return {names[0]: flat[0]}
    raise ModelError(
        f"The teacher '{teacher.name}' ({teacher.kind}) has the inputs {sorted(names)}, but is fed {len(flat)} without names.",
        "one input, or a dict",
        f"feed a dict with the keys {sorted(names)}",
    )


@keras.saving.register_keras_serializable(package="tfdistill")
class TFLiteTeacher(BlackBox):
    """A .tflite file as a teacher. Inputs are quantized as the file requires, outputs dequantized to float32.

    The file is read once and kept in memory: replacing or removing it later changes nothing. The model is resized to the size of each
    batch; one that cannot be resized runs as many samples at a time as it was made for, with the same outputs. Several outputs come as a
    dict under the names of the signature. The teacher is saved as path and SHA-256, both of which must be right when it is loaded.

    Args:
        path: The file.
        threads: CPU threads of the interpreter, at least 1.
        sha256: SHA-256 that the file must have, hexadecimal; None for any.
        name: Name of the model. Defaults to the file's.

    Raises:
        ModelError: if there is no such file, it has another hash, or no inputs or outputs.
        RuntimeUnavailableError: if the interpreter cannot open the file; another process tries first, so a damaged file cannot end this
            one.

    Example:
        >>> quantized = tfdistill.distill.TFLiteTeacher("student.tflite")
        >>> quantized(x).shape
        TensorShape([64, 10])
        >>> distiller = tfdistill.Distiller(quantized, student, tfdistill.losses.SoftTargets(2.0))
    """

    def __init__(self, path: PathLike, threads: int = 1, sha256: str | None = None, name: str | None = None):
        path = pathlib.Path(path).absolute()
        # Read once, so that all batches run through one model, whatever happens to the file.
        if _there(path, ".tflite file", sha256).is_dir():
            raise ModelError(f"The teacher '{path}' is a folder.", "a .tflite file")
        content = read_file(path)
        _require_hash(path, ".tflite file", content.sha256, sha256)
        own = open_file(content, threads)
        if not own.inputs or not own.outputs:
            raise ModelError(
                f"The teacher '{path}' (.tflite file) has the inputs {list(own.inputs)} and the outputs {list(own.outputs)}.",
                "at least one of each",
            )
        shapes = {n: tuple(info.shape[1:]) for n, info in sorted(own.outputs.items())}
        super().__init__(".tflite file", name or _model_name(path), shapes if len(shapes) > 1 else next(iter(shapes.values())))
        self.file, self.sha256, self.threads = path, content.sha256, threads
        self._box.content, self._box.own, self._box.open = content, own, {}

    def run(self, inputs: typing.Any) -> typing.Any:
        """Runs the interpreter on one batch.

        Args:
            inputs: Array `(batch, ...)`, or a dict of input name to array.

        Returns:
            float32 array `(batch, ...)`, or a dict of output name to array.
        """
        named = _named_inputs(inputs, self._box.own.inputs, self)
        outputs = self._opened(len(next(iter(named.values()))), named).run(named)
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))

    def _opened(self, rows, named):
        """The file opened for a batch of `rows`."""
        own, opened = self._box.own, self._box.open
        if rows == own.batch_size:
            return own
        if rows not in opened:
            while len(opened) >= _OPEN:
                del opened[next(iter(opened))]
            opened[rows] = self._resized(rows, named) or own
        return opened[rows]

    def _resized(self, rows, named):
        own = self._box.own
        try:
            resized = open_file(self._box.content, self.threads, batch_size=rows)
        except RuntimeUnavailableError:
            return None  # the file has a fixed batch size
        expected = {name: (rows, *info.shape[1:]) for name, info in own.outputs.items()}
        fits = {name: info.shape for name, info in resized.outputs.items()} == expected
        return resized if fits and (has_free_batch(own) or computes_the_same(resized, own, named)) else None

    def get_config(self) -> Config:
        """Returns what `from_config` takes: the path, its SHA-256 and the settings."""
        return {"name": self.name, "path": str(self.file), "threads": self.threads, "sha256": self.sha256}

    @classmethod
    @checks_config
    def from_config(cls, config: Config) -> TFLiteTeacher:
        """Opens the file that the config names.

        Args:
            config: What `get_config` returned.

        Raises:
            ModelError: as the constructor.
        """
        return cls(**config)


@keras.saving.register_keras_serializable(package="tfdistill")
class SavedModelTeacher(BlackBox):
    """A SavedModel folder as a teacher, through one of its signatures.

    The graph runs in TensorFlow, in inference mode. Several outputs come as a dict. The teacher is saved as path and SHA-256 of all its
    files, both of which must be right when it is loaded with `keras.saving.load_model(path, safe_mode=False)`.

    Args:
        path: The folder with `saved_model.pb`.
        signature: Name of the signature. None takes "serving_default", or the only one there is.
        sha256: SHA-256 that the folder must have, hexadecimal; None for any.
        name: Name of the model. Defaults to the folder's.

    Raises:
        ModelError: if the folder is no SavedModel, cannot be read, or has another hash.
        ConfigurationError: if there is no such signature, or several and none was named.

    Example:
        >>> teacher.export("teacher_folder", verbose=False)
        >>> exported = tfdistill.distill.SavedModelTeacher("teacher_folder")
        >>> bool(np.allclose(exported(x), teacher(x), atol=1e-4))
        True
    """

    def __init__(self, path: PathLike, signature: str | None = None, sha256: str | None = None, name: str | None = None):
        folder, own = found(path, "SavedModel", sha256)
        if not (folder / "saved_model.pb").is_file():
            raise ModelError(
                f"The folder '{folder}' is no SavedModel: it has no saved_model.pb.",
                "a folder that Model.export or tf.saved_model.save wrote",
            )
        try:
            loaded = tf.saved_model.load(str(folder))
        except (OSError, ValueError, KeyError, RuntimeError, tf.errors.OpError) as error:
            raise ModelError(
                f"The SavedModel '{folder}' cannot be read: {error}", "a whole SavedModel, of this version of TensorFlow or older"
            ) from error
        function = loaded.signatures[_signature(folder, loaded, signature)]
        specs = function.structured_outputs
        shapes = {name: tuple(spec.shape[1:]) for name, spec in sorted(specs.items())}
        super().__init__("SavedModel", name or _model_name(folder), shapes if len(shapes) > 1 else next(iter(shapes.values())))
        self.folder, self.sha256, self.signature = folder, own, signature
        # Keeps the variables alive; they are not tracked by Keras.
        self._box.loaded, self._box.function = loaded, function

    def call(self, inputs: Tensors, training: bool | None = None) -> Tensors:
        """Runs the signature on one batch.

        Args:
            inputs: Tensor `(batch, ...)`, or a dict of input name to tensor.
            training: Without effect.

        Returns:
            float32 tensor `(batch, ...)`, or a dict of output name to tensor.
        """
        specs = self._box.function.structured_input_signature[1]
        named = _named_inputs(inputs, specs, self)
        tensors = {}
        for name, spec in specs.items():
            value = tf.convert_to_tensor(named[name])
            if not spec.shape.is_compatible_with(value.shape):
                raise ModelError(
                    f"The teacher '{self.name}' (SavedModel) is fed the shape {tuple(value.shape)} as '{name}'.", f"{tuple(spec.shape)}"
                )
            tensors[name] = value if value.dtype == spec.dtype else tf.cast(value, spec.dtype)
        outputs = self._box.function(**tensors)
        return self._packed([outputs[name] for name in sorted(outputs)])

    def get_config(self) -> Config:
        """Returns what `from_config` takes: the path, its SHA-256 and the settings."""
        return {"name": self.name, "path": str(self.folder), "signature": self.signature, "sha256": self.sha256}

    @classmethod
    @checks_config
    def from_config(cls, config: Config, custom_objects: dict | None = None, safe_mode: bool | None = None) -> SavedModelTeacher:
        """Opens the folder that the config names, in unsafe mode only, as a graph can read and write files.

        Keras's `TFSMLayer` has the same rule.

        Args:
            config: What `get_config` returned.
            custom_objects: Without effect.
            safe_mode: Whether safe mode is on; None for that of `keras.saving.load_model`.

        Raises:
            ModelError: in safe mode, or as the constructor.
        """
        if in_safe_mode(safe_mode):
            raise ModelError(
                f"The file that is loaded has the SavedModel '{config.get('path')}' as a teacher, whose graph could run any program.",
                "a teacher that is safe to load",
                "if you trust both, keras.saving.load_model(path, safe_mode=False)",
            )
        return cls(**config)


def _signature(path, loaded, name):
    names = list(loaded.signatures)
    if name is None and ("serving_default" in names or len(names) == 1):
        return "serving_default" if "serving_default" in names else names[0]
    if name not in names:
        raise ConfigurationError(
            f"The SavedModel '{path}' has {'no signature' if not names else f'the signatures {names}'}, and signature={name!r} was given.",
            "the name of a signature",
            f"SavedModelTeacher(path, signature=...). {nearest(name or 'serving_default', names)}",
        )
    return name
