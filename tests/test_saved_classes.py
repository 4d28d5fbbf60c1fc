"""What one process saves, another one loads after `import tfdistill` alone; a damaged config is refused by the class's name."""

import ast
import copy
import json
import os
import pathlib
import re
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
import teachers_of_one_net
import test_losses_table
from small import mlp
from teachers_of_one_net import NumpyNet, keras_file, make

from tfdistill import losses, saveable
from tfdistill.bridge import AdoptedModel, adopt, imports, to_tf_keras
from tfdistill.compress import Cluster, Prune, QuantizeAware
from tfdistill.distill.cache.build import soft_targets
from tfdistill.distill.cache.options import CacheOptions
from tfdistill.distill.metrics.teacher_report import CalibrationError, TeacherReport
from tfdistill.distill.teachers.convert import as_teacher
from tfdistill.distill.teachers.ensemble import Ensemble
from tfdistill.errors import TfdistillError

ROOT = pathlib.Path(__file__).parents[1]
X = (np.arange(40, dtype="float32") / 40.0).reshape(5, 8)
CONFIGS = json.loads((pathlib.Path(__file__).parent / "saved_configs.json").read_text(encoding="utf-8"))


# All that `import tfdistill` imports: a few milliseconds.
IMPORTED = [f"tfdistill.{name}" for name in ("errors", "public", "saveable", "utils", "utils.deprecation", "utils.lazy", "version")]


def registrations(source, module):
    """Yields the classes and functions that a module registers with Keras when it is imported, in source order."""
    for node in ast.walk(ast.parse(source)):
        for decorator in getattr(node, "decorator_list", ()):
            text = ast.unparse(decorator)
            if text.startswith("keras.saving.register_keras_serializable"):
                yield module, text, node.name


