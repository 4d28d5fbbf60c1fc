"""Heads of several units: each branch gets an output, a scale and a name of its own, and boxes are compared by their intersection over union."""

import functools

import keras
import numpy as np
import pytest
from keras import layers as L

import tfdistill
from tfdistill.bridge.imports import tf_keras
from tfdistill.compress import Quantize
from tfdistill.errors import ConfigurationError, ModelError, VerificationError
from tfdistill.tflite import Tolerances, export_tflite, layer_error, verify
from tfdistill.tflite.verification.boxes import BOXES, box_iou

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 8)).astype("float32")


def heads(inputs, scale=100.0, dropout=True):
    x = L.Dense(16, activation="relu", name="hidden")(inputs)
    boxes, scores = L.Dense(4, name="boxes"), L.Dense(3, activation="sigmoid", name="scores")
    made = [boxes(x), L.Dropout(0.5, name="drop")(scores(x)) if dropout else scores(x)]
    boxes.kernel.assign(boxes.kernel * scale)
    return made


@functools.cache
def detector(scale=100.0):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,), name="x")
    return keras.Model(inputs, L.Concatenate(name="heads")(heads(inputs, scale)), name="detector")


def of_two_scales():
    """A detector's heads at two scales: boxes beside scores in each, joined along the anchors."""
    inputs = keras.Input((8,), name="x")
    found = []
    for number in "12":
        x = L.Dense(12, activation="relu")(inputs)
        boxes = L.Reshape((2, 4), name=f"boxes{number}")(L.Dense(8)(x))
        scores = L.Reshape((2, 3), name=f"scores{number}")(L.Dense(6)(x))
        found.append(L.Concatenate(name=f"scale{number}")([boxes, scores]))
    return keras.Model(inputs, L.Concatenate(axis=1, name="all")(found))


def test_each_branch_gets_an_output_a_scale_and_a_name_of_its_own(tmp_path):
    record = export_tflite(detector(), tmp_path / "m.tflite", "int8", X, outputs="split")
    assert [tensor.name for tensor in record.outputs] == ["boxes", "drop"]
    assert record.split == {"heads": ("boxes", "drop")}
    boxes, scores = record.outputs
    assert boxes.scale > 50 * scores.scale
    whole = np.asarray(detector()(X))
    found = verify(record.path, keras.Model(detector().input, detector().get_layer("heads").input), X).outputs
    assert found["drop"].mean_abs_error < 0.02
    assert found["boxes"].mean_abs_error < 0.02 * np.ptp(whole[:, :4])
    assert type(record).load(record.save(tmp_path / "m.json")) == record


def test_such_a_file_is_verified_and_blamed_with_the_model_that_it_came_from(tmp_path):
    record = export_tflite(detector(), tmp_path / "m.tflite", "int8", X, outputs="split")
    assert set(verify(record.path, detector(), X).outputs) == {"boxes", "drop"}
    found = layer_error(detector(), record.path, X)
    assert [row.name for row in found.layers] == ["x", "hidden", "scores", "boxes"]
    assert found.worst.own_error < 0.03


def test_one_scale_for_all_is_said_and_what_to_do(tmp_path):
    with pytest.raises(UserWarning, match=r"'boxes' from .* of 255 steps.*outputs='split'"):
        export_tflite(detector(), tmp_path / "m.tflite", "int8", X, tolerances=Tolerances())
    with pytest.raises(VerificationError, match="outputs='split'"):
        export_tflite(detector(), tmp_path / "other.tflite", "int8", X)
    assert export_tflite(detector(0.2), tmp_path / "other.tflite", "int8", X, tolerances=Tolerances()).split == {}


def test_concatenations_of_features_inside_are_split_too(tmp_path):
    record = export_tflite(of_two_scales(), tmp_path / "m.tflite", verify_on=X, outputs="split")
    assert record.split == {"all": ("boxes1", "scores1", "boxes2", "scores2")}
    assert [tensor.shape for tensor in record.outputs] == [(1, 2, 4), (1, 2, 3)] * 2
    assert record.max_abs_error < 1e-5


def test_other_outputs_keep_their_names(tmp_path):
    inputs = keras.Input((8,), name="x")
    made = heads(inputs)
    model = keras.Model(inputs, {"all": L.Concatenate()(made), "plain": L.Dense(2)(inputs)})
    record = export_tflite(model, tmp_path / "m.tflite", verify_on=X, outputs="split")
    assert {tensor.name for tensor in record.outputs} == {"boxes", "drop", "plain"}
    assert record.max_abs_error < 1e-3


