"""A new process that imports Keras and tfdistill alone, and uses what an earlier version saved: `load_saved_job.py FOLDER`; writes found.npz and found.json."""

import json
import pathlib
import sys

import keras
import numpy as np

import tfdistill


def evaluated(model, data, cache):
    x, y = data["inputs"], data["labels"]
    by_cache = isinstance(model, tfdistill.Distiller) and isinstance(model.teacher, tfdistill.SoftTargetCache)
    arguments = {"x": cache.join((x, y), batch_size=len(x))} if by_cache else {"x": x, "y": y, "batch_size": len(x)}
    return {name: float(value) for name, value in model.evaluate(**arguments, verbose=0, return_dict=True).items()}


def again(entry):
    """Loads a loss or schedule, and says what it would be saved as today."""
    return keras.saving.serialize_keras_object(keras.saving.deserialize_keras_object(entry))


def main(folder):
    data, outputs, found = np.load(folder / "expected.npz"), {}, {"evaluated": {}, "classes": {}}
    cache = tfdistill.SoftTargetCache(folder / "cache")
    for path in sorted(folder.glob("*.keras")):
        model = keras.saving.load_model(path)
        found["classes"][path.stem] = type(model).__name__
        outputs[path.stem] = model.predict(data["inputs"], verbose=0)
        found["evaluated"][path.stem] = evaluated(model, data, cache)
        if (folder / f"{path.stem}.weights.h5").exists():
            for weight in model.weights:
                weight.assign(keras.ops.zeros_like(weight))
            model.load_weights(folder / f"{path.stem}.weights.h5")
            outputs[f"{path.stem}.weights"] = model.predict(data["inputs"], verbose=0)
    found["losses"] = [again(entry) for entry in json.loads((folder / "losses.json").read_text(encoding="utf-8"))]
    np.savez(folder / "found.npz", **outputs)
    (folder / "found.json").write_text(json.dumps(found), encoding="utf-8")


main(pathlib.Path(sys.argv[1]))
