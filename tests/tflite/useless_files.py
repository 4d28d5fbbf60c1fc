"""Models whose int8 files are of no use, though their largest errors are small beside their largest values; each with the data that shows it."""

import keras
import numpy as np

L = keras.layers


def dense(units, kernel, bias=0.0, **arguments):
    """A dense layer of given weights."""
    return L.Dense(
        units,
        kernel_initializer=lambda shape, dtype=None: keras.ops.convert_to_tensor(np.broadcast_to(kernel, shape), dtype),
        bias_initializer=lambda shape, dtype=None: keras.ops.convert_to_tensor(np.broadcast_to(bias, shape), dtype),
        **arguments,
    )


def detector(seed=0):
    """Boxes in pixels and scores from 0 to 1 in one output: a step of the file is larger than a score."""
    rng = np.random.default_rng(seed)
    x = keras.Input((6,), name="x")
    boxes = dense(4, rng.normal(size=(6, 4)) * 60, 320.0)(x)
    scores = dense(2, rng.normal(size=(6, 2)) * 2, activation="sigmoid")(x)
    return keras.Model(x, L.Concatenate(name="found")([boxes, scores])), rng.normal(size=(200, 6)).astype("float32")


def kelvin(seed=0):
    """A temperature in kelvin from a pressure in pascal, a temperature and a humidity: the file's input steps are larger than what the inputs vary by."""
    rng = np.random.default_rng(seed)
    centre, spread = np.array([101325, 293, 0.5]), np.array([30, 6, 0.2])
    x = keras.Input((3,), name="weather")
    model = keras.Model(x, dense(1, [[0.5], [5.0], [1.0]], 293.0, name="kelvin")(L.Normalization(mean=centre, variance=spread**2)(x)))
    data = (centre + spread * rng.normal(size=(200, 3))).astype("float32")
    return model, data, model(data).numpy() + 0.03 * rng.normal(size=(200, 1))


def blobs(classes=10, features=8, samples=200, seed=0, softmax=False):
    """Gaussian classes, and the linear classifier that tells them apart."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, features)) * 2
    labels = rng.integers(0, classes, samples)
    x = (centres[labels] + rng.normal(size=(samples, features)) * 0.8).astype("float32")
    head = dense(classes, 2 * centres.T, -(centres**2).sum(1), name="classes", activation="softmax" if softmax else None)
    return keras.Sequential([keras.Input((features,), name="x"), head]), x, labels


def extreme_record(position=17, factor=1000.0, seed=0):
    """The same, with one record a thousand times as large."""
    model, x, labels = blobs(seed=seed)
    x[position] *= factor
    return model, x, labels


def audio_energies(seed=0):
    """Band energies over four decades, each with its own gain: the quiet bands fall into one step of the file."""
    rng = np.random.default_rng(seed)
    size = np.array([1e4, 3e3, 1e3, 30.0, 10.0, 3.0])
    x = rng.gamma(4.0, size / 4, size=(200, 6)).astype("float32")
    return keras.Sequential([keras.Input((6,), name="bands"), dense(6, np.diag(rng.uniform(0.5, 1.5, 6)), name="gained")]), x


def dead_index(seed=0):
    """Three lengths, one of them in metres beside millimetres."""
    rng = np.random.default_rng(seed)
    model = keras.Sequential([keras.Input((5,), name="x"), dense(3, rng.normal(size=(5, 3)) * [1.0, 1e-3, 1.0], name="lengths")])
    return model, rng.normal(size=(200, 5)).astype("float32")


def two_heads(seed=0):
    """A dict of two outputs, one of which holds an angle beside distances."""
    rng = np.random.default_rng(seed)
    x = keras.Input((5,), name="x")
    good = dense(3, rng.normal(size=(5, 3)), name="kind")(x)
    bad = dense(3, rng.normal(size=(5, 3)) * [500.0, 500.0, 0.5], name="place")(x)
    return keras.Model(x, {"kind": good, "place": bad}), rng.normal(size=(200, 5)).astype("float32")


def next_state(seed=0):
    """The next state of a vehicle from its state: position in metres, speed, and heading in radians."""
    rng = np.random.default_rng(seed)
    kernel = np.eye(3) + np.array([[0, 0, 0], [0.1, 0, 0], [0, 0, 0]])
    x = (rng.normal(size=(200, 3)) * [1000, 10, 0.5]).astype("float32")
    return keras.Sequential([keras.Input((3,), name="state"), dense(3, kernel, name="next")]), x


def trend(seed=0):
    """The next value of a series that grows from 1000 to 2000, while what is to be predicted is its daily change."""
    rng = np.random.default_rng(seed)
    series = np.linspace(1000, 2000, 312) + 3 * np.sin(np.arange(312)) + 0.2 * rng.normal(size=312)
    x = np.stack([series[i : i + 12] for i in range(300)])[..., None].astype("float32")
    kernel = np.zeros((12, 1))
    # sin(t) = 2 cos(1) sin(t - 1) - sin(t - 2); what is left of 1 carries the trend.
    kernel[[-1, -2, -3], 0] = 2 * np.cos(1) + 1, -1 - 2 * np.cos(1), 1
    model = keras.Sequential([keras.Input((12, 1), name="past"), L.Flatten(), dense(1, kernel, name="next")])
    return model, x, series[12:312, None]


def sentinel(seed=0):
    """Features of about 1 in which -9999 stands for a missing value, in one record of eight."""
    model, x, labels = blobs(seed=seed)
    x[::8, 3] = -9999
    model.layers[0].set_weights(
        [np.vstack([w if i != 3 else 0 * w for i, w in enumerate(model.layers[0].get_weights()[0])]), model.layers[0].get_weights()[1]]
    )
    return model, x, labels
