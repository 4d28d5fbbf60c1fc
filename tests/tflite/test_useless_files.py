"""Files that are of no use are refused, with the output, index, sample or feature that shows it; good files are not."""

import keras
import numpy as np
import pytest
import useless_files as useless

from tfdistill.convert.variants import VARIANTS
from tfdistill.errors import ModelError, VerificationError
from tfdistill.tflite import Tolerances, export_tflite, verify

L = keras.layers


def export(built, folder, variant="int8", labelled=True, **arguments):
    model, x, *labels = built
    checked = (x, labels[0]) if labels and labelled else x
    return export_tflite(model, folder / "m.tflite", variant, **{"calibration": x, "verify_on": checked, **arguments})


# Build, whether labels are given, and what the error names.
USELESS = [
    (useless.detector, False, r"'found' of .* no better than a constant at index 5 .*, index 4 \("),
    (useless.kelvin, True, r"mean absolute error of 4\.\d+ where the Keras model has 0\.02(.|\n)*no better than a constant at index 0"),
    (useless.kelvin, False, r"no better than a constant at index 0(.|\n)*input 'weather' .* features 0 .*, 1 .*, 2 \("),
    (
        useless.audio_energies,
        False,
        r"no better than a constant at index [345] .*, index [345] .*, index [345] \(.*\)\.(.|\n)*features 3 .*, 4 .*, 5 \(",
    ),
    (useless.dead_index, False, r"no better than a constant at index 1 \(spread 0\.006\d+, [^)]*\)\."),
    (useless.two_heads, False, r"Output 'place' of .* constant at index 2 \(spread 2\.\d+, [^)]*\)\."),
    (useless.next_state, False, r"at index 2 (.|\n)*index 1 (.|\n)*input 'state' .* features 1 .*, 2 \("),
    (useless.sentinel, True, r"input 'x' .* too coarse for features 0 .*, 1 .*, 2 .*, 4 "),
]


@pytest.mark.parametrize(("build", "labelled", "match"), USELESS)
def test_refused_by_name(build, labelled, match, tmp_path):
    with pytest.raises(VerificationError, match=match):
        export(build(), tmp_path, labelled=labelled)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("labelled", [True, False])
def test_extreme_calibration_sample_is_named(labelled, tmp_path):
    expected = r"accuracy of 0\.1\d* where the Keras model has 0\.9\d*" if labelled else r"Keras's class on .* of 127 clearly decided"
    named = pytest.warns(UserWarning, match=r"Calibration sample 17 of input 'x' reaches from -33.* 0\.5 of the 255 steps")
    with named, pytest.raises(VerificationError, match=expected) as caught:
        export(useless.extreme_record(), tmp_path, labelled=labelled)
    assert "Noticed: Calibration sample 17" in str(caught.value)
    assert "too coarse" not in str(caught.value)


def test_extreme_samples_are_named_where_the_caller_has_them(tmp_path):
    model, x, labels = useless.blobs(samples=900)
    x[[450, 899]] *= 1000
    # Of 900 samples 150 are kept, evenly spaced, the last among them.
    with pytest.warns(UserWarning, match="Calibration sample 899 of input"), pytest.raises(VerificationError):
        export_tflite(model, tmp_path / "m.tflite", "int8", calibration=x, max_calibration_samples=150, verify_on=(x, labels))


def without_the_record(tmp_path):
    model, x, labels = useless.extreme_record()
    kept = np.arange(len(x)) != 17
    return (model, x[kept], labels[kept]), {}


def clipped(tmp_path):
    model, x, labels = useless.extreme_record()
    return (model, np.clip(x, -8, 8), labels), {}


def outputs_of_their_own(tmp_path):
    model, x = useless.detector()
    boxes, scores = model.get_layer("found").input
    return (keras.Model(model.inputs, [boxes, scores]), x), {}


def scaled_to_one_unit(tmp_path):
    model, x = useless.detector()
    boxes, scores = model.get_layer("found").input
    return (keras.Model(model.inputs, L.Concatenate()([L.Rescaling(1 / 640)(boxes), scores])), x), {}


def inputs_of_their_own(tmp_path):
    model, x = useless.next_state()
    weights = model.layers[-1].get_weights()[0]
    inputs = [keras.Input((1,), name=name) for name in ("position", "speed", "heading")]
    heads = [
        L.Add()([useless.dense(1, weights[i, [j]][None])(inputs[i]) for i in range(3) if weights[i, j]] + [L.Rescaling(0.0)(inputs[j])])
        for j in range(3)
    ]
    return (keras.Model(inputs, heads), [x[:, [i]] for i in range(3)]), {}


