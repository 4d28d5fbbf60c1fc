"""`check` before the training: what it finds in whole models, what it leaves alone, and what it prints."""

import json
import pathlib
import re
import types

import keras
import numpy as np
import preflight_models as models
import pytest
from example_names import classifier, images
from keras import layers
from preflight_models import WEATHER, X, chain
from test_preflight_remedies import ROWS
from zoo_models import SMALL

import tfdistill
from tfdistill.bridge import to_tf_keras
from tfdistill.bridge.adopt.states import stateful_layers
from tfdistill.compress import Prune, QuantizeAware
from tfdistill.demo.models import student
from tfdistill.errors import ConfigurationError, DataError, ModelError
from tfdistill.losses import SoftTargets
from tfdistill.preflight import Finding, Preflight
from tfdistill.preflight.findings import KINDS

FAULTLESS = {
    "the student of the demo": (lambda: student((8, 8, 1), 10), {}),
    "on tflite-micro": (lambda: student((8, 8, 1), 10), {"target": "micro"}),
    "on an Edge TPU": (lambda: student((8, 8, 1), 10), {"target": "edgetpu"}),
    "in floats": (lambda: student((8, 8, 1), 10), {"variant": "float32"}),
    "in half precision": (lambda: student((8, 8, 1), 10), {"variant": "float16"}),
    "with data": (lambda: classifier(8, "student"), {"data": images()}),
    "quantized": (lambda: QuantizeAware().apply(classifier(8, "student"), dry_run=False), {"data": images()}),
    "probabilities in floats": (lambda: chain(layers.Dense(8, activation="softmax")), {"variant": "float32"}),
    "hidden probabilities": (lambda: chain(layers.Dense(8, activation="sigmoid"), layers.Dense(4)), {}),
    "boxes apart": (lambda: models.detector(100.0, joined=False, activation=None), {"data": X}),
    "scores beside scores": (lambda: models.detector(activation=None), {}),
    "indices": (lambda: chain(layers.Embedding(50, 8), layers.GlobalAveragePooling1D(), shape=(5,), dtype="int32"), {"target": "builtin"}),
    "a layer twice": (lambda: twice(), {}),
    "a feature that never varies": (lambda: chain(layers.Dense(8)), {"data": np.where(np.arange(8) == 2, 1.0, X)}),
}


def twice():
    inputs = keras.Input((8,))
    dense = layers.Dense(8)
    return keras.Model(inputs, layers.Dense(3)(dense(dense(inputs))))


@pytest.mark.parametrize("name", FAULTLESS)
def test_a_model_without_faults_has_no_findings(name):
    make, settings = FAULTLESS[name]
    found = tfdistill.check(make(), **settings)
    assert list(found) == []
    assert not found.fails
    assert str(found).splitlines()[-1].split() == ["findings", "none"]


@pytest.mark.slow
def test_a_model_of_keras_has_nothing_but_a_softmax_at_its_end():
    def made(activation):
        return keras.applications.MobileNetV2((64, 64, 3), 0.35, weights=None, classifier_activation=activation)

    assert list(tfdistill.check(made(None))) == []
    assert [finding.kind for finding in tfdistill.check(made("softmax"))] == ["fixed_scale", "left_by_target"]


# Model of the zoo -> kinds of what is found, the worst first.
LEFT, UNALIGNED, FIXED = "left_by_target", "unaligned_channels", "fixed_scale"
ZOO = {
    "conv1d_net": [],
    "lstm": [FIXED, LEFT, LEFT],
    "gru": [LEFT, UNALIGNED],
    "bidirectional_gru": [LEFT, LEFT, UNALIGNED],
    "transformer_encoder": [LEFT],
    "vit": [LEFT, LEFT],
    "siamese": [LEFT, UNALIGNED],
    "two_in_two_out": [UNALIGNED],
    "nested": [UNALIGNED],
    "subclassed": [UNALIGNED],
    "unet": [FIXED, UNALIGNED],
    "separable": [UNALIGNED],
    "ops_graph": [LEFT],
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in ("lstm", "gru", "bidirectional_gru", "conv1d_net") else []) for name in ZOO],
)
def test_the_zoo_has_these_findings(name):
    assert set(ZOO) == set(SMALL)
    model = SMALL[name]()
    before = [np.array(weight) for weight in model.get_weights()]
    found = tfdistill.check(model)
    assert [finding.kind for finding in found] == ZOO[name]
    assert [finding.severity for finding in found] == sorted((f.severity for f in found), key=["fails", "slow", "inexact", "note"].index)
    assert {layer for finding in found for layer in finding.layers} <= set(tfdistill.named_layers(model))
    for weight, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)


