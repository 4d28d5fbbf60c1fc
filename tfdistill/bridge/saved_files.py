"""Reads what a saved model of Keras says of itself, without making anything of it: its format, the Keras that wrote it, and its config."""

import dataclasses
import json
import pathlib
import zipfile

from tfdistill.bridge import imports
from tfdistill.errors import ModelError

_HDF5, _ZIP = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"
_FORMATS = "a .keras or .h5 file of Keras 3 or Keras 2, or the folder of a SavedModel that Keras 2 wrote"
_REBUILD = "build the model in code, and call model.load_weights(path)"
_AS_TEACHER = (
    "as a teacher, tfdistill.distill.SavedModelTeacher(path) runs it as it is; else save the model itself: model.save('model.keras')"
)
_NETWORKS = ("_tf_keras_network", "_tf_keras_sequential", "_tf_keras_model")


@dataclasses.dataclass(frozen=True)
class ModelSource:
    """A saved model.

    Attributes:
        path: The file or folder.
        kind: "keras" (a zip), "h5" or "SavedModel".
        keras_2: Whether Keras 2 (tf_keras) wrote it.
        config: The model's config: a dict with a `class_name` and a `config`.
    """

    path: pathlib.Path
    kind: str
    keras_2: bool
    config: dict


def open_source(path):
    """Reads the config of a saved model.

    Args:
        path: `pathlib.Path` of a file or folder that exists.

    Returns:
        A `ModelSource`.

    Raises:
        ModelError: if it is no saved model of Keras, or one without a config.
    """
    if path.is_dir():
        return _saved_model(path)
    with path.open("rb") as file:
        start = file.read(8)
    if start == _HDF5:
        return _hdf5(path)
    if start[:4] == _ZIP:
        return _zip(path)
    if start[4:8] == b"TFL3":
        raise ModelError(
            f"'{path}' is a .tflite file, which has no layers to load.",
            _FORMATS,
            "as a teacher, give its path to Distiller; to run it, tfdistill.verify and tfdistill.benchmark take the path",
        )
    raise ModelError(f"'{path}' is no saved model: it begins with {start!r}.", _FORMATS)


def _zip(path):
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if "config.json" not in names:
            raise ModelError(f"'{path}' is a zip file without a config.json.", _FORMATS)
        config = _json(archive.read("config.json"), path)
        config.pop("compile_config", None)  # a model is loaded as it computes, without what it was trained with
        about = _json(archive.read("metadata.json"), path) if "metadata.json" in names else {}
    return ModelSource(path, "keras", not str(about.get("keras_version", "3")).startswith("3"), config)


def _hdf5(path):
    import h5py

    with h5py.File(path, "r") as file:
        config, version = file.attrs.get("model_config"), file.attrs.get("keras_version", "")
        if config is None:
            raise ModelError(f"'{path}' holds weights alone.", "a file with the model's config, as model.save writes it", _REBUILD)
        _refuse_other_files(file, path)
    version = version.decode() if isinstance(version, bytes) else str(version)
    return ModelSource(path, "h5", not version.startswith("3"), _json(config, path))


def _refuse_other_files(group, path):
    """Refuses a file that shows parts of other files of this machine as its own weights."""
    import h5py

    for name in group:
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise ModelError(
                f"'{path}' refers to the file '{link.filename}' for its '{group.name}/{name}'.", "a file that holds its weights itself"
            )
        found = group[name] if isinstance(link, h5py.HardLink) else None
        if isinstance(found, h5py.Group):
            _refuse_other_files(found, path)
        elif isinstance(found, h5py.Dataset) and (found.external or found.is_virtual):
            raise ModelError(f"'{path}' keeps the values of '{found.name}' in another file.", "a file that holds its weights itself")


def _saved_model(path):
    if not (path / "saved_model.pb").is_file():
        raise ModelError(f"The folder '{path}' holds no saved_model.pb.", _FORMATS)
    metadata = path / "keras_metadata.pb"
    if not metadata.is_file():
        raise ModelError(f"The SavedModel '{path}' holds a program without the layers that it came from.", _FORMATS, _AS_TEACHER)
    imports.tf_keras()
    from tf_keras.protobuf import saved_metadata_pb2

    found = saved_metadata_pb2.SavedMetadata.FromString(metadata.read_bytes())
    root = next((node for node in found.nodes if node.node_path == "root"), None)
    about = _json(root.metadata, path) if root is not None and root.identifier in _NETWORKS else {}
    config = about.get("config")
    if not isinstance(config, dict) or "layers" not in config:
        raise ModelError(
            f"The SavedModel '{path}' is of a model whose call is Python code: no layers can be read from it.",
            "a functional or Sequential model",
            _AS_TEACHER,
        )
    return ModelSource(path, "SavedModel", True, {"class_name": about.get("class_name", "Functional"), "config": config})


def _json(text, path):
    config = json.loads(text)
    if not isinstance(config, dict):
        raise ModelError(f"'{path}' has a config that is a {type(config).__name__}.", "a JSON object")
    return config
