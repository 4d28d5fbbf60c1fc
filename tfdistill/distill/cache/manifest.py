"""The manifest of a soft-target cache: teacher, data set, settings, and the checksum of every file."""

import dataclasses
import hashlib
import json
import os
import pathlib

from tfdistill.distill.cache.format import Layout
from tfdistill.errors import DataError
from tfdistill.records import Record
from tfdistill.utils.files import open_regular, write_whole
from tfdistill.utils.hashing import sha256_of
from tfdistill.version import __version__

# Rows of format 1 have no scales (see `tfdistill.distill.cache.format`). Such caches are read, and unfinished ones are completed.
FORMAT, READABLE = 2, (1, 2)
MANIFEST, PLAN = "manifest.json", "plan.json"


@dataclasses.dataclass(frozen=True)
class TeacherFingerprint(Record):
    """What identifies a teacher.

    Attributes:
        kind: Name of its class.
        architecture: SHA-256 of its configuration, layer names and `trainable` flags left out; for a black box of the identity that the
            user gave.
        weights: SHA-256 over the values, shapes and types of its weights; empty for a black box.
    """

    kind: str
    architecture: str
    weights: str


@dataclasses.dataclass(frozen=True)
class InputPart(Record):
    """One input array of the data set: its path in the structure (empty for a single one), its shape without the batch axis, and its type."""

    path: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclasses.dataclass(frozen=True)
class Settings(Record):
    """What is known of a cache before the first shard is written.

    Attributes:
        teacher: `TeacherFingerprint`.
        inputs: The inputs' parts.
        layout: `Layout` of the rows.
        structure: Structure of the final outputs: "single", "list" or "dict".
        output_names: Names of the final outputs, in the order of a flattened structure.
        classes: Size of the last axis of each final output, or None where only whole outputs are kept.
        dtype: Type of the stored numbers.
        top_k: Number of largest logits kept, or None for whole outputs.
        temperatures: Those for which the log-sum-exp of the other logits is stored; empty without `top_k`.
        augmented: Digest of the first batch of augmented inputs, or None without augmentation.
        block: Elements in a record, and in a batch of the teacher.
        shard_elements: Elements in each shard but the last; a multiple of `block`.
        format: Version of the format.
        library_version: Version of the library that wrote it.
    """

    teacher: TeacherFingerprint
    inputs: tuple[InputPart, ...]
    layout: Layout
    structure: str
    output_names: tuple[str, ...]
    classes: tuple[int, ...] | None
    dtype: str
    top_k: int | None
    temperatures: tuple[float, ...]
    augmented: str | None
    block: int
    shard_elements: int
    format: int = FORMAT
    library_version: str = __version__

    @property
    def layers(self):
        """Paths of the layers whose outputs are stored."""
        return tuple(leaf.name for leaf in self.layout.leaves if leaf.role == "layer")


@dataclasses.dataclass(frozen=True)
class Shard(Record):
    """One file of teacher outputs.

    Attributes:
        file: Its name.
        elements: Number of elements in it.
        size_bytes: Its size.
        sha256: Its checksum.
        inputs: Digest of the inputs of each record, 16 hexadecimal digits.
    """

    file: str
    elements: int
    size_bytes: int
    sha256: str
    inputs: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Manifest(Record):
    """A whole cache: its settings, and its shards in the order of the elements."""

    settings: Settings
    elements: int
    shards: tuple[Shard, ...]

    @property
    def size_bytes(self):
        """Size of all shards."""
        return sum(shard.size_bytes for shard in self.shards)


def shard_name(index):
    """Name of the file of a shard, which are counted from 0."""
    return f"shard-{index:05d}.tfrecord"


def shard_record_name(index):
    """Name of the file that holds the `Shard` of a finished shard until all are finished."""
    return f"shard-{index:05d}.json"


def _checksum(values):
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def save_signed(record, path):
    """Writes a record as JSON together with its own checksum, whole or not at all; returns the checksum."""
    values = record.to_dict()
    checksum = _checksum(values)
    with write_whole(path, follow_links=False) as temporary:
        temporary.write_text(json.dumps({"sha256": checksum, "content": values}, separators=(",", ":")) + "\n", encoding="utf-8")
    return checksum