def scanned():
    for path in sorted((ROOT / "tfdistill").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        yield from registrations(path.read_text(encoding="utf-8"), module)


def test_the_table_lists_every_class_that_is_registered():
    found = list(scanned())
    assert {text for _, text, _ in found} == {"keras.saving.register_keras_serializable(package='tfdistill')"}
    table = [(module, name) for module, names in saveable.SAVED.items() for name in names]
    assert sorted(table) == sorted((module, name) for module, _, name in found)
    assert len({name for _, name in table}) == len(table)


def test_a_registration_that_the_table_lacks_is_found():
    source = "@keras.saving.register_keras_serializable(package='tfdistill')\nclass New: pass\n@other\nclass Old: pass"
    assert [name for _, _, name in registrations(source, "m")] == ["New"]


def test_all_classes_are_registered_by_an_import_of_a_few_small_modules():
    code = (
        "import json, sys, keras; before = set(sys.modules); import tfdistill; new = sorted(set(sys.modules) - before); "
        "print(json.dumps([new, sorted(keras.saving.get_custom_objects())]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    modules, registered = json.loads(done.stdout.splitlines()[-1])
    assert modules == ["tfdistill", *IMPORTED]
    assert set(registered) >= {f"tfdistill>{name}" for names in saveable.SAVED.values() for name in names}


def test_a_deferred_class_is_as_good_as_the_class():
    deferred = saveable.DeferredClass("tfdistill.losses.schedules", "LinearSchedule")
    schedule = losses.LinearSchedule(5.0, 1.0, 10)
    assert repr(deferred(5.0, 1.0, 10)) == repr(deferred.from_config(schedule.get_config())) == repr(schedule)
    assert repr(deferred) == "<class 'tfdistill.losses.schedules.LinearSchedule', not imported yet>"
    assert not hasattr(deferred, "__name__")
    with pytest.raises(AttributeError):
        _ = deferred.nonsense


def nested():
    inner = mlp(6, name="inner", classes=8)
    inputs = keras.Input((8,))
    return keras.Model(inputs, keras.layers.Dense(3, activation=keras.activations.hard_silu)(inner(inputs)), name="outer")


def bridged(model):
    return adopt(to_tf_keras(model), original=model)


class Block(keras.layers.Layer):
    """Opened, it needs every class that stands in an opened layer's graph for what Keras has no layer for."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.places, self.supports_masking = keras.layers.Embedding(8, 4), True

    def build(self, shape):
        self.scale = self.add_weight(name="scale", shape=(4,), initializer="ones")

    def call(self, x):
        batch = keras.ops.shape(x)[0]
        y = keras.ops.reshape(x, (batch, 8, 1)) * self.scale + self.places(np.arange(8))
        return keras.ops.reshape(y, (batch, 8, 4))

    def compute_mask(self, inputs, previous_mask=None):
        return keras.ops.greater(inputs, -5.0)


def opened_layers(folder):
    inputs = keras.Input((8,))
    return adopt(to_tf_keras(keras.Model(inputs, keras.layers.GlobalAveragePooling1D()(Block(name="block")(inputs)))))


def with_callable(folder):
    return make(NumpyNet.of(keras_file(folder)), losses=[losses.SoftTargets(losses.LinearSchedule(4.0, 1.0, 10))])


def with_cache(folder):
    return make(soft_targets(keras_file(folder), X, folder / "cache", options=CacheOptions(batch_size=5), log_fn=lambda text: None))


def with_report(folder):
    distiller = make(keras_file(folder), losses=[losses.SoftTargets(2.0), losses.Hint("hidden_0", "hidden_0")])
    distiller.compile("adam", loss=teachers_of_one_net.CROSS_ENTROPY, metrics=["accuracy", TeacherReport()])
    distiller.fit(X, np.arange(5) % 3, verbose=0)
    return distiller


def with_metric(folder):
    model = mlp(4)
    model.compile("adam", loss=teachers_of_one_net.CROSS_ENTROPY, metrics=[CalibrationError("logits")])
    model.fit(X, np.arange(5) % 3, verbose=0)
    return model


MODELS = {
    "plain": lambda folder: bridged(mlp(6)),
    "nested": lambda folder: bridged(nested()),
    "opened": opened_layers,
    "pruned": lambda folder: Prune(sparsity=0.5, end_step=4).apply(mlp(6)),
    "clustered": lambda folder: Cluster(4).apply(mlp(6)),
    "quantized": lambda folder: QuantizeAware().apply(mlp(6)),
    "distilled_by_an_ensemble": lambda folder: make(Ensemble([keras_file(folder), folder / "one.tflite"]), "log_probabilities"),
    "distilled_by_a_keras_file": lambda folder: make(folder / "model.keras"),
    "distilled_by_a_tflite_file": lambda folder: make(folder / "one.tflite"),
    "distilled_by_a_saved_model": lambda folder: make(folder / "saved"),
    "distilled_by_a_callable": with_callable,
    "distilled_by_a_cache": with_cache,
    "distilled_by_an_adopted_model": lambda folder: make(bridged(keras_file(folder))),
    "reported": with_report,
    "measured": with_metric,
}
OBJECTS = [param.values[0].loss for param in test_losses_table.TABLE]
OBJECTS += [losses.CosineSchedule(4.0, 1.0, 10), losses.LinearSchedule(4.0, 1.0, 10), losses.PiecewiseSchedule([5], [4.0, 1.0])]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Saves everything here and loads it in one new process; gives what that one found, and what it should have found."""
    folder = tmp_path_factory.mktemp("saved")
    teachers_of_one_net.write_files(folder)
    (folder / "objects.json").write_text(json.dumps([keras.saving.serialize_keras_object(o) for o in OBJECTS]), encoding="utf-8")
    expected, names = {}, set(re.findall(r"tfdistill>(\w+)", (folder / "objects.json").read_text(encoding="utf-8")))
    for kind, build in MODELS.items():
        keras.utils.set_random_seed(5)
        model = build(folder)
        model.save(folder / f"{kind}.keras")
        with zipfile.ZipFile(folder / f"{kind}.keras") as archive:
            names |= set(re.findall(r"tfdistill>(\w+)", archive.read("config.json").decode()))
        expected[kind] = {"class": type(model).__name__, "outputs": model.predict(X, verbose=0)}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "load_elsewhere_job.py"), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests" / "distill"), os.environ.get("PYTHONPATH", "")])},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "found.json").read_text(encoding="utf-8")), expected, names


@pytest.mark.slow
def test_a_new_process_knows_every_class_and_imports_none(elsewhere):
    found, _, _ = elsewhere
    assert set(found["registered"]) >= {f"tfdistill>{name}" for _, _, name in scanned()}
    assert found["modules"] == IMPORTED
    assert found["heavy"] == []


@pytest.mark.slow
def test_every_class_was_saved_and_loaded(elsewhere):
    _, _, names = elsewhere
    assert names >= {name for _, _, name in scanned()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
def test_a_model_that_was_saved_here_computes_the_same_there(kind, elsewhere):
    found, expected, _ = elsewhere
    assert found["models"][kind]["class"] == expected[kind]["class"]
    np.testing.assert_allclose(found["models"][kind]["outputs"], expected[kind]["outputs"], atol=1e-6)


@pytest.mark.slow
def test_every_loss_and_schedule_is_the_same_there(elsewhere):
    assert elsewhere[0]["objects"] == [repr(o) for o in OBJECTS]


@pytest.mark.parametrize("kind", CONFIGS)
def test_configs_of_earlier_files_still_load(kind):
    """Written before names were checked; the layers are those of tf_keras, TFMOT and this library."""
    config = CONFIGS[kind]
    cls = keras.saving.get_registered_object(config["registered_name"])
    model = cls.from_config(config["config"])
    assert isinstance(model, AdoptedModel)
    assert model.predict(X, verbose=0).shape == (5, config["outputs"])
    assert same_in_all_versions(json.loads(model.get_config()["legacy"])) == same_in_all_versions(json.loads(config["config"]["legacy"]))


def same_in_all_versions(config):
    """Drops which module of this library a class was in when the file was written, as classes are found by their registered names.

    What depends on the version of tf_keras goes too: its number, and the setting `optional` of an input, which 2.20 does not have.
    """
    if isinstance(config, dict):
        moved = isinstance(config.get("module"), str) and config["module"].startswith("tfdistill.")
        dropped = {"keras_version", "optional", *(["module"] if moved else [])}
        return {key: same_in_all_versions(value) for key, value in config.items() if key not in dropped}
    return [same_in_all_versions(value) for value in config] if isinstance(config, list) else config


WRONG = [None, 5, -1.5, "x", [], {}, [1], True, {"class_name": "x"}, {"class_name": "x", "config": {}, "module": "os"}]


def damaged(config):
    """Yields a saved config with one value missing, unknown or of another type; at last what is no config."""
    for key in config:
        yield {k: v for k, v in config.items() if k != key}
        for value in WRONG:
            yield {**copy.deepcopy(config), key: value}
    yield {**config, "nonsense": 1}
    yield from (None, [], "x", 7)


def outcome(cls, config, settings):
    try:
        return cls.from_config(config, **settings)
    except TfdistillError as error:
        return error


def refuse_or_make(saved, **settings):
    """Makes objects of damaged configs; every error must be this library's. Returns how many were refused."""
    refused, cls = 0, type(saved)
    for config in damaged(saved.get_config()):
        found = outcome(cls, config, settings)
        refused += isinstance(found, TfdistillError)
        if not isinstance(config, dict) or "nonsense" in config:
            assert isinstance(found, TfdistillError)
        else:
            assert isinstance(found, (cls, TfdistillError))
    return refused


@pytest.mark.parametrize("saved", {type(o): o for o in OBJECTS}.values(), ids=lambda o: type(o).__name__)
def test_a_damaged_config_of_a_loss_or_schedule_is_refused(saved):
    assert refuse_or_make(saved) > 10


def test_a_damaged_config_of_a_metric_is_refused():
    assert refuse_or_make(CalibrationError("logits")) > 10
    assert refuse_or_make(TeacherReport(["accuracy"])) > 10


def test_a_damaged_config_of_a_distiller_or_teacher_is_refused(tmp_path):
    teachers_of_one_net.make_net().save(tmp_path / "model.keras")
    teacher = keras_file(tmp_path)
    cache = soft_targets(teacher, X, tmp_path / "cache", options=CacheOptions(batch_size=5), log_fn=lambda text: None)
    for saved in (make(teacher), Ensemble([teacher]), as_teacher(NumpyNet.of(teacher)), cache):
        assert refuse_or_make(saved) > 15


@pytest.mark.slow
def test_a_damaged_config_of_a_teacher_in_a_file_is_refused(tmp_path):
    teachers_of_one_net.write_files(tmp_path)
    assert refuse_or_make(as_teacher(tmp_path / "one.tflite")) > 15
    assert refuse_or_make(as_teacher(tmp_path / "saved"), safe_mode=False) > 15
    assert refuse_or_make(as_teacher(tmp_path / "saved")) == len(list(damaged(as_teacher(tmp_path / "saved").get_config())))


def test_of_both_registries_tf_keras_is_asked_too(tmp_path):
    tfk = imports.tf_keras()

    @tfk.saving.register_keras_serializable(package="saved_tests")
    class Halve(tfk.layers.Layer):
        def call(self, inputs):
            return inputs * 0.5

    model = adopt(tfk.Sequential([tfk.Input((8,)), Halve()]))
    model.save(tmp_path / "m.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "m.keras").predict(X, verbose=0), X * 0.5)
