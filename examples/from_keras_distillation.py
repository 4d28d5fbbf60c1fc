"""A script written for keras.distillation, with three lines changed, then one call to an int8 file. Run: python examples/from_keras_distillation.py

Changed are the import of `Distiller`, the loss (Keras's default is no KL divergence, see README.md), and the feature loss, which now matches layers of different widths.
"""

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import tfdistill

# Before: from keras.distillation import Distiller, FeatureDistillation, LogitsDistillation
from tfdistill import Distiller
from tfdistill.losses import Hint, SoftTargets

digits = load_digits()
images = (digits.images / 16.0).astype("float32")[..., None]
x_train, x_test, y_train, y_test = train_test_split(images, digits.target, test_size=450, random_state=0)


def net(width, name):
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(width, 3, activation="relu", name="early"),
            keras.layers.Conv2D(2 * width, 3, activation="relu", name="late"),
            keras.layers.Flatten(),
            keras.layers.Dense(10, name="logits"),
        ],
        name=name,
    )


keras.utils.set_random_seed(0)
teacher, student = net(48, "teacher"), net(8, "student")
teacher.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
teacher.fit(x_train, y_train, epochs=10, verbose=2)

distiller = Distiller(
    teacher=teacher,
    student=student,
    # Before: [LogitsDistillation(temperature=4.0), FeatureDistillation(teacher_layer_name="late", student_layer_name="late")]
    distillation_losses=[SoftTargets(temperature=4.0), Hint(teacher_layer_name="late", student_layer_name="late")],
    distillation_loss_weights=[1.0, 0.1],
    student_loss_weight=0.3,
)
distiller.compile(optimizer="adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
distiller.fit(x_train, y_train, validation_data=(x_test, y_test), epochs=15, verbose=2)
print(distiller.evaluate(x_test, y_test, return_dict=True, verbose=0))

record = tfdistill.export_tflite(
    distiller.student, "runs/from_keras_distillation.tflite", "int8", calibration=x_train[:200], verify_on=(x_test, y_test)
)
print(record)
