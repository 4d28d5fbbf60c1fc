"""A teacher given as the path of a Keras file: loaded in safe mode wherever a teacher is taken, and saved as path and hash."""

import os
import shutil

import h5py
import keras
import numpy as np
import pytest
from small import data, mlp, weights_of

import tfdistill
from tfdistill import Distiller, Ensemble
from tfdistill.distill import ChainSettings, as_teacher
from tfdistill.errors import ModelError
from tfdistill.losses import Hint, SoftTargets

X, Y = data(32)
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture(scope="module")
def net():
    keras.utils.set_random_seed(7)
    model = mlp(64, 64, name="teacher")
    model.compile("adam", CROSS_ENTROPY)
    return model


@pytest.fixture(scope="module")
def folder(net, tmp_path_factory):
    folder = tmp_path_factory.mktemp("teachers")
    net.save(folder / "teacher.keras")
    keras.saving.save_model(net, folder / "legacy.h5", include_optimizer=False)
    return folder


def made(teacher, loss=None, student=None):
    distiller = Distiller(teacher, student or mlp(4, name="student"), loss or SoftTargets(2.0))
    distiller.compile("sgd", CROSS_ENTROPY, run_eagerly=True)
    return distiller


SETTINGS = ChainSettings(SoftTargets(2.0), loss=CROSS_ENTROPY)
TAKERS = {
    "Distiller": lambda path, folder: made(path).fit(X, Y, verbose=0),
    "Distiller, with a tap": lambda path, folder: made(path, Hint("hidden_0", "hidden_0")).fit(X, Y, verbose=0),
    "Ensemble": lambda path, folder: made(Ensemble([path, mlp(4, name="other")])).fit(X, Y, verbose=0),
    "soft_targets": lambda path, folder: tfdistill.soft_targets(path, X, folder / "cache"),
    "warm_start": lambda path, folder: tfdistill.warm_start(mlp(8, 8, name="student"), path),
    "assistants": lambda path, folder: tfdistill.assistants(path, [mlp(4, name="student")], SETTINGS, X, Y),
    "born_again": lambda path, folder: tfdistill.born_again(lambda: mlp(4, name="student"), 1, SETTINGS, X, Y, teacher=path),
    "blockwise": lambda path, folder: tfdistill.blockwise(
        path, mlp(8, 8, name="student"), [("hidden_0", "hidden_0")], SETTINGS, X, Y, finish=False
    ),
}


@pytest.mark.parametrize("taker", TAKERS)
def test_every_taker_of_a_teacher_takes_a_path(taker, folder, tmp_path):
    for path in (str(folder / "teacher.keras"), folder / "legacy.h5") if taker == "Distiller" else (folder / "teacher.keras",):
        TAKERS[taker](path, tmp_path)


@pytest.mark.parametrize("name", ["teacher.keras", "legacy.h5"])
def test_the_teacher_is_the_model_in_the_file(name, folder, net):
    teacher = as_teacher(folder / name)
    np.testing.assert_array_equal(teacher(X), net(X))
    assert not teacher.compiled


