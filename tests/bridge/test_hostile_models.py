"""Saved models that would run a program, read other files or are damaged: refused by name before anything is made or imported."""

import base64
import contextlib
import copy
import inspect
import json
import marshal
import re
import sys
import zipfile

import keras
import numpy as np
import pytest
from small import mlp, pair

from tfdistill.bridge import AdoptedModel, adopt, imports, to_tf_keras
from tfdistill.bridge.adopt import allowed_names
from tfdistill.bridge.adopt.serialization import legacy_scope
from tfdistill.cli import app
from tfdistill.compress import Prune
from tfdistill.distill.distiller import Distiller
from tfdistill.distill.teachers.callable import CallableTeacher
from tfdistill.distill.teachers.convert import as_teacher
from tfdistill.distill.teachers.ensemble import Ensemble
from tfdistill.errors import ModelError
from tfdistill.losses import SoftTargets
from tfdistill.saveable import DeferredClass

EVIL = """
import pathlib
import keras, tf_keras

pathlib.Path({marker!r}).write_text("imported")

class Boom(tf_keras.layers.Layer):
    pass

class BoomInitializer(tf_keras.initializers.Initializer):
    pass

def boom(*args, **kwargs):
    pathlib.Path({marker!r}).write_text("called")
    return args[0]
"""


@keras.saving.register_keras_serializable(package="hostile_tests")
def shifted_relu(x):
    return keras.ops.relu(x - 0.1)


@pytest.fixture(scope="module")
def base():
    """The config of an adopted model with an original, and the file that holds it."""
    model = mlp(6, name="victim")
    return adopt(to_tf_keras(model), original=model)


class Trap:
    """A module that leaves a mark when it is imported, and ways to name it."""

    def __init__(self, folder, monkeypatch):
        self.marker = folder / "marker"
        self.module = f"evil_{folder.name}".replace("-", "_")
        (folder / f"{self.module}.py").write_text(EVIL.format(marker=str(self.marker)))
        monkeypatch.syspath_prepend(folder)
        self._monkeypatch = monkeypatch

    def cls(self, name="Boom", **config):
        return {"module": self.module, "class_name": name, "config": config, "registered_name": name}

    def function(self):
        return {"module": self.module, "class_name": "function", "config": "boom", "registered_name": "boom"}

    def code(self):
        """The marshalled code of a lambda that leaves the mark, as Keras writes it."""
        made = eval(f"lambda x: (open({str(self.marker)!r}, 'w').write('ran'), x)[1]")
        return base64.b64encode(marshal.dumps(made.__code__)).decode()


@pytest.fixture
def trap(tmp_path, monkeypatch):
    made = Trap(tmp_path, monkeypatch)
    yield made
    sys.modules.pop(made.module, None)


def of(module, name, /, **config):
    return {"module": module, "class_name": name, "config": config, "registered_name": None}


def layer(*entries):
    """Puts layers in the place of the hidden one."""

    def edit(config, trap):
        kept = config["config"]["layers"]
        made = entries[0](trap) if callable(entries[0]) else entries[0]
        made = {"name": "hidden_0", "inbound_nodes": kept[1]["inbound_nodes"], **copy.deepcopy(made)}
        made["config"] = {"name": "hidden_0", **made["config"]} if isinstance(made.get("config"), dict) else made.get("config")
        kept[1] = made

    return edit


def inside(key, make):
    """Puts a value into the config of the hidden layer."""

    def edit(config, trap):
        config["config"]["layers"][1]["config"][key] = make(trap)

    return edit


def beside(key, make):
    def edit(config, trap):
        config["config"]["layers"][1][key] = make(trap)

    return edit


def operation(name):
    return layer(
        of("keras.layers", "TFOpLambda", function=name)
        | {"module": "tf_keras.src.layers.core.tf_op_layer", "registered_name": "TFOpLambda"}
    )


def wrapped(make, times):
    def edit(config, trap):
        made = make(trap)
        for _ in range(times):
            made = of("keras.layers", "TimeDistributed", layer=made)
        layer(made)(config, trap)

    return edit


