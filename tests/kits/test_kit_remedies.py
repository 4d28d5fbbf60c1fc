"""What errors about kits say to do works."""

import dataclasses
import functools
import pathlib
import shutil
import socket

import keras
import numpy as np
import pytest
from kit_models import LABELS, file_of, kit_of, pixels
from remedies_of_source import Row, check

import tfdistill
from tfdistill.runtime import litert_js
from tfdistill.tflite import Normalization
from tfdistill.utils import npm
from tfdistill.utils.serve import served


def make(name, device, folder, **arguments):
    path = name if isinstance(name, pathlib.Path) else file_of(name)
    return tfdistill.kit(path, device, folder / "made", **arguments)


def copied(folder, name="int8"):
    return pathlib.Path(shutil.copytree(kit_of(name, "microcontroller").path, folder / "made", dirs_exist_ok=True))


def with_notes(folder):
    (copied(folder) / "notes.txt").write_text("mine")


def move_notes(folder):
    shutil.move(folder / "made" / "notes.txt", folder / "notes.txt")
    make("int8", "microcontroller", folder, overwrite=True)
    make("int8", "microcontroller", folder / "another")


def exported(folder, model, variant="float32", x=None, **arguments):
    path = folder / "m.tflite"
    tfdistill.export_tflite(model, path, variant, calibration=x if variant == "int8" else None, verify_on=x, **arguments)
    return path


def net_of(layer, shape=(4,), batch_size=None):
    inputs = keras.Input(shape, batch_size=batch_size)
    return keras.Model(inputs, layer(inputs))


def sequences(folder, batch_size):
    """A recurrent net: without a fixed batch TensorFlow Lite needs lists of tensors, which only full TensorFlow has."""
    model = keras.Sequential([keras.Input((5, 3)), keras.layers.GRU(2), keras.layers.Dense(2)])
    return exported(folder, model, x=np.ones((4, 5, 3), "float32"), batch_size=batch_size, allow_flex=batch_size is None)


def custom(folder):
    """A file whose operation is replaced by a custom one."""
    from tfdistill.convert.packing import pack
    from tfdistill.runtime.schema import schema

    classes = schema()
    content = file_of("features").read_bytes()
    model = classes.ModelT.InitFromObj(classes.Model.GetRootAs(content, 0))
    code = model.operatorCodes[0]
    code.builtinCode = code.deprecatedBuiltinCode = classes.BuiltinOperator.CUSTOM
    code.customCode = "MyOwn"
    path = folder / "custom.tflite"
    path.write_bytes(pack(model, classes))
    return path


def any_size(folder, size, batch_size):
    inputs = keras.Input(batch_shape=(batch_size, size, size, 3))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(inputs)))
    return exported(folder, model, x=pixels(4), batch_size=batch_size)


def gelu_net(activation):
    return net_of(keras.layers.Dense(4, activation))


def micro(folder, model, variant="float32"):
    x = np.random.default_rng(0).normal(size=(16, *model.inputs[0].shape[1:])).astype("float32")
    return make(exported(folder, model, variant, x), "microcontroller", folder)


def dense(width=48):
    return keras.Sequential([keras.Input((40,)), keras.layers.Dense(width, "relu"), keras.layers.Dense(2)])


def relabelled(folder, **arguments):
    path = folder / "m.tflite"
    metadata = dataclasses.replace(tfdistill.read_metadata(file_of("int8")).to_metadata(), **arguments)
    tfdistill.add_metadata(file_of("int8"), metadata, out=path, replace=True)
    return path


def logarithm(folder, **arguments):
    """A kit of a net that computes with numbers above zero only."""
    inputs = keras.Input((2,))
    path = exported(folder, keras.Model(inputs, keras.ops.log(inputs)), x=np.ones((4, 2), "float32"))
    return make(path, "microcontroller", folder, **arguments)


@functools.cache
def cache_with_archives():
    """A cache of npm's archives, as another machine has it."""
    for package in (litert_js.CORE, litert_js.UTILS):
        npm.fetched(package)
    return npm.cache_folder()


def without_npm(folder, monkeypatch, archives):
    """Makes a kit on a machine without npm, and with or without the archives in the cache."""
    kept = cache_with_archives()
    place = folder / "cache"
    with monkeypatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(place))
        patch.setenv("PATH", str(folder))
        if archives:
            shutil.copytree(kept, npm.cache_folder(), dirs_exist_ok=True)
        make("uint8", "web", folder)


def broken_npm(folder, monkeypatch, archives):
    """The same with an npm that reaches no registry."""
    kept = cache_with_archives()
    program = folder / "bin" / "npm"
    program.parent.mkdir(exist_ok=True)
    program.write_text("#!/bin/sh\necho 'no network' >&2\nexit 1\n")
    program.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setenv("PATH", f"{program.parent}:/bin:/usr/bin")
        if archives:
            shutil.copytree(kept, npm.cache_folder(), dirs_exist_ok=True)
        make("uint8", "web", folder)


PATCH = pytest.MonkeyPatch()


def taken_port(folder):
    with socket.create_server(("127.0.0.1", 0)) as server, served(folder, server.getsockname()[1]):
        pass


