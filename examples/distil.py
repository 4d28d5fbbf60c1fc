"""A Keras training script with a teacher: distils, exports an int8 file, verifies and times it. Run: python examples/distil.py"""

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import tfdistill
from tfdistill.losses import SoftTargets

digits = load_digits()
images = (digits.images / 16.0).astype("float32")[..., None]
x_train, x_test, y_train, y_test = train_test_split(images, digits.target, test_size=450, random_state=0)


def net(width):
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(width, 3, activation="relu"),
            keras.layers.Conv2D(2 * width, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10),  # logits: no softmax
        ]
    )


loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
teacher, student = net(64), net(8)
teacher.compile("adam", loss, metrics=["accuracy"])
teacher.fit(x_train, y_train, epochs=10, verbose=2)

distiller = tfdistill.Distiller(teacher, student, SoftTargets(temperature=4.0), student_loss_weight=0.1)
distiller.compile("adam", loss, metrics=["accuracy"])
distiller.fit(x_train, y_train, validation_data=(x_test, y_test), epochs=20, verbose=2)

record = tfdistill.export_tflite(student, "runs/student.tflite", "int8", calibration=x_train[:200], verify_on=(x_test, y_test))
print(record)
print(f"median latency {tfdistill.benchmark(record.path).p50_ms:.4f} ms")
