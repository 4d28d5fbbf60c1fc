"""Pruning, clustering and quantization-aware training (QAT) combined: accuracy and size of each combination, with and without a teacher.

    python benchmarks/combinations.py [--samples 10000] [--seeds 3] [--out runs/combinations.json]
    python benchmarks/combinations.py --table runs/combinations.json    # only prints the table of a record

On Fashion-MNIST. Per seed one student is distilled and then compressed in four ways: QAT, prune then QAT (PQAT), cluster then QAT (CQAT),
and prune, cluster, then QAT (PCQAT). A step has the same number of epochs in all of them. Each is trained twice: with the cached outputs of
the teacher, and on the labels alone. The zeros and clusters of every earlier step are checked on the quantized model and on the int8 file.
Sizes are those of the file, and of the file after gzip.
"""

import argparse
import dataclasses
import gzip
import pathlib
import tempfile

import keras
import numpy as np

from tfdistill import export_tflite
from tfdistill.compress import Cluster, Prune, QuantizeAware
from tfdistill.demo import datasets
from tfdistill.demo.run import Demo, Plan, accuracy, steps_per_epoch
from tfdistill.host import HostFingerprint, fingerprint
from tfdistill.records import Record
from tfdistill.tflite import check_preserved_structure
from tfdistill.utils.progress import progress

PLAN = Plan(teacher_epochs=5, student_epochs=8, pruning_epochs=4, quantizing_epochs=2)
CLUSTERING_EPOCHS = 2
SPARSITY, CLUSTERS = 0.6, 16
WAYS = {"QAT": (), "PQAT": ("prune",), "CQAT": ("cluster",), "PCQAT": ("prune", "cluster")}


@dataclasses.dataclass(frozen=True)
class Combination(Record):
    """The result of one way to compress, for one seed.

    Attributes:
        way: `float32`, `QAT`, `PQAT`, `CQAT` or `PCQAT`.
        taught: Whether the student learned from the teacher.
        seed: Seed.
        keras_accuracy: Accuracy (0 to 1) of the Keras model on the test part.
        file_accuracy: That of the file.
        size_bytes: The file's size.
        gzip_bytes: Its size after gzip.
    """

    way: str
    taught: bool
    seed: int
    keras_accuracy: float
    file_accuracy: float
    size_bytes: int
    gzip_bytes: int


@dataclasses.dataclass(frozen=True)
class Combinations(Record):
    """The results of all ways and seeds, and the machine on which they were measured."""

    training_samples: int
    runs: tuple[Combination, ...]
    host: HostFingerprint

    def markdown(self):
        """Returns the record as a table. Points are percentage points of accuracy against QAT alone, with or without teacher alike."""
        seeds = len({run.seed for run in self.runs})
        lines = [
            f"Fashion-MNIST, {self.training_samples:,} training images, {seeds} seeds; {SPARSITY:.0%} zeros, {CLUSTERS} clusters.",
            "",
            "| way | teacher | Keras, % | int8 file, % | points against QAT | file, KiB | gzip, KiB |",
            "|---|---|---:|---:|---:|---:|---:|",
        ]
        for way, taught in dict.fromkeys((run.way, run.taught) for run in self.runs):
            own, alone = self._of(way, taught), self._of("QAT", taught)
            against = (
                ""
                if way in ("float32", "QAT")
                else _spread([100 * (a.file_accuracy - b.file_accuracy) for a, b in zip(own, alone, strict=True)])
            )
            lines.append(
                f"| {way} | {'on' if taught else 'off'} | {_spread([100 * r.keras_accuracy for r in own])} "
                f"| {_spread([100 * r.file_accuracy for r in own])} | {against} "
                f"| {np.mean([r.size_bytes for r in own]) / 1024:.1f} | {np.mean([r.gzip_bytes for r in own]) / 1024:.1f} |"
            )
        return "\n".join([*lines, "", f"Mean and standard deviation over the seeds, on {self.host.cpu_model}.", ""])

    def _of(self, way, taught):
        return sorted((r for r in self.runs if (r.way, r.taught) == (way, taught)), key=lambda r: r.seed)