def of_bytes_at_once():
    inputs = keras.Input((8, 8, 3), dtype="uint8", name="image")
    return keras.Model(inputs, layers.Flatten()(layers.Conv2D(8, 3)(inputs)))


def words():
    inputs = keras.Input((2,), dtype="string", name="words")
    return keras.Model(inputs, layers.StringLookup(vocabulary=["a", "b"], name="lookup")(inputs))


def function():
    return models.between(layers.Lambda(lambda x: keras.ops.tanh(x)))


# What is found of models of which no tf_keras form can be made: severity, kind and layers.
WITHOUT_BRIDGE = {
    "a function, int8": (function, {}, [("fails", "bridge", ())]),
    "a function": (function, {"variant": "float32"}, [("note", "bridge", ())]),
    "a function, on another target": (
        function,
        {"variant": "float32", "target": "edgetpu"},
        [("slow", "left_by_target", ()), ("note", "bridge", ())],
    ),
    "bytes, int8": (of_bytes_at_once, {}, [("fails", "cast_input", ("image",))]),
    "bytes": (of_bytes_at_once, {"variant": "float32"}, [("fails", "cast_input", ("image",)), ("note", "bridge", ())]),
    "words": (words, {}, [("fails", "lookup", ("lookup",))]),
}


@pytest.mark.parametrize("name", WITHOUT_BRIDGE)
def test_a_model_of_which_no_tf_keras_form_can_be_made(name):
    make, settings, expected = WITHOUT_BRIDGE[name]
    assert [(f.severity, f.kind, f.layers) for f in tfdistill.check(make(), **settings)] == expected


def test_states_of_a_model_stay_as_they_are():
    inputs = keras.Input(batch_shape=(1, 4, 8))
    x = layers.SimpleRNN(8, stateful=True)(inputs)
    joined = layers.Concatenate()([layers.Dense(4)(x), layers.Dense(3, "sigmoid")(x)])
    adopted = tfdistill.adopt(to_tf_keras(keras.Model(inputs, joined), check=False))
    adopted(np.ones((1, 4, 8), "float32"))
    (recurrent,) = stateful_layers(adopted)
    before = np.array(recurrent.states[0])
    assert before.any()
    tfdistill.check(adopted, data=np.full((3, 4, 8), 2.0, "float32"))
    np.testing.assert_array_equal(recurrent.states[0], before)


def test_layers_are_named_by_the_user():
    inner = keras.Input((8,))
    tower = keras.Model(inner, layers.Dense(12, name="wide")(inner), name="tower")
    inputs = keras.Input((8,))
    (found,) = tfdistill.check(keras.Model(inputs, layers.Dense(4)(tower(inputs))))
    assert found.layers == ("tower/wide",)


SCALES = {
    "boxes in pixels": (lambda: models.detector(100.0), ["mixed_units"]),
    "boxes in shares": (lambda: models.detector(0.2), []),
    "logits in place of scores": (lambda: models.detector(activation=None), []),
    "boxes in pixels beside logits": (lambda: models.detector(100.0, activation=None), ["mixed_units"]),
}


@pytest.mark.parametrize("name", SCALES)
def test_data_decides_about_units(name):
    make, kinds = SCALES[name]
    found = tfdistill.check(make(), data=X)
    assert [finding.kind for finding in found] == kinds
    assert all("of 255 steps" in finding.happened and "'scores' from" in finding.happened for finding in found)


def test_every_input_gets_its_own_samples():
    inputs = {"z": keras.Input((8,), name="z"), "a": keras.Input((8,), name="a")}
    branches = [layers.Dense(3, name=f"from_{name}")(x) for name, x in inputs.items()]
    found = tfdistill.check(keras.Model(inputs, layers.Concatenate(name="heads")(branches)), data={"z": 100 * X, "a": WEATHER / 1000})
    assert [(finding.kind, finding.layers) for finding in found] == [("mixed_units", ("heads",)), ("input_scales", ("a",))]
    assert "'from_z' from -" in found[0].happened


