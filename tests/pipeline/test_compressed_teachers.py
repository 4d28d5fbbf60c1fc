"""Teachers that were compressed before they teach: smaller, near to what they were, and asked like any other."""

import functools

import keras
import numpy as np
import pytest
from small import data, mlp

import tfdistill
from tfdistill.compress import Cluster, LowRank, Prune, PruneChannels, Quantize
from tfdistill.losses import SoftTargets

X, Y = data(128)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@functools.cache
def teacher():
    """A trained teacher."""
    keras.utils.set_random_seed(0)
    model = mlp(32, 24, name="teacher")
    model.compile(keras.optimizers.Adam(0.01), LOSS)
    model.fit(X, Y, epochs=20, batch_size=32, verbose=0)
    return model


def trained(step):
    """Follows a step that needs training."""
    model = step.apply(teacher())
    model.compile(keras.optimizers.Adam(0.001), LOSS)
    model.fit(X, Y, epochs=2, batch_size=32, verbose=0, callbacks=step.callbacks())
    return step.strip(model)


TEACHERS = {
    "fewer channels": lambda: PruneChannels(keep_macs=0.7, divisor=1).apply(teacher()),
    "low rank": lambda: LowRank(keep_macs=0.8, divisor=1).apply(teacher(), calibration=X),
    "zeros": lambda: trained(Prune(0.5, end_step=4)),
    "clusters": lambda: trained(Cluster(16)),
    "integers": lambda: Quantize().apply(teacher(), calibration=X),
}


@pytest.mark.parametrize("name", TEACHERS)
def test_a_compressed_teacher_teaches(name):
    small, student = TEACHERS[name](), mlp(16, 12, name="student")
    agreement = np.mean(np.argmax(small(X), -1) == np.argmax(teacher()(X), -1))
    assert agreement > 0.6
    before = [np.array(w) for w in small.weights]
    distiller = tfdistill.Distiller(small, student, SoftTargets(2.0), student_loss_weight=0.0)
    distiller.compile(keras.optimizers.Adam(0.01))
    history = distiller.fit(X, Y, epochs=8, batch_size=32, verbose=0)
    assert history.history["loss"][-1] < 0.8 * history.history["loss"][0]
    assert all(np.array_equal(a, w) for a, w in zip(before, small.weights, strict=True))