def any_port(folder):
    with socket.create_server(("127.0.0.1", 0)), served(folder, 0) as address:
        assert address


def command(folder, *options):
    from tfdistill.cli.kits import kit

    kit(file_of("int8"), "microcontroller", folder / "made", open_page="--open" in options, port=0)


ROWS = {
    "a kit is there": Row(
        "choose another folder, or write overwrite=True",
        lambda folder: make("int8", "microcontroller", copied(folder).parent),
        lambda folder: (make("int8", "microcontroller", folder, overwrite=True), make("int8", "microcontroller", folder / "another")),
    ),
    "own files": Row(
        "move them to another place first, or choose another folder",
        lambda folder: (with_notes(folder), make("int8", "microcontroller", folder, overwrite=True)),
        move_notes,
    ),
    "a limit of another device": Row(
        "leave arena_bytes= out",
        lambda folder: make("uint8", "web", folder, arena_bytes=1000),
        lambda folder: make("uint8", "web", folder),
    ),
    "full TensorFlow": Row(
        "export it without allow_flex=True; a fixed batch_size takes out most of them",
        lambda folder: make(sequences(folder, None), "web", folder),
        lambda folder: make(sequences(folder, 1), "web", folder),
    ),
    "custom": Row(
        "write the layers that they come from with Keras's own operations",
        lambda folder: make(custom(folder), "microcontroller", folder),
        lambda folder: make("features", "microcontroller", folder),
    ),
    "any size": Row(
        "export the model with keras.Input(batch_shape=...) and every size in it, and batch_size=1",
        lambda folder: make("any size", "microcontroller", folder),
        lambda folder: make(any_size(folder, 16, 1), "microcontroller", folder),
    ),
    "mixed types": Row(
        "take the variant int8: it has no operations of mixed types",
        lambda folder: micro(folder, dense(), "dynamic_range"),
        lambda folder: micro(folder, dense(), "int8"),
    ),
    "an operation": Row(
        "replace the layers that they come from; tfdistill.check(model, target='micro') names them",
        lambda folder: micro(folder, gelu_net("gelu")),
        lambda folder: (tfdistill.check(gelu_net("gelu"), target="micro"), micro(folder, gelu_net("relu"))),
    ),
    "labels": Row(
        "leave labels= out, or write them into the file first: tfdistill.add_metadata(path, metadata, replace=True)",
        lambda folder: make("int8", "microcontroller", folder, labels=LABELS[::-1]),
        lambda folder: (
            make("int8", "microcontroller", folder / "a"),
            make(relabelled(folder, labels=LABELS[::-1]), "microcontroller", folder, labels=LABELS[::-1]),
        ),
    ),
    "normalization": Row(
        "leave normalization= out, or write it into the file first: tfdistill.add_metadata(path, metadata, replace=True)",
        lambda folder: make("int8", "microcontroller", folder, normalization=Normalization(1, 2)),
        lambda folder: (
            make("int8", "microcontroller", folder / "a"),
            make(relabelled(folder, normalization=Normalization(1, 2)), "microcontroller", folder, normalization=Normalization(1, 2)),
        ),
    ),
    "samples of several inputs": Row(
        "write samples={name: array, ...}",
        lambda folder: make("features", "microcontroller", folder, samples=np.zeros((3, 5), "float32")),
        lambda folder: make("features", "microcontroller", folder, samples={"left": np.zeros((3, 5)), "right": np.zeros((3, 3))}),
    ),
    "NaN": Row("give samples= of real data", logarithm, lambda folder: logarithm(folder, samples=np.full((3, 2), 2.0))),
    "a float file over the flash": Row(
        "take the variant int8: its weights have a quarter of the bytes",
        lambda folder: make("float32", "microcontroller", folder, flash_bytes=file_of("float32").stat().st_size - 1),
        lambda folder: make("int8", "microcontroller", folder, flash_bytes=file_of("float32").stat().st_size - 1),
    ),
    "an int8 file over the flash": Row(
        "make a smaller model: tfdistill.compress.PruneChannels, or a student with fewer channels",
        lambda folder: make("int8", "microcontroller", folder, flash_bytes=2000),
        lambda folder: micro(folder, dense(4), "int8"),
    ),
    "integers for a browser": Row(
        "export it with io='uint8' or io='float32'; the file computes in the same integers",
        lambda folder: make("int8", "web", folder),
        lambda folder: (make("uint8", "web", folder / "a"), make("int8 with float inputs", "web", folder / "b")),
    ),
    "no npm": Row(
        "install Node.js, or copy the archive to",
        lambda folder: without_npm(folder, PATCH, False),
        lambda folder: without_npm(folder, PATCH, True),
    ),
    "no registry": Row(
        "put the archive of another machine's cache into",
        lambda folder: broken_npm(folder, PATCH, False),
        lambda folder: broken_npm(folder, PATCH, True),
    ),
    "a port": Row("write port 0 (--port 0) for any free one", taken_port, any_port),
    "a page of another device": Row("leave --open out", lambda folder: command(folder, "--open"), lambda folder: command(folder)),
}


@pytest.mark.parametrize("row", ROWS)
def test_the_remedy_works(row, tmp_path):
    check(ROWS[row], tmp_path)
