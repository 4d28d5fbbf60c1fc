"""Cost of a soft-target cache: epochs that read it, writing it, memory of reading it, its size, and two labelling workers against one.

    python benchmarks/soft_targets.py [--rounds 9] [--out runs/soft_targets.json] [--ray]

All figures are medians over rounds in one process. Epochs are those of `student.fit` on arrays, of a Distiller with the cache, and of a
Distiller with the teacher, each after two warm-up epochs; ratios are taken within a round. Memory is the largest resident set of a separate
process that reads one epoch. `--ray` adds labelling with one and with two workers of one thread each.
"""

import argparse
import dataclasses
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import keras
import numpy as np

from tfdistill.benchmarking.process_memory import peak_bytes
from tfdistill.distill import Distiller
from tfdistill.distill.cache.build import soft_targets
from tfdistill.distill.cache.options import CacheOptions
from tfdistill.distill.cache.reader import SoftTargetCache
from tfdistill.host import HostFingerprint, fingerprint
from tfdistill.losses import SoftTargets
from tfdistill.records import Record
from tfdistill.utils.progress import track

ELEMENTS, SIDE, CLASSES, BATCH = 8192, 16, 10, 64
READ = (10_000, 100_000)


@dataclasses.dataclass(frozen=True)
class SoftTargetFigures(Record):
    """Seconds of every round, and the figures that the module's docstring describes."""

    epoch_seconds: dict[str, tuple[float, ...]]
    cached_to_student: float
    live_to_student: float
    writing_to_predicting: float
    reading_peak_bytes: dict[str, int]
    reading_growth_bytes: int
    cache_60000_bytes: int
    two_workers_speedup: float | None
    host: HostFingerprint


def net(width, name, side=SIDE):
    x = inputs = keras.Input((side, side, 1))
    for factor in (1, 2):
        x = keras.layers.Conv2D(width * factor, 3, strides=factor, padding="same", activation="relu")(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES)(keras.layers.Flatten()(x)), name=name)


def images(count, side=SIDE):
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, side, side, 1)).astype("float32"), rng.integers(CLASSES, size=count).astype("int32")


def cross_entropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def timed(act):
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def epochs(teacher, cache, x, y, rounds):
    """Returns the seconds of one epoch in each round: of the student alone, with the cache, and with the teacher."""
    contestants = {"student.fit": None, "from the cache": cache, "with the teacher": teacher}
    runs = {}
    for name, source in contestants.items():
        keras.utils.set_random_seed(0)
        model = net(8, "student")
        if source is not None:
            model = Distiller(source, model, SoftTargets(4.0), student_loss_weight=0.1)
        model.compile(keras.optimizers.Adam(1e-3), loss=cross_entropy(), metrics=["accuracy"])
        if source is cache:
            joined = cache.join((x, y), batch_size=BATCH)
            runs[name] = lambda model=model, joined=joined: model.fit(joined, verbose=0, shuffle=False)
        else:
            runs[name] = lambda model=model: model.fit(x, y, batch_size=BATCH, verbose=0)
    for run in runs.values():
        run(), run()
    seconds = {name: [] for name in runs}
    for number in track(range(rounds), "Epochs"):
        for name in np.roll(list(runs), number):
            seconds[name].append(timed(runs[name]))
    return seconds


def writing(teacher, x, rounds, folder):
    """Returns the time of `teacher.predict` divided by that of writing the cache, in batches of 256, as median of the rounds."""
    ratios = []
    for number in range(rounds + 1):
        wrote = timed(lambda number=number: soft_targets(teacher, x, folder / f"written_{number}", options=CacheOptions(batch_size=256)))
        predicted = timed(lambda: teacher.predict(x, batch_size=256, verbose=0))
        ratios.append(predicted / wrote)
    return float(np.median(ratios[1:]))


def read_epoch(directory):
    """Runs in a process of its own: reads one epoch of the cache, with tiny inputs, and prints the peak of its memory in bytes."""
    cache = SoftTargetCache(directory)
    for _ in cache.join(numbers(cache.elements), batch_size=BATCH):
        pass
    print(peak_bytes())


def numbers(count):
    return np.arange(count, dtype="float32")[:, None]


def tiny_teacher():
    return keras.Sequential([keras.Input((1,)), keras.layers.Dense(CLASSES)], name="tiny")


def labelling_data():
    return images(3072, 48)[0]


def labelling(folder):
    """Returns the shards per second of two workers divided by those of one, without starting Ray and loading teachers."""
    from tfdistill.distill.cache.ray_workers import label_with_ray

    path = folder / "heavy.keras"
    net(96, "heavy", 48).save(path)
    rates = []
    for workers in (1, 2):
        directory = folder / f"by_{workers}"
        label_with_ray(path, labelling_data, directory, 24, workers=workers, options=CacheOptions(batch_size=64))
        ends = sorted(p.stat().st_mtime for p in directory.glob("*.tfrecord"))
        rates.append((len(ends) - workers) / (ends[-1] - ends[workers - 1]))
    return rates[1] / rates[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", default="runs/soft_targets.json")
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--read", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        read_epoch(arguments.read)
        return

    folder = pathlib.Path(tempfile.mkdtemp(prefix="soft_targets_"))
    try:
        record = measured(folder, arguments)
    finally:
        shutil.rmtree(folder)
    for name, seconds in record.epoch_seconds.items():
        print(f"{name:<18} {1000 * np.median(seconds):8.1f} ms per epoch")
    print(f"from the cache to student.fit: {record.cached_to_student:.3f} (at most 1.10)")
    print(f"with the teacher to student.fit: {record.live_to_student:.3f}")
    print(f"writing against predict: {record.writing_to_predicting:.3f} of its throughput (at least 0.9)")
    print(f"memory of reading, {READ[0]} to {READ[1]} elements: {record.reading_growth_bytes / 1e6:+.1f} MB (below 50)")
    print(f"60,000 x 10 logits in float16: {record.cache_60000_bytes / 1e6:.3f} MB (at most 1.3)")
    if record.two_workers_speedup:
        print(f"two labelling workers against one: {record.two_workers_speedup:.2f} times (at least 1.6)")
    record.save(arguments.out)


def measured(folder, arguments):
    x, y = images(ELEMENTS)
    teacher = net(48, "teacher")
    ratio = writing(teacher, x, max(3, arguments.rounds // 2), folder)
    cache = soft_targets(teacher, x, folder / "epochs")
    seconds = epochs(teacher, cache, x, y, arguments.rounds)
    peaks = {}
    for count in READ:
        soft_targets(tiny_teacher(), numbers(count), folder / f"read_{count}")
        command = [sys.executable, __file__, "--read", str(folder / f"read_{count}")]
        peaks[str(count)] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])
    soft_targets(tiny_teacher(), numbers(60_000), folder / "size")
    alone = np.array(seconds["student.fit"])
    return SoftTargetFigures(
        epoch_seconds={name: tuple(values) for name, values in seconds.items()},
        cached_to_student=float(np.median(np.array(seconds["from the cache"]) / alone)),
        live_to_student=float(np.median(np.array(seconds["with the teacher"]) / alone)),
        writing_to_predicting=ratio,
        reading_peak_bytes=peaks,
        reading_growth_bytes=peaks[str(READ[1])] - peaks[str(READ[0])],
        cache_60000_bytes=sum(p.stat().st_size for p in (folder / "size").iterdir()),
        two_workers_speedup=labelling(folder) if arguments.ray else None,
        host=fingerprint(),
    )


if __name__ == "__main__":
    main()
