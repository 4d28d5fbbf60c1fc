"""Types of public signatures that several rooms share.

Keras and TensorFlow come without types, so tensors are `Any` to a type checker; the docstrings give shapes.
"""

import collections.abc
import os
import typing

# Path of a file or folder.
PathLike = typing.Union[str, "os.PathLike[str]"]
# A tensor of TensorFlow, or what becomes one: a NumPy array, nested lists of numbers.
Tensor = typing.Any
# A shape with its batch axis first; None stands for a size that is not known.
Shape = tuple[int | None, ...]
# One tensor, or a list, tuple or dict of them, as a model takes and returns.
Tensors = typing.Any
# A data set: an array or a structure of arrays, a `tf.data.Dataset`, a `keras.utils.PyDataset`, or a generator of batches.
Data = typing.Any


class RunsFiles(typing.Protocol):
    """A device that runs .tflite files on given inputs, such as `tfdistill.benchmarking.Ssh`."""

    def describe(self) -> str:
        """Returns a description for people."""
        ...

    def outputs(self, path: PathLike, inputs: typing.Any, *, shapes: typing.Any = None) -> dict[str, typing.Any]:
        """Returns the outputs of a file: name -> array (samples, ...), dequantized."""
        ...


# A configuration that `from_config` takes: what `get_config` returned.
Config = dict[str, typing.Any]
# A function that gets lines of text to show or to log.
LogFunction = collections.abc.Callable[[str], typing.Any]
# Names of the activations that made an output of the teacher and one of the student, such as "softmax"; None where one is unknown.
Activations = tuple[str | None, str | None]