def load_signed(kind, path):
    """Reads what `save_signed` wrote.

    Returns:
        The record and its checksum.

    Raises:
        DataError: naming the file, if it is missing, is not JSON, or its content was changed.
    """
    path = pathlib.Path(path)
    try:
        with open(open_regular(path), "rb") as file:
            document = json.loads(file.read().decode("utf-8"))
    except OSError as error:
        raise DataError(
            f"'{path}' cannot be read: {error.strerror}.", "the folder of a finished cache, with its files and no links in it"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"'{path}' is damaged: it is not JSON ({error}).", fix=_LABEL_AGAIN) from error
    if not isinstance(document, dict) or set(document) != {"sha256", "content"} or not isinstance(document["content"], dict):
        raise DataError(f"'{path}' is damaged, or is not a file of a cache.", "a file that soft_targets wrote", _LABEL_AGAIN)
    if _checksum(document["content"]) != document["sha256"]:
        raise DataError(f"'{path}' is damaged: its content does not have the checksum that it carries.", fix=_LABEL_AGAIN)
    settings = document["content"].get("settings", document["content"])
    found = settings.get("format", FORMAT) if isinstance(settings, dict) else FORMAT
    if found not in READABLE:
        raise DataError(f"'{path}' has the format {found}.", f"format {FORMAT}", "label again with this version of the library")
    return kind.from_dict(document["content"], path), document["sha256"]


def load_manifest(directory):
    """Reads the manifest of a finished cache.

    Returns:
        `Manifest` and its checksum.

    Raises:
        DataError: as `load_signed` does; or if a shard in it has a file name that shards do not have.
    """
    path = pathlib.Path(directory) / MANIFEST
    manifest, checksum = load_signed(Manifest, path)
    for index, shard in enumerate(manifest.shards):
        check_shard_name(path, shard, index)
    return manifest, checksum


def check_shard_name(path, shard, index):
    """Raises `DataError` if a record names another file than its shard has: a path that leads out of the folder, for example."""
    if shard.file != shard_name(index):
        raise DataError(f"'{path}' says that shard {index} is the file {shard.file!r}.", repr(shard_name(index)), _LABEL_AGAIN)


_LABEL_AGAIN = "label again into another folder, or bring a copy of the file back"


def verify_shard(directory, shard):
    """Compares the file of a shard with its size and checksum.

    Raises:
        DataError: naming the file and what is wrong with it.
    """
    path = pathlib.Path(directory) / shard.file
    if os.path.islink(path):
        raise DataError(
            f"The shard '{path}' is a symbolic link.", "a file in the folder of its cache", "put the file itself in the place of the link"
        )
    if not path.is_file():
        raise DataError(f"The shard '{path}' is missing.", f"a file of {shard.size_bytes} bytes", _LABEL_AGAIN)
    size = path.stat().st_size
    if size != shard.size_bytes:
        raise DataError(f"The shard '{path}' has {size} bytes.", f"{shard.size_bytes} bytes", _LABEL_AGAIN)
    if sha256_of(path) != shard.sha256:
        raise DataError(f"The shard '{path}' is damaged: its checksum differs.", f"SHA-256 {shard.sha256}", _LABEL_AGAIN)


def differences(old, new):
    """Lists in words how the settings of a cache differ from new ones; the version of the library does not count."""
    found = []
    if old.teacher != new.teacher:
        fields = zip(("class", "architecture", "weights"), dataclasses.astuple(old.teacher), dataclasses.astuple(new.teacher), strict=True)
        found.append(
            "another teacher: " + ", ".join(f"its {what} differ{'' if what == 'weights' else 's'}" for what, a, b in fields if a != b)
        )
    if old.inputs != new.inputs:
        found.append(f"another dataset: its inputs are {inputs_text(new.inputs)}, those of the cache {inputs_text(old.inputs)}")
    for field in dataclasses.fields(Settings):
        a, b = getattr(old, field.name), getattr(new, field.name)
        if a == b or field.name in ("teacher", "inputs", "library_version"):
            continue
        if field.name == "augmented":
            found.append("another augmentation, or another dataset: the augmented first batch differs")
        elif field.name == "layout":
            found.append(f"other outputs are stored: {_layout(b)}, in the cache {_layout(a)}")
        else:
            found.append(f"{field.name} is {b!r}, in the cache {a!r}")
    return found


def inputs_text(parts):
    """Describes `InputPart`s in one line of text."""
    return ", ".join(f"{part.path or 'x'} {part.dtype} {part.shape}" for part in parts)


def _layout(layout):
    return ", ".join(f"{leaf.role} {leaf.name} {leaf.dtype} {leaf.shape}" for leaf in layout.leaves) + f" in {layout.views} views"
