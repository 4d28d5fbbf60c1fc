"""`compare` of any two models: the differences are those that NumPy finds, whatever kinds the two are."""

import keras
import numpy as np
import pytest

import tfdistill
from tfdistill.errors import ConfigurationError, DataError, ExportError, ModelError, VerificationError
from tfdistill.runtime.interpreter import open_file
from tfdistill.tflite import ModelComparison, Tolerances

L = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 6)).astype("float32")
Y = RNG.integers(0, 4, 50)


def net(seed, name, output="logits"):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((6,), name="x")
    return keras.Model(inputs, L.Dense(4, name=output)(L.Dense(16, activation="relu")(inputs)), name=name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A net, one that is nearly equal, and files of both."""
    folder = tmp_path_factory.mktemp("compare")
    one, other = net(1, "one"), net(1, "other")
    rng = np.random.default_rng(2)
    other.set_weights([w + 0.02 * rng.normal(size=w.shape) for w in other.get_weights()])
    one.save(folder / "one.keras")
    other.save(folder / "other.keras")
    for name, model in (("one", one), ("other", other)):
        tfdistill.export_tflite(model, folder / f"{name}.tflite")
        tfdistill.export_tflite(model, folder / f"{name}.int8.tflite", "int8", calibration=X, tolerances=Tolerances())
    tfdistill.export_tflite(one, folder / "any.tflite", batch_size=None)
    return folder


def loaded(folder, name):
    return keras.models.load_model(folder / f"{name}.keras")


# Kinds of the two -> how each is given.
PAIRS = {
    "two models": lambda f: (loaded(f, "one"), loaded(f, "other")),
    "two paths of models": lambda f: (f / "one.keras", str(f / "other.keras")),
    "a model and a file": lambda f: (loaded(f, "one"), f / "one.int8.tflite"),
    "a file and a model": lambda f: (f / "one.int8.tflite", loaded(f, "one")),
    "two files": lambda f: (f / "one.tflite", str(f / "other.tflite")),
    "a float file and one of integers": lambda f: (f / "one.tflite", f / "one.int8.tflite"),
    "two files of integers": lambda f: (f / "one.int8.tflite", f / "other.int8.tflite"),
    "a file of any batch": lambda f: (f / "any.tflite", f / "other.tflite"),
    "a model of tf_keras": lambda f: (tfdistill.adopt(tfdistill.to_tf_keras(loaded(f, "one"))), loaded(f, "other")),
    "a distiller's student": lambda f: (
        tfdistill.Distiller(loaded(f, "other"), loaded(f, "one"), tfdistill.losses.SoftTargets()),
        f / "other.tflite",
    ),
}


def outputs_of(given):
    """Outputs by the shortest way: Keras's predict, or the interpreter."""
    if isinstance(given, tfdistill.Distiller):
        given = given.student
    if not isinstance(given, keras.Model):
        if str(given).endswith(".tflite"):
            return next(iter(open_file(given).run(X).values()))
        given = keras.models.load_model(given)
    return given.predict(X, verbose=0)


@pytest.mark.parametrize("pair", PAIRS)
def test_differences_are_those_of_the_outputs(pair, folder):
    first, second = PAIRS[pair](folder)
    expected, actual = outputs_of(first), outputs_of(second)
    record = tfdistill.compare(first, second, X, Y)
    apart = np.abs(expected - actual)
    np.testing.assert_allclose(record.max_abs_error, apart.max(), atol=2e-6)
    np.testing.assert_allclose(record.mean_abs_error, apart.mean(), atol=2e-6)
    assert record.argmax_agreement == pytest.approx(np.mean(expected.argmax(1) == actual.argmax(1)))
    assert record.first_accuracy == pytest.approx(np.mean(expected.argmax(1) == Y))
    assert record.second_accuracy == pytest.approx(np.mean(actual.argmax(1) == Y))
    assert (record.samples, list(record.outputs)) == (50, ["logits"])
    assert ModelComparison.from_dict(record.to_dict()) == record
    text = str(record)
    assert "first accuracy" in text
    assert "keras" not in text.replace(".keras", "").lower()


def test_a_model_is_equal_to_itself_and_another_seed_is_not(folder):
    one = loaded(folder, "one")
    same = tfdistill.compare(one, one, X)
    assert (same.max_abs_error, same.argmax_agreement, same.first_accuracy) == (0.0, 1.0, None)
    far = tfdistill.compare(one, net(5, "far"), X)
    assert far.argmax_agreement < 0.7
    assert far.outputs["logits"].lowest_r_squared < 0


def test_the_samples_that_differ_most_are_named(folder):
    one = loaded(folder, "one")
    inputs = keras.Input((6,), name="x")
    # Differs on samples whose first feature is large alone.
    shifted = keras.Model(inputs, one(inputs) + keras.ops.where(inputs[:, :1] > 2.0, 3.0, 0.0))
    x = X.copy()
    x[:, 0] = 0.0
    x[[7, 31], 0] = 3.0
    record = tfdistill.compare(one, shifted, x)
    assert set(next(iter(record.outputs.values())).worst_samples[:2]) == {7, 31}
    assert record.max_abs_error == pytest.approx(3.0, abs=1e-5)


def two_sided(names, swapped=False):
    a, b = keras.Input((3,), name="a"), keras.Input((5,), name="b")
    one, two = L.Dense(2, name=names[0], kernel_initializer="ones")(a), L.Dense(4, name=names[1], kernel_initializer="ones")(b)
    return keras.Model([b, a] if swapped else [a, b], {names[0]: one, names[1]: two})


def test_inputs_and_outputs_belong_together_by_name_or_by_order():
    data = {"a": RNG.normal(size=(20, 3)).astype("float32"), "b": RNG.normal(size=(20, 5)).astype("float32")}
    by_name = tfdistill.compare(two_sided(("p", "q")), two_sided(("p", "q"), swapped=True), data)
    assert (by_name.max_abs_error, sorted(by_name.outputs)) == (0.0, ["p", "q"])
    by_order = tfdistill.compare(two_sided(("p", "q")), two_sided(("r", "s")), data)
    assert (by_order.max_abs_error, sorted(by_order.outputs)) == (0.0, ["p", "q"])


def not_finite():
    model = net(1, "broken")
    model.layers[-1].bias.assign([np.nan] * 4)
    return model


MISTAKES = {
    "another input shape": (
        lambda f: (loaded(f, "one"), keras.Sequential([keras.Input((7,)), L.Dense(4)])),
        ModelError,
        r"inputs[\s\S]*\(6,\)[\s\S]*\(7,\)",
    ),
    "another output shape": (
        lambda f: (f / "one.tflite", keras.Sequential([keras.Input((6,)), L.Dense(5)])),
        ModelError,
        r"outputs[\s\S]*4[\s\S]*5",
    ),
    "no file": (lambda f: (f / "none.tflite", f / "one.tflite"), ConfigurationError, "There is no file"),
    "no model": (lambda f: (f / "one.tflite", 3), ModelError, "int"),
    "NaN in the first": (lambda f: (not_finite(), f / "one.tflite"), DataError, "model 'broken'"),
    "NaN in the second": (lambda f: (f / "one.tflite", not_finite()), VerificationError, r"model 'broken'[\s\S]*one.tflite"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(mistake, folder):
    given, error, said = MISTAKES[mistake]
    with pytest.raises(error, match=said):
        tfdistill.compare(*given(folder), X)


def test_a_damaged_file_is_said(folder, tmp_path):
    path = tmp_path / "damaged.tflite"
    path.write_bytes((folder / "one.tflite").read_bytes()[:900])
    with pytest.raises((ExportError, tfdistill.errors.RuntimeUnavailableError), match=r"damaged\.tflite"):
        tfdistill.compare(folder / "one.keras", path, X)


def test_data_that_does_not_fit_is_said(folder):
    with pytest.raises(DataError, match=r"comparison data"):
        tfdistill.compare(folder / "one.tflite", folder / "other.tflite", X[:, :4])
