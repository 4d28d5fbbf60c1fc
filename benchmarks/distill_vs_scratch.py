"""Compares the demo's student from scratch with those of tfdistill's and Keras's Distiller: same seeds, steps and optimizer.

    python benchmarks/distill_vs_scratch.py [--dataset digits] [--samples N] [--seeds 5] [--out runs/distill_vs_scratch.json]

The teacher is trained once per seed. Accuracies are of the test part, with mean and standard deviation over the seeds.
"""

import argparse
import dataclasses
import warnings

import keras
import numpy as np

from tfdistill import Distiller
from tfdistill.demo import datasets
from tfdistill.demo.run import PLANS, Demo
from tfdistill.host import HostFingerprint, fingerprint
from tfdistill.losses import SoftTargets
from tfdistill.records import Record
from tfdistill.utils.progress import progress


@dataclasses.dataclass(frozen=True)
class Row(Record):
    """Accuracies (0 to 1) of one way to train, one per seed."""

    name: str
    accuracies: tuple[float, ...]

    def __str__(self):
        values = 100 * np.array(self.accuracies)
        each = " ".join(f"{v:.1f}" for v in values)
        return f"{self.name:<44} {values.mean():6.2f} +- {values.std(ddof=1) if len(values) > 1 else 0:4.2f}   {each}"


@dataclasses.dataclass(frozen=True)
class Table(Record):
    dataset: str
    training_samples: int
    seeds: int
    rows: tuple[Row, ...]
    host: HostFingerprint


def ways(plan):
    """Returns name -> function of teacher and student that makes a distiller."""
    temperature, share = plan.temperature, plan.student_loss_weight
    keras_loss = keras.distillation.LogitsDistillation

    def keras_default(teacher, student):
        return keras.distillation.Distiller(teacher, student, keras_loss(temperature), student_loss_weight=share)

    def keras_kl(teacher, student):
        loss = keras_loss(temperature, loss=keras.losses.KLDivergence())
        return keras.distillation.Distiller(teacher, student, loss, student_loss_weight=share)

    def ours(teacher, student):
        return Distiller(teacher, student, SoftTargets(temperature), student_loss_weight=share)

    return {
        f"tfdistill, SoftTargets({temperature})": ours,
        "keras.distillation, KLDivergence()": keras_kl,
        "keras.distillation, its default loss": keras_default,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits", choices=datasets.NAMES)
    parser.add_argument("--samples", type=int, help="use so many training images only")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", default="runs/distill_vs_scratch.json")
    arguments = parser.parse_args()

    data = datasets.load(arguments.dataset)
    data = data.first(arguments.samples) if arguments.samples else data
    plan = PLANS[arguments.dataset]
    found = {}

    def keep(demo):
        found.setdefault(demo.stages[-1].name, []).append(demo.stages[-1].accuracy)

    with progress("Seeds", total=arguments.seeds) as advance:
        for seed in range(arguments.seeds):
            keras.backend.clear_session()
            demo = Demo(data, plan, seed, log_fn=lambda line, seed=seed: print(f"seed {seed} {line}", flush=True))
            demo.train_teacher()
            keep(demo)
            demo.train_scratch()
            keep(demo)
            for name, way in ways(plan).items():
                demo.train_with(name, way)
                keep(demo)
            advance()
    table = Table(arguments.dataset, len(data.x_train), arguments.seeds, tuple(Row(n, tuple(a)) for n, a in found.items()), fingerprint())
    print(f"\n{table.dataset}, {table.training_samples} training images, {table.seeds} seeds, {table.host.cpu_model}")
    for row in table.rows:
        print(row)
    table.save(arguments.out)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="keras.distillation.LogitsDistillation")
    main()
