"""What a teacher costs per epoch: `student.fit`, `keras.distillation.Distiller` and ours, in one process, in turns.

    python benchmarks/step_time.py [--rounds 15] [--out runs/step_time.json]

Each round runs one epoch of every contestant, in an order that changes from round to round, after two epochs that are not counted. Printed are the
median epoch times and the median over the rounds of ours divided by Keras's of the same round: machines drift, and a ratio within one round does not.
Keras's logits loss is given `KLDivergence()`, so that both compute the same.
"""

import argparse
import dataclasses
import time

import keras
import numpy as np

from tfdistill import Distiller, datasets
from tfdistill.demo import models
from tfdistill.demo.run import BATCH, cross_entropy
from tfdistill.host import HostFingerprint, fingerprint
from tfdistill.losses import Hint, SoftTargets
from tfdistill.progress import track
from tfdistill.records import Record

TEMPERATURE, SHARE = 4.0, 0.1


@dataclasses.dataclass(frozen=True)
class StepTimes(Record):
    """Epoch times in seconds, one per round, and ratios of ours to Keras's."""

    epoch_seconds: dict[str, tuple[float, ...]]
    steps_per_epoch: int
    ratios: dict[str, float]
    host: HostFingerprint


def feature_pairs(count):
    """Layers of equal width in teacher and student, so that Keras's FeatureDistillation can match them."""
    return [(f"relu_{i}", f"relu_{i}") for i in range(count)]


def two_nets():
    """The demo's student, and a teacher whose first features are as wide as the student's, about ten times its computation."""
    nets = []
    for name, body in (("teacher", (64, 128, 128)), ("student", (32,))):
        x = inputs = keras.Input((8, 8, 1))
        for i, filters in enumerate((16, 16)):
            x = keras.layers.Conv2D(filters, 3, padding="same", name=f"conv_{i}")(x)
            x = keras.layers.ReLU(name=f"relu_{i}")(x)
        for filters in body:
            x = models.convolved(x, filters, strides=2 if filters == body[-1] else 1)
        nets.append(keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(x)), name=name))
    return nets


def contestants():
    """Name -> compiled model, each with a student of its own and its own copy of the teacher."""
    made = {}

    def add(name, make):
        keras.utils.set_random_seed(0)
        teacher, student = two_nets()
        model = make(teacher, student)
        model.compile(keras.optimizers.Adam(1e-3), loss=cross_entropy(), metrics=["accuracy"])
        made[name] = model

    def theirs(pairs):
        losses = [keras.distillation.LogitsDistillation(TEMPERATURE, loss=keras.losses.KLDivergence())]
        losses += [keras.distillation.FeatureDistillation("mse", t, s) for t, s in feature_pairs(pairs)]
        return lambda teacher, student: keras.distillation.Distiller(teacher, student, losses, student_loss_weight=SHARE)

    def ours(pairs):
        losses = [SoftTargets(TEMPERATURE), *[Hint(t, s) for t, s in feature_pairs(pairs)]]
        return lambda teacher, student: Distiller(teacher, student, losses, student_loss_weight=SHARE)

    add("student.fit", lambda teacher, student: student)
    for pairs in (0, 1, 2):
        label = ["logits", "logits and one feature pair", "logits and two feature pairs"][pairs]
        add(f"keras.distillation: {label}", theirs(pairs))
        add(f"tfdistill: {label}", ours(pairs))
    return made


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", default="runs/step_time.json")
    arguments = parser.parse_args()

    data = datasets.digits()
    made = contestants()

    def epoch(model):
        began = time.perf_counter()
        model.fit(data.x_train, data.y_train, batch_size=BATCH, epochs=1, verbose=0)
        return time.perf_counter() - began

    for model in track(made.values(), "Warming up"):
        epoch(model), epoch(model)
    seconds = {name: [] for name in made}
    names = list(made)
    for round_number in track(range(arguments.rounds), "Rounds"):
        order = np.roll(names, round_number)[:: -1 if round_number % 2 else 1]
        for name in order:
            seconds[name].append(epoch(made[name]))

    ratios = {}
    for name in names:
        if name.startswith("tfdistill: "):
            against = seconds[name.replace("tfdistill", "keras.distillation")]
            ratios[name.removeprefix("tfdistill: ")] = float(np.median(np.array(seconds[name]) / np.array(against)))
    steps = -(-len(data.x_train) // BATCH)
    record = StepTimes({n: tuple(s) for n, s in seconds.items()}, steps, ratios, fingerprint())
    print(f"{record.host.cpu_model}, {arguments.rounds} rounds of {steps} steps of {BATCH}")
    for name in names:
        values = 1000 * np.array(seconds[name]) / steps
        print(
            f"{name:<50} {np.median(values):6.2f} ms per step  (quartiles {np.percentile(values, 25):.2f} to {np.percentile(values, 75):.2f})"
        )
    for name, ratio in ratios.items():
        print(f"ours to Keras's, {name}: {ratio:.3f}")
    record.save(arguments.out)


if __name__ == "__main__":
    main()
