"""Small files for tests of benchmarks, made without TensorFlow."""

import functools
import pathlib
import tempfile

from tfdistill.runtime.peak_files import add_file, multiply_file


@functools.cache
def folder():
    """A folder with int8.tflite and float32.tflite (one convolution each) and add.tflite (two inputs)."""
    folder = pathlib.Path(tempfile.mkdtemp())
    for kind in ("int8", "float32"):
        (folder / f"{kind}.tflite").write_bytes(multiply_file(kind))
    (folder / "add.tflite").write_bytes(add_file(12 * 1000))
    return folder
