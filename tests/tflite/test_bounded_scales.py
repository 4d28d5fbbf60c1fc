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


DEAD = {
    "Conv2D": lambda x: layers.Conv2D(2, 3, activation="relu", bias_initializer=FAR_BELOW)(x),
    "DepthwiseConv2D": lambda x: layers.DepthwiseConv2D(3, activation="relu", bias_initializer=FAR_BELOW)(x),
    "Conv2DTranspose": lambda x: layers.Conv2DTranspose(2, 3, activation="relu", bias_initializer=FAR_BELOW)(x),
    "SeparableConv2D": lambda x: layers.SeparableConv2D(2, 3, activation="relu", bias_initializer=FAR_BELOW)(x),
    "Conv1D": lambda x: layers.Conv1D(2, 3, activation="relu6", bias_initializer=FAR_BELOW)(layers.Reshape((36, 2))(x)),
    "Dense": lambda x: layers.Dense(2, activation="relu", bias_initializer=FAR_BELOW)(layers.Flatten()(x)),
    "EinsumDense": lambda x: layers.EinsumDense("bijc,cd->bijd", (6, 6, 2), bias_axes="d", activation="relu", bias_initializer=FAR_BELOW)(
        x
    ),
    "normalized": lambda x: layers.ReLU()(layers.BatchNormalization(beta_initializer=FAR_BELOW)(layers.Conv2D(2, 3, use_bias=False)(x))),
    "two in a row": lambda x: layers.Conv2D(2, 1, activation="relu", use_bias=False)(DEAD["Conv2D"](x)),
    "added": lambda x: layers.Add()([DEAD["Conv2D"](x), DEAD["Conv2D"](x)]),
    "pooled": lambda x: layers.MaxPooling2D(2)(DEAD["Conv2D"](x)),
}
FAR_BELOW = keras.initializers.Constant(-100.0)


@pytest.mark.parametrize("road", ["calibrated", "trained"])
def test_a_layer_that_is_zero_on_all_samples_is_no_obstacle(road, tmp_path):
    """Each of them, read by a layer that goes on with the zeros, beside one that is alive."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 2))
    outputs = {"alive": layers.Dense(3, name="alive")(layers.Flatten()(layers.Conv2D(2, 3, activation="relu")(inputs)))}
    for number, dead in enumerate(DEAD.values()):
        outputs[f"out_{number}"] = layers.Dense(3, bias_initializer="uniform", name=f"head_{number}")(layers.Flatten()(dead(inputs)))
    model = keras.Model(inputs, outputs)
    x = np.random.default_rng(0).normal(size=(32, 6, 6, 2)).astype("float32")
    assert all(np.ptp(values, axis=0).max() == 0 for name, values in model.predict(x, verbose=0).items() if name != "alive")
    if road == "trained":
        made = QuantizeAware().apply(model)
        made(x, training=True)
        record = export_tflite(made, tmp_path / "model.tflite", "int8", verify_on=x)
    else:
        record = export_tflite(model, tmp_path / "model.tflite", "int8", calibration=x, road="bridge")
    assert not record.census.stray_floats()
    for name, output in record.verification.outputs.items():
        # Constants: within one step of their own range.
        assert output.max_abs_error <= (0.05 if name == "alive" else 1 / 127) * output.scale, name
