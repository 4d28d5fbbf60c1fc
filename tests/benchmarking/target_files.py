"""What the tests of targets share: small .tflite files, the external delegate of external_delegate.c, and a GPU in software."""

import functools
import pathlib
import subprocess

import numpy as np
from process_folder import new_folder

from tfdistill.benchmarking import Timing
from tfdistill.runtime.schema import schema

QUICK = Timing(warmup_seconds=0, warmup_runs=0, min_runs=3, min_seconds=0, max_seconds=0.1, processes=1)
# Debian's chromium has a Vulkan driver that computes on the CPU (tests/install_system_packages.sh).
SWIFTSHADER = pathlib.Path("/usr/lib/chromium/vk_swiftshader_icd.json")


def chain(path, *operations, size=64):
    """Writes a .tflite file of float32 operations in a row: `"ADD"` adds the second input to the last result, others take the last result alone.

    Args:
        path: The file.
        *operations: Names of the schema, without options but for ADD.
        size: Number of values of each tensor.

    Returns:
        The path.
    """
    import flatbuffers

    made, model, graph = schema(), schema().ModelT(), schema().SubGraphT()
    graph.tensors = []

    def tensor(name):
        found = made.TensorT()
        found.name, found.shape, found.type, found.buffer = name, [1, size], made.TensorType.FLOAT32, 0
        graph.tensors.append(found)
        return len(graph.tensors) - 1

    graph.inputs, graph.operators, model.operatorCodes = [tensor("a"), tensor("b")], [], []
    last = 0
    for i, name in enumerate(operations):
        code, operator = made.OperatorCodeT(), made.OperatorT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(made.BuiltinOperator, name)
        code.version = 1
        model.operatorCodes.append(code)
        operator.opcodeIndex, operator.inputs = i, [last, 1] if name == "ADD" else [last]
        if name == "ADD":
            operator.builtinOptionsType, operator.builtinOptions = made.BuiltinOptions.AddOptions, made.AddOptionsT()
        last = tensor(f"{name.lower()}_{i}")
        operator.outputs = [last]
        graph.operators.append(operator)
    graph.outputs = [last]
    model.version, model.subgraphs, model.buffers = 3, [graph], [made.BufferT()]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    pathlib.Path(path).write_bytes(bytes(builder.Output()))
    return path


@functools.cache
def delegate_library():
    """Compiles external_delegate.c with the system's C compiler, once in a process; returns the path of the library."""
    path = new_folder() / "libtest_delegate.so"
    source = pathlib.Path(__file__).with_name("external_delegate.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o", path, source], check=True)
    return str(path)


def software_gpu(monkeypatch, folder):
    """Sets the environment so that processes that start later find SwiftShader as their only GPU."""
    assert SWIFTSHADER.is_file(), f"{SWIFTSHADER} is missing: run tests/install_system_packages.sh"
    for name, value in {"VK_ICD_FILENAMES": SWIFTSHADER, "VK_DRIVER_FILES": SWIFTSHADER, "XDG_RUNTIME_DIR": folder}.items():
        monkeypatch.setenv(name, str(value))


def no_gpu(monkeypatch, folder):
    """Sets the environment so that processes that start later find no driver."""
    for name, value in {
        "VK_ICD_FILENAMES": folder / "none.json",
        "VK_DRIVER_FILES": folder / "none.json",
        "XDG_RUNTIME_DIR": folder,
    }.items():
        monkeypatch.setenv(name, str(value))


def images(samples=32, shape=(12, 12, 3), seed=0):
    """Random images in [0, 1)."""
    return np.random.default_rng(seed).random((samples, *shape), dtype="float32")


@functools.cache
def convolutions(variant, activation="relu"):
    """Exports a small net of convolutions, an addition and a softmax; returns the path of the file, which stays until the process ends."""
    import keras

    import tfdistill

    layers = keras.layers
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", activation=activation)(inputs)
    x = layers.Add()([x, layers.Conv2D(8, 3, padding="same")(x)])
    outputs = layers.Softmax(name="scores")(layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))
    path = new_folder() / f"{variant}.tflite"
    calibration = images() if variant in ("int8", "int16x8") else None
    return tfdistill.export_tflite(keras.Model(inputs, outputs), path, variant, calibration=calibration).path
