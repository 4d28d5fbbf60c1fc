"""Small models and data for tests."""

import keras
import numpy as np

CLASSES = 5
_KERAS = tuple(map(int, keras.__version__.split(".")[:2]))
# Keras 3.12 does not divide the penalty of an activity by the batch, as later versions and tf_keras do.
DIVIDES_ACTIVITY_PENALTIES = _KERAS >= (3, 13)
# Keras 3.12 cannot train any model with Muon on TensorFlow.
OPTIMIZERS_OF_KERAS = ["AdamW", "Muon"] if _KERAS >= (3, 13) else ["AdamW"]


def data(samples=64, features=8, classes=CLASSES, seed=3):
    """Random inputs, and labels that depend on them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(samples, features)).astype("float32")
    y = (x @ rng.normal(size=(features, classes))).argmax(-1).astype("int32")
    return x, y


def mlp(*widths, features=8, classes=CLASSES, name="mlp", **dense):
    """A functional net of dense layers called hidden_0, hidden_1, ... and `logits`."""
    x = inputs = keras.Input((features,))
    for i, width in enumerate(widths):
        x = keras.layers.Dense(width, activation="relu", name=f"hidden_{i}", **dense)(x)
    return keras.Model(inputs, keras.layers.Dense(classes, name="logits")(x), name=name)


def pair(features=8):
    """A teacher and a narrower student."""
    return mlp(32, 24, features=features, name="teacher"), mlp(16, 12, features=features, name="student")


def weights_of(model):
    return [w.numpy() if hasattr(w, "numpy") else np.asarray(w) for w in model.weights]


class Subclassed(keras.Model):
    """A model whose layers are only known when it runs."""

    def __init__(self, width=12, classes=CLASSES, **kwargs):
        super().__init__(**kwargs)
        self.width, self.classes = width, classes
        self.body = keras.layers.Dense(width, activation="relu")
        self.blocks = [keras.layers.Dense(width, activation="relu") for _ in range(2)]
        self.head = keras.layers.Dense(classes)

    def call(self, inputs, training=None):
        x = self.body(inputs)
        for block in self.blocks:
            x = block(x)
        return self.head(x)

    def get_config(self):
        return {**super().get_config(), "width": self.width, "classes": self.classes}


class Dropped(keras.Model):
    """A student that tells how often, and in which mode, it ran."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = keras.layers.Dense(12, activation="relu", name="hidden")
        self.norm = keras.layers.BatchNormalization(momentum=0.5, name="norm")
        self.drop = keras.layers.Dropout(0.5, seed=1)
        self.head = keras.layers.Dense(CLASSES)
        self.modes = []

    def call(self, inputs, training=None):
        self.modes.append(training)
        x = self.norm(self.hidden(inputs), training=training)
        return self.head(self.drop(x, training=training))
