"""A classifier of padded token sequences: a transformer teaches a smaller one, which trains quantized. Run: python examples/tokens.py"""

import keras
import numpy as np

import tfdistill
from tfdistill.compress import QuantizeAware
from tfdistill.losses import SoftTargets

WORDS, LENGTH, CLASSES = 200, 24, 4
rng = np.random.default_rng(0)


def sentences(count):
    """Sentences of 6 to 24 words, padded with 0. The class is the topic that most words belong to."""
    topic = rng.integers(CLASSES, size=count)
    words = rng.integers(1, WORDS, size=(count, LENGTH))
    of_topic = 1 + (words // CLASSES) * CLASSES % (WORDS - CLASSES) + topic[:, None]
    words = np.where(rng.random(words.shape) < 0.25, of_topic, words)
    length = rng.integers(6, LENGTH + 1, size=count)
    return np.where(np.arange(LENGTH) < length[:, None], words, 0).astype("int32"), topic


def net(width, blocks, name):
    tokens = keras.Input((LENGTH,), dtype="int32", name="tokens")
    h = keras.layers.Embedding(WORDS, width, mask_zero=True)(tokens)
    for _ in range(blocks):
        h = keras.layers.LayerNormalization()(keras.layers.Add()([h, keras.layers.MultiHeadAttention(2, width // 2)(h, h)]))
        ff = keras.layers.Dense(width)(keras.layers.Dense(2 * width, activation="relu")(h))
        h = keras.layers.LayerNormalization()(keras.layers.Add()([h, ff]))
    return keras.Model(tokens, keras.layers.Dense(CLASSES)(keras.layers.GlobalAveragePooling1D()(h)), name=name)


keras.utils.set_random_seed(0)
(x_train, y_train), (x_test, y_test) = sentences(4000), sentences(800)
teacher, student = net(32, 2, "teacher"), net(16, 1, "student")
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
teacher.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
teacher.fit(x_train, y_train, epochs=5, batch_size=64, verbose=2)


def distil(model, epochs, rate, callbacks=()):
    distiller = tfdistill.Distiller(teacher, model, SoftTargets(2.0), student_loss_weight=0.3)
    distiller.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    distiller.fit(x_train, y_train, validation_data=(x_test, y_test), epochs=epochs, batch_size=64, verbose=2, callbacks=list(callbacks))


distil(student, 8, 3e-3)
quantize = QuantizeAware()
quantized = quantize.apply(student, calibration=x_train[:256])
distil(quantized, 2, 5e-4, quantize.callbacks())

record = tfdistill.export_tflite(quantize.strip(quantized), "runs/tokens.tflite", "int8", verify_on=(x_test, y_test))
print(record)