def lambda_layer(trap, **config):
    settings = {"output_shape": None, "output_shape_type": "raw", "output_shape_module": None, "arguments": {}}
    return of("keras.layers", "Lambda", **settings | config)


def hosted(make):
    build = {"input_shape": [None, 8]}
    return layer(
        lambda t: (
            of("tfdistill.bridge.convert.hosted", "KerasLayer", layer=make(t), build_config=build)
            | {"registered_name": "tfdistill>KerasLayer"}
        )
    )


def kept_operation(make):
    settings = {"arguments": {"list": [{"tensor": 0}]}, "shapes": [[None, 8]]}
    return layer(
        lambda t: (
            of("tfdistill.bridge.convert.hosted", "KerasOperation", operation=make(t), **settings)
            | {"registered_name": "tfdistill>KerasOperation"}
        )
    )


def tfmot(name, /, **config):
    module = {"PruneLowMagnitude": "sparsity.keras.pruning_wrapper", "QuantizeWrapperV2": "quantization.keras.quantize_wrapper"}[name]
    return of(f"tensorflow_model_optimization.python.core.{module}", name, **config) | {"registered_name": name}


DENSE = of("keras.layers", "Dense", name="hidden_0", units=4)
SYSTEM = {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"}
WRITE_FILE = {"name": "w", "op": "WriteFile", "input": ["a", "b"]}

# What would run a program, or open a file: row -> (what is done to the tf_keras config, what the error names).
RUNS = {
    "class of a module that is not imported": (layer(lambda t: t.cls()), "Boom"),
    "class os.system": (layer(of("os", "system")), "os.system"),
    "class subprocess.Popen": (layer(of("subprocess", "Popen", args=["true"])), "subprocess.Popen"),
    "class builtins.eval": (layer(of("builtins", "eval")), "builtins.eval"),
    "class in three wrappers": (wrapped(lambda t: t.cls(), 3), "Boom"),
    "class of that module in the older format": (layer(lambda t: {"class_name": f"{t.module}.Boom", "config": {}}), "Boom"),
    "class behind a registered name": (
        layer(lambda t: t.cls("tfdistill>KerasLayer") | {"registered_name": "nobody>knows"}),
        "tfdistill>KerasLayer",
    ),
    "registered name that is no class of the module": (
        layer({"module": "keras.src.layers.core.dense", "class_name": "Dense", "config": {}, "registered_name": "keras_export"}),
        "Dense",
    ),
    "initializer": (inside("kernel_initializer", lambda t: t.cls("BoomInitializer")), "BoomInitializer"),
    "regularizer": (inside("kernel_regularizer", lambda t: t.cls()), "Boom"),
    "regularizer of activity": (inside("activity_regularizer", lambda t: t.cls()), "Boom"),
    "constraint": (inside("bias_constraint", lambda t: t.cls()), "Boom"),
    "dtype policy": (inside("dtype", lambda t: t.cls()), "Boom"),
    "activation of that module": (inside("activation", lambda t: t.function()), "boom"),
    "activation os.system": (inside("activation", lambda t: SYSTEM), "os.system"),
    "activation under the wrong registered name": (
        inside("activation", lambda t: {"module": "builtins", "class_name": "function", "config": "relu", "registered_name": "boom"}),
        "relu",
    ),
    "activation that downloads": (
        inside(
            "activation", lambda t: {"module": "keras.utils", "class_name": "function", "config": "get_file", "registered_name": "get_file"}
        ),
        "get_file",
    ),
    "activation that loads a model": (
        inside(
            "activation", lambda t: {"module": "keras.models", "class_name": "function", "config": "load_model", "registered_name": None}
        ),
        "load_model",
    ),
    "activation that is a lambda": (
        inside("activation", lambda t: {"class_name": "__lambda__", "config": {"value": [t.code(), None, None]}}),
        "a Python lambda",
    ),
    "build config": (beside("build_config", lambda t: {"input_shape": t.cls()}), "Boom"),
    "compile config": (beside("compile_config", lambda t: {"optimizer": t.cls(), "loss": "mse"}), "Boom"),
    "loss in a compile config": (beside("compile_config", lambda t: {"optimizer": "sgd", "loss": t.function()}), "boom"),
    "Lambda with a function": (
        layer(lambda t: lambda_layer(t, function=t.function(), function_type="function", module=t.module)),
        "boom",
    ),
    "Lambda with a class": (layer(lambda t: lambda_layer(t, function=t.cls(), function_type="function", module=None)), "Boom"),
    "Lambda with a function for its shape": (
        layer(
            lambda t: lambda_layer(
                t, function="relu", function_type="raw", module=None, output_shape=t.function(), output_shape_type="function"
            )
        ),
        "boom",
    ),
    "Lambda in two wrappers": (wrapped(lambda t: lambda_layer(t, function=t.function(), function_type="function", module=None), 2), "boom"),
    "class beside a registered function": (layer(lambda t: t.cls() | {"config": "hostile_tests>shifted_relu"}), "Boom"),
    "Lambda with os.system": (layer(lambda t: lambda_layer(t, function=SYSTEM, function_type="function", module="os")), "os.system"),
    "Lambda with code": (
        layer(lambda t: lambda_layer(t, function=[t.code(), None, None], function_type="lambda", module="builtins")),
        "a Lambda layer with Python code",
    ),
    "Lambda with code for its mask": (
        layer(
            lambda t: lambda_layer(t, function="relu", function_type="raw", module=None, mask=[t.code(), None, None], mask_type="lambda")
        ),
        "a Lambda layer with Python code",
    ),
    "Lambda with code, under a registered name": (
        layer(
            lambda t: {
                **lambda_layer(t, function=[t.code(), None, None], function_type="lambda", module="builtins"),
                "registered_name": "tfdistill>KerasLayer",
            }
        ),
        "a Lambda layer with Python code",
    ),
    "operation io.write_file": (operation("io.write_file"), "io.write_file"),
    "operation of the first version": (operation("compat.v1.write_file"), "compat.v1.write_file"),
    "operation __builtins__": (operation("__builtins__"), "__builtins__"),
    "operation py_function": (operation("py_function"), "py_function"),
    "operation that removes a folder": (operation("io.gfile.rmtree"), "io.gfile.rmtree"),
    "operation that prints to a file": (operation("print"), "print"),
    "operation that loads a library": (operation("load_library"), "load_library"),
    "operation that quantizes a file": (operation("quantization.experimental.quantize_saved_model"), "quantize_saved_model"),
    "operation that reads a vocabulary": (operation("nn.fixed_unigram_candidate_sampler"), "fixed_unigram_candidate_sampler"),
    "operation that is a class": (operation("nn.RNNCellDeviceWrapper"), "RNNCellDeviceWrapper"),
    "operation without a name": (operation(None), "None"),
    "method of a class of files": (
        layer(
            {
                "module": "tf_keras.src.layers.core.tf_op_layer",
                "class_name": "ClassMethod",
                "config": {"cls_symbol": "io.gfile.GFile", "method_name": "close"},
            }
        ),
        "io.gfile.GFile",
    ),
    "private attribute of a tensor": (
        layer({"module": "tf_keras.src.layers.core.tf_op_layer", "class_name": "InstanceProperty", "config": {"attr_name": "__class__"}}),
        "__class__",
    ),
    "raw graph": (layer({"class_name": "TensorFlowOpLayer", "config": {"node_def": json.dumps(WRITE_FILE)}}), "TensorFlowOpLayer"),
    "SavedModel": (layer(of("keras.layers", "TFSMLayer", filepath="/tmp/other")), "TFSMLayer"),
    "vocabulary in another file": (layer(of("keras.layers", "StringLookup", vocabulary="/etc/passwd")), "/etc/passwd"),
    "text with its vocabulary in another file": (layer(of("keras.layers", "TextVectorization", vocabulary="/etc/passwd")), "/etc/passwd"),
    "type of that module": (
        inside(
            "units",
            lambda t: {"class_name": "__typespec__", "spec_name": "Boom", "module": t.module, "config": [], "registered_name": None},
        ),
        "Boom",
    ),
    "value with a module": (inside("units", lambda t: {"class_name": "__slice__", "module": t.module, "config": {}}), "__slice__"),
    "hosted layer": (hosted(lambda t: t.cls()), "Boom"),
    "hosted layer that is a Lambda": (
        hosted(
            lambda t: of(
                "keras.layers",
                "Lambda",
                function={"class_name": "__lambda__", "config": {"code": t.code(), "defaults": None, "closure": None}},
            )
        ),
        "a Python lambda",
    ),
    "initializer of a hosted layer": (hosted(lambda t: of("keras.layers", "Dense", units=2, kernel_initializer=t.cls())), "Boom"),
    "activation of a hosted layer": (hosted(lambda t: of("keras.layers", "Dense", units=2, activation=SYSTEM)), "os.system"),
    "operation of Keras": (kept_operation(lambda t: t.cls()), "Boom"),
    "layer in a pruned one": (layer(tfmot("PruneLowMagnitude", layer=of("os", "system"), pruning_schedule={})), "os.system"),
    "schedule of a pruned layer": (
        layer(lambda t: tfmot("PruneLowMagnitude", layer=DENSE, pruning_schedule={"class_name": "deepcopy", "config": t.cls()})),
        "deepcopy",
    ),
    "settings of a quantized layer": (layer(lambda t: tfmot("QuantizeWrapperV2", layer=DENSE, quantize_config=t.cls())), "Boom"),
}

# Damage: row -> (what is done to the whole config of the adopted model, what the error says).
DAMAGE = {
    "no tf_keras model": (lambda c: c.pop("legacy"), "'legacy'"),
    "no original": (lambda c: c.pop("original"), "'original'"),
    "no flag": (lambda c: c.pop("trainable"), "'trainable'"),
    "number for a name": (lambda c: c.update(name=7), "'name' is a int: 7"),
    "word for a flag": (lambda c: c.update(trainable="yes"), "'trainable' is a str: 'yes'"),
    "list for the tf_keras model": (lambda c: c.update(legacy=[1]), "'legacy' is a list: [1]"),
    "text that is not JSON": (lambda c: c.update(legacy="{"), "JSONDecodeError"),
    "JSON that is no model": (lambda c: c.update(legacy="[1, 2]"), "A list cannot be adopted"),
    "JSON that is a layer": (lambda c: c.update(legacy=json.dumps(DENSE)), "Dense cannot be adopted"),
    "JSON without layers": (lambda c: c.update(legacy='{"class_name": "Functional", "config": {}}'), "cannot be made"),
    "nested 300 levels deep": (lambda c: c.update(legacy="[" * 300 + "]" * 300), "nested more than 250 levels"),
    "nested 100,000 levels deep": (lambda c: c.update(legacy="[" * 100_000 + "]" * 100_000), "RecursionError"),
    "original nested 300 levels deep": (
        lambda c: c.update(original=json.loads('{"a":' * 300 + "1" + "}" * 300)),
        "nested more than 250 levels",
    ),
    "original that is a layer": (lambda c: c.update(original=of("keras.layers", "Dense", units=3)), "Dense"),
    "original that is a list": (lambda c: c.update(original=[1]), "list"),
    "original that is os.system": (lambda c: c.update(original=of("os", "system")), "os.system"),
    "original with an activation that plots": (
        lambda c: c["original"]["config"]["layers"][1]["config"].update(
            activation={"module": "keras.utils", "class_name": "function", "config": "plot_model", "registered_name": "plot_model"}
        ),
        "plot_model",
    ),
}
WRONG_TYPES = {
    "class that is a number": (layer({"class_name": 5, "config": {}}), "class_name"),
    "class that is a list": (layer({"class_name": ["Dense"], "config": {}}), "class_name"),
    "class that is a dict": (layer({"class_name": {"a": 1}, "config": {}}), "class_name"),
    "module that is a list": (layer({"class_name": "Dense", "module": ["os"], "config": {}}), "module"),
    "registered name that is a dict": (
        layer({"class_name": "Dense", "module": "keras.layers", "registered_name": {}, "config": {}}),
        "registered_name",
    ),
    "function that is a list": (
        inside("activation", lambda t: {"class_name": "function", "module": "builtins", "config": ["relu"]}),
        "function",
    ),
    "config that is a string": (layer({"class_name": "Dense", "module": "keras.layers", "config": "units"}), "cannot be made"),
    "no config": (layer({"class_name": "Dense", "module": "keras.layers"}), "cannot be made"),
    "units that are a word": (inside("units", lambda t: "many"), "cannot be made"),
    "unknown argument": (inside("nonsense", lambda t: 1), "cannot be made"),
    "kind that does not exist": (layer(of("keras.layers", "Nonsense")), "Nonsense"),
}


def legacy_edited(config, edit, trap):
    legacy = json.loads(config["legacy"])
    edit(legacy, trap)
    return {**config, "legacy": json.dumps(legacy)}


def rewritten(path, change):
    """Changes the config inside a .keras file."""
    with zipfile.ZipFile(path) as source:
        held = {name: source.read(name) for name in source.namelist()}
    config = json.loads(held["config.json"])
    change(config)
    held["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as target:
        for name, content in held.items():
            target.writestr(name, content)
    return path


@pytest.fixture(scope="module")
def file(base, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "victim.keras"
    base.save(path)
    return path


def both_ways(base, file, tmp_path, change):
    """Loads a changed config by itself, and from a file."""
    config = copy.deepcopy(base.get_config())
    changed = change(config)
    yield lambda: AdoptedModel.from_config(changed)
    path = tmp_path / "hostile.keras"
    path.write_bytes(file.read_bytes())
    rewritten(path, lambda whole: whole.update(config=changed))
    yield lambda: keras.saving.load_model(path)


@pytest.mark.parametrize("row", [*RUNS, *WRONG_TYPES])
def test_a_hostile_config_is_refused_by_name(row, base, file, trap, tmp_path):
    edit, said = {**RUNS, **WRONG_TYPES}[row]
    for load in both_ways(base, file, tmp_path, lambda config: legacy_edited(config, edit, trap)):
        with pytest.raises(ModelError) as error:
            load()
        assert said in str(error.value)
        assert "adopted model 'victim'" in str(error.value)
        if row in RUNS:
            assert "config/config/layers[1]" in str(error.value)
            assert "Fix:" in str(error.value)
    assert not trap.marker.exists()
    assert trap.module not in sys.modules


@pytest.mark.parametrize("row", DAMAGE)
def test_a_damaged_config_is_refused(row, base, file, tmp_path):
    edit, said = DAMAGE[row]

    def change(config):
        edit(config)
        return config

    for load in both_ways(base, file, tmp_path, change):
        with pytest.raises(ModelError) as error:
            load()
        assert said in str(error.value)


@pytest.mark.parametrize(
    "row",
    [
        "class behind a registered name",
        "class beside a registered function",
        "Lambda with a function",
        "Lambda with a class",
        "Lambda with a function for its shape",
        "Lambda in two wrappers",
    ],
)
@pytest.mark.filterwarnings("ignore:.*but a Lambda layer uses it")
def test_tf_keras_by_itself_runs_what_is_named(row, base, trap):
    """The rows are real: without the check they leave the mark."""
    legacy = json.loads(base.get_config()["legacy"])
    RUNS[row][0](legacy, trap)
    with legacy_scope({"hostile_tests>shifted_relu": shifted_relu}), contextlib.suppress(TypeError, ValueError, AttributeError):
        imports.tf_keras().models.model_from_json(json.dumps(legacy))
    assert trap.marker.exists()


def test_no_operation_that_may_be_named_takes_a_file():
    from tensorflow.python.util import tf_export

    symbols = {name: tf_export.get_symbol_from_name(name) for name in tf_export._NAME_TO_SYMBOL_MAPPING}
    may = {name: symbol for name, symbol in symbols.items() if allowed_names.is_operation(name)}
    assert len(may) > 800
    for name, symbol in may.items():
        parameters = list(inspect.signature(symbol).parameters)
        assert not [p for p in parameters if re.search(r"file|(?<!top_)path|director|stream", p)], (name, parameters)


def with_evil_student(config, trap):
    student = config["config"]["student"]
    student["config"] = legacy_edited(student["config"], RUNS["initializer"][0], trap)


@pytest.fixture
def distiller(base):
    made = Distiller(pair()[0], base, SoftTargets(2.0))
    made.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return made


def evil_entry(model, trap):
    entry = keras.saving.serialize_keras_object(model)
    entry["config"] = legacy_edited(entry["config"], RUNS["initializer"][0], trap)
    return entry


def from_distiller(distiller, base, file, trap, folder):
    config = distiller.get_config()
    config["student"] = evil_entry(base, trap)
    return lambda: Distiller.from_config(config)


def distiller_file(distiller, base, file, trap, folder):
    distiller.save(folder / "d.keras")
    path = rewritten(folder / "d.keras", lambda whole: with_evil_student(whole, trap))
    return lambda: keras.saving.load_model(path)


def from_ensemble(distiller, base, file, trap, folder):
    config = Ensemble([mlp(4, name="one"), mlp(4, name="two")]).get_config()
    config["members"][1] = evil_entry(base, trap)
    return lambda: Ensemble.from_config(config)


def evil_file(file, trap, folder):
    path = folder / "teacher.keras"
    path.write_bytes(file.read_bytes())
    return rewritten(path, lambda whole: whole.update(config=legacy_edited(whole["config"], RUNS["initializer"][0], trap)))


def teacher_file(distiller, base, file, trap, folder):
    return lambda: as_teacher(evil_file(file, trap, folder))


def inside_a_keras_model(distiller, base, file, trap, folder):
    outer = keras.Sequential([keras.Input((8,)), base, keras.layers.Softmax()])
    config = json.loads(outer.to_json())
    entry = next(x for x in config["config"]["layers"] if x["class_name"] == "AdoptedModel")
    entry["config"] = legacy_edited(entry["config"], RUNS["initializer"][0], trap)
    return lambda: keras.models.model_from_json(json.dumps(config))


def pruned_model(distiller, base, file, trap, folder):
    pruned = Prune(sparsity=0.5, end_step=4).apply(mlp(6))
    config = pruned.get_config()
    legacy = json.loads(config["legacy"])
    legacy["config"]["layers"][1]["config"]["layer"]["config"]["kernel_initializer"] = trap.cls("BoomInitializer")
    config["legacy"] = json.dumps(legacy)
    return lambda: type(pruned).from_config(config)


def older_format(distiller, base, file, trap, folder):
    import h5py

    with h5py.File(folder / "teacher.h5", "w") as held:
        held.attrs["model_config"] = json.dumps(evil_entry(base, trap))
        held.create_group("model_weights")
    return lambda: keras.saving.load_model(folder / "teacher.h5", custom_objects={"AdoptedModel": AdoptedModel})


def from_a_deferred_class(distiller, base, file, trap, folder):
    deferred = DeferredClass("tfdistill.bridge.adopt.adopt", "AdoptedModel")
    return lambda: deferred.from_config(evil_entry(base, trap)["config"])


WAYS = [
    older_format,
    from_a_deferred_class,
    from_distiller,
    distiller_file,
    from_ensemble,
    teacher_file,
    inside_a_keras_model,
    pruned_model,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda f: f.__name__)
def test_every_way_in_refuses(way, distiller, base, file, trap, tmp_path):
    with pytest.raises(ModelError, match=r"BoomInitializer.*it was not imported"):
        way(distiller, base, file, trap, tmp_path)()
    assert not trap.marker.exists()


def test_the_command_that_labels_refuses(file, trap, tmp_path, monkeypatch, capsys):
    path = evil_file(file, trap, tmp_path)
    monkeypatch.setattr(sys, "argv", ["tfdistill", "label", str(path), "labelling_job:arrays", str(tmp_path / "cache")])
    with pytest.raises(SystemExit) as end:
        app.main()
    printed = capsys.readouterr()
    assert end.value.code == 1
    assert "BoomInitializer" in printed.err
    assert not trap.marker.exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"no archive", "is no saved model"), (b"", "is no saved model"), (None, "there is no such file")],
    ids=["no archive", "empty", "missing"],
)
def test_a_damaged_teacher_file_is_said(content, said, tmp_path):
    path = tmp_path / "teacher.keras"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=said):
        as_teacher(path)


