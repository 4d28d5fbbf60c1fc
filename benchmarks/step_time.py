"""Time of an epoch with a teacher: `student.fit`, `keras.distillation.Distiller` and tfdistill's Distiller, in one process, in turns.

    python benchmarks/step_time.py [--rounds 15] [--against-keras] [--out runs/step_time.json]

Then, without `--against-keras`, every loss is added to soft targets (those for regression to output matching), and its overhead is printed in the same way. Batches are
of 256: relational losses are quadratic in the batch size, RelationalKD's angles cubic.

Each round runs eight epochs of every contestant, in an order that changes from round to round, after eight warm-up epochs. Printed are the
median epoch times, and the median over the rounds of tfdistill's time divided by Keras's of the same round, which the drift of a machine's
speed affects less. Keras's logits loss is given `KLDivergence()`, so that both compute the same.
"""

import argparse
import dataclasses
import time
import typing

import keras
import numpy as np

from tfdistill import Distiller, losses
from tfdistill.demo import datasets, models
from tfdistill.demo.run import cross_entropy
from tfdistill.host import HostFingerprint, fingerprint
from tfdistill.losses import Hint, SoftTargets
from tfdistill.records import Record
from tfdistill.utils.progress import track

TEMPERATURE, SHARE = 4.0, 0.1
# Large enough that computation takes more time than the launch of operations.
BATCH = 256
# Several epochs per `fit`, so that its constant cost is not counted for every epoch.
EPOCHS = 8


@dataclasses.dataclass(frozen=True)
class StepTimes(Record):
    """Epoch times in seconds, one per round; ratios of ours to Keras's; and of soft targets with one more loss to soft targets alone."""

    epoch_seconds: dict[str, tuple[float, ...]]
    steps_per_epoch: int
    ratios: dict[str, float]
    overheads: dict[str, float]
    host: HostFingerprint


def feature_pairs(count):
    """Returns the names of the last features of both networks, then of the first: equally wide, as Keras's FeatureDistillation requires."""
    return [("last", "last"), ("first", "first")][:count]


def two_nets():
    """Makes a teacher of about four times the student's operations; both have batch normalization and dropout."""
    nets = []
    for name, between in (("teacher", ((32, 1), (32, 1), (32, 2))), ("student", ((32, 2),))):
        inputs = keras.Input((8, 8, 1))
        x = models.convolved(inputs, 24, name="first")
        for filters, strides in between:
            x = models.convolved(x, filters, strides=strides)
        x = models.convolved(x, 48, name="last")
        x = keras.layers.Dropout(0.2)(keras.layers.Flatten()(x))
        nets.append(keras.Model(inputs, keras.layers.Dense(10)(x), name=name))
    return nets


def contestants():
    """Returns name -> compiled model, each with its own student and its own copy of the teacher."""
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


def dense_nets():
    return [
        keras.Sequential([keras.Input((8, 8, 1)), *_dense(widths)], name=n) for n, widths in (("teacher", (128, 128)), ("student", (32,)))
    ]


def _dense(widths):
    return [keras.layers.Flatten(), *(keras.layers.Dense(width, "relu") for width in widths), keras.layers.Dense(10)]


@dataclasses.dataclass(frozen=True)
class Field:
    """Networks of one kind, the loss of the baseline, and the losses that are added to it one at a time."""

    nets: typing.Callable
    alone: object
    added: dict
    label_loss: typing.Callable = cross_entropy


