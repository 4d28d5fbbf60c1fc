"""The first step of a quantization-aware training, which may take long before it runs, is shown on a terminal."""

import io
import sys

import keras
import numpy as np
import pytest

from tfdistill.compress import QuantizeAware
from tfdistill.utils import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("stream", "seconds", "shown"), [(Terminal, 0.01, True), (Terminal, 600.0, False), (io.StringIO, 0.01, False)])
def test_a_long_first_step_is_shown_on_a_terminal(monkeypatch, stream, seconds, shown):
    monkeypatch.setattr(progress, "PATIENCE_SECONDS", seconds)
    monkeypatch.setattr(sys, "stderr", stream())
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    # Of any model: what is trained may be a Distiller around the quantized one.
    model.fit(np.zeros((8, 4)), np.zeros((8, 2)), verbose=0, callbacks=QuantizeAware().callbacks())
    assert ("tracing the first step of training" in sys.stderr.getvalue()) == shown
    assert model.train_function.__name__ != "first"
    model.fit(np.zeros((8, 4)), np.zeros((8, 2)), verbose=0)
