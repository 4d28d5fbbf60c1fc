"""Fingerprints of a teacher and of the data that it ran on."""

import hashlib
import json

import keras
import numpy as np

from tfdistill.distill.cache.manifest import InputPart, TeacherFingerprint
from tfdistill.distill.teachers.black_box import BlackBox
from tfdistill.distill.teachers.callable import CallableTeacher
from tfdistill.distill.teachers.remote import RemoteTeacher
from tfdistill.errors import ConfigurationError
from tfdistill.graph.layers import all_layers
from tfdistill.graph.weights import sha256_of_weights

# Left out of a layer's configuration: names are numbered anew in every process, and freezing a teacher does not change its outputs.
_IGNORED = ("name", "trainable")


def fingerprint_teacher(teacher):
    """Computes what identifies a teacher: its class, its architecture and its weights.

    Args:
        teacher: A `keras.Model`, or a `RemoteTeacher`.

    Returns:
        `TeacherFingerprint`.

    Raises:
        ConfigurationError: if it is a plain callable, which has nothing that identifies it.
    """
    kind = type(teacher).__name__
    if isinstance(teacher, RemoteTeacher):
        return TeacherFingerprint(kind, hashlib.sha256(teacher.identity.encode()).hexdigest(), "")
    if isinstance(teacher, CallableTeacher):
        raise ConfigurationError(
            f"Nothing identifies the callable '{teacher.name}': another function could not be distinguished from it.",
            "an identity that changes whenever its outputs would",
            f"tfdistill.RemoteTeacher({teacher.name}, identity='its name and version')",
        )
    if isinstance(teacher, BlackBox):
        return TeacherFingerprint(kind, hashlib.sha256(kind.encode()).hexdigest(), teacher.sha256)
    return TeacherFingerprint(kind, hashlib.sha256(_architecture(teacher).encode()).hexdigest(), sha256_of_weights(teacher))


def _architecture(teacher):
    try:
        config = keras.saving.serialize_keras_object(teacher)["config"]
    except (NotImplementedError, TypeError):
        # A subclassed model need not have a configuration: then its layers stand for its architecture.
        layers = all_layers(teacher)
        config = [[type(layer).__name__, [[list(w.shape), str(w.dtype)] for w in layer.weights]] for layer in layers]
    return json.dumps(_without_names(config, _numbers(config)), sort_keys=True, default=str)


def _numbers(config, found=None):
    """Numbers the names in a configuration in their order."""
    found = {} if found is None else found
    if isinstance(config, dict):
        if isinstance(config.get("name"), str):
            found.setdefault(config["name"], f"#{len(found)}")
        for value in config.values():
            _numbers(value, found)
    elif isinstance(config, (list, tuple)):
        for value in config:
            _numbers(value, found)
    return found


def _without_names(config, numbers):
    """Replaces names in a configuration by their numbers, so that equal models with other names have equal fingerprints."""
    if isinstance(config, dict):
        return {k: _without_names(v, numbers) for k, v in config.items() if k not in _IGNORED}
    if isinstance(config, (list, tuple)):
        return [_without_names(value, numbers) for value in config]
    return numbers.get(config, config) if isinstance(config, str) else config


def named_parts(inputs):
    """Lists (path, value) of every array in a structure of inputs."""
    return [("/".join(str(p) for p in path), value) for path, value in keras.tree.flatten_with_path(inputs)]


def input_parts(inputs):
    """Describes the parts of a batch of inputs as `InputPart`s."""
    return tuple(InputPart(path, tuple(value.shape[1:]), _type_name(value)) for path, value in named_parts(inputs))


def _type_name(value):
    value = np.asarray(value)
    return "string" if value.dtype.kind in "OSU" else value.dtype.name


def inputs_digest(inputs):
    """Computes the digest of a batch of inputs, as values: how the data set was batched does not matter.

    Args:
        inputs: Structure of arrays `(rows, ...)`.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.blake2b(digest_size=8)
    for path, value in named_parts(inputs):
        value = np.asarray(value)
        digest.update(f"{path}\0{_type_name(value)}{value.shape}".encode())
        if value.dtype.kind in "OSU":
            for item in value.reshape(-1):
                text = item if isinstance(item, bytes) else str(item).encode()
                digest.update(len(text).to_bytes(8, "little") + text)
        else:
            digest.update(memoryview(np.ascontiguousarray(value).reshape(-1).view(np.uint8)))
    return digest.hexdigest()
