"""Data sets of the demo and the benchmarks, which need no download or are read from a local folder."""

import dataclasses
import gzip
import pathlib

import numpy as np

from tfdistill.errors import ConfigurationError, DataError
from tfdistill.utils.optional import require

DEBIAN_FASHION_MNIST = pathlib.Path("/usr/share/datasets/fashion-mnist")
FASHION_MNIST_FILES = {
    ("train", "x"): "train-images-idx3-ubyte.gz",
    ("train", "y"): "train-labels-idx1-ubyte.gz",
    ("test", "x"): "t10k-images-idx3-ubyte.gz",
    ("test", "y"): "t10k-labels-idx1-ubyte.gz",
}
NAMES = ("digits", "fashion-mnist")


@dataclasses.dataclass(frozen=True)
class Images:
    """Images with labels, split in a training and a test part.

    Attributes:
        name: Name of the data set.
        x_train: float32 in [0, 1], of shape (samples, height, width, 1).
        y_train: int32 class indices, of shape (samples,).
        x_test: As `x_train`.
        y_test: As `y_train`.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

    @property
    def shape(self):
        return self.x_train.shape[1:]

    @property
    def classes(self):
        return int(self.y_train.max()) + 1

    def first(self, samples):
        """Returns the data with the first `samples` training images only."""
        return dataclasses.replace(self, x_train=self.x_train[:samples], y_train=self.y_train[:samples])


def load(name, folder=None):
    """Loads a data set by name: "digits" or "fashion-mnist".

    Args:
        name: One of `NAMES`.
        folder: Folder of Fashion-MNIST's four files. Defaults to Debian's; if that is missing, Keras downloads them.

    Raises:
        ConfigurationError: for an unknown name, or a folder for a data set that is not read from one.
    """
    if name == "digits":
        if folder is not None:
            raise ConfigurationError(
                f"The data set 'digits' is part of scikit-learn, so the folder '{folder}' is not used.", fix="leave the folder out"
            )
        return digits()
    if name == "fashion-mnist":
        return fashion_mnist(folder)
    raise ConfigurationError(f"There is no data set '{name}'.", f"one of {', '.join(NAMES)}")


def digits():
    """Loads scikit-learn's 1,797 handwritten digits, 8 x 8, in ten classes: 1,347 for training and 450 for the test, in a fixed split."""
    data = require("sklearn.datasets", "load the digits").load_digits()
    split = require("sklearn.model_selection", "split the digits").train_test_split
    x = (data.images / 16.0).astype("float32")[..., None]
    x_train, x_test, y_train, y_test = split(x, data.target.astype("int32"), test_size=450, random_state=0, stratify=data.target)
    return Images("digits", x_train, y_train, x_test, y_test)


def fashion_mnist(folder=None):
    """Loads Fashion-MNIST (Xiao et al., 2017): 60,000 images of clothes for training and 10,000 for the test, 28 x 28, in ten classes.

    Args:
        folder: Folder of its four files, compressed by gzip. Defaults to Debian's (package dataset-fashion-mnist); if that is missing,
            Keras downloads them.

    Raises:
        DataError: if a file is missing or is not in the IDX format.
    """
    if folder is None and DEBIAN_FASHION_MNIST.is_dir():
        folder = DEBIAN_FASHION_MNIST
    if folder is None:
        import keras

        (x_train, y_train), (x_test, y_test) = keras.datasets.fashion_mnist.load_data()
    else:
        folder = pathlib.Path(folder)
        missing = [name for name in FASHION_MNIST_FILES.values() if not (folder / name).is_file()]
        if missing:
            raise DataError(
                f"The folder '{folder}' lacks {', '.join(missing)}.",
                "the four files of Fashion-MNIST",
                "apt install dataset-fashion-mnist installs them",
            )
        x_train, y_train, x_test, y_test = (_read_idx(folder / FASHION_MNIST_FILES[key]) for key in FASHION_MNIST_FILES)
    images = [(x / 255.0).astype("float32")[..., None] for x in (x_train, x_test)]
    return Images("fashion-mnist", images[0], y_train.astype("int32"), images[1], y_test.astype("int32"))


def _read_idx(path):
    """Reads bytes in the IDX format: two zero bytes, type, number of dimensions, sizes as big-endian 32-bit numbers, data."""
    try:
        with gzip.open(path, "rb") as file:
            content = file.read()
    except (OSError, EOFError) as error:
        raise DataError(f"'{path}' cannot be read: {error}.", "a file compressed by gzip") from error
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise DataError(f"'{path}' does not begin like an IDX file of bytes.", "the bytes 0, 0, 8 and the number of dimensions")
    sizes = np.frombuffer(content, ">u4", count=content[3], offset=4)
    data = np.frombuffer(content, "u1", offset=4 + 4 * content[3])
    if data.size != np.prod(sizes):
        raise DataError(
            f"'{path}' holds {data.size} values, but its header gives the sizes {' x '.join(map(str, sizes))}.", fix="download it again"
        )
    return data.reshape(sizes)
