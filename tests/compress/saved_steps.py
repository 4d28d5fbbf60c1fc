"""Every compression step on one small net, for a process that saves what it makes and another one that goes on with it."""

import keras
import numpy as np
from keras import layers
from low_rank_models import randomized

import tfdistill
from tfdistill.compress import AdaRound, Cluster, LowRank, Prune, PruneChannels, Quantize, QuantizeAware

SHRUNK = "shrink_like"
CRITERIA = ("magnitude", "taylor", "fisher", "movement")
# Name -> step; one name more, `SHRUNK`, is that of a function.
STEPS = {
    "PruneChannels": PruneChannels(keep_macs=0.6, divisor=1),
    **{f"LowRank {method}": LowRank(rank=4, method=method, layers=["a", "b"]) for method in ("svd", "spatial_svd", "tucker", "cp")},
    **{f"Prune {criterion}": Prune(0.5, end_step=4, frequency=1, criterion=criterion) for criterion in CRITERIA},
    "Cluster": Cluster(4),
    "QuantizeAware": QuantizeAware(),
    "Quantize": Quantize(weight_bits=4, rounding=AdaRound(steps=20)),
}
NAMES = (*STEPS, SHRUNK)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def net():
    x = inputs = keras.Input((8, 8, 8), name="image")
    x = layers.BatchNormalization(momentum=0.5, name="norm")(layers.Conv2D(12, 3, padding="same", use_bias=False, name="a")(x))
    x = layers.Conv2D(12, 3, activation="relu", name="b")(layers.ReLU(name="relu")(x))
    x = layers.Dense(8, activation="relu", name="c")(layers.GlobalAveragePooling2D(name="pool")(x))
    return randomized(keras.Model(inputs, layers.Dense(3, name="logits")(x), name="net"))


def images(samples=32, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(samples, 8, 8, 8)).astype("float32"), rng.integers(0, 3, samples)


def applied(name, model):
    if name == SHRUNK:
        return tfdistill.shrink_like(model, width=0.5, divisor=1)
    return STEPS[name].apply(model, images()[0]) if STEPS[name].needs_data else STEPS[name].apply(model)


def trained(name, model, batch_size=8):
    """Trains what a step made for an epoch, with the callbacks of the step where it is still wrapped."""
    callbacks = [] if name is None or name == SHRUNK else STEPS[name].callbacks()
    model.compile("adam", LOSS)
    model.fit(*images(), batch_size=batch_size, verbose=0, callbacks=callbacks)
    return model


def stripped(name, model):
    """What is left of the step at its end; the structure that it made is checked."""
    if name == SHRUNK:
        return model
    found = STEPS[name].strip(model)
    STEPS[name].check(found)
    return found
