"""The file of a training state: one uncompressed zip archive with a JSON tree and the bytes of every array, each with its checksum."""

import json
import math
import pathlib
import zipfile

import keras
import numpy as np
import tensorflow as tf

from tfdistill.errors import DataError
from tfdistill.utils.files import write_whole

FORMAT = "tfdistill training state 1"
_TREE = "state.json"


def write(path, state):
    """Writes a training state, whole or not at all.

    Args:
        path: The file.
        state: Nested dicts, lists and tuples of numbers, strings, None, NumPy arrays and functions of `keras.ops`.
    """
    arrays = []
    tree = {"format": FORMAT, "state": _encoded(state, arrays)}
    with write_whole(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_TREE, json.dumps(tree))
        for number, array in enumerate(arrays):
            with archive.open(str(number), "w", force_zip64=True) as member:
                member.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def read(path):
    """Reads a training state.

    Returns:
        What was given to `write`.

    Raises:
        DataError: if the file is damaged or was not made by `write`, naming it.
    """
    path = pathlib.Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            stored = archive.infolist()
            if any(m.compress_type != zipfile.ZIP_STORED for m in stored) or sum(m.file_size for m in stored) > path.stat().st_size:
                raise ValueError("it holds what such a file does not hold")
            tree = json.loads(archive.read(_TREE))  # reading a member whole compares it with its checksum
            if tree["format"] != FORMAT:
                raise ValueError(f"its format is {tree['format']!r}, not {FORMAT!r}")
            return _decoded(tree["state"], archive)
    # zipfile and json raise many classes of errors on a damaged archive.
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise DataError(
            f"'{path}' is damaged, or is no training state: {reason}.",
            "a file that tfdistill.BackupAndRestore wrote",
            "move it away to begin the training anew, or give another backup_dir",
        ) from error


def encodable(value):
    """Tells whether a value can be part of a state."""
    try:
        _encoded(value, [])
    except TypeError:
        return False
    return True


def _encoded(value, arrays):
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value)
        if array.dtype.hasobject or array.dtype.kind in "USMm":
            raise TypeError(f"an array of {array.dtype} cannot be part of a training state")
        arrays.append(array)
        return {"array": len(arrays) - 1, "dtype": array.dtype.name, "shape": array.shape}
    # Subclasses are refused: they would be read as another class.
    if type(value) in (list, tuple):
        return {type(value).__name__: [_encoded(v, arrays) for v in value]}
    if type(value) is dict:
        return {"dict": [[_encoded(k, arrays), _encoded(v, arrays)] for k, v in value.items()]}
    name = getattr(value, "__name__", None)
    if isinstance(name, str) and getattr(keras.ops, name, None) is value:
        return {"keras.ops": name}
    raise TypeError(f"a {type(value).__name__} cannot be part of a training state")


def _decoded(tree, archive):
    if not isinstance(tree, dict):
        if tree is None or isinstance(tree, (bool, int, float, str)):
            return tree
        raise ValueError(f"a {type(tree).__name__} is not expected there")
    if "array" in tree:
        dtype, shape = np.dtype(tf.as_dtype(tree["dtype"]).as_numpy_dtype), tuple(int(size) for size in tree["shape"])
        data = archive.read(str(int(tree["array"])))
        if len(data) != dtype.itemsize * math.prod(shape) or min(shape, default=0) < 0:
            raise ValueError(f"array {tree['array']} has {len(data)} bytes for the shape {shape} of {dtype}")
        return np.frombuffer(bytearray(data), dtype).reshape(shape)
    ((kind, content),) = tree.items()
    if kind == "list":
        return [_decoded(v, archive) for v in content]
    if kind == "tuple":
        return tuple(_decoded(v, archive) for v in content)
    if kind == "dict":
        return {_decoded(k, archive): _decoded(v, archive) for k, v in content}
    if kind == "keras.ops":
        function = getattr(keras.ops, content)
        if getattr(function, "__name__", None) != content:
            raise ValueError(f"keras.ops has no function {content!r}")
        return function
    raise ValueError(f"{kind!r} is not expected there")
