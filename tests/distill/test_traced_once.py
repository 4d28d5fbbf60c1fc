"""A training step is traced once: its variables are made before, as TensorFlow traces a step that makes variables a second time."""

import keras
import pytest
from small import data, mlp

from tfdistill import Distiller, TeacherReport
from tfdistill.compress import Prune, QuantizeAware
from tfdistill.losses import Hint, SoftTargets

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
HINT = [SoftTargets(4.0), Hint("hidden_0", "hidden_0")]
PRUNE = Prune(0.5, end_step=4, frequency=2)


def distiller(student, losses=None, **compiled):
    model = Distiller(mlp(24, name="teacher"), student, losses or SoftTargets(4.0))
    model.compile(loss=CROSS_ENTROPY, jit_compile=False, **{"optimizer": "adam", **compiled})
    return model


def adopted(step, **compiled):
    model = step.apply(mlp(6, name="student"))
    model.compile("adam", CROSS_ENTROPY, **compiled)
    return model


KINDS = {
    "a Distiller": lambda: distiller(mlp(6)),
    "with metrics": lambda: distiller(mlp(6), metrics=["accuracy"], weighted_metrics=[keras.metrics.SparseTopKCategoricalAccuracy(2)]),
    "with a report": lambda: distiller(mlp(6), metrics=[TeacherReport()]),
    "with a projection": lambda: distiller(mlp(6), HINT),
    "with a scaled loss": lambda: distiller(mlp(6), optimizer=keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1, momentum=0.9))),
    "a Distiller of a pruned student": lambda: distiller(PRUNE.apply(mlp(6))),
    "an adopted model": lambda: adopted(PRUNE),
    "a quantization-aware model": lambda: adopted(QuantizeAware()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_step_is_traced_once(kind, monkeypatch):
    model, (x, y), traces = KINDS[kind](), data(24), []
    step = model.train_step
    monkeypatch.setattr(model, "train_step", lambda batch: (traces.append(1), step(batch))[1])
    history = model.fit(
        x, y, batch_size=8, epochs=2, verbose=0, callbacks=PRUNE.callbacks() if "pruned" in kind or "adopted" in kind else []
    )
    assert len(traces) == 1
    assert model.optimizer.iterations == 6
    assert len(history.history["loss"]) == 2


def test_the_metrics_of_the_first_epoch_hold_its_batches_alone():

    class Counts(keras.metrics.Metric):
        """Counts the samples that it has seen."""

        def __init__(self):
            super().__init__(name="seen")
            self.seen = self.add_weight(name="seen", initializer="zeros")

        def update_state(self, y_true, y_pred, sample_weight=None):
            self.seen.assign_add(keras.ops.cast(keras.ops.shape(y_pred)[0], "float32"))

        def result(self):
            return self.seen

    model, (x, y) = distiller(mlp(6), metrics=[Counts()]), data(24)
    counts = model.fit(x, y, batch_size=8, epochs=2, verbose=0).history["seen"]
    assert counts == [24, 24]
