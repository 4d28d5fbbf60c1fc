"""Compares the losses under one budget: the demo's teacher and student, with the same seeds, steps and optimizer.

    python benchmarks/losses.py                                            # digits, five seeds
    python benchmarks/losses.py --dataset fashion-mnist --samples 10000 --seeds 3
    python benchmarks/losses.py --tables runs/losses_*.json > docs/losses.md   # the tables, from the records

Losses of features and relations are added to soft targets, which are the baseline. A row's share of the gap is (mean - scratch) / (teacher
- scratch). Results are written to the record one by one, and an interrupted run continues after the last one.
"""

import argparse
import dataclasses
import pathlib

import keras
import numpy as np

from tfdistill import Distiller, losses
from tfdistill.demo import datasets
from tfdistill.demo.run import PLANS, Demo
from tfdistill.host import HostFingerprint, fingerprint
from tfdistill.records import Record
from tfdistill.utils.progress import progress

SOFT = losses.SoftTargets(4.0)
LAST = {"teacher_layer_name": "block_4", "student_layer_name": "block_2"}  # (4, 4, 128) and (4, 4, 32) on digits
HIDDEN = {"teacher_layer_name": "hidden", "student_layer_name": "hidden"}  # 128 and 64 wide

# Name -> losses and their weights: round numbers, of the papers' order of magnitude where they give one. Nothing was tuned.
ROWS = {
    "SoftTargets": ([SOFT], [1.0]),
    "SoftTargets, T=2": ([losses.SoftTargets(2.0)], [1.0]),
    "SoftTargets, T=8": ([losses.SoftTargets(8.0)], [1.0]),
    "SoftTargets, T from 8 to 2": ([losses.SoftTargets(losses.LinearSchedule(8.0, 2.0, steps=800))], [1.0]),
    "SoftTargets, reverse_kl": ([losses.SoftTargets(4.0, divergence="reverse_kl")], [1.0]),
    "SoftTargets, js": ([losses.SoftTargets(4.0, divergence="js")], [1.0]),
    "SoftTargets, cross_entropy": ([losses.SoftTargets(4.0, divergence="cross_entropy")], [1.0]),
    "SoftTargets, standardized": ([losses.SoftTargets(2.0, standardize=True)], [1.0]),
    "DecoupledKD": ([losses.DecoupledKD(4.0)], [1.0]),
    "DIST": ([losses.DIST()], [1.0]),
    "LogitMatching": ([losses.LogitMatching()], [0.1]),
    "OutputMatching, huber": ([losses.OutputMatching("huber")], [0.3]),
    "+ Hint": ([SOFT, losses.Hint(**LAST)], [1.0, 1.0]),
    "+ Hint, cosine": ([SOFT, losses.Hint(**HIDDEN, loss="cosine")], [1.0, 1.0]),
    "+ AttentionTransfer": ([SOFT, losses.AttentionTransfer(**LAST)], [1.0, 10.0]),
    "+ SimilarityPreserving": ([SOFT, losses.SimilarityPreserving(**HIDDEN)], [1.0, 100.0]),
    "+ RelationalKD": ([SOFT, losses.RelationalKD(**HIDDEN)], [1.0, 1.0]),
    "+ ProbabilisticTransfer": ([SOFT, losses.ProbabilisticTransfer(**HIDDEN)], [1.0, 10.0]),
    "+ CorrelationCongruence": ([SOFT, losses.CorrelationCongruence(**HIDDEN)], [1.0, 1.0]),
    "+ ContrastiveRepresentation": ([SOFT, losses.ContrastiveRepresentation(**HIDDEN)], [1.0, 0.5]),
}


@dataclasses.dataclass(frozen=True)
class LossTable(Record):
    """Accuracies (0 to 1) on the test part, one per seed, by row; `teacher` and `scratch` are rows as well."""

    dataset: str
    training_samples: int
    epochs: int
    accuracies: dict[str, tuple[float, ...]]
    host: HostFingerprint

    def markdown(self):
        """Returns the record as a table: teacher and scratch, then the losses by falling mean."""
        means = {name: 100 * float(np.mean(values)) for name, values in self.accuracies.items()}
        gap = means["teacher"] - means["scratch"]
        order = ["teacher", "scratch", *sorted(set(means) - {"teacher", "scratch"}, key=lambda n: -means[n])]
        seeds = len(self.accuracies["scratch"])
        lines = [
            f"## {self.dataset}: {self.training_samples:,} training images, {self.epochs} epochs of the student, {seeds} seeds",
            "",
            "| loss | accuracy, % | standard deviation | share of the gap closed |",
            "|---|---:|---:|---:|",
        ]
        for name in order:
            spread = 100 * float(np.std(self.accuracies[name], ddof=1)) if seeds > 1 else 0.0
            share = "" if name in ("teacher", "scratch") else f"{(means[name] - means['scratch']) / gap:.2f}"
            lines.append(f"| {name} | {means[name]:.2f} | {spread:.2f} | {share} |")
        return "\n".join(
            [
                *lines,
                "",
                f"On {self.host.cpu_model}, tensorflow {self.host.packages.get('tensorflow')}, keras {self.host.packages.get('keras')}.",
                "",
            ]
        )