def sizes(path):
    """Names and sizes of the arrays in a checkpoint."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, value: found.update({name: value.size}) if hasattr(value, "size") else None)
    return found


def test_checkpoints_hold_the_teacher_by_path_and_hash(folder, net, tmp_path):
    distiller, whole = made(folder / "teacher.keras"), made(net)
    for name, one in (("reference", distiller), ("whole", whole)):
        one.fit(X, Y, verbose=0, callbacks=[keras.callbacks.ModelCheckpoint(tmp_path / f"{name}.keras", verbose=0)])
        one.save_weights(tmp_path / f"{name}.weights.h5")
    assert os.path.getsize(tmp_path / "reference.keras") < os.path.getsize(tmp_path / "whole.keras") / 2
    assert not any("teacher" in name for name in sizes(tmp_path / "reference.weights.h5"))
    assert any("teacher" in name for name in sizes(tmp_path / "whole.weights.h5"))
    for name, one in (("reference", distiller), ("whole", whole)):
        loaded = keras.saving.load_model(tmp_path / f"{name}.keras")
        assert loaded.evaluate(X, Y, verbose=0) == one.evaluate(X, Y, verbose=0)
        loaded.fit(X, Y, verbose=0)
    # What is loaded is saved by reference again, and its weights are loaded again.
    loaded = keras.saving.load_model(tmp_path / "reference.keras")
    loaded.save(tmp_path / "again.keras")
    loaded.load_weights(tmp_path / "reference.weights.h5")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "again.keras").predict(X, verbose=0), distiller.predict(X, verbose=0))


def test_members_of_an_ensemble_are_saved_by_path_too(folder, tmp_path):
    other = mlp(16, name="other")
    ensemble = Ensemble([folder / "teacher.keras", other, folder / "legacy.h5"], weights=[2, 1, 1])
    distiller = made(ensemble)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    np.testing.assert_array_equal(loaded.teacher(X), ensemble(X))
    distiller.save_weights(tmp_path / "distiller.weights.h5")
    of_members = sum(size for name, size in sizes(tmp_path / "distiller.weights.h5").items() if "teacher" in name)
    assert of_members == other.count_params()


def test_flags_are_saved_as_they_were_before_fit_froze_them(net, tmp_path):
    net.layers[1].trainable = False
    try:
        made(net).fit(X, Y, verbose=0, callbacks=[keras.callbacks.ModelCheckpoint(tmp_path / "frozen.keras")])
        expected = [layer.trainable for layer in net.layers]
    finally:
        net.layers[1].trainable = True
    loaded = keras.saving.load_model(tmp_path / "frozen.keras")
    assert [layer.trainable for layer in loaded.teacher.layers] == expected == [True, False, True, True]


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("who", ["teacher", "student"])
def test_a_compiled_model_in_it_loads_without_a_warning(who, trained, tmp_path):
    # Every warning is an error here; Keras warns of an optimizer that has other slots than the file.
    models = {"teacher": mlp(8, name="teacher"), "student": mlp(4, name="student")}
    models[who].compile("adam", CROSS_ENTROPY, run_eagerly=True)
    if trained:
        models[who].fit(X, Y, verbose=0)
    distiller = made(models["teacher"], student=models["student"])
    distiller.fit(X, Y, verbose=0, callbacks=[keras.callbacks.ModelCheckpoint(tmp_path / "distiller.keras")])
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    assert getattr(loaded, who).compiled
    assert getattr(loaded, who).optimizer.built == trained
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), distiller.predict(X, verbose=0))


def moved(path):
    path.rename(path.with_name("moved.keras"))
    return path.with_name("moved.keras")


def changed(path):
    other = path.with_name("other.keras")
    shutil.copy(path, other)
    mlp(64, 64, name="teacher").save(path)
    return other


@pytest.mark.parametrize(("change", "words"), [(moved, "is not there"), (changed, "SHA-256")])
def test_a_teacher_that_is_elsewhere(change, words, folder, tmp_path):
    path = tmp_path / "teacher.keras"
    shutil.copy(folder / "teacher.keras", path)
    distiller = made(path)
    distiller.fit(X, Y, verbose=0)
    distiller.save(tmp_path / "saved.keras")
    elsewhere = change(path)
    with pytest.raises(ModelError, match=words) as caught:
        keras.saving.load_model(tmp_path / "saved.keras")
    assert "put it back; or make the Distiller anew" in caught.value.fix
    anew = Distiller(elsewhere, mlp(4, name="student"), SoftTargets(2.0))
    anew.load_weights(tmp_path / "saved.keras")
    for ours, theirs in zip(weights_of(anew.student), weights_of(distiller.student), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    shutil.copy(folder / "teacher.keras", path)
    keras.saving.load_model(tmp_path / "saved.keras")


def with_code(folder):
    inputs = keras.Input((8,))
    model = keras.Model(inputs, keras.layers.Dense(5)(keras.layers.Lambda(lambda x: x * 2.0)(inputs)))
    model.save(folder / "code.keras")
    return folder / "code.keras"


def cut(folder, source):
    path = folder / "cut.keras"
    path.write_bytes(source.read_bytes()[:500])
    return path


def a_layer(folder):
    path = folder / "layer.keras"
    keras.saving.save_model(keras.Sequential([keras.Input((8,)), keras.layers.Dense(5)]), path)
    return path


@pytest.mark.parametrize("file", ["code", "cut"])
def test_a_file_that_safe_mode_refuses(file, folder, tmp_path):
    path = with_code(tmp_path) if file == "code" else cut(tmp_path, folder / "teacher.keras")
    with pytest.raises(ModelError, match=r"cannot be loaded|not loaded") as caught:
        made(path)
    assert str(path) in str(caught.value)
    assert "safe_mode=False" in caught.value.fix
    if file == "code":
        made(keras.saving.load_model(path, safe_mode=False)).fit(X, Y, verbose=0)