@pytest.mark.parametrize(
    "function",
    [
        {"module": "keras.utils", "class_name": "function", "config": "plot_model", "registered_name": "plot_model"},
        SYSTEM,
        {"class_name": "__lambda__", "config": {"value": ["", None, None]}},
        "plot_model",
        None,
        7,
    ],
    ids=str,
)
def test_a_function_that_teaches_must_be_registered(function):
    with pytest.raises(ModelError, match="not registered"):
        CallableTeacher.from_config({"name": "f", "function": function, "output_shape": [3]})


# What is good still loads


def squared(x):
    return x * x


def own_layer(tfk):
    class Shift(tfk.layers.Layer):
        def call(self, inputs):
            return inputs + 0.5

    return Shift


def outputs(model):
    return model.predict(np.random.default_rng(3).normal(size=(5, 8)).astype("float32"), verbose=0)


def saved(model, folder):
    model.save(folder / "good.keras")
    return folder / "good.keras"


def tf_keras_net(*layers, shape=(8,), dtype="float32"):
    tfk = imports.tf_keras()
    x = inputs = tfk.Input(shape, dtype=dtype)
    for layer in layers:
        x = layer(x)
    return tfk.Model(inputs, x, name="good")


def recurrent():
    k = imports.tf_keras().layers
    cells = k.StackedRNNCells([k.LSTMCell(3), k.GRUCell(2)])
    return tf_keras_net(k.Reshape((4, 2)), k.Bidirectional(k.SimpleRNN(2, return_sequences=True)), k.RNN(cells), k.Dense(2))