def normalized_before(tmp_path):
    model, x, labels = useless.kelvin()
    inner = keras.Input((3,), name="normalized")
    return (keras.Model(inner, model.layers[-1](inner)), model.layers[1](x).numpy(), labels), {}


def representative(tmp_path):
    model, x, labels = useless.blobs()
    return (model, x, labels), {"calibration": x}


REMEDIES = [without_the_record, clipped, outputs_of_their_own, scaled_to_one_unit, inputs_of_their_own, normalized_before, representative]


@pytest.mark.parametrize("remedy", REMEDIES)
@pytest.mark.filterwarnings("ignore:The mean absolute error")
def test_remedy(remedy, tmp_path):
    built, arguments = remedy(tmp_path)
    assert export(built, tmp_path, **arguments).verification is not None


def test_remedy_representative_samples(tmp_path):
    model, x, labels = useless.blobs()
    with pytest.raises(VerificationError, match="calibrate on samples of the kind"):
        export((model, x, labels), tmp_path, calibration=x[:50] * 0.02)


def test_series_that_lost_its_changes_is_said(tmp_path):
    with pytest.warns(UserWarning, match=r"mean absolute error of output 'next' is \d\.\d+ where the Keras model has [12]\."):
        record = export(useless.trend(), tmp_path)
    model, x, _ = useless.trend()
    notes = verify(record.path, model, x, variant="int8").notes
    assert any("but not its changes from one sample to the next" in note for note in notes)


def differences(tmp_path):
    """What the note on a trend advises."""
    model, x, _ = useless.trend()
    steps = np.diff(x, axis=1)
    kernel = model.layers[-1].get_weights()[0]
    # The value after the last is the last plus a weighted sum of the last two changes.
    weights = np.zeros((11, 1))
    weights[-1], weights[-2] = kernel[-1] - 1, -kernel[-3]
    head = useless.dense(1, weights, name="change")
    return keras.Sequential([keras.Input((11, 1), name="changes"), L.Flatten(), head]), steps


def test_remedy_of_a_trend(tmp_path):
    model, steps = differences(tmp_path)
    verification = export((model, steps), tmp_path).verification
    assert not any("changes from one sample" in note for note in verification.notes)


def test_limits_of_the_caller(tmp_path):
    """What is no better than a constant fails whatever limits are set; without any, everything is only measured."""
    loose = Tolerances(max_relative_mean_error=1.0)
    with pytest.warns(UserWarning, match="joins branches of several units"):
        record = export(useless.detector(), tmp_path, tolerances=Tolerances())
    with pytest.raises(VerificationError, match="no better than a constant"):
        verify(record.path, *useless.detector(), tolerances=loose)
    with pytest.warns(UserWarning, match="Calibration sample 17"), pytest.raises(VerificationError, match=r"accuracy of 0\.1"):
        export(useless.extreme_record(), tmp_path, tolerances=loose)
    found = record.verification.outputs["found"]
    assert [i.index for i in found.worst_indices[:2]] == [5, 4]
    assert found.judged_indices == 6
    assert found.lowest_r_squared == found.worst_indices[0].r_squared < 0


def test_verify_names_coarse_features_of_a_file(tmp_path):
    """Also where the file takes floats, and its first operation makes them integers."""
    model, x, labels = useless.kelvin()
    coarse = pytest.warns(
        UserWarning, match=r"'weather' in steps of 397\.7, too coarse for features 0 \(0\.52 steps\), 1 .*Normalize the features"
    )
    with coarse:
        path = export((model, x, labels), tmp_path, tolerances=Tolerances(), labelled=False, io="float32").path
    with coarse:
        record = verify(path, model, x, tolerances=Tolerances())
    assert "too coarse" in record.notes[0]


def classifier(softmax, classes=10):
    return lambda seed: useless.blobs(classes, seed=seed, softmax=softmax)


def rare_class(seed):
    """A class that is never likely: its probability stays below a step of the file."""
    model, x, labels = useless.blobs(4, seed=seed, softmax=True)
    kernel, bias = model.layers[-1].get_weights()
    bias[3] -= 60
    model.layers[-1].set_weights([kernel, bias])
    return model, x[labels < 3], labels[labels < 3]


def regressor(seed):
    rng = np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [keras.Input((8,), name="x"), L.Dense(32, activation="relu"), L.Dense(32, activation="relu"), L.Dense(3, name="numbers")]
    )
    x = rng.normal(size=(200, 8)).astype("float32")
    return model, x, model(x).numpy() + rng.normal(size=(200, 3)) * 0.2


