"""A file that LiteRT would not open is not written."""

import keras
import numpy as np
import pytest

from tfdistill.compress import QuantizeAware
from tfdistill.errors import ExportError, RuntimeUnavailableError
from tfdistill.tflite import export_tflite

layers = keras.layers
KINDS = {
    "CONV_2D": lambda: layers.Conv2D(2, 3, activation="tanh"),
    "DEPTHWISE_CONV_2D": lambda: layers.DepthwiseConv2D(3, activation="sigmoid"),
    "TRANSPOSE_CONV": lambda: layers.Conv2DTranspose(2, 3, activation="tanh"),
    "FULLY_CONNECTED": lambda: layers.Dense(2, activation="sigmoid"),
}


@pytest.mark.slow
def test_weights_that_have_run_away_next_to_a_bounded_output_are_refused(tmp_path, monkeypatch):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 2))
    flat = layers.Flatten()(inputs)
    outputs = {kind: make()(flat if kind == "FULLY_CONNECTED" else inputs) for kind, make in KINDS.items()}
    model = keras.Model(inputs, outputs)
    before = model.get_weights()
    x = np.random.default_rng(0).normal(size=(32, 6, 6, 2)).astype("float32")

    def exported(weights):
        model.set_weights(weights)
        applied = QuantizeAware().apply(model)
        applied(x, training=True)
        return export_tflite(applied, tmp_path / "model.tflite", "int8", verify_on=x)

    with pytest.raises(ExportError, match="LiteRT would not open") as caught:
        exported([1e6 * weight for weight in before])
    assert all(f"{kind} -> '" in caught.value.happened for kind in KINDS)
    assert "from the weights as they were before" in caught.value.fix
    monkeypatch.setattr("tfdistill.tflite.export.require_bounded_scales", lambda *_: None)
    with pytest.raises(RuntimeUnavailableError, match="XNNPACK"):
        exported([1e6 * weight for weight in before])
    monkeypatch.undo()
    assert not exported(before).census.stray_floats()