def decorated():
    tfk = imports.tf_keras()
    dense = tfk.layers.Dense(
        4,
        activation=tfk.activations.swish,
        kernel_initializer=tfk.initializers.RandomUniform(-1, 1, seed=3),
        kernel_regularizer=tfk.regularizers.L1L2(0.1, 0.1),
        activity_regularizer="l2",
        kernel_constraint=tfk.constraints.MinMaxNorm(),
    )
    return tf_keras_net(dense, tfk.layers.Activation("gelu"), tfk.layers.Dense(2, activation=tfk.layers.LeakyReLU()))


def half_precision():
    tfk = imports.tf_keras()
    return tf_keras_net(tfk.layers.Dense(4, dtype=tfk.mixed_precision.Policy("mixed_float16")), tfk.layers.BatchNormalization())


def tensorflow_operations():
    import tensorflow as tf

    return tf_keras_net(
        lambda x: tf.nn.relu(x) + 1.0,
        lambda x: tf.concat([x, tf.zeros_like(x)], axis=-1)[:, 1:13:2],
        lambda x: tf.reshape(tf.transpose(tf.cast(tf.cast(x, "float64"), "float32")), tf.shape(x)),
        lambda x: tf.matmul(tf.expand_dims(x, -1), tf.expand_dims(x, 1)),
        lambda x: tf.reduce_mean(tf.where(x > 1.0, x, tf.stop_gradient(-x)), axis=-1) / 2.0,
        lambda x: tf.math.log1p(tf.abs(x)),
    )


