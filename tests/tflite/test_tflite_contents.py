"""The census of a file, and its checks, which must fail on files made to fail them."""

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdistill.convert.census import require_integer, require_no_flex
from tfdistill.errors import ConfigurationError, ExportError
from tfdistill.runtime import tensorflow_lite
from tfdistill.runtime.capture import captured_output
from tfdistill.tflite import CensusRecord, census, export_tflite

DATA = np.random.default_rng(0).random((32, 6, 6, 2), dtype="float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("census")


def small_conv():
    layers = keras.layers
    biased = {"bias_initializer": "uniform"}  # the converter leaves out a bias of zeros
    return keras.Sequential(
        [keras.Input((6, 6, 2)), layers.Conv2D(3, 3, **biased), layers.Conv2D(4, 3, **biased), layers.Flatten(), layers.Dense(5, **biased)]
    )


@pytest.fixture(scope="module")
def float_file(folder):
    return export_tflite(small_conv(), folder / "float.tflite").path


@pytest.fixture(scope="module")
def mixed_file(folder):
    """A file converted without the integer-only setting: int8 where the converter can, float where it cannot, without an error."""

    class Careless(tf.Module):
        kernel = tf.constant(np.random.default_rng(1).standard_normal((2, 4)).astype("float32"))

        @tf.function(input_signature=[tf.TensorSpec((1, 6, 6, 2), tf.float32)])
        def serve(self, x):
            return tf.sin(tf.matmul(tf.reshape(x, (36, 2)), self.kernel))

    module = Careless()
    with captured_output():
        converter = tensorflow_lite.converter_class().from_concrete_functions([module.serve.get_concrete_function()], module)
        converter.optimizations = [tensorflow_lite.default_optimization()]
        converter.representative_dataset = lambda: ([sample[None]] for sample in DATA)
        content = converter.convert()
    path = folder / "mixed.tflite"
    path.write_bytes(content)
    return path


def test_counts_are_those_of_the_model(float_file):
    model = small_conv()
    record = census(float_file)
    assert {op.name: op.count for op in record.ops} == {"CONV_2D": 2, "RESHAPE": 1, "FULLY_CONNECTED": 1}
    assert record.weights == model.count_params() + 2  # and the two numbers of the new shape
    assert record.weights_bytes == 4 * record.weights
    assert record.dtypes["float32"] == len(record.float_tensors) == 11
    assert record.subgraphs == 1
    assert record.flex_ops == ()
    made_by = {t.made_by for t in record.float_tensors}
    assert made_by == {"input", "constant", "CONV_2D", "RESHAPE", "FULLY_CONNECTED"}
    assert record.min_runtime_version.split(".")[0].isdigit()
    assert CensusRecord.from_dict(record.to_dict()) == record


def test_float_tensors_of_an_integer_file_are_listed_with_their_operation(mixed_file):
    with pytest.raises(ExportError, match=r"SIN -> '.*' float32\[36, 4\] -> output") as caught:
        require_integer(census(mixed_file), float_io=True)
    assert "DEQUANTIZE -> " in str(caught.value)


def test_float_io_is_an_error_unless_allowed(folder):
    path = export_tflite(small_conv(), folder / "io.tflite", "int8", calibration=DATA, io="float32").path
    require_integer(census(path), float_io=True)
    with pytest.raises(ExportError, match="2 float tensors"):
        require_integer(census(path))


def test_float_file_is_no_integer_file(float_file):
    with pytest.raises(ExportError, match="CONV_2D"):
        require_integer(census(float_file), float_io=True)


def test_flex_is_an_error(folder):
    x = keras.Input((4,))
    record = export_tflite(keras.Model(x, FlexErf()(x)), folder / "flex.tflite", allow_flex=True).census
    with pytest.raises(ExportError, match="FlexErf"):
        require_no_flex(record)


class FlexErf(keras.layers.Layer):
    def call(self, x):
        return tf.math.erf(x)


@pytest.mark.parametrize("kept", [0, 5, 30, 0.3, 0.6, 0.9])
def test_damaged_files_are_named(kept, float_file, tmp_path):
    content = pathlib.Path(float_file).read_bytes()
    path = tmp_path / "cut.tflite"
    path.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    with pytest.raises(ExportError, match=r"cut\.tflite' \(\d+ bytes\) is (damaged|not a \.tflite file)"):
        census(path)


def test_missing_file(tmp_path):
    with pytest.raises(ConfigurationError, match="There is no file"):
        census(tmp_path / "none.tflite")
