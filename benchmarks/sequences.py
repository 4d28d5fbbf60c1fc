"""Distils a transformer of six blocks to one of three, on digits as sequences of eight rows of eight values.

    python benchmarks/sequences.py [--seeds 3] [--out runs/sequences.json]

The student, half as wide, is trained from scratch, on soft targets, and on soft targets with the attention maps and hidden states of every
other block of the teacher: same seeds, steps and optimizer.
"""

import argparse
import dataclasses

import keras
import numpy as np

from tfdistill import Distiller
from tfdistill.demo import datasets, models
from tfdistill.demo.run import Demo, Plan
from tfdistill.host import HostFingerprint, fingerprint
from tfdistill.losses import AttentionMaps, HiddenStates, SoftTargets
from tfdistill.records import Record

PLAN = Plan(teacher_epochs=30, student_epochs=30, pruning_epochs=1, quantizing_epochs=1, rate=2e-3)
# Block of the teacher, block of the student.
BLOCKS = [(2, 1), (4, 2), (6, 3)]


@dataclasses.dataclass(frozen=True)
class Sequences(Record):
    """Accuracies (0 to 1) on the test part, one per seed, by way of training."""

    accuracies: dict[str, tuple[float, ...]]
    host: HostFingerprint


def teacher(shape, classes):
    return models.transformer(shape, classes, blocks=6, width=48, heads=4, name="teacher")


def student(shape, classes):
    return models.transformer(shape, classes, blocks=3, width=24, heads=4, name="student")


def everything():
    """Soft targets, attention maps and hidden states, with their weights."""
    pairs = [(AttentionMaps(f"attention_{t}", f"attention_{s}"), 10.0) for t, s in BLOCKS]
    pairs += [(HiddenStates(f"block_{t}", f"block_{s}"), 0.1) for t, s in BLOCKS]
    return [SoftTargets(4.0), *[loss for loss, _ in pairs]], [1.0, *[weight for _, weight in pairs]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", default="runs/sequences.json")
    arguments = parser.parse_args()
    data, found = datasets.digits(), {}
    for seed in range(arguments.seeds):
        keras.backend.clear_session()
        demo = Demo(
            data, PLAN, seed, log_fn=lambda line, seed=seed: print(f"seed {seed} {line}", flush=True), teacher=teacher, student=student
        )
        demo.train_teacher()
        demo.train_scratch()
        demo.train_with("soft targets", lambda t, s: Distiller(t, s, SoftTargets(4.0), student_loss_weight=PLAN.student_loss_weight))
        demo.train_with(
            "soft targets, attention, hidden", lambda t, s: Distiller(t, s, *everything(), student_loss_weight=PLAN.student_loss_weight)
        )
        for stage in demo.stages:
            found.setdefault(stage.name, []).append(stage.accuracy)
    record = Sequences({name: tuple(values) for name, values in found.items()}, fingerprint())
    print(f"\n{arguments.seeds} seeds, {record.host.cpu_model}")
    for name, values in found.items():
        print(f"{name:<34} {100 * np.mean(values):6.2f} +- {100 * np.std(values, ddof=1) if len(values) > 1 else 0:4.2f}")
    record.save(arguments.out)


if __name__ == "__main__":
    main()