def in_models():
    k = imports.tf_keras().layers
    inner = imports.tf_keras().Sequential([k.Dense(4, input_shape=(2,)), k.ReLU(6.0)], name="inner")
    return tf_keras_net(k.Reshape((4, 2)), k.TimeDistributed(inner), k.LayerNormalization(), k.GlobalAveragePooling1D())


def vocabulary_inside():
    k = imports.tf_keras().layers
    lookup = k.IntegerLookup(vocabulary=[1, 2, 3], output_mode="multi_hot")
    return tf_keras_net(lookup, shape=(3,), dtype="int64")


@pytest.mark.parametrize(
    "make", [recurrent, decorated, half_precision, tensorflow_operations, in_models, vocabulary_inside], ids=lambda f: f.__name__
)
def test_what_is_good_loads(make):
    model = make()
    loaded = AdoptedModel.from_config(adopt(model).get_config())
    loaded.legacy.set_weights(model.get_weights())
    inputs = np.arange(40).reshape(5, 8)[:, : model.input_shape[-1]] % 5
    np.testing.assert_array_equal(loaded.legacy(inputs.astype(model.input.dtype.name)), model(inputs.astype(model.input.dtype.name)))


def test_a_registered_activation_loads(tmp_path):
    inputs = keras.Input((8,))
    model = keras.Model(inputs, keras.layers.Dense(3, activation=shifted_relu)(inputs))
    adopted = adopt(to_tf_keras(model), original=model)
    np.testing.assert_array_equal(outputs(keras.saving.load_model(saved(adopted, tmp_path))), outputs(adopted))