def fields():
    last = {"teacher_layer_name": "block_4", "student_layer_name": "block_2"}
    hidden = {"teacher_layer_name": "hidden", "student_layer_name": "hidden"}
    attention, states = ({"teacher_layer_name": f"{kind}_4", "student_layer_name": f"{kind}_2"} for kind in ("attention", "block"))
    soft = SoftTargets(TEMPERATURE)
    return {
        "SoftTargets alone": Field(
            lambda: (models.teacher((8, 8, 1), 10), models.student((8, 8, 1), 10)),
            soft,
            {
                "DecoupledKD": losses.DecoupledKD(TEMPERATURE),
                "DIST": losses.DIST(),
                "LogitMatching": losses.LogitMatching(),
                "BinarySoftTargets": losses.BinarySoftTargets(),
                "OutputMatching": losses.OutputMatching(),
                "Hint": Hint(**last),
                "AttentionTransfer": losses.AttentionTransfer(**last),
                "SimilarityPreserving": losses.SimilarityPreserving(**hidden),
                "ProbabilisticTransfer": losses.ProbabilisticTransfer(**hidden),
                "CorrelationCongruence": losses.CorrelationCongruence(**hidden),
                "RelationalKD": losses.RelationalKD(**hidden),
                "ContrastiveRepresentation": losses.ContrastiveRepresentation(**hidden),
            },
        ),
        "SoftTargets alone, transformers": Field(
            lambda: [models.transformer((8, 8, 1), 10, blocks, 32, 4, name) for blocks, name in ((4, "teacher"), (2, "student"))],
            soft,
            {"AttentionMaps": losses.AttentionMaps(**attention), "HiddenStates": losses.HiddenStates(**states)},
        ),
        "OutputMatching alone, regression": Field(
            dense_nets, losses.OutputMatching(), {"TeacherBounded": losses.TeacherBounded()}, keras.losses.MeanSquaredError
        ),
    }


def taught(field):
    """Returns name -> compiled distiller: with the baseline's loss alone, and with one more."""
    made = {}
    for name, more in {None: [], **{name: [loss] for name, loss in field.added.items()}}.items():
        keras.utils.set_random_seed(0)
        made[name] = Distiller(*field.nets(), [field.alone, *more], student_loss_weight=SHARE)
        made[name].compile(keras.optimizers.Adam(1e-3), loss=field.label_loss())
    return made


def race(made, data, rounds):
    """Runs a few epochs of every model in each round; returns name -> seconds per epoch in each round."""

    def epoch(model):
        began = time.perf_counter()
        model.fit(data.x_train, data.y_train, batch_size=BATCH, epochs=EPOCHS, verbose=0)
        return (time.perf_counter() - began) / EPOCHS

    for model in track(made.values(), "Warming up"):
        epoch(model)
    seconds = {name: [] for name in made}
    names = list(made)
    for number in track(range(rounds), "Rounds"):
        for name in np.roll(names, number)[:: -1 if number % 2 else 1]:
            seconds[name].append(epoch(made[name]))
    return {name: np.array(values) for name, values in seconds.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--against-keras", action="store_true", help="leave out the cost of each loss")
    parser.add_argument("--out", default="runs/step_time.json")
    arguments = parser.parse_args()
    data = datasets.digits()
    steps = -(-len(data.x_train) // BATCH)
    host = fingerprint()
    print(f"{host.cpu_model}, {arguments.rounds} rounds of {steps} steps of {BATCH}")

    seconds = race(contestants(), data, arguments.rounds)
    for name, values in seconds.items():
        low, middle, high = np.percentile(1000 * values / steps, (25, 50, 75))
        print(f"{name:<50} {middle:6.2f} ms per step  (quartiles {low:.2f} to {high:.2f})")
    ours = {name.removeprefix("tfdistill: "): name for name in seconds if name.startswith("tfdistill: ")}
    ratios = {}
    for label, name in ours.items():
        low, ratios[label], high = map(float, np.percentile(seconds[name] / seconds[f"keras.distillation: {label}"], (25, 50, 75)))
        print(f"ours to Keras's, {label}: {ratios[label]:.3f}  (quartiles {low:.3f} to {high:.3f})")

    overheads = {}
    targets = keras.utils.to_categorical(data.y_train, 10)
    for alone, field in ({} if arguments.against_keras else fields()).items():
        keras.backend.clear_session()
        labels = data.y_train if field.label_loss is cross_entropy else targets
        found = race(taught(field), dataclasses.replace(data, y_train=labels), arguments.rounds)
        print(f"\n{alone}: {1000 * np.median(found[None]) / steps:.2f} ms per step; with one more loss, times that:")
        for name in field.added:
            overheads[name] = float(np.median(found[name] / found[None]))
            print(f"{name:<50} {overheads[name]:6.3f}")
        seconds |= {name or alone: values for name, values in found.items()}
    StepTimes({name: tuple(values) for name, values in seconds.items()}, steps, ratios, overheads, host).save(arguments.out)


if __name__ == "__main__":
    main()