def _spread(values):
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=1) if len(values) > 1 else 0:.2f}"


class Compression:
    """Compresses one student in all ways, with or without the teacher. A stage that two ways share is trained once."""

    def __init__(self, demo, student, taught):
        self.demo, self.taught = demo, taught
        self.stages = {(): (student, [])}

    def _train(self, name, step, model, epochs):
        applied = step.apply(model)
        train = self.demo.distil if self.taught else self.demo.fit
        train(name, applied, self.demo.plan.fine_tuning_rate, epochs, step.callbacks())
        return applied

    def shrunk(self, stages):
        """Returns the model after some stages, and the steps whose invariants (zeros, clusters) it keeps."""
        if stages not in self.stages:
            model, steps = self.shrunk(stages[:-1])
            plan = self.demo.plan
            if stages[-1] == "prune":
                batches = steps_per_epoch(len(self.demo.data.x_train))
                step, epochs = Prune.for_training(batches, plan.pruning_epochs, sparsity=SPARSITY), plan.pruning_epochs
            else:
                step, epochs = Cluster(CLUSTERS), CLUSTERING_EPOCHS
            stripped = step.strip(self._train("+".join(stages), step, model, epochs))
            for kept in (*steps, step):
                kept.check(stripped)
            self.stages[stages] = stripped, [*steps, step]
        return self.stages[stages]

    def quantized(self, way):
        """Returns the quantization-aware model of a way, with the invariants of all its steps checked."""
        model, steps = self.shrunk(WAYS[way])
        step = QuantizeAware()
        quantized = self._train(way, step, model, self.demo.plan.quantizing_epochs)
        for kept in (*steps, step):
            kept.check(quantized)
        return step.strip(quantized)


def exported(model, data, variant, preserved):
    """Exports and, if `preserved`, checks the file's zeros and clusters; returns (accuracy of the file, bytes, bytes after gzip)."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.tflite"
        record = export_tflite(model, path, variant, calibration=data.x_train[:256], verify_on=(data.x_test, data.y_test))
        if preserved:
            check_preserved_structure(path, model)
        content = path.read_bytes()
    return record.accuracy, len(content), len(gzip.compress(content, 9, mtime=0))


def measure(arguments):
    data = datasets.load("fashion-mnist").first(arguments.samples)
    runs = []

    def note(way, taught, seed, model, variant):
        run = Combination(
            way, taught, seed, accuracy(model, data.x_test, data.y_test), *exported(model, data, variant, preserved=bool(WAYS.get(way)))
        )
        print(
            f"seed {seed} {way:<8} teacher {'on ' if taught else 'off'} {100 * run.file_accuracy:.2f} %, {run.gzip_bytes} bytes", flush=True
        )
        runs.append(run)
        Combinations(len(data.x_train), tuple(runs), fingerprint()).save(arguments.out)

    with progress("Ways", total=arguments.seeds * 2 * len(WAYS)) as advance, tempfile.TemporaryDirectory() as caches:
        for seed in range(arguments.seeds):
            keras.backend.clear_session()
            demo = Demo(data, PLAN, seed, log_fn=lambda line: None)
            demo.train_teacher()
            demo.cache_teacher(pathlib.Path(caches) / str(seed))
            student = demo.train_distilled()
            note("float32", True, seed, student, "float32")
            for taught in (True, False):
                compression = Compression(demo, student, taught)
                for way in WAYS:
                    note(way, taught, seed, compression.quantized(way), "int8")
                    advance()
    return Combinations.load(arguments.out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", default="runs/combinations.json")
    parser.add_argument("--table", help="only print the table of this record")
    arguments = parser.parse_args()
    record = Combinations.load(arguments.table) if arguments.table else measure(arguments)
    print(record.markdown())


if __name__ == "__main__":
    main()
