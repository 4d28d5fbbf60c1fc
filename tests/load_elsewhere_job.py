"""A new process that only imports Keras and tfdistill, and loads what another one saved: `load_elsewhere_job.py FOLDER`."""

import importlib
import json
import pathlib
import sys

import tfdistill

keras = importlib.import_module("keras")  # after tfdistill: the other order is that of every other test

HEAVY = ("tf_keras", "tensorflow_model_optimization", "ai_edge_litert", "pydantic", "typer")


def loaded(path, inputs, safe):
    model = keras.saving.load_model(path, safe_mode=safe)
    return {"class": type(model).__name__, "outputs": model.predict(inputs, verbose=0).tolist()}


def main(folder):
    table = keras.saving.get_custom_objects()
    found = {
        "modules": sorted(m for m in sys.modules if m.startswith("tfdistill.")),
        "heavy": [m for m in HEAVY if m in sys.modules],
        "registered": sorted(name for name in table if name.startswith("tfdistill>")),
        "models": {},
        "version": tfdistill.__version__,
    }
    found["objects"] = [
        repr(keras.saving.deserialize_keras_object(entry)) for entry in json.loads((folder / "objects.json").read_text(encoding="utf-8"))
    ]

    import teachers_of_one_net  # noqa: F401  registers the callable that teaches

    inputs = keras.ops.reshape(keras.ops.arange(40, dtype="float32") / 40.0, (5, 8))
    for path in sorted(folder.glob("*.keras")):
        found["models"][path.stem] = loaded(path, inputs, safe="saved_model" not in path.stem)
    (folder / "found.json").write_text(json.dumps(found), encoding="utf-8")


main(pathlib.Path(sys.argv[1]))
