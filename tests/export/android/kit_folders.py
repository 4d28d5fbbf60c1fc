"""Folders of kits for the tests of the Android core: a model, its description and test vectors with the outputs that LiteRT gave."""

import hashlib
import json
import subprocess

import kotlin_kit
import numpy as np

from tfdistill.convert.census import census


def described(tensor, kind="tensor", **more):
    """One input or output as `model.json` has it."""
    values = {"name": tensor.name, "tensor": tensor.name, "shape": list(tensor.shape), "dtype": tensor.dtype}
    return {**values, "scale": tensor.scale, "zero_point": tensor.zero_point, "kind": kind, **more}


def run_raw(model, inputs, outputs):
    """Runs a file on raw inputs, a list of the arrays of each run in order of the file; returns those of the outputs."""
    sent = b"".join(array.tobytes() for run in inputs for array in run)
    done = subprocess.run(kotlin_kit.runner(model), input=sent, capture_output=True, check=True, timeout=120)
    read, at = [], 0
    for _ in inputs:
        row = []
        for tensor in outputs:
            size = int(np.prod(tensor.shape)) * np.dtype(tensor.dtype).itemsize
            row.append(np.frombuffer(done.stdout[at : at + size], tensor.dtype).reshape(tensor.shape))
            at += size
        read.append(row)
    return read


def made(folder, model, kinds, tolerance, labels=None, states=(), steps=1, seed=0):
    """Fills a folder: two test vectors of random inputs.

    Args:
        folder: The folder.
        model: The .tflite file.
        kinds: Name of an input or output -> what `model.json` says beside shape and type, at least `kind`.
        tolerance: That of `model.json`.
        labels: Names of the classes.
        states: Pairs of an input and the output that is its next value.
        steps: Runs of each vector.
        seed: Of the inputs.
    """
    rng = np.random.default_rng(seed)
    content = model.read_bytes()
    found = census(model)
    (folder / "vectors").mkdir(parents=True)
    (folder / "model.tflite").write_bytes(content)
    vectors = []
    for number in range(2):
        given = {t.name: _random(rng, t, steps) for t in found.inputs}
        carried = {name: np.full(*_blank(next(t for t in found.inputs if t.name == name))) for name, _ in states}
        runs = []
        for step in range(steps):
            row = [carried.get(t.name, given[t.name][step]) for t in found.inputs]
            (outputs,) = run_raw(model, [row], found.outputs)
            runs.append(outputs)
            results = {t.name: output for t, output in zip(found.outputs, outputs, strict=True)}
            carried = {name: results[output] for name, output in states}
        files = {name: array for name, array in given.items() if name not in carried}
        vectors.append({"inputs": _written(folder, number, files), "steps": steps})
        stacked = {t.name: np.stack([run[at] for run in runs]) for at, t in enumerate(found.outputs)}
        vectors[-1]["outputs"] = _written(folder, number, {name: array for name, array in stacked.items() if name in tolerance})
    values = {
        "format": 1,
        "file": "model.tflite",
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
        "variant": "int8",
        "signatures": {"serving_default": {side: {t.name: t.name for t in getattr(found, side)} for side in ("inputs", "outputs")}},
        "inputs": [described(t, **{"kind": "tensor", "normalization": None, **kinds.get(t.name, {})}) for t in found.inputs],
        "outputs": [described(t, **{"kind": "tensor", "activation": None, **kinds.get(t.name, {})}) for t in found.outputs],
        "labels": labels,
        "states": [{"input": name, "output": output} for name, output in states],
        "vectors": vectors,
        "tolerance": tolerance,
        "metadata": {"name": "net"},
        "made_with": {},
    }
    (folder / "model.json").write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
    return values


def _blank(tensor):
    return tensor.shape, tensor.zero_point if tensor.scale else 0, tensor.dtype


def _random(rng, tensor, steps):
    if tensor.dtype == "float32":
        return rng.normal(size=(steps, *tensor.shape)).astype("float32")
    limits = np.iinfo(tensor.dtype)
    return rng.integers(limits.min, limits.max, (steps, *tensor.shape), tensor.dtype, endpoint=True)


def _written(folder, number, arrays):
    paths = {}
    for name, array in arrays.items():
        paths[name] = f"vectors/{number}_{name}.bin"
        (folder / paths[name]).write_bytes(array.tobytes())
    return paths