INTRODUCTION = """# Losses under one budget

Made by `benchmarks/losses.py`: the demo's teacher and student; every row has the same seeds, number of steps, optimizer and share of the labels
(0.1). Losses of features and relations (rows that begin with +) are added to `SoftTargets(4.0)`, with the round weights that stand in the script; nothing was
tuned. With this few seeds, differences within about one standard deviation mean nothing. Losses of sequences (`AttentionMaps`, `HiddenStates`) are in
`benchmarks/sequences.py`; `BinarySoftTargets` and `TeacherBounded` are for other tasks.

## Where values differ from other code

Against torchdistill, RepDistiller, mdistiller, TextBrewer, trl and the authors' own code, values agree but for these, where the papers' formulas are kept:

| loss | here | elsewhere |
|---|---|---|
| `SoftTargets(standardize=True)` | deviation of the population, as in the paper's formula | the authors' code takes the sample's: logits are smaller by sqrt((n - 1) / n) for n classes |
| `ProbabilisticTransfer` | a sample is not its own neighbour, as in the paper's formula | the authors' code counts it as one |
| `AttentionTransfer` | sum of squares over positions; where sizes differ the maps are averaged | the authors' code takes the mean over positions; other libraries average the features before they make maps |
| `ContrastiveRepresentation` | one direction, negatives from the batch | the paper has both directions, and a memory of negatives |
| `mutual` | all peers predict a batch, then all are updated | the paper updates them in turn |

## Scales, and inputs that leave nothing to compare

Features are divided by their largest magnitude before anything is squared, so no scale from 1e-24 to 1e18 changes a loss that does not depend on scale; a zero vector has
no direction, and a gradient no larger than its neighbours'. Logarithms of probabilities keep their gradient down to 1e-30. Float16 probabilities and scores of a
student keep it down to 6e-5 only, so end such a student with a float32 layer.

A student whose last layer starts at zero has equal logits, which standardization and correlation would scale up without bound. Below a tenth of a unit (or of the
teacher's deviation, where that is less than a unit) `SoftTargets(standardize=True)` and `DIST` scale a student's logits or predictions no further.

Refused before training, with what to do instead: `standardize=True` and `DIST` (unless `beta=0.0`) for two classes; masked logits with `standardize=True`; cosines of a
single number (`Hint`, `HiddenStates`, `ContrastiveRepresentation`, `ProbabilisticTransfer`, `CorrelationCongruence`); maps of one position; first batches of fewer than three samples for `DIST`
(unless `gamma=0.0`), `RelationalKD` and `ProbabilisticTransfer`, and of one for the other relations.
"""


def measure(arguments):
    data = datasets.load(arguments.dataset)
    data = data.first(arguments.samples) if arguments.samples else data
    plan = PLANS[arguments.dataset].scaled(arguments.epochs_scale)
    path = pathlib.Path(arguments.out or f"runs/losses_{arguments.dataset}.json")
    record = LossTable.load(path) if path.exists() else None
    if record and (record.training_samples, record.epochs) != (len(data.x_train), plan.student_epochs):
        raise SystemExit(f"{path} is of {record.training_samples} images and {record.epochs} epochs; give another --out.")
    found = {name: list(values) for name, values in record.accuracies.items()} if record else {}

    def keep(name, demo):
        found.setdefault(name, []).append(demo.stages[-1].accuracy)
        record = LossTable(
            arguments.dataset, len(data.x_train), plan.student_epochs, {n: tuple(v) for n, v in found.items()}, fingerprint()
        )
        record.save(path)
        return record

    with progress("Trainings", total=arguments.seeds * (len(ROWS) + 2)) as advance:
        for seed in range(arguments.seeds):
            missing = [name for name in ROWS if len(found.get(name, ())) <= seed]
            if not missing:
                continue
            keras.backend.clear_session()
            demo = Demo(data, plan, seed, log_fn=lambda line, seed=seed: print(f"seed {seed} {line}", flush=True))
            # After an interruption the teacher of the seed is trained again, with the same result.
            demo.train_teacher()
            if len(found.get("teacher", ())) <= seed:
                keep("teacher", demo)
            advance()
            if len(found.get("scratch", ())) <= seed:
                demo.train_scratch()
                keep("scratch", demo)
            advance()
            for name in missing:
                given, weights = ROWS[name]
                demo.train_with(name, lambda t, s, g=given, w=weights: Distiller(t, s, g, w, student_loss_weight=plan.student_loss_weight))
                record = keep(name, demo)
                advance()
    print(record.markdown())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits", choices=datasets.NAMES)
    parser.add_argument("--samples", type=int, help="use so many training images only")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs-scale", type=float, default=1.0)
    parser.add_argument("--out", help="the record; defaults to runs/losses_DATASET.json")
    parser.add_argument("--tables", nargs="+", help="only print the tables of these records")
    arguments = parser.parse_args()
    if arguments.tables:
        print("\n".join([INTRODUCTION, *(LossTable.load(path).markdown() for path in arguments.tables)]))
    else:
        measure(arguments)


if __name__ == "__main__":
    main()
