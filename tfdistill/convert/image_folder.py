"""Reads samples from a folder of images: as many as are wanted, of every class its share, in the size that a model takes."""

import dataclasses
import os
import pathlib
from collections.abc import Callable

import numpy as np

from tfdistill.errors import ConfigurationError, DataError
from tfdistill.utils.progress import track
from tfdistill.utils.types import PathLike

ENDINGS = (".png", ".jpg", ".jpeg", ".gif", ".bmp")
_MODES = {1: "grayscale", 3: "rgb", 4: "rgba"}


@dataclasses.dataclass(frozen=True)
class ImageFolder:
    """A folder of images as calibration or verification data, a subfolder for each class or images alone.

    The images are resized to the model's input, as `keras.utils.image_dataset_from_directory` does it, and have values from 0 to 255. Classes are numbered in the
    order of the names of their folders. If fewer samples are wanted than there are, each class gets its share of them.

    Args:
        path: The folder.
        preprocess: Function of float32 images (samples, height, width, channels) from 0 to 255: returns what the model was trained on, such as
            `keras.applications.mobilenet_v2.preprocess_input`. None for a model that takes pixels.

    Raises:
        ConfigurationError: if there is no such folder.

    Example:
        >>> import tensorflow as tf
        >>> for i in range(16):
        ...     tf.io.write_file(f"{i}.png", tf.io.encode_png(np.full((9, 9, 1), 10 * i, "uint8")))
        >>> images = tfdistill.tflite.ImageFolder(".", preprocess=lambda images: images / 127.5 - 1)
        >>> tfdistill.export_tflite(student, "images.tflite", "int8", calibration=images).calibration_samples
        16
    """

    path: PathLike
    preprocess: Callable[[np.ndarray], np.ndarray] | None = None

    def __post_init__(self) -> None:
        if not pathlib.Path(self.path).is_dir():
            raise ConfigurationError(f"There is no folder '{self.path}'.", "a folder of images")


def read_images(folder, signature, limit=None):
    """Reads the images of a folder.

    Args:
        folder: `ImageFolder`.
        signature: `ModelSignature` of a model of one image.
        limit: Largest number of images; None reads all.

    Returns:
        The images (samples, height, width, channels), and the index of the class of each, or None for a folder without subfolders.

    Raises:
        ConfigurationError: if the model does not take one image of fixed size.
        DataError: if there are no images, or one cannot be read.
    """
    shapes = {i.key: i.shape for i in signature.inputs}
    shape = next(iter(shapes.values()))
    if len(shapes) > 1 or len(shape) != 3 or shape[-1] not in _MODES or None in shape:
        raise ConfigurationError(
            f"A folder of images was given, but the model takes {shapes}.",
            "a model of one image of fixed size and of 1, 3 or 4 channels",
            "give arrays, or for other data a function that returns them",
        )
    files, labels = _files(pathlib.Path(folder.path))
    kept = chosen(len(files), limit, labels)
    images = np.stack([_read(files[i], shape) for i in track(kept, "reading images")])
    if folder.preprocess is not None:
        made = np.asarray(folder.preprocess(images))
        if made.shape != images.shape:
            raise DataError(f"preprocess made images of the shape {made.shape} of {images.shape}.", "a function that keeps the shape")
        images = made
    return images, None if labels is None else labels[kept]


def chosen(count, limit, labels=None):
    """Chooses samples: evenly spaced ones, or of each class evenly spaced ones, as many as its share of all, and at least one where there is room.

    Args:
        count: Number of samples.
        limit: Largest number to choose; None chooses all.
        labels: Class of each, (samples,); None for none.

    Returns:
        Array of their positions, in increasing order.
    """
    if limit is None or count <= limit:
        return np.arange(count)
    classes, sizes = (None, None) if labels is None else np.unique(labels, return_counts=True)
    if classes is None or not 1 < len(classes) <= limit:
        return np.linspace(0, count - 1, limit).round().astype(int)
    shares = np.maximum(limit * sizes / count, 1.0)
    numbers = np.floor(shares).astype(int)
    # What rounding down has left goes to the classes that lost most by it; what classes of one sample took too much comes from the largest.
    for place in np.argsort(numbers - shares, kind="stable")[: max(limit - numbers.sum(), 0)]:
        numbers[place] += 1
    while numbers.sum() > limit:
        numbers[np.argmax(numbers)] -= 1
    places = [np.flatnonzero(labels == label) for label in classes]
    return np.sort(
        np.concatenate([own[np.linspace(0, len(own) - 1, number).round().astype(int)] for own, number in zip(places, numbers, strict=True)])
    )


def class_of_each(labels, count):
    """Returns the class of each sample where labels say one, (samples,): indices or one-hot rows; None elsewhere."""
    if not isinstance(labels, np.ndarray) or len(labels) != count:
        return None
    if labels.ndim == 2 and labels.shape[1] > 1 and ((labels == 0) | (labels == 1)).all() and (labels.sum(1) == 1).all():
        return labels.argmax(1)
    flat = labels.reshape(count, -1)
    return flat[:, 0] if flat.shape[1] == 1 and labels.dtype.kind in "iub" else None


def _files(folder):
    """Lists the images of a folder, and the index of the class of each."""
    classes = sorted(inner for inner in folder.iterdir() if inner.is_dir())
    found = [(path, label) for label, inner in enumerate(classes) for path in sorted(inner.rglob("*")) if path.suffix.lower() in ENDINGS]
    labels = np.array([label for _, label in found])
    if not classes:
        found, labels = [(path, 0) for path in sorted(folder.iterdir()) if path.suffix.lower() in ENDINGS], None
    if not found:
        raise DataError(f"The folder '{folder}' holds no images.", "png, jpg, gif or bmp files, in a subfolder for each class")
    return [path for path, _ in found], labels


def _read(path, shape):
    import tensorflow as tf

    try:
        image = tf.image.decode_image(tf.io.read_file(str(path)), channels=shape[-1], expand_animations=False)
    except (tf.errors.OpError, ValueError) as error:
        raise DataError(
            f"The image '{path}' cannot be read: {str(error).splitlines()[0][:200]}.", "a whole png, jpg, gif or bmp file"
        ) from error
    return tf.image.resize(image, shape[:2], method="bilinear").numpy().astype(np.float32)


def normalized_folder(data, normalization):
    """Returns the `ImageFolder` of a path, whose pixels are normalized as apps that read a file's metadata do it; all else as it is.

    Args:
        data: Data, or None.
        normalization: `tfdistill.tflite.Normalization` with `mean` and `std`; None for none.
    """
    if normalization is None or not isinstance(data, (str, os.PathLike)) or not os.path.isdir(data):
        return data
    mean, std = (np.asarray(numbers, np.float32) for numbers in (normalization.mean, normalization.std))
    return ImageFolder(data, lambda images: (images - mean) / std)
