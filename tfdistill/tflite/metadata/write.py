"""Writes into a .tflite file what it says of itself. What the file computes stays the same, to the bit."""

import numpy as np

from tfdistill.convert import file_tensors
from tfdistill.convert.census import CensusRecord, census, read_error
from tfdistill.convert.packing import pack
from tfdistill.convert.parsed_file import ParsedFile
from tfdistill.errors import ConfigurationError, nearest
from tfdistill.runtime.interpreter import ModelFile, read_file
from tfdistill.runtime.probe import probe
from tfdistill.runtime.schema import schema
from tfdistill.tflite.destination import destination
from tfdistill.tflite.metadata.archive import append
from tfdistill.tflite.metadata.read import COLORS, DESCRIPTION, PROVENANCE, keys_of
from tfdistill.tflite.metadata.settings import TEXTS, FileMetadata, Normalization, provenance_text
from tfdistill.tflite.metadata.tables import AXIS_LABELS, IMAGE, NORMALIZATION, PARSER_VERSION, pack_tables
from tfdistill.tflite.verification.ranges import warn
from tfdistill.utils.files import write_whole
from tfdistill.utils.types import PathLike

_NORMALIZED = ("float32", "uint8", "int8", "int16")
# A pixel may be read as another one so many steps of 256 away before it is said.
_MOST_STEPS_OFF = 8


def add_metadata(path: PathLike, metadata: FileMetadata, out: PathLike | None = None, replace: bool = False) -> CensusRecord:
    """Writes labels, normalization, author, license and provenance into a .tflite file, from whatever converter it comes.

    Apps read them: MediaPipe Tasks returns the names of the classes, and normalizes images for inputs of floats. The file is written completely or not at all, and
    the same metadata gives the same bytes. What it computes does not change. It is parsed in another process first, because a damaged file can make its parser loop or use
    up the memory.

    Args:
        path: The file.
        metadata: `tfdistill.tflite.FileMetadata`.
        out: The file to write, ending in `.tflite`; None writes `path` anew.
        replace: Whether to replace what the file says of itself already, all of it. What `read_metadata` found is kept by
            `dataclasses.replace(read_metadata(path).to_metadata(), author="Ada")`.

    Returns:
        The `CensusRecord` of the new file.

    Raises:
        ConfigurationError: if there is no such file, a label, input or output does not fit it, or it already says something of itself and `replace` is not set.
        ExportError: if it is not a complete .tflite file.

    Warns:
        UserWarning: if an input of uint8 reads pixels otherwise than the normalization says, as programs give such an input the pixels as they are.

    Example:
        >>> about = tfdistill.tflite.FileMetadata(license="Apache-2.0", labels=[f"digit {i}" for i in range(10)])
        >>> record = tfdistill.add_metadata("student.tflite", about, out="labelled.tflite")
        >>> tfdistill.read_metadata("labelled.tflite").license
        'Apache-2.0'
    """
    require_metadata(metadata)
    file = read_file(path)
    target = file.path if out is None else destination(out)
    found = probe(file, "tfdistill.tflite.metadata.read:read_content", None, read_error(file))
    if found is not None and not replace:
        raise ConfigurationError(
            f"'{file.path}' already says something of itself: {', '.join(name for name, value in found.items() if value) or 'names of its tensors'}.",
            "a file without metadata",
            "replace all of it by replace=True; dataclasses.replace(tfdistill.read_metadata(path).to_metadata(), ...) keeps what stays",
        )
    content, notes = described(file.content, metadata, str(file.path))
    with write_whole(target) as temporary:
        temporary.write_bytes(content)
        record = census(ModelFile(target, content), trusted=True)
    warn(notes)
    return record


def require_metadata(metadata):
    """Raises a `ConfigurationError` if what is given as metadata is none."""
    if not isinstance(metadata, FileMetadata):
        raise ConfigurationError(
            f"metadata={metadata!r} is a {type(metadata).__name__}.",
            "a tfdistill.tflite.FileMetadata",
            "write tfdistill.tflite.FileMetadata(author='...', labels=[...])",
        )


def described(content, metadata, name):
    """Returns a file with a description of itself.

    Args:
        content: The file as bytes, whose structure was checked.
        metadata: `FileMetadata`.
        name: Name of the file, for errors.

    Returns:
        (content, list of notes on what will be read otherwise than it is meant).

    Raises:
        ConfigurationError: if the metadata does not fit the file.
    """
    classes = schema()
    model = classes.ModelT.InitFromObj(classes.Model.GetRootAs(content, 0))
    if any(getattr(buffer, "offset", 0) > 1 for buffer in model.buffers):
        raise ConfigurationError(f"'{name}' has weights outside its tables, where files of over 2 GB have them.", "a file below 2 GB")
    file = ParsedFile(model, classes)
    types = {value: kind.lower() for kind, value in vars(classes.TensorType).items() if isinstance(value, int)}
    inputs, outputs = (_by_key(file_tensors.listed(model, types, side)) for side in ("inputs", "outputs"))
    shapes = {key: (tensor.shape, tensor.dtype) for key, tensor in inputs.items()}, {key: tensor.shape for key, tensor in outputs.items()}
    normalization, labels = fitted(metadata, *shapes, f"'{name}'")
    labels = {key: labels[key] for key in outputs if key in labels}  # in an order of the file's: equal metadata gets equal bytes
    files = {key: "labels.txt" if len(labels) == 1 else f"labels_{list(outputs).index(key)}.txt" for key in labels}
    tables = {
        **{text: getattr(metadata, text) for text in TEXTS if getattr(metadata, text)},
        "subgraph_metadata": [
            {
                "input_tensor_metadata": [{"name": key, **_input(tensor, normalization.get(key))} for key, tensor in inputs.items()],
                "output_tensor_metadata": [
                    {"name": key, **({"associated_files": [{"name": files[key], "type": AXIS_LABELS}]} if key in files else {})}
                    for key in outputs
                ],
            }
        ],
        "min_parser_version": PARSER_VERSION,
    }
    _set_entry(model, classes, DESCRIPTION, pack_tables(tables))
    _set_entry(model, classes, PROVENANCE, provenance_text(metadata.provenance).encode() if metadata.provenance else None)
    file.share_buffers()  # drops those of replaced entries
    appended = {files[key]: "".join(f"{label}\n" for label in labels[key]).encode() for key in labels}
    notes = [note for key, how in normalization.items() if (note := _read_otherwise(inputs[key], how))]
    return append(pack(model, classes), appended), notes