def anchors():
    """A detector of two scales: boxes and scores are joined at each, then the scales are."""
    inputs = keras.Input((8, 8, 8))
    scales = []
    for strides in (1, 2):
        boxes = layers.Reshape((-1, 4))(layers.Conv2D(4, 3, strides, name=f"boxes_{strides}")(inputs))
        scores = layers.Reshape((-1, 3))(layers.Conv2D(3, 3, strides, activation="sigmoid", name=f"scores_{strides}")(inputs))
        scales.append(layers.Concatenate()([boxes, scores]))
    return keras.Model(inputs, layers.Concatenate(axis=1, name="all")(scales))


def test_branches_are_found_behind_several_joints():
    (found,) = tfdistill.check(anchors())
    assert (found.kind, found.layers) == ("mixed_units", ("all",))
    assert "'scores_1', 'scores_2' from 0 to 1, and 'boxes_1', 'boxes_2' without bounds" in found.happened


def test_the_steps_of_features_are_told():
    (found,) = tfdistill.check(chain(layers.Dense(8)), data=np.where(np.arange(8) > 5, X, 1000 * X))
    width = 1000 * np.ptp(np.append(X[:, :6], 0.0))
    assert f"in steps of {width / 255:.4g} for the data, too coarse for features 6 (" in found.happened


def test_what_is_given_may_be_a_file_or_a_distiller(tmp_path):
    model = chain(layers.Dense(8, activation="softmax", name="classes"))
    model.save(tmp_path / "m.keras")
    kinds = [finding.kind for finding in tfdistill.check(model)]
    assert [finding.kind for finding in tfdistill.check(tmp_path / "m.keras")] == kinds
    distiller = tfdistill.Distiller(chain(layers.Dense(8, "softmax")), model, SoftTargets(2.0, from_logits=False))
    assert [finding.kind for finding in tfdistill.check(distiller)] == kinds


def quantized():
    return QuantizeAware().apply(chain(layers.Dense(8)), dry_run=False)


MISTAKES = {
    "quantized for another variant": (
        {"model": quantized, "variant": "float16"},
        ConfigurationError,
        "was trained quantization-aware for int8",
    ),
    "a variant": ({"variant": "int7"}, ConfigurationError, "Nearest: 'int8'"),
    "a target": ({"target": "xnpack"}, ConfigurationError, "Nearest: 'xnnpack'"),
    "a name of another library": ({"calibration": X}, ConfigurationError, "give it as data="),
    "data of another shape": ({"data": X[:, :5]}, DataError, "the check data has the shape"),
    "data that is not finite": ({"data": X * np.nan}, DataError, "NaN or infinite"),
    "no model": ({"model": models.X}, ModelError, "cannot be exported"),
    "a model without weights": ({"model": keras.Sequential([layers.Dense(3)])}, ModelError, "not built"),
    "a model that is pruned": (
        {"model": lambda: Prune(0.5, end_step=1).apply(chain(layers.Dense(8)), dry_run=False)},
        ModelError,
        "give step.strip(model)",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name):
    settings, error, said = MISTAKES[name]
    model = settings.get("model", chain(layers.Dense(8)))
    model = model() if isinstance(model, types.FunctionType) else model
    with pytest.raises(error, match="(?i)" + said.replace("(", r"\(").replace(")", r"\)")):
        tfdistill.check(model, **{key: value for key, value in settings.items() if key != "model"})


def test_it_is_a_list_of_records_that_saves_itself(tmp_path):
    found = tfdistill.check(chain(layers.Dense(12, name="wide"), layers.Dense(4, "softmax", name="classes")), data=WEATHER)
    assert len(found) == 4
    assert found[0] is next(iter(found))
    assert isinstance(found[0], Finding)
    assert found.of_kind("fixed_scale")[0].layers == ("classes",)
    assert Preflight.load(found.save(tmp_path / "found.json")) == found
    assert json.loads((tmp_path / "found.json").read_text())["findings"][0]["kind"] == "fixed_scale"
    text = str(found)
    assert "2 inexact, 2 note" in text
    for finding in found:
        assert finding.kind in text
    assert "Fix: end in logits" in text


def test_the_page_lists_every_kind_with_its_severities():
    page = (pathlib.Path(__file__).parents[2] / "docs/verification.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| ([a-z, ]+) \| `([a-z_]+)` \|", page, re.MULTILINE)
    assert sorted(kind for _, kind in listed) == sorted(KINDS)
    severities = {kind: several.split(", ") for several, kind in listed}
    assert all(row.severity in severities[row.kind] for row in ROWS.values())
