"""Regression on windows of a sensor's signal: distils a small convolutional net, calibrates it to int8. Run: python examples/sensor_windows.py"""

import keras
import numpy as np

import tfdistill
from tfdistill.losses import OutputMatching

WINDOW, HORIZON = 64, 8
rng = np.random.default_rng(0)
time = np.arange(6000)
signal = np.sin(time / 9) + 0.5 * np.sin(time / 31 + 1) + rng.normal(scale=0.05, size=time.shape)
starts = np.arange(len(signal) - WINDOW - HORIZON)
x = np.stack([signal[s : s + WINDOW] for s in starts])[..., None].astype("float32")
y = np.stack([signal[s + WINDOW : s + WINDOW + HORIZON] for s in starts]).astype("float32")
x_train, y_train, x_test, y_test = x[:4500], y[:4500], x[4600:], y[4600:]


def net(width, name):
    inputs = h = keras.Input((WINDOW, 1))
    for dilation in (1, 2, 4):
        h = keras.layers.Conv1D(width, 3, dilation_rate=dilation, padding="causal", activation="relu")(h)
    h = keras.layers.Conv1D(width, WINDOW // 4, strides=WINDOW // 4, activation="relu")(h)
    return keras.Model(inputs, keras.layers.Dense(HORIZON)(keras.layers.Flatten()(h)), name=name)


keras.utils.set_random_seed(0)
teacher, student = net(48, "teacher"), net(8, "student")
teacher.compile("adam", "mse", metrics=["mae"])
teacher.fit(x_train, y_train, epochs=8, batch_size=64, verbose=2)

distiller = tfdistill.Distiller(teacher, student, OutputMatching("huber"), student_loss_weight=0.5)
distiller.compile("adam", "mse", metrics=["mae"])
distiller.fit(x_train, y_train, validation_data=(x_test, y_test), epochs=12, batch_size=64, verbose=2)

record = tfdistill.export_tflite(
    student, "runs/sensor_windows.tflite", "int8", calibration=x_train[::20], verify_on=(x_test, y_test), task="regression"
)
print(record)
