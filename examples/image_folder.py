"""A folder of images, a softmax and augmentation inside the model: distils, trains quantized, exports int8. Run: python examples/image_folder.py [FOLDER]

FOLDER has a subfolder of images for each class. Without one, a folder of handwritten digits is made in runs/digits.
"""

import pathlib
import sys

import keras
import numpy as np

import tfdistill
from tfdistill.compress import QuantizeAware
from tfdistill.losses import SoftTargets

SIZE = (32, 32)


def digits(folder):
    """Writes scikit-learn's digits as PNG files, one subfolder for each class."""
    from sklearn.datasets import load_digits

    data = load_digits()
    for number, (image, label) in enumerate(zip(data.images, data.target, strict=True)):
        path = folder / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        keras.utils.save_img(path, np.kron(image, np.ones((4, 4)))[..., None] * 15.9, scale=False)
    return folder


def net(width, classes, name):
    return keras.Sequential(
        [
            keras.Input((*SIZE, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.RandomTranslation(0.05, 0.05),
            keras.layers.RandomRotation(0.02),
            keras.layers.Conv2D(width, 3, strides=2, padding="same", use_bias=False),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.ReLU(),
            keras.layers.Conv2D(2 * width, 3, strides=2, padding="same", activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(classes, activation="softmax"),
        ],
        name=name,
    )


keras.utils.set_random_seed(0)
folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else digits(pathlib.Path("runs/digits"))
train, test = keras.utils.image_dataset_from_directory(
    folder, color_mode="grayscale", image_size=SIZE, batch_size=32, validation_split=0.25, subset="both", seed=0
)
classes = len(train.class_names)
teacher, student = net(32, classes, "teacher"), net(8, classes, "student")

loss = keras.losses.SparseCategoricalCrossentropy()  # the models end in a softmax
teacher.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
teacher.fit(train, epochs=8, verbose=2)


def distil(model, epochs, rate, callbacks=()):
    distiller = tfdistill.Distiller(teacher, model, SoftTargets(2.0, from_logits=False), student_loss_weight=0.3)
    distiller.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    distiller.fit(train, validation_data=test, epochs=epochs, verbose=2, callbacks=list(callbacks))


distil(student, 10, 3e-3)
quantize = QuantizeAware()
quantized = quantize.apply(student, calibration=train.take(8))
distil(quantized, 3, 5e-4, quantize.callbacks())

record = tfdistill.export_tflite(quantize.strip(quantized), "runs/image_folder.tflite", "int8", verify_on=test, io="uint8")
print(record)