def temperature(seed):
    """An offset of fifty times the spread, from normalized inputs."""
    rng = np.random.default_rng(seed)
    model = keras.Sequential([keras.Input((4,), name="x"), useless.dense(1, rng.normal(size=(4, 1)) * 3, 293.0)])
    x = rng.normal(size=(200, 4)).astype("float32")
    return model, x, model(x).numpy() + rng.normal(size=(200, 1)) * 2


def autoencoder(seed):
    """Images with dark borders, flat: where the input never varies, the output of the model does not matter."""
    rng = np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)
    images = np.zeros((200, 8, 8), "float32")
    images[:, 2:6, 2:6] = rng.random((200, 4, 4)) > 0.5
    images[:, 1, 1] = rng.random(200) * 0.01
    x = images.reshape(200, 64)
    mean, basis = x.mean(0), np.linalg.svd(x - x.mean(0), full_matrices=False)[2][:12]
    noise = rng.normal(size=(12, 64)) * 1e-3
    code = useless.dense(12, basis.T, -mean @ basis.T)
    return keras.Sequential([keras.Input((64,), name="pixels"), code, useless.dense(64, basis + noise, mean, name="rebuilt")]), x


def segmentation(seed):
    rng = np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((12, 12, 3), name="image"),
            L.Conv2D(8, 3, padding="same", activation="relu"),
            L.Conv2D(4, 1, activation="softmax", kernel_initializer="random_normal", name="map"),
        ]
    )
    model.layers[-1].set_weights([rng.normal(size=(1, 1, 8, 4)) * 3, np.zeros(4)])
    x = rng.random((40, 12, 12, 3)).astype("float32")
    truth = model(x).numpy().argmax(-1)
    wrong = rng.random(truth.shape) < 0.1
    return model, x, np.where(wrong, rng.integers(0, 4, truth.shape), truth)


def multilabel(seed):
    rng = np.random.default_rng(seed)
    model = keras.Sequential(
        [keras.Input((6,), name="x"), useless.dense(5, rng.normal(size=(6, 5)), [0, 0, 0, 0, -9], activation="sigmoid", name="labels")]
    )
    x = rng.normal(size=(200, 6)).astype("float32")
    return model, x, (rng.random((200, 5)) < model(x).numpy()).astype(int)


def heavy_tails(seed):
    """Inputs and outputs of log-normal size."""
    rng = np.random.default_rng(seed)
    model = keras.Sequential([keras.Input((4,), name="x"), useless.dense(2, rng.uniform(0.5, 1.5, size=(4, 2)), name="sums")])
    return model, np.exp(rng.normal(size=(200, 4)) * 0.6).astype("float32")


GOOD = [classifier(False), classifier(True), rare_class, regressor, temperature, autoencoder, segmentation, multilabel, heavy_tails]
NAMES = ["logits", "softmax", "rare_class", "regressor", "temperature", "autoencoder", "segmentation", "multilabel", "heavy_tails"]
FAST = ("float32", "int8")
# Nets of one or two layers with weights have none between the first and the last that could have 4 bits; and one of them is no longer good with them.
NOT_IN_FOUR_BITS = {
    **{(name, "int8_int4_mixed"): (ModelError, "its first and last ones, which keep 8 bits") for name in NAMES if name != "regressor"},
    ("segmentation", "int4_weights"): (VerificationError, r"accuracy of 0\.\d+ where the Keras model has 0\.9"),
}
CASES = [
    pytest.param(build, variant, 0, id=f"{name}-{variant}", marks=() if variant in FAST else pytest.mark.slow)
    for build, name in zip(GOOD, NAMES, strict=True)
    for variant in VARIANTS
    if (name, variant) not in NOT_IN_FOUR_BITS
]
CASES += [
    pytest.param(build, "int8", seed, id=f"{name}-int8-{seed}", marks=pytest.mark.slow)
    for build, name in zip(GOOD, NAMES, strict=True)
    for seed in (1, 2)
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "variant"), NOT_IN_FOUR_BITS)
def test_what_four_bits_are_too_few_for_is_refused(name, variant, tmp_path):
    kind, said = NOT_IN_FOUR_BITS[name, variant]
    with pytest.raises(kind, match=said):
        export(GOOD[NAMES.index(name)](0), tmp_path, variant)


@pytest.mark.parametrize(("build", "variant", "seed"), CASES)
def test_good_file_passes(build, variant, seed, tmp_path):
    """No warning is raised either: the filters of the tests make one an error."""
    verification = export(build(seed), tmp_path, variant).verification
    assert all(output.lowest_r_squared is None or output.lowest_r_squared > 0.5 for output in verification.outputs.values())