def _by_key(tensors):
    return dict(zip(keys_of([tensor.name for tensor in tensors]), tensors, strict=True))


def _input(tensor, normalization):
    if normalization is None:
        return {}
    values = {"mean": normalization.mean, "std": normalization.std}
    found = {"process_units": [{"options_type": NORMALIZATION, "options": values}]}
    if normalization.kind == "image":
        found["content"] = {"content_properties_type": IMAGE, "content_properties": {"color_space": COLORS[tensor.shape[-1]]}}
    return found


def _set_entry(model, classes, name, data):
    """Writes one entry of the list of metadata, in place of an old one; None takes it out."""
    model.metadata = [entry for entry in model.metadata or [] if entry.name != name]
    if data is not None:
        buffer, entry = classes.BufferT(), classes.MetadataT()
        buffer.data = np.frombuffer(data, np.uint8)
        model.buffers.append(buffer)
        entry.name, entry.buffer = name, len(model.buffers) - 1
        model.metadata.append(entry)


def fitted(metadata, inputs, outputs, name):
    """Checks metadata against the inputs and outputs that it is about.

    Args:
        metadata: `FileMetadata`.
        inputs: Dict of input name -> (shape, type); None for a size that is not known.
        outputs: Dict of output name -> shape; None if they are not known yet.
        name: What has them, for errors.

    Returns:
        (dict of input name -> `Normalization`, dict of output name -> labels).

    Raises:
        ConfigurationError: if there is no such input or output, or a number of channels or classes is another.
    """
    normalization = _by_name(metadata.normalization, Normalization, inputs, "normalization", "input", name)
    labels = {} if outputs is None else _by_name(metadata.labels, tuple, outputs, "labels", "output", name)
    for key, how in normalization.items():
        shape, dtype = inputs[key]
        if dtype not in _NORMALIZED:
            raise ConfigurationError(
                f"normalization is given for input '{key}' of {name}, whose type is {dtype}.",
                f"an input of one of {', '.join(_NORMALIZED)}",
            )
        if how.kind == "image" and (len(shape) != 4 or shape[-1] not in COLORS):
            raise ConfigurationError(
                f"Input '{key}' of {name} has the shape {shape}, which is no image.",
                "(batch, height, width, 1 or 3) for kind='image'",
                "write Normalization(mean, std, kind='features')",
            )
        if len(how.mean) > 1 and len(how.mean) != (shape[-1] if shape else 1):
            raise ConfigurationError(
                f"normalization has {len(how.mean)} means for input '{key}' of {name}, whose shape is {shape}.",
                "one for each index of the last axis, or one for all",
            )
    for key, given in labels.items():
        width = (outputs[key] or (1,))[-1]
        if width is not None and len(given) != width:
            raise ConfigurationError(
                f"There are {len(given)} labels for output '{key}' of {name}, whose last axis has {width} elements.", f"{width} labels"
            )
    return normalization, labels


def _by_name(given, single, tensors, field, side, name):
    """Returns a dict of tensor name -> what is said of it; what stands alone is said of the only one."""
    if given is None or given == ():
        return {}
    if isinstance(given, single) and len(tensors) != 1:
        raise ConfigurationError(
            f"{field} is given for one {side}, but {name} has the {side}s {list(tensors)}.",
            f"a dict of {side} name -> {field}",
            f"write {field}={{{next(iter(tensors), '')!r}: ...}}",
        )
    found = {next(iter(tensors)): given} if isinstance(given, single) else given
    unknown = [key for key in found if key not in tensors]
    if unknown:
        raise ConfigurationError(f"{field} is given for '{unknown[0]}', but {name} has no such {side}.", fix=nearest(unknown[0], tensors))
    return found


def _read_otherwise(tensor, normalization):
    """Says where an input of uint8 reads pixels otherwise than the normalization; programs give it the pixels as they are."""
    if normalization.kind != "image" or tensor.dtype != "uint8" or tensor.scale is None:
        return None
    for pixel in (0, 255):
        for mean, std in zip(normalization.mean, normalization.std, strict=True):
            meant = (pixel - mean) / std / tensor.scale + tensor.zero_point
            if abs(meant - pixel) > _MOST_STEPS_OFF:
                return (
                    f"Input '{tensor.name}' has the integer {meant:.0f} for the pixel {pixel} by its normalization, but programs give the pixels of an image to an input of "
                    f"uint8 as they are, so they are read as other colors. Calibrate with samples whose pixels reach from 0 to 255, or export with io='float32'."
                )
    return None
