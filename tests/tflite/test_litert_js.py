"""LiteRT.js, in a browser, gives what LiteRT gives here: the same class on a hundred inputs."""

import keras
import numpy as np
import pytest
from reader_models import IMAGES, SERIES, attention, images, recurrent

import tfdistill
from tfdistill.benchmarking import Browser
from tfdistill.runtime.interpreter import open_file
from tfdistill.tflite import Tolerances

# Model, variant, type of inputs and outputs: those that LiteRT.js takes.
FILES = [
    *((images, variant, "auto") for variant in ("float32", "float16", "dynamic_range")),
    *((images, "int8", io) for io in ("uint8", "float32")),
    *((attention, variant, "float32") for variant in ("float32", "int8")),
    (recurrent, "int8", "uint8"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("make", "variant", "io"), FILES, ids=lambda part: getattr(part, "__name__", part))
def test_classes_are_those_of_litert(make, variant, io, tmp_path):
    keras.utils.set_random_seed(1)
    x, path = IMAGES if make is images else SERIES, tmp_path / "m.tflite"
    tfdistill.export_tflite(make(), path, variant, calibration=x, io=io, tolerances=Tolerances())
    file = open_file(path, trusted=True)
    (output,) = file.outputs.values()
    (expected,), (found,) = file.run(x).values(), Browser().outputs(path, x).values()
    assert found.argmax(-1).tolist() == expected.argmax(-1).tolist()
    limit = output.scale or (float(np.ptp(expected)) / 128 if variant in ("int8", "dynamic_range") else 1e-6)
    assert np.abs(found - expected).max() <= limit * 1.001
    assert len(np.unique(expected.argmax(-1))) > 1
