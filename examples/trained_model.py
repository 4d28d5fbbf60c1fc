"""A trained .keras file becomes an int8 file by the command line alone. Run: python examples/trained_model.py

The first part makes what you have already: a trained model and samples. The commands are printed before they run.
"""

import pathlib
import subprocess
import sys

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

keras.utils.set_random_seed(0)
folder = pathlib.Path("runs/trained_model")
folder.mkdir(parents=True, exist_ok=True)
digits = load_digits()
images = (digits.images / 16.0).astype("float32")[..., None]
x_train, x_test, y_train, y_test = train_test_split(images, digits.target, test_size=450, random_state=0)
model = keras.Sequential(
    [
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(16, 3, activation="relu"),
        keras.layers.Conv2D(16, 3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(10, activation="softmax"),
    ]
)
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(x_train, y_train, epochs=15, verbose=2)
model.save(folder / "model.keras")
np.savez(folder / "calibration.npz", x=x_train[:200])
np.savez(folder / "test.npz", x=x_test, y=y_test)

COMMANDS = (
    "export model.keras --variant int8 --calibration calibration.npz --verify-on test.npz --out model.tflite",
    "verify model.tflite model.keras --data test.npz",
    "benchmark model.tflite",
)
for command in COMMANDS:
    print(f"\n$ tfdistill {command}", flush=True)
    subprocess.run([sys.executable, "-m", "tfdistill", *command.split()], cwd=folder, check=True)
