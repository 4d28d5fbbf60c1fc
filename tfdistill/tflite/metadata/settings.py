"""What a user says of a model, for `export_tflite(metadata=...)` and `add_metadata`."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from tfdistill.errors import ConfigurationError
from tfdistill.utils import validate

TEXTS = ("name", "description", "version", "author", "license")
# Numbers are stored as float32, whose largest and smallest lie beyond these.
_LARGEST, _SMALLEST = 1e30, 1e-30
# So many bytes of JSON may tell how a model was made: a file for a small device is not much larger.
MOST_PROVENANCE_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Normalization:
    """How values become those that a model computes with: (x - mean) / std.

    Programs on the device do this to the pixels, 0 to 255, before they give them to an input of floats. For an input of integers they say what the integers mean
    (tfdistill checks that, see `add_metadata`).

    Attributes:
        mean: One number, or one for each channel of the last axis.
        std: Likewise; greater than 0.
        kind: `"image"`: the input is an image (batch, height, width, channels), of one channel (gray) or three (red, green, blue). `"features"`: it is anything else.

    Raises:
        ConfigurationError: if a value is no number or out of range, or if there is another number of means than of standard deviations.

    Example:
        >>> pixels = tfdistill.tflite.Normalization(mean=127.5, std=127.5)  # for a model of images from -1 to 1
        >>> pixels.mean, pixels.kind
        ((127.5,), 'image')
    """

    mean: float | Sequence[float]
    std: float | Sequence[float]
    kind: Literal["image", "features"] = "image"

    def __post_init__(self) -> None:
        mean = _numbers("mean", self.mean, -_LARGEST)
        std = _numbers("std", self.std, _SMALLEST)
        count = max(len(mean), len(std))
        if {len(mean), len(std)} - {1, count}:
            raise ConfigurationError(
                f"Normalization: there are {len(mean)} means and {len(std)} standard deviations.",
                "as many of both, or one for all channels",
            )
        object.__setattr__(self, "mean", mean * (count // len(mean)))
        object.__setattr__(self, "std", std * (count // len(std)))
        validate.one_of("kind", self.kind, ("image", "features"), owner="Normalization")


def _numbers(name, value, at_least):
    several = isinstance(value, (list, tuple, np.ndarray)) and np.ndim(value) == 1 and len(value) > 0
    values = value if several else [value]
    return tuple(validate.number(name, each, at_least, _LARGEST, owner="Normalization") for each in values)


@dataclasses.dataclass(frozen=True)
class FileMetadata:
    """What is written into a .tflite file for those who use it. Apps read the labels and the normalization (MediaPipe Tasks), people the rest.

    Attributes:
        name: Name of the model.
        description: What it is for.
        version: Its version, as its author counts.
        author: Who made it.
        license: Under which terms it may be used, for example `Apache-2.0`.
        labels: Names of the classes, in the order of the last axis of the output: a list for a file with one output, or a dict of output name -> list.
        normalization: `Normalization` of the input of a file with one input, or a dict of input name -> `Normalization`.
        provenance: How the model was made, as a dict of JSON values, such as `{"recipe": ..., "data": ...}`: at most 1 MiB. `export_tflite` adds the key `"export"`.

    Raises:
        ConfigurationError: if a text, label or value is of the wrong type, empty or too long, or a label has several lines.

    Example:
        >>> about = tfdistill.tflite.FileMetadata(author="Ada", license="MIT", labels=[f"digit {i}" for i in range(10)])
        >>> record = tfdistill.export_tflite(student, "digits.tflite", metadata=about)
        >>> tfdistill.read_metadata("digits.tflite").labels["logits"][3]
        'digit 3'
    """

    name: str = ""
    description: str = ""
    version: str = ""
    author: str = ""
    license: str = ""
    labels: Sequence[str] | Mapping[str, Sequence[str]] = ()
    normalization: Normalization | Mapping[str, Normalization] | None = None
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in TEXTS:
            _require_text(name, getattr(self, name))
        object.__setattr__(self, "labels", _checked_labels(self.labels))
        object.__setattr__(self, "normalization", _checked_normalization(self.normalization))
        object.__setattr__(self, "provenance", json.loads(provenance_text(self.provenance)))


def _require_text(name, value):
    if not isinstance(value, str):
        raise ConfigurationError(f"FileMetadata: {name}={value!r} is a {type(value).__name__}.", "a text")
    if "\0" in value or not _is_unicode(value):
        raise ConfigurationError(
            f"FileMetadata: {name}={value!r} cannot be written as UTF-8.", "a text without surrogates and null characters"
        )


def _is_unicode(text):
    return not any(0xD800 <= ord(character) < 0xE000 for character in text)


def _checked_labels(labels):
    if not isinstance(labels, Mapping):
        return _label_list(labels, "labels")
    if not all(isinstance(name, str) and not isinstance(each, str) for name, each in labels.items()):
        raise ConfigurationError(
            "FileMetadata: labels is a dict of something else than output name -> list of labels.",
            "a list for a file with one output, or a dict of output name -> list",
            "list what is in a dict of index -> label: [labels[i] for i in sorted(labels)]",
        )
    return {name: _label_list(each, f"labels[{name!r}]") for name, each in labels.items()}


def _label_list(labels, where):
    if isinstance(labels, str):
        raise ConfigurationError(
            f"FileMetadata: {where}={labels!r} is one text.",
            "a list of labels",
            f"if it is the name of a file with a label on each line, read that: pathlib.Path({labels!r}).read_text('utf-8').splitlines()",
        )
    if not isinstance(labels, (list, tuple, np.ndarray)) or np.ndim(labels) != 1:  # a set has no order
        raise ConfigurationError(f"FileMetadata: {where}={labels!r} is a {type(labels).__name__}.", "a list of labels")
    for index, label in enumerate(labels):
        if not isinstance(label, str):
            raise ConfigurationError(
                f"FileMetadata: {where}[{index}]={label!r} is a {type(label).__name__}.", "texts", "write [str(label) for label in labels]"
            )
        # Some readers drop blank lines, and every one takes the end of a line for the end of a label.
        if not label.strip() or label.splitlines() != [label] or "\0" in label or not _is_unicode(label):
            raise ConfigurationError(f"FileMetadata: {where}[{index}]={label!r} is no label.", "a text of one line that is not blank")
    return tuple(map(str, labels))


def _checked_normalization(given):
    if given is None or isinstance(given, Normalization):
        return given
    if isinstance(given, Mapping) and all(isinstance(name, str) and isinstance(each, Normalization) for name, each in given.items()):
        return dict(given)
    raise ConfigurationError(
        f"FileMetadata: normalization={given!r} is a {type(given).__name__}.",
        "a Normalization, or a dict of input name -> Normalization",
        "write tfdistill.tflite.Normalization(mean, std)",
    )


def provenance_text(provenance):
    """Returns the JSON text of how a model was made: the same text for equal values.

    Raises:
        ConfigurationError: if it is no dict of JSON values, or too long.
    """
    expected = "a dict of JSON values: texts, finite numbers, True, False, None, and lists and dicts of them"
    try:
        text = json.dumps(_with_text_keys(provenance), sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        size = len(text.encode("utf-8"))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"FileMetadata: provenance cannot be written as JSON: {error}.", expected) from error
    if not isinstance(provenance, Mapping):
        raise ConfigurationError(f"FileMetadata: provenance={provenance!r} is a {type(provenance).__name__}.", expected)
    if size > MOST_PROVENANCE_BYTES:
        raise ConfigurationError(f"FileMetadata: provenance takes {size:,} bytes.", f"at most {MOST_PROVENANCE_BYTES:,} bytes of JSON")
    return text


def _with_text_keys(value):
    """Returns a JSON value as it is; raises where `json` would silently make texts of other keys, after which two could be one."""
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("keys must be texts")
        return {key: _with_text_keys(inner) for key, inner in value.items()}
    return [_with_text_keys(inner) for inner in value] if isinstance(value, (list, tuple)) else value