def test_a_model_of_tf_keras_is_split(tmp_path):
    tfk = tf_keras()
    inputs = tfk.Input((8,), name="x")
    made = [tfk.layers.Dense(4, name="boxes")(inputs), tfk.layers.Dense(3, name="scores")(inputs)]
    adopted = tfdistill.adopt(tfk.Model(inputs, tfk.layers.Concatenate(name="heads")(made)))
    record = export_tflite(adopted, tmp_path / "m.tflite", verify_on=X, outputs="split")
    assert [tensor.name for tensor in record.outputs] == ["boxes", "scores"]
    assert record.max_abs_error < 1e-5


REFUSED = {
    "nothing to split": (lambda: keras.Sequential([keras.Input((8,)), L.Dense(2)]), {}, ModelError, "ends in a Concatenate"),
    "quantized": (lambda: Quantize().apply(detector(), calibration=X), {}, ModelError, "one scale for each of its outputs"),
    "another word": (detector, {"outputs": "apart"}, ConfigurationError, "outputs"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_split_is_refused(case, tmp_path):
    make, arguments, kind, text = REFUSED[case]
    with pytest.raises(kind, match=text):
        export_tflite(make(), tmp_path / "m.tflite", verify_on=X, **{"outputs": "split", **arguments})


def iou_by_pixels(a, b, size=200):
    """Counts the pixels of both boxes of whole corners."""
    grid = [np.zeros((size, size), bool) for _ in (a, b)]
    for mask, (x0, y0, x1, y1) in zip(grid, (a, b), strict=True):
        mask[x0:x1, y0:y1] = True
    union = (grid[0] | grid[1]).sum()
    return (grid[0] & grid[1]).sum() / union if union else 0.0


@pytest.mark.parametrize("task", BOXES)
def test_intersection_over_union_is_that_of_counted_pixels(task):
    low = RNG.integers(0, 100, (50, 2, 2))
    corners = np.concatenate([low, low + RNG.integers(1, 90, low.shape)], -1)
    size = corners[..., 2:] - corners[..., :2]
    given = {
        "boxes": corners,
        "boxes_xywh": np.concatenate([low, size], -1),
        "boxes_center_xywh": np.concatenate([low + size / 2, size], -1),
    }
    expected = [iou_by_pixels(a, b) for a, b in corners]
    np.testing.assert_allclose(box_iou(given[task][:, 0], given[task][:, 1], task), expected, atol=1e-12)


@pytest.mark.parametrize(("other", "expected"), [([1.0, 1.0, 1.0, 1.0], 1.0), ([2.0, 2.0, 2.0, 2.0], 0.0), ([3.0, 3.0, 1.0, 1.0], 0.0)])
def test_empty_boxes_are_equal_or_not(other, expected):
    assert box_iou([[1.0, 1.0, 1.0, 1.0]], [other])[0] == expected


def boxer():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,), name="x")
    corner = L.Dense(2, name="corner")(inputs)
    return keras.Model(inputs, L.Concatenate(name="boxes")([corner, L.Dense(2, activation="softplus", name="size")(inputs)]))


def test_verification_measures_the_boxes_of_the_file_against_the_models_and_the_labels(tmp_path):
    model = boxer()
    labels = model.predict(X, verbose=0) + [0.3, 0.0, 0.0, 0.0]
    record = export_tflite(model, tmp_path / "m.tflite", "int8", X, (X, labels), task="boxes_xywh", tolerances=Tolerances())
    output = record.verification.outputs["boxes"]
    assert 0.9 < output.box_iou < 1.0
    assert output.lowest_box_iou <= output.box_iou
    assert output.task == "regression"
    assert output.keras_labels_box_iou == pytest.approx(box_iou(labels, model.predict(X, verbose=0), "boxes_xywh").mean(), abs=1e-5)
    assert abs(output.labels_box_iou - output.keras_labels_box_iou) < 0.05
    assert output.summary()["box_iou"] == output.box_iou
    with pytest.raises(ConfigurationError, match="outputs='split'"):
        export_tflite(detector(0.2), tmp_path / "other.tflite", verify_on=X, task="boxes")
