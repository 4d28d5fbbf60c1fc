"""Makes nets of random weights like trained ones: a few dozen steps on classes of made-up images, and normalizations whose statistics are those of the data.

A deep net of random weights multiplies every rounding until little else is left, and its outputs hardly depend on its input. A net that was taught anything does
neither, so that what is measured on it says something about the nets that people have.
"""

import keras
import numpy as np
from stages import settle

CLASSES, BATCH, MOST_STEPS = 10, 32, 200
# Teaching ends when this share of the last few batches is classified rightly.
ENOUGH, LAST = 0.95, 5


def images(shape, samples, seed, noise=0.5):
    """Returns coarse images and their classes: each class has a pattern of its own, which varies in strength, brightness and detail.

    Args:
        shape: Height, width, channels.
        samples: How many.
        seed: Seed of all but the patterns, which are the same for every seed.
        noise: Standard deviation of what is not the pattern, whose own is 1.
    """
    patterns = np.random.default_rng(7).normal(size=(CLASSES, 4, 4, shape[-1]))
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, samples)
    small = patterns[y] * rng.uniform(0.7, 1.3, (samples, 1, 1, 1)) + noise * rng.normal(size=(samples, 4, 4, shape[-1]))
    small += noise * rng.normal(size=(samples, 1, 1, 1))
    return np.asarray(keras.ops.image.resize(small, shape[:2], interpolation="bilinear")).astype("float32"), y


def teach(model):
    """Trains a classifier of images with a softmax until it knows the classes, and settles its normalizations. Returns the share that it got right at last.

    Args:
        model: A Keras model of one input of images and ten classes; it is changed. Without normalizations it is taught at a tenth of the rate: at the whole one
            VGG16 learns to give the same for every image.
    """
    shape = model.input_shape[1:]
    normalized = any("Normalization" in type(layer).__name__ for layer in model.layers)
    x, y = images(shape, 512, seed=0)
    settle(model, x[:128])
    enough = _Enough()
    model.compile(
        keras.optimizers.Adam(2e-3 if normalized else 2e-4), "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False
    )
    rng = np.random.default_rng(0)
    for _ in range(-(-MOST_STEPS * BATCH // len(x))):
        order = rng.permutation(len(x))
        model.fit(x[order], y[order], batch_size=BATCH, verbose=0, callbacks=[enough])
        if enough.reached:
            break
    settle(model, x[:128])
    return float((np.asarray(model(x[:128], training=False)).argmax(-1) == y[:128]).mean())


class _Enough(keras.callbacks.Callback):
    """Ends the training when the last batches were right."""

    def __init__(self):
        super().__init__()
        self.reached, self._shares, self._before = False, [], 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self._before = 0.0

    def on_train_batch_end(self, batch, logs=None):
        # Keras gives the mean over the batches of the epoch.
        total = logs["accuracy"] * (batch + 1)
        self._shares.append(total - self._before)
        self._before = total
        if len(self._shares) >= LAST and np.mean(self._shares[-LAST:]) >= ENOUGH:
            self.reached = self.model.stop_training = True