def test_what_is_not_registered_loads_when_it_is_passed(tmp_path):
    tfk = imports.tf_keras()
    shift = own_layer(tfk)
    adopted = adopt(tfk.Sequential([tfk.Input((8,)), tfk.layers.Dense(4, activation=squared), shift(name="shift")]))
    path = saved(adopted, tmp_path)
    with pytest.raises(ModelError, match=r"custom_objects=\{'(squared|Shift)': \.\.\.\}"):
        keras.saving.load_model(path)
    passed = {"Shift": shift, "squared": squared}
    loaded = [keras.saving.load_model(path, custom_objects=passed), AdoptedModel.from_config(adopted.get_config(), passed)]
    with keras.saving.custom_object_scope(passed):
        loaded.append(keras.saving.load_model(path))
    with tfk.saving.custom_object_scope(passed):
        loaded.append(keras.saving.load_model(path))
    for model in loaded:
        model.set_weights(adopted.get_weights())
        np.testing.assert_array_equal(outputs(model), outputs(adopted))


def lambda_model():
    inputs = keras.Input((8,))
    model = keras.Model(inputs, keras.layers.Lambda(lambda x: x * 2.0)(keras.layers.Dense(3)(inputs)))
    return adopt(to_tf_keras(model, allow_lambda=True))


