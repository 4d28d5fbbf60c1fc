"""Every kind of teacher: its outputs are right, it trains a student, is saved and loaded."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small import CLASSES, data, mlp, weights_of
from teachers_of_one_net import CROSS_ENTROPY, NumpyNet, keras_file, make, make_net, softmax, write_files

from tfdistill import Distiller, adopt, export_tflite, to_tf_keras
from tfdistill.distill.teachers.callable import CallableTeacher
from tfdistill.distill.teachers.convert import as_teacher
from tfdistill.distill.teachers.ensemble import Ensemble
from tfdistill.distill.teachers.files import SavedModelTeacher, TFLiteTeacher
from tfdistill.errors import ConfigurationError, ModelError
from tfdistill.losses import Hint, OutputMatching, SoftTargets
from tfdistill.runtime import tensorflow_lite


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("teachers"))


# Name -> (what a user gives, the space of its outputs). All say the same about every class.
KINDS = {
    "keras": (keras_file, "logits"),
    "tf_keras": (lambda f: to_tf_keras(keras_file(f)), "logits"),
    ".tflite": (lambda f: str(f / "one.tflite"), "logits"),
    "SavedModel": (lambda f: f / "saved", "logits"),
    "SavedModel, one of its signatures": (lambda f: CallableTeacher(_first_output(SavedModelTeacher(f / "two", "second"))), "logits"),
    "callable": (lambda f: NumpyNet.of(keras_file(f)), "logits"),
    "callable of probabilities": (lambda f: NumpyNet.of(keras_file(f), probabilities=True), "probabilities"),
    "ensemble": (lambda f: Ensemble([keras_file(f), f / "one.tflite", NumpyNet.of(keras_file(f))], [1, 2, 0.5]), "log_probabilities"),
    "ensemble of logits": (lambda f: Ensemble([f / "saved", to_tf_keras(keras_file(f))], average="logits"), "logits"),
}
# Functions made in place cannot be found again.
UNSAVED = {"SavedModel, one of its signatures"}
# A callable that runs a TensorFlow function waits for the one thread that these tests have, which runs the step (test_teaching_remedies.py).
EAGERLY = {"SavedModel, one of its signatures"}
# A graph can run any program, so Keras's safe mode refuses it.
NOT_SAFE = {"SavedModel", "ensemble of logits"}


def _first_output(teacher):
    return lambda x: teacher(x)["a"]


def fitted(distiller):
    x, y = data(40)
    # In batches of 16: the last one is smaller.
    return distiller.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0, validation_data=(x[:10], y[:10])).history


@pytest.fixture(scope="module")
def taught_by_keras(folder):
    distiller = make(keras_file(folder))
    return fitted(distiller), weights_of(distiller.student)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_teaches_as_the_model_that_it_is_made_from(kind, folder, taught_by_keras, tmp_path):
    (given, space), (x, y) = KINDS[kind], data(40)
    distiller = make(given(folder), space)
    distiller.run_eagerly = kind in EAGERLY
    found, (expected, weights) = fitted(distiller), taught_by_keras
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-5, atol=1e-6, err_msg=name)
    for a, b in zip(weights, weights_of(distiller.student), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
    path = tmp_path / "distiller.keras"
    if kind in UNSAVED:
        with pytest.raises(ConfigurationError, match="cannot be saved"):
            distiller.save(path)
        return
    distiller.save(path)
    if kind in NOT_SAFE:
        with pytest.raises(ModelError, match=r"could run any program[\s\S]*safe_mode=False"):
            keras.saving.load_model(path)
    loaded = keras.saving.load_model(path, safe_mode=kind not in NOT_SAFE)
    scores = [d.evaluate(x, y, verbose=0, return_dict=True) for d in (distiller, loaded)]
    for name in scores[0]:
        np.testing.assert_allclose(scores[0][name], scores[1][name], rtol=1e-6, err_msg=name)


FEATURED = {
    "keras": (keras_file, "hidden_0"),
    "tf_keras": (lambda f: to_tf_keras(keras_file(f)), "hidden_0"),
    "member of an ensemble": (lambda f: Ensemble([keras_file(f), f / "one.tflite"]), "net/hidden_0"),
    "member by its number": (lambda f: Ensemble([keras_file(f), keras_file(f)]), "members/1/hidden_0"),
}


@pytest.mark.parametrize("kind", FEATURED)
def test_layers_of_keras_and_tf_keras_teachers_are_tapped(kind, folder):
    (given, layer), (x, y) = FEATURED[kind], data(32)
    histories = []
    for teacher, tap in ((keras_file(folder), "hidden_0"), (given(folder), layer)):
        distiller = make(teacher, losses=Hint(tap, "hidden_0"))
        histories.append(distiller.fit(x, y, epochs=2, shuffle=False, verbose=0).history["distillation_loss"])
    np.testing.assert_allclose(*histories, rtol=2e-5)


def test_flags_inside_a_tf_keras_teacher_come_back():
    x, y = data(32)
    teacher = to_tf_keras(make_net())
    teacher.layers[1].trainable = False
    flags = [layer.trainable for layer in teacher._flatten_layers()]
    distiller = make(teacher)
    during = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: during.extend(t.trainable for t in teacher._flatten_layers())
    )
    distiller.fit(x, y, verbose=0, callbacks=[watch])
    assert during
    assert not any(during)
    assert [layer.trainable for layer in teacher._flatten_layers()] == flags
    assert len(adopt(teacher).trainable_weights) == 2


def test_flags_of_an_ensembles_members_come_back():
    x, y = data(32)
    members = [mlp(8, name="one"), mlp(8, name="two")]
    members[1].get_layer("hidden_0").trainable = False
    flags = [[layer.trainable for layer in m.layers] for m in members]
    before = [weights_of(m) for m in members]
    make(Ensemble(members)).fit(x, y, verbose=0)
    assert [[layer.trainable for layer in m.layers] for m in members] == flags
    for was, member in zip(before, members, strict=True):
        for a, b in zip(was, weights_of(member), strict=True):
            np.testing.assert_array_equal(a, b)


AVERAGED = {
    "probabilities of logits": ("probabilities", "logits", lambda w, z: np.log(np.tensordot(w, softmax(z), 1))),
    "probabilities of probabilities": ("probabilities", "probabilities", lambda w, z: np.log(np.tensordot(w, softmax(z), 1))),
    "probabilities of log-probabilities": ("probabilities", "log_probabilities", lambda w, z: np.log(np.tensordot(w, softmax(z), 1))),
    "probabilities of several spaces": (
        "probabilities",
        ["logits", "probabilities", "log_probabilities"],
        lambda w, z: np.log(np.tensordot(w, softmax(z), 1)),
    ),
    "logits of logits": ("logits", "logits", lambda w, z: np.tensordot(w, z, 1)),
    "logits of probabilities": ("logits", "probabilities", lambda w, z: np.tensordot(w, np.log(softmax(z)), 1)),
}


def says(values):
    return lambda x: values[: len(x)]


SPACES = {"logits": lambda z: z, "probabilities": softmax, "log_probabilities": lambda z: np.log(softmax(z))}


@pytest.mark.parametrize("weights", [None, [1.0, 3.0, 0.0], [0.2, 0.3, 0.5]], ids=str)
@pytest.mark.parametrize("case", AVERAGED)
def test_ensembles_average_equals_its_formula(case, weights, rng):
    average, space, formula = AVERAGED[case]
    z = rng.normal(size=(3, 6, CLASSES)) * 4
    each = [space] * 3 if isinstance(space, str) else space
    members = [says(SPACES[s](values)) for s, values in zip(each, z, strict=True)]
    shares = np.ones(3) / 3 if weights is None else np.array(weights) / sum(weights)
    found = Ensemble(members, weights, average=average, outputs=space)(np.zeros((6, 2), "float32"))
    np.testing.assert_allclose(found.numpy(), formula(shares, z), rtol=1e-4, atol=1e-5)
    if average == "probabilities":
        np.testing.assert_allclose(np.exp(found.numpy()).sum(-1), 1.0, rtol=1e-5)


def test_a_tflite_teacher_takes_batches_of_any_size_in_any_order(folder):
    teacher, model = as_teacher(folder / "one.tflite"), keras_file(folder)
    traced = tf.function(teacher, input_signature=[tf.TensorSpec((None, 8))])
    for rows in (1, 3, 16, 3, 5, 6, 7, 8, 3):
        x, _ = data(rows)
        expected = model(x).numpy()
        np.testing.assert_allclose(teacher(x).numpy(), expected, atol=1e-5)
        np.testing.assert_allclose(traced(x).numpy(), expected, atol=1e-5)
    static = tf.function(teacher).get_concrete_function(tf.TensorSpec((4, 8))).structured_outputs
    assert static.shape == (4, CLASSES)


def test_a_compressed_tflite_teacher_is_quantized_in_and_dequantized_out(tmp_path):
    model, (x, y) = make_net(), data(64)
    export_tflite(model, tmp_path / "small.tflite", variant="int8", calibration=x)
    teacher = TFLiteTeacher(tmp_path / "small.tflite")
    outputs, expected = teacher(x).numpy(), model.predict(x, verbose=0)
    assert outputs.dtype == np.float32
    assert 0 < np.abs(outputs - expected).max() < 0.05 * np.abs(expected).max()
    make(teacher).fit(x, y, verbose=0)


def two_inputs(name):
    inputs = {"image": keras.Input((4,), name="image"), "meta": keras.Input((4,), name="meta")}
    return keras.Model(inputs, keras.layers.Dense(CLASSES)(keras.layers.Concatenate()(list(inputs.values()))), name=name)


TWO_INPUTS = {
    "SavedModel": lambda f, m: m.export(f / "two", verbose=False) or f / "two",
    ".tflite": lambda f, m: export_tflite(m, f / "two.tflite", variant="float32") and f / "two.tflite",
    "callable": lambda f, m: lambda x: m(x),
}


@pytest.mark.parametrize("kind", TWO_INPUTS)
def test_inputs_are_found_by_their_names(kind, tmp_path):
    x, y = data(32)
    model, fed = two_inputs("teacher"), {"image": x[:, :4], "meta": x[:, 4:]}
    teacher = as_teacher(TWO_INPUTS[kind](tmp_path, model))
    np.testing.assert_allclose(teacher(fed).numpy(), model.predict(fed, verbose=0), atol=1e-5)
    distiller = Distiller(teacher, two_inputs("student"), SoftTargets(2.0))
    distiller.compile("sgd", loss=CROSS_ENTROPY)
    distiller.fit(fed, y, batch_size=10, verbose=0)


def test_several_outputs_come_by_name():
    x, _ = data(32)

    def heads(name):
        inputs = keras.Input((8,))
        return keras.Model(inputs, {k: keras.layers.Dense(n, name=k)(inputs) for k, n in (("kind", CLASSES), ("size", 1))}, name=name)

    teacher = heads("teacher")
    distiller = Distiller(
        lambda x: teacher(x), heads("student"), {"kind": SoftTargets(2.0), "size": OutputMatching("mse")}, student_loss_weight=0.0
    )
    distiller.compile(keras.optimizers.Adam(0.05))
    losses = distiller.fit(x, batch_size=10, epochs=5, verbose=0).history["distillation_loss"]
    assert losses[-1] < losses[0]


@keras.saving.register_keras_serializable(package="tests")
def registered_teacher(x):
    return x[:, :CLASSES] * 3.0


def test_a_registered_function_is_saved_and_found_again(tmp_path):
    x, y = data(16)
    distiller = make(registered_teacher)
    distiller.fit(x, y, verbose=0)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    assert loaded.teacher.function is registered_teacher
    # The shape of its outputs is known from before.
    assert loaded.evaluate(x, y, verbose=0, return_dict=True) == pytest.approx(distiller.evaluate(x, y, verbose=0, return_dict=True))


def test_a_file_that_keeps_its_batch_runs_in_parts(tmp_path):
    fixed = keras.Sequential(
        [keras.Input(batch_shape=(4, 8)), keras.layers.Reshape((2, 4)), keras.layers.Flatten(), keras.layers.Dense(CLASSES)]
    )
    function = tf.function(
        lambda x: tf.reshape(tf.reshape(x, (4, 2, 4)), (4, 8)) @ fixed.weights[0].value, input_signature=[tf.TensorSpec((4, 8))]
    )
    module = tf.Module()
    module.held = fixed.weights[0].value
    path = tmp_path / "four.tflite"
    path.write_bytes(tensorflow_lite.converter_class().from_concrete_functions([function.get_concrete_function()], module).convert())
    x, _ = data(10)
    teacher = as_teacher(path)
    np.testing.assert_allclose(teacher(x).numpy(), x @ fixed.weights[0].numpy(), atol=1e-5)


@pytest.mark.parametrize("eager", [False, True])
def test_a_black_box_is_asked_once_a_batch(eager):
    x, y = data(32)
    sizes = []
    function = NumpyNet.of(make_net())

    def teacher(batch):
        sizes.append(len(batch))
        return function(batch)

    distiller = make(teacher)
    distiller.compile("sgd", loss=CROSS_ENTROPY, run_eagerly=eager)
    distiller.fit(x, y, batch_size=12, epochs=2, verbose=0)
    assert sizes == [12, *[12, 12, 8] * 2]


def test_black_boxes_have_no_weights_and_leave_xla_to_others():
    distiller = make(NumpyNet.of(make_net()))
    assert distiller.teacher.weights == []
    assert not distiller.supports_jit
    assert make(make_net()).supports_jit
