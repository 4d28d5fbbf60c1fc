"""The kit of boards, filled by hand for tests, and its modules."""

import hashlib
import importlib
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
from small_files import int8_file

from tfdistill.runtime.interpreter import open_file

FOLDER = pathlib.Path(__file__).parents[2] / "export/raspberry_pi"
LABELS = [f"digit {i}" for i in range(10)]


def module(name):
    """Imports a module of the kit, whose modules import each other by their bare names."""
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    return importlib.import_module(name)


def make_kit(folder, path=None, labels=LABELS, normalization=None, **changes):
    """Fills a folder with the kit, a model and three test vectors; returns the folder.

    Args:
        folder: A folder that does not exist.
        path: A .tflite file; None is the int8 file that tests share.
        labels: Labels, or None.
        normalization: Dict of `mean` and `std`, or None.
        changes: Fields of model.json.
    """
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(path or int8_file(), folder / "model.tflite")
    model, builtin = (open_file(folder / "model.tflite", xnnpack=xnnpack, trusted=True) for xnnpack in (True, False))
    (folder / "vectors").mkdir()
    vectors = []
    for number in range(3):
        generator, inputs = np.random.default_rng(number), {}
        for name, info in model.inputs.items():
            values = generator.uniform(0, 1, info.shape)
            inputs[name] = info.quantize(values) if info.scale else values.astype(info.dtype)
        for opened in (model, builtin):
            opened.set_inputs(inputs)
            opened.invoke()
        vectors.append({"steps": 1})
        for side, arrays in (("inputs", inputs), ("outputs", model.read_outputs()), ("outputs_builtin", builtin.read_outputs())):
            vectors[-1][side] = {}
            for name, array in arrays.items():
                file = vectors[-1][side][name] = f"vectors/{number}_{side}_{name}.bin"
                (folder / file).write_bytes(array.tobytes())
    content = (folder / "model.tflite").read_bytes()
    described = {
        "format": 1,
        "file": "model.tflite",
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
        "inputs": [_described(info, "image", normalization=normalization) for info in model.inputs.values()],
        "outputs": [_described(info, "scores", activation="none") for info in model.outputs.values()],
        "labels": labels,
        "states": [],
        "vectors": vectors,
        "tolerance": {name: {"steps": 0} if info.scale else {"abs": 2e-6} for name, info in model.outputs.items()},
        "made_with": {"kernels": "xnnpack"},
    }
    (folder / "model.json").write_text(json.dumps({**described, **changes}), encoding="utf-8")
    return folder


def _described(info, kind, **more):
    return {
        "name": info.name,
        "shape": info.shape,
        "dtype": info.dtype,
        "scale": info.scale,
        "zero_point": info.zero_point,
        "kind": kind,
        **more,
    }


def run(folder, *command, python=sys.executable, stdin=None, **settings):
    """Runs a program of a kit to its end; returns a `subprocess.CompletedProcess` with its text."""
    return subprocess.run(
        [python, str(folder / command[0]), *map(str, command[1:])],
        capture_output=True,
        text=stdin is None,
        input=stdin,
        timeout=300,
        **settings,
    )
