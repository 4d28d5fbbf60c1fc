"""The reference nets of MLPerf Tiny written in Keras 3 have the trained nets' weights, and int8 files that are no larger than the benchmark's own."""

import os
import pathlib
import sys

import keras
import numpy as np
import pytest

import tfdistill
from tfdistill.compress import Quantize
from tfdistill.tflite import Tolerances, export_tflite

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "benchmarks"))
import mlperf_tiny_nets as nets

# Net -> (the .h5 file of the trained one, largest value of its inputs, how it is quantized): the published file of the autoencoder has one scale for each layer.
NETS = {
    nets.resnet8: ("pretrainedResnet.h5", 255.0, Quantize()),
    nets.mobilenet_v1: ("vww_96.h5", 1.0, Quantize()),
    nets.autoencoder: ("ad01.h5", 1.0, Quantize(per_channel_dense=False)),
    nets.ds_cnn: ("kws_model.h5", 50.0, Quantize()),
}
LONG = ("resnet8", "mobilenet_v1")


def named(make):
    return make.__name__


def test_every_net_is_tested():
    assert NETS.keys() == nets.PUBLISHED.keys()


# `make mlperf-tiny` makes the files of all of them.
@pytest.mark.parametrize(
    "make", [pytest.param(make, marks=pytest.mark.release if named(make) in LONG else pytest.mark.slow) for make in NETS], ids=named
)
def test_an_int8_file_is_no_larger_than_the_published_one(make, tmp_path):
    keras.utils.set_random_seed(0)
    model, rng = make(), np.random.default_rng(0)
    parameters, published = nets.PUBLISHED[make]
    assert model.count_params() == parameters
    for weight in model.weights:  # as training leaves them: equal ones, such as zeros, would stand in the file once
        if len(weight.shape) == 1:
            weight.assign(
                rng.uniform(0.5, 1.5, weight.shape) if "variance" in weight.path else weight + rng.normal(size=weight.shape) * 0.1
            )
    _, _, step = NETS[make]
    x = rng.normal(size=(32, *model.input_shape[1:])).astype("float32")
    quantized = step.apply(model, calibration=x)
    record = export_tflite(quantized, tmp_path / "net.tflite", "int8", calibration=x, tolerances=Tolerances())
    assert record.size_bytes <= published
    assert record.census.dtypes.keys() <= {"int8", "int32"}


@pytest.mark.slow
@pytest.mark.parametrize("make", NETS, ids=named)
def test_the_weights_of_the_trained_net_fit_in_of_mlperf_tiny(make):
    file, most, _ = NETS[make]
    trained = tfdistill.load_model(pathlib.Path(os.environ["TFDISTILL_MLPERF_TINY"]) / file)
    model = make()
    assert [w.shape for w in model.weights] == [w.shape for w in trained.weights]
    model.set_weights(trained.get_weights())
    x = (np.random.default_rng(0).random((4, *model.input_shape[1:])) * most).astype("float32")
    assert np.ptp(np.asarray(trained(x))) > 0
    np.testing.assert_allclose(model(x), trained(x), atol=1e-5)
