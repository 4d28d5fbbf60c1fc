"""A new process that goes on with what another one saved: `train_saved_job.py FOLDER`; writes found.json.

Of every step, the model that `apply` returned is trained as the step wants it and stripped, and the one that `strip` returned is trained as any other. Both
become int8 files.
"""

import json
import pathlib
import sys
import traceback

import keras
import numpy as np
from saved_steps import images, stripped, trained

import tfdistill


def go_on(path):
    """Loads, trains and exports one model; returns what there is to say of it."""
    keras.utils.set_random_seed(0)
    name, what = path.stem.split(".")
    model = keras.saving.load_model(path)
    outputs = np.asarray(model(images()[0], training=False)).tolist()
    before = [np.array(weight) for weight in model.trainable_weights]
    trained(name if what == "applied" else None, model)
    moved = any((np.array(weight) != old).any() for weight, old in zip(model.trainable_weights, before, strict=True))
    if what == "applied":
        model = stripped(name, model)
    # Nets of random weights that are hardly trained may be nearly constant: how near a file is to its model is asked elsewhere.
    record = tfdistill.export_tflite(
        model, path.with_suffix(".tflite"), "int8", calibration=images()[0], tolerances=tfdistill.tflite.Tolerances()
    )
    return {"outputs": outputs, "moved": moved, "bytes": record.size_bytes}


def main(folder):
    found = {}
    for path in sorted(folder.glob("*.keras")):
        try:
            found[path.stem] = go_on(path)
        except Exception:
            found[path.stem] = {"error": traceback.format_exc()[-2000:]}
    (folder / "found.json").write_text(json.dumps(found), encoding="utf-8")


main(pathlib.Path(sys.argv[1]))
