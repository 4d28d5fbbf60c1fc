"""One module uses what TensorFlow is going to remove; without it, conversion says so, and files still run."""

import pathlib
import re
import subprocess
import sys

import keras
import pytest

from tfdistill.runtime import tensorflow_lite
from tfdistill.tflite import export_tflite

ROOT = pathlib.Path(__file__).parents[2]
REMOVED = re.compile(r"\btf\.lite\b|\btensorflow\.lite\b")
MAY_NAME_IT = {pathlib.Path(tensorflow_lite.__file__).resolve(), pathlib.Path(__file__).resolve()}
SOURCES = [path for folder in ("tfdistill", "tests", "benchmarks", "examples") for path in sorted((ROOT / folder).rglob("*.py"))]

# A process with a TensorFlow that lacks it, as an attribute and as a package.
WITHOUT = """
import sys
import tensorflow as tf
del tf.lite

class Refuses:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("tensorflow.lite"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuses())
for name in [name for name in sys.modules if name.startswith("tensorflow.lite")]:
    del sys.modules[name]
"""
LACKING = "TensorFlow {version} has no tf.lite, which {purpose}.\nExpected: a TensorFlow with tf.lite, as 2.18 to 2.21 have\nFix: {fix}"
OLD_TENSORFLOW, LITERT = 'pip install "tensorflow==2.21.*"', "pip install ai-edge-litert"


def found_in(text):
    return [line.strip() for line in text.splitlines() if REMOVED.search(line)]


def test_one_module_uses_it():
    users = {str(path.relative_to(ROOT)): found_in(path.read_text()) for path in SOURCES if path.resolve() not in MAY_NAME_IT}
    assert {path: lines for path, lines in users.items() if lines} == {}


@pytest.mark.parametrize(
    ("text", "count"),
    [("tf.lite.OpsSet", 1), ('"tensorflow.lite.python"', 1), ("import tensorflow_lite\nconverter(tf, lite)", 0), ("tf.literal", 0)],
)
def test_a_use_is_found(text, count):
    assert len(found_in(text)) == count


def test_everything_is_there_today():
    assert tensorflow_lite.converter_class().from_saved_model
    assert tensorflow_lite.operation_set("SELECT_TF_OPS").name == "SELECT_TF_OPS"
    assert tensorflow_lite.default_optimization().name == "DEFAULT"
    assert tensorflow_lite.interpreter_class()
    assert tensorflow_lite.resolver_types().BUILTIN_WITHOUT_DEFAULT_DELEGATES
    assert tensorflow_lite.schema_module().Model


CODE = (
    WITHOUT
    + """
import pathlib
import keras, numpy as np, tfdistill
from tfdistill.errors import RuntimeUnavailableError
from tfdistill.runtime import tensorflow_lite as lite

folder = pathlib.Path(sys.argv[1])
model = keras.saving.load_model(folder / "m.keras")
calls = {
    "converter": lite.converter_class,
    "operations": lambda: lite.operation_set("TFLITE_BUILTINS"),
    "optimization": lite.default_optimization,
    "interpreter": lite.interpreter_class,
    "resolver": lite.resolver_types,
    "schema": lite.schema_module,
    "export": lambda: tfdistill.export_tflite(model, folder / "other.tflite"),
}
for name, call in calls.items():
    try:
        call()
    except RuntimeUnavailableError as error:
        print(f"{name}: {error}")
print("version", tf.__version__)
record = tfdistill.verify(folder / "m.tflite", model, np.ones((8, 4), "float32"))
print("read", record.samples, tfdistill.census(folder / "m.tflite").ops[0].name)
print([path.name for path in sorted(folder.iterdir())])
"""
)


def test_without_it_functions_and_export_say_so_and_files_are_still_read_and_run(tmp_path):
    model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(3)])
    model.save(tmp_path / "m.keras")
    export_tflite(model, tmp_path / "m.tflite")
    done = subprocess.run([sys.executable, "-c", CODE, str(tmp_path)], capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, done.stderr
    printed = done.stdout
    version = next(line for line in printed.splitlines() if line.startswith("version")).split()[1]
    for name, purpose, fix in (
        ("converter", "converts models to .tflite files", OLD_TENSORFLOW),
        ("operations", "has the operations of .tflite files", OLD_TENSORFLOW),
        ("optimization", "has the settings of the converter", OLD_TENSORFLOW),
        ("interpreter", "has TensorFlow's interpreter of .tflite files", LITERT),
        ("resolver", "has TensorFlow's interpreter of .tflite files", LITERT),
        ("export", "converts models to .tflite files", OLD_TENSORFLOW),
    ):
        assert f"{name}: " + LACKING.format(version=version, purpose=purpose, fix=fix) in printed
    assert "schema: The classes of the .tflite format are not installed: No module named 'tensorflow.lite" in printed
    assert "read 8 FULLY_CONNECTED" in printed
    assert printed.splitlines()[-1] == "['m.keras', 'm.tflite']"
