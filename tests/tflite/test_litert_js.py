"""LiteRT.js, in a browser, gives what LiteRT gives here: the same class on a hundred inputs."""

import json
import pathlib
import shutil

import keras
import numpy as np
import pytest
from chromium import chromium
from reader_models import IMAGES, SERIES, attention, images, recurrent

import tfdistill
from tfdistill.runtime.interpreter import open_file
from tfdistill.tflite import Normalization, Tolerances
from tfdistill.utils.serve import served

# Model, variant, type of inputs and outputs: those that LiteRT.js takes.
FILES = [
    *((images, variant, "auto") for variant in ("float32", "float16", "dynamic_range")),
    *((images, "int8", io) for io in ("uint8", "float32")),
    *((attention, variant, "float32") for variant in ("float32", "int8")),
    (recurrent, "int8", "uint8"),
]
# Runs a file on all rows; returns the outputs one after the other.
RUN = """(async (file, shape, kind) => {
  const { loadAndCompile, Tensor } = await import("@litertjs/core");
  const read = async (path) => await (await fetch(path)).arrayBuffer();
  const rows = new (kind === "uint8" ? Uint8Array : Float32Array)(await read(`${file}.bin`));
  const model = await loadAndCompile(new Uint8Array(await read(`${file}.tflite`)), { accelerator: "wasm" });
  const size = shape.reduce((product, axis) => product * axis, 1), found = [];
  for (let at = 0; at < rows.length; at += size) {
    const input = new Tensor(rows.slice(at, at + size), shape);
    const [output] = await model.run([input]);
    found.push(...(await output.data()));
    input.delete();
    output.delete();
  }
  model.delete();
  return found;
})"""


@pytest.mark.slow
def test_classes_are_those_of_litert(tmp_path):
    files = {}
    for make, variant, io in FILES:
        keras.utils.set_random_seed(1)
        model, x = make(), IMAGES if make is images else SERIES
        path = tmp_path / f"{make.__name__}_{variant}_{io}.tflite"
        tfdistill.export_tflite(model, path, variant, calibration=x, io=io, tolerances=Tolerances())
        file = open_file(path, trusted=True)
        ((name, entry),) = file.inputs.items()
        (output,) = file.outputs.values()
        given = entry.quantize(x)
        path.with_suffix(".bin").write_bytes(given.tobytes())
        (expected,) = file.run({name: x}).values()
        files[path.stem] = entry, output, expected
    # A kit has the page with LiteRT.js; the other files lie beside its model.
    folder = pathlib.Path(
        tfdistill.kit(tmp_path / "images_int8_uint8.tflite", "web", tmp_path / "kit", normalization=Normalization(0, 255)).path
    )
    for path in [*tmp_path.glob("*.tflite"), *tmp_path.glob("*.bin")]:
        shutil.copy(path, folder)
    with served(folder) as address, chromium() as page:
        page.open(address)
        page.until("document.querySelector('#selftest').dataset.state === 'passed'")
        for stem, (entry, output, expected) in files.items():
            found = page.evaluate(f"{RUN}({json.dumps(stem)}, {json.dumps(entry.shape)}, {json.dumps(entry.dtype)})")
            real = output.dequantize(np.array(found, output.dtype).reshape(expected.shape))
            assert real.argmax(-1).tolist() == expected.argmax(-1).tolist(), stem
            limit = output.scale or (float(np.ptp(expected)) / 128 if "int8" in stem or "dynamic" in stem else 1e-6)
            assert np.abs(real - expected).max() <= limit * 1.001, stem
            assert len(np.unique(expected.argmax(-1))) > 1, stem
        assert page.complaints() == []
