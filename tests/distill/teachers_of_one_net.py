"""One small net as every kind of teacher."""

import keras
import numpy as np
import tensorflow as tf
from small import mlp, weights_of

from tfdistill import Distiller, export_tflite
from tfdistill.losses import SoftTargets

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def make_net():
    """The Keras model that every teacher below is made from."""
    return mlp(24, name="net")


def write_files(folder):
    """Writes a .tflite file, a SavedModel, a SavedModel with two signatures of two outputs and a .keras file, all of one net."""
    keras.utils.set_random_seed(7)
    model = make_net()
    export_tflite(model, folder / "one.tflite", variant="float32")
    model.export(folder / "saved", verbose=False)
    function = tf.function(lambda x: {"a": model(x), "b": 2.0 * model(x)}, input_signature=[tf.TensorSpec((None, 8), name="x")])
    module = tf.Module()
    module.held = [v.value for v in model.weights]
    tf.saved_model.save(module, str(folder / "two"), signatures={"first": function, "second": function})
    model.save(folder / "model.keras")
    return folder


def keras_file(folder):
    return keras.saving.load_model(folder / "model.keras")


@keras.saving.register_keras_serializable(package="tests")
class NumpyNet:
    """The same net in NumPy: a callable that can be saved."""

    def __init__(self, weights, probabilities=False):
        self.weights, self.probabilities = [np.asarray(w, "float32") for w in weights], probabilities

    @classmethod
    def of(cls, model, probabilities=False):
        return cls(weights_of(model), probabilities)

    def __call__(self, x):
        assert type(x) is np.ndarray
        k, b, k2, b2 = self.weights
        logits = np.maximum(x @ k + b, 0) @ k2 + b2
        return softmax(logits) if self.probabilities else logits

    def get_config(self):
        return {"weights": [w.tolist() for w in self.weights], "probabilities": self.probabilities}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def make(teacher, space="logits", losses=None, **kwargs):
    keras.utils.set_random_seed(3)
    losses = losses or SoftTargets(2.0, teacher_outputs=space)
    distiller = Distiller(teacher, mlp(12, name="student"), losses, **kwargs)
    distiller.compile(keras.optimizers.Adam(0.01), loss=CROSS_ENTROPY)
    return distiller