def checking_operation():
    """A graph with an operation that is not on the list, though it does nothing here."""
    import tensorflow as tf

    tfk = imports.tf_keras()
    inputs = tfk.Input((8,))
    return adopt(tfk.Model(inputs, tf.debugging.assert_all_finite(inputs, "")))


@pytest.mark.parametrize("make", [lambda_model, checking_operation], ids=lambda f: f.__name__)
def test_what_safe_mode_refuses_loads_without_it(make, tmp_path):
    adopted = make()
    path = saved(adopted, tmp_path)
    with pytest.raises(ModelError, match=r"safe_mode=False.*enable_unsafe_deserialization"):
        keras.saving.load_model(path)
    with pytest.raises(ModelError, match="safe_mode=False"):
        AdoptedModel.from_config(adopted.get_config())
    with pytest.raises(ModelError, match="safe_mode=False"):
        AdoptedModel.from_config(adopted.get_config(), safe_mode=True)
    loaded = [keras.saving.load_model(path, safe_mode=False), AdoptedModel.from_config(adopted.get_config(), safe_mode=False)]
    keras.config.enable_unsafe_deserialization()
    try:
        loaded.append(keras.saving.load_model(path))
    finally:
        keras.src.saving.serialization_lib.SafeModeScope(None).__enter__()
    for model in loaded:
        model.set_weights(adopted.get_weights())
        np.testing.assert_array_equal(outputs(model), outputs(adopted))
    with pytest.raises(ModelError, match="safe_mode=False"):
        keras.saving.load_model(path)


def test_unsafe_mode_imports_nothing_all_the_same(base, trap):
    config = legacy_edited(base.get_config(), RUNS["initializer"][0], trap)
    with pytest.raises(ModelError, match="BoomInitializer"):
        AdoptedModel.from_config(config, safe_mode=False)
    assert not trap.marker.exists()
