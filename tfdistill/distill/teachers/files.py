"""Teachers that are files: a .tflite file, so that a compressed model can teach, and a SavedModel folder."""

import collections.abc
import hashlib
import pathlib
import re

import keras
import tensorflow as tf

from tfdistill.bridge.adopt.check_config import in_safe_mode
from tfdistill.distill.teachers.black_box import BlackBox
from tfdistill.errors import ConfigurationError, ModelError, RuntimeUnavailableError, nearest
from tfdistill.runtime.interpreter import open_file, read_file
from tfdistill.saveable import checks_config

# Interpreters kept open: one for each size of batch. Training, its last batch, validation and its last batch make four.
_OPEN = 4


def from_path(path):
    """Makes a teacher of a path: a .tflite file or a SavedModel folder.

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
        fix = f"keras.saving.load_model('{path}') gives a model" if path.suffix in (".keras", ".h5") else None
        raise ModelError(f"The teacher file '{path}' is none that can teach by its path.", "a .tflite file or a SavedModel folder", fix)
    raise ModelError(
        f"Teacher must be a keras.Model or something that becomes one; '{path}' was given, but there is no such file or folder.",
        "a .tflite file or a SavedModel folder that is there",
    )


def _found(path, kind, sha256):
    """The absolute path and its hash, after comparing it with the one that it must have."""
    path = _there(pathlib.Path(path).absolute(), kind)
    found = _hash(path)
    _require_hash(path, kind, found, sha256)
    return path, found


def _there(path, kind):
    if not path.exists():
        raise ModelError(f"The teacher '{path}' ({kind}) is not there.", "the file that teaches", "put it back, or give its new path")
    return path


def _require_hash(path, kind, found, sha256):
    if sha256 is not None and found != sha256:
        raise ModelError(
            f"The teacher '{path}' ({kind}) is not the one that was saved: its SHA-256 is {found[:16]}...",
            f"{sha256[:16]}...",
            "put it back",
        )


def _hash(path):
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        if file != path:
            digest.update(f"{file.relative_to(path).as_posix()}\0{file.stat().st_size}\0".encode())
        with open(file, "rb") as opened:
            for block in iter(lambda: opened.read(1 << 20), b""):
                digest.update(block)
    return digest.hexdigest()


def _model_name(path):
    return re.sub(r"\W", "_", path.stem) or "teacher"


def _named_inputs(inputs, names, teacher):
    """Puts inputs under the names that a file has for them; several are never matched by their order, which a file need not keep."""
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
    """A .tflite file as a teacher: inputs are quantized as the file wants them, outputs dequantized to float32.

    The file is read once, when the teacher is made, and kept in memory: one that is replaced, cut or removed later changes no answer. It is resized to the batch that it is asked for where it can be; a file that cannot runs as many samples at a time as it was made for, with the
    same answers. A file with several outputs answers a dict under the names of its signature. It is saved as path and SHA-256, both of which must
    be right when it is loaded.

    Args:
        path: The file.
        threads: CPU threads of the interpreter, at least 1.
        sha256: What the file must hash to (hexadecimal), or None for whatever it is.
        name: Name of the model. Defaults to the file's.

    Raises:
        ModelError: if there is no such file, it has another hash, or no inputs or outputs.
        RuntimeUnavailableError: if the interpreter cannot open the file; another process tries it first, so a damaged file ends no training.
    """

    def __init__(self, path, threads=1, sha256=None, name=None):
        path = pathlib.Path(path).absolute()
        # Read once: whatever becomes of the file later, all batches are answered by one model.
        if _there(path, ".tflite file").is_dir():
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

    def answer(self, inputs):
        named = _named_inputs(inputs, self._box.own.inputs, self)
        outputs = self._opened(len(next(iter(named.values())))).run(named)
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))

    def _opened(self, rows):
        """The file opened for a batch of `rows`."""
        own, opened = self._box.own, self._box.open
        if rows == own.batch_size:
            return own
        if rows not in opened:
            while len(opened) >= _OPEN:
                del opened[next(iter(opened))]
            opened[rows] = self._resized(rows) or own
        return opened[rows]

    def _resized(self, rows):
        try:
            resized = open_file(self._box.content, self.threads, batch_size=rows)
        except RuntimeUnavailableError:
            return None  # made for one size of batch; that size always runs
        wanted = {name: (rows, *info.shape[1:]) for name, info in self._box.own.outputs.items()}
        return resized if {name: info.shape for name, info in resized.outputs.items()} == wanted else None

    def get_config(self):
        return {"name": self.name, "path": str(self.file), "threads": self.threads, "sha256": self.sha256}

    @classmethod
    @checks_config
    def from_config(cls, config):
        return cls(**config)


@keras.saving.register_keras_serializable(package="tfdistill")
class SavedModelTeacher(BlackBox):
    """A SavedModel folder as a teacher, through one of its signatures.

    It runs as the TensorFlow graph that it is, in inference mode. A signature with several outputs answers a dict. It is saved as path and SHA-256 of all
    its files, both of which must be right when it is loaded, which takes `keras.saving.load_model(path, safe_mode=False)`.

    Args:
        path: The folder with `saved_model.pb`.
        signature: Name of the signature. None takes "serving_default", or the only one there is.
        sha256: What the folder must hash to (hexadecimal), or None for whatever it is.
        name: Name of the model. Defaults to the folder's.

    Raises:
        ModelError: if the folder is no SavedModel, cannot be read, or has another hash.
        ConfigurationError: if there is no such signature, or several and none was named.
    """

    def __init__(self, path, signature=None, sha256=None, name=None):
        path, found = _found(path, "SavedModel", sha256)
        if not (path / "saved_model.pb").is_file():
            raise ModelError(
                f"The folder '{path}' is no SavedModel: it has no saved_model.pb.",
                "a folder that Model.export or tf.saved_model.save wrote",
            )
        try:
            loaded = tf.saved_model.load(str(path))
        except (OSError, ValueError, KeyError, RuntimeError, tf.errors.OpError) as error:
            raise ModelError(
                f"The SavedModel '{path}' cannot be read: {error}", "a whole SavedModel, of this version of TensorFlow or older"
            ) from error
        function = loaded.signatures[_signature(path, loaded, signature)]
        specs = function.structured_outputs
        shapes = {name: tuple(spec.shape[1:]) for name, spec in sorted(specs.items())}
        super().__init__("SavedModel", name or _model_name(path), shapes if len(shapes) > 1 else next(iter(shapes.values())))
        self.folder, self.sha256, self.signature = path, found, signature
        # The variables live as long as what was loaded; they are none of Keras's.
        self._box.loaded, self._box.function = loaded, function

    def call(self, inputs, training=None):
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

    def get_config(self):
        return {"name": self.name, "path": str(self.folder), "signature": self.signature, "sha256": self.sha256}

    @classmethod
    @checks_config
    def from_config(cls, config, custom_objects=None, safe_mode=None):
        """Opens the folder that the config names, in unsafe mode only: a graph can read, write and run what it likes. Keras's `TFSMLayer` has this rule.

        Raises:
            ModelError: in safe mode.
        """
        if in_safe_mode(safe_mode):
            raise ModelError(
                f"The file that is loaded wants the SavedModel '{config.get('path')}' as a teacher, whose graph could run any program.",
                "a teacher that is safe to load",
                "if you trust both, keras.saving.load_model(path, safe_mode=False)",
            )
        return cls(**config)


def _signature(path, loaded, wanted):
    names = list(loaded.signatures)
    if wanted is None and ("serving_default" in names or len(names) == 1):
        return "serving_default" if "serving_default" in names else names[0]
    if wanted not in names:
        raise ConfigurationError(
            f"The SavedModel '{path}' has {'no signature' if not names else f'the signatures {names}'}, and signature={wanted!r} was asked for.",
            "the name of a signature",
            f"SavedModelTeacher(path, signature=...). {nearest(wanted or 'serving_default', names)}",
        )
    return wanted
