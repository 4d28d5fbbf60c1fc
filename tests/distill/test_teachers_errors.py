"""Faults of a teacher are reported with its name: before any training, or with the number of the batch."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small import CLASSES, data, mlp
from teachers_of_one_net import CROSS_ENTROPY, NumpyNet, make, make_net, write_files

from tfdistill import Distiller
from tfdistill.distill.teachers.callable import CallableTeacher
from tfdistill.distill.teachers.convert import as_teacher
from tfdistill.distill.teachers.ensemble import Ensemble
from tfdistill.distill.teachers.files import SavedModelTeacher
from tfdistill.errors import ConfigurationError, DataError, ModelError, RuntimeUnavailableError
from tfdistill.losses import Hint, SoftTargets


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("teachers"))


def counted(outputs_for, wrong_at, wrong):
    """A teacher with wrong outputs for one batch; the first call is the check of the first batch before training."""
    calls = []

    def teacher(x):
        calls.append(len(x))
        return wrong(outputs_for(x)) if len(calls) - 2 == wrong_at else outputs_for(x)

    return teacher


def with_nan(logits):
    logits = np.array(logits)
    logits[2, 1] = np.nan
    return logits


def broken(_):
    raise ConnectionError("no route to host")


# Before batch 0 of training; batch 5 is one of validation.
FIRST_CHECK = -1
WRONG_OUTPUTS = {
    "NaN": (with_nan, DataError, ["NaN", "[2, 1]", "1 of 40"]),
    "infinity": (lambda z: z * np.inf, DataError, ["infinity"]),
    "other classes": (lambda z: z[:, :3], DataError, ["(8, 3)", f"(8, {CLASSES})"]),
    "fewer rows": (lambda z: z[:5], DataError, [f"(5, {CLASSES})", "8 samples"]),
    "a scalar": (lambda z: 1.0, DataError, ["()", "8 samples"]),
    "text": (lambda z: np.array(["cat"] * 8), DataError, ["array of numbers"]),
    "nothing": (lambda z: None, DataError, ["NoneType", "array of numbers"]),
    "outputs by name, unlike before": (lambda z: {"logits": z}, DataError, ["['logits']"]),
    "its own failure": (broken, ModelError, ["ConnectionError", "no route to host"]),
}


@pytest.mark.parametrize(
    ("wrong", "batch"), [*((wrong, 2) for wrong in WRONG_OUTPUTS), ("NaN", FIRST_CHECK), ("NaN", 5), ("its own failure", 5)]
)
def test_wrong_outputs_are_reported_with_their_batch(wrong, batch):
    spoil, kind, words = WRONG_OUTPUTS[wrong]
    x, y = data(32)
    teacher = counted(NumpyNet.of(make_net()), batch, spoil)
    distiller = make(teacher)
    with pytest.raises(kind) as caught:
        distiller.fit(x, y, batch_size=8, verbose=0, validation_data=(x[:16], y[:16]))
    for word in [*words, f"batch {max(batch, 0)} ", "'teacher'"]:
        assert word in str(caught.value)
    if batch > 0:
        assert isinstance(caught.value.__cause__, (tf.errors.OpError, ConnectionError))
    # The teacher is right again: so is the training, and batches are counted from 0.
    distiller.fit(x, y, batch_size=8, verbose=0)


def unreadable(folder):
    path = folder / "broken.tflite"
    path.write_bytes(b"TFL3" * 40)
    return path


def unreadable_folder(folder):
    (folder / "broken").mkdir(exist_ok=True)
    (folder / "broken" / "saved_model.pb").write_bytes(b"\xff" * 40)
    return folder / "broken"


def other_file(folder):
    path = folder / "other.tflite"
    path.write_bytes((folder / "one.tflite").read_bytes())
    distiller = make(path)
    distiller.save(folder / "other.keras")
    path.write_bytes((folder / "one.tflite").read_bytes() + b"\0")
    keras.saving.load_model(folder / "other.keras")


def gone(folder):
    path = folder / "gone.tflite"
    path.write_bytes((folder / "one.tflite").read_bytes())
    make(path).save(folder / "gone.keras")
    path.unlink()
    keras.saving.load_model(folder / "gone.keras")


def renamed(folder):
    return (folder / "model.onnx").write_bytes((folder / "model.keras").read_bytes()) and folder / "model.onnx"


def outputs_of(teacher, x):
    return as_teacher(teacher)(x)


def fit_compiled(teacher, **kwargs):
    distiller = Distiller(teacher, mlp(8), SoftTargets(2.0))
    distiller.compile("sgd", loss=CROSS_ENTROPY, **kwargs)


def evaluate_unseen():
    make(CallableTeacher(NumpyNet.of(make_net()))).evaluate(*data(8), verbose=0)


def part_of_the_teacher():
    student = mlp(8)
    Distiller(Ensemble([student, mlp(9)]), student, SoftTargets(2.0))


ZEROS = np.zeros((2, 8), "float32")
MISTAKES = {
    "a number": (lambda f: as_teacher(7), ModelError, ["Teacher must be", "int"]),
    "a class": (lambda f: as_teacher(keras.Model), ModelError, ["Teacher must be"]),
    "missing file": (lambda f: as_teacher(f / "none.tflite"), ModelError, ["none.tflite", "no such file"]),
    "a file of another kind": (lambda f: as_teacher(renamed(f)), ModelError, ["model.onnx", ".keras, .h5 or .tflite"]),
    "unreadable .tflite": (lambda f: as_teacher(unreadable(f)), RuntimeUnavailableError, ["broken.tflite", "160 bytes"]),
    "folder without a SavedModel": (lambda f: as_teacher(f), ModelError, ["saved_model.pb"]),
    "unreadable SavedModel": (lambda f: as_teacher(unreadable_folder(f)), ModelError, ["broken", "cannot be read"]),
    "signature not chosen": (lambda f: as_teacher(f / "two"), ConfigurationError, ["'first'", "'second'"]),
    "signature misspelt": (lambda f: SavedModelTeacher(f / "two", "secnd"), ConfigurationError, ["'secnd'", "Nearest: 'second'"]),
    "file changed after saving": (other_file, ModelError, ["other.tflite", "SHA-256"]),
    "file gone after saving": (gone, ModelError, ["gone.tflite", "not there"]),
    "inputs of other shape, .tflite": (lambda f: outputs_of(f / "one.tflite", ZEROS[:, :3]), DataError, ["(2, 3)", "one.tflite"]),
    "inputs of other shape, SavedModel": (lambda f: outputs_of(f / "saved", ZEROS[:, :3]), ModelError, ["(2, 3)", "(None, 8)"]),
    "inputs of other names": (lambda f: outputs_of(f / "one.tflite", {"image": ZEROS}), ModelError, ["'image'"]),
    "inputs without names": (lambda f: outputs_of(f / "saved", [ZEROS, ZEROS]), ModelError, ["fed 2"]),
    "other classes than the student": (
        lambda f: Distiller(f / "one.tflite", mlp(8, classes=3), SoftTargets(2.0)),
        ModelError,
        ["output", "(None, 5)", "(None, 3)"],
    ),
    "tap in a .tflite file": (
        lambda f: make(f / "one.tflite", losses=Hint("hidden_0", "hidden_0")),
        ModelError,
        ["'hidden_0'", "'one'", ".tflite"],
    ),
    "tap in a SavedModel": (lambda f: make(f / "saved", losses=Hint("hidden_0", "hidden_0")), ModelError, ["'hidden_0'", "'saved'"]),
    "tap in a callable": (lambda f: make(lambda x: x, losses=Hint("hidden_0", "hidden_0")), ModelError, ["'hidden_0'", "callable"]),
    "XLA": (lambda f: fit_compiled(f / "one.tflite", jit_compile=True), ConfigurationError, ["jit_compile", "'one'"]),
    "XLA, in an ensemble": (lambda f: fit_compiled(Ensemble([mlp(8), f / "saved"]), jit_compile=True), ConfigurationError, ["'saved'"]),
    "callable of unknown shape": (lambda f: evaluate_unseen(), ModelError, ["output_shape"]),
    "no function": (lambda f: CallableTeacher("f"), ConfigurationError, ["'f'"]),
    "output_shape no shape": (lambda f: CallableTeacher(len, output_shape=10), ConfigurationError, ["10"]),
    "ensemble of none": (lambda f: Ensemble([]), ConfigurationError, ["at least one"]),
    "ensemble of one without a list": (lambda f: Ensemble(mlp(8)), ConfigurationError, ["list"]),
    "ensemble with a member that is no teacher": (lambda f: Ensemble([mlp(8), 3]), ModelError, ["Teacher must be", "int"]),
    "ensemble with an unbuilt member": (lambda f: Ensemble([mlp(8), keras.Sequential([keras.layers.Dense(3)])]), ModelError, ["not built"]),
    "ensemble of other outputs": (
        lambda f: Ensemble([mlp(8, name="a"), mlp(8, classes=3, name="b")]),
        ModelError,
        ["'a' (5,)", "'b' (3,)"],
    ),
    "ensemble of other outputs, found late": (
        lambda f: Ensemble([mlp(8, name="a"), lambda x: x[:, :3]])(ZEROS),
        ModelError,
        ["'a' (5,)", "'teacher_function' (3,)"],
    ),
    "ensemble of one class": (lambda f: Ensemble([mlp(8, classes=1)])(ZEROS), ModelError, ["average='logits'"]),
    "weights of other length": (lambda f: Ensemble([mlp(8), mlp(8)], [1.0]), ConfigurationError, ["2 members", "1 weights"]),
    "weights negative": (lambda f: Ensemble([mlp(8), mlp(8)], [1.0, -1.0]), ConfigurationError, ["-1.0"]),
    "weights all zero": (lambda f: Ensemble([mlp(8), mlp(8)], [0, 0]), ConfigurationError, ["not all 0"]),
    "weights NaN": (lambda f: Ensemble([mlp(8), mlp(8)], [1.0, float("nan")]), ConfigurationError, ["nan"]),
    "average unknown": (lambda f: Ensemble([mlp(8)], average="median"), ConfigurationError, ["'median'"]),
    "space unknown": (lambda f: Ensemble([mlp(8)], outputs="softmax"), ConfigurationError, ["'softmax'"]),
    "spaces of other length": (lambda f: Ensemble([mlp(8)], outputs=["logits", "logits"]), ConfigurationError, ["1 members"]),
    "student in the ensemble": (lambda f: part_of_the_teacher(), ModelError, ["part of the teacher"]),
    "probabilities taken for logits": (
        lambda f: make(NumpyNet.of(make_net(), probabilities=True)).fit(*data(8), verbose=0),
        ConfigurationError,
        ["teacher", "probabilities"],
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_named(mistake, folder):
    cause, kind, words = MISTAKES[mistake]
    with pytest.raises(kind) as caught:
        cause(folder)
    for word in words:
        assert word in str(caught.value)
