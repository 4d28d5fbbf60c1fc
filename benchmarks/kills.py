"""Kills trainings with `kill -9` and starts them again: `python benchmarks/kills.py [--kills 20] [--seed 1] [--folder F] [KIND ...]`.

For each kind of training, one run is not disturbed. Another is killed at random moments, half of them while it writes a state, and started
again until it ends; then all variables of both are compared. Each run is a fork of a process that has imported everything and computed
nothing. Prints a line of JSON per kind.
"""

import argparse
import json
import os
import pathlib
import random
import select
import signal
import sys
import tempfile
import time
import traceback

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from tfdistill import BackupAndRestore, CacheOptions, Distiller, SoftTargetCache, soft_targets
from tfdistill.bridge import to_tf_keras  # noqa: F401  (imports what every fork needs)
from tfdistill.bridge.imports import tf_keras, tfmot
from tfdistill.compress import Cluster, Prune, QuantizeAware
from tfdistill.distill.backup import file
from tfdistill.losses import SoftTargets
from tfdistill.utils.files import clear_leftovers, is_temporary

N, BATCH, STEPS = 44, 8, 6
SAVE_EVERY = 2
EVENTS = {"batch": b"b", "write": b"w"}


def data():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(N, 6)).astype("float32")
    return x, (x[:, 0] > 0).astype("int32") + (x[:, 1] > 0)


class Batches(keras.utils.PyDataset):
    """The data as batches."""

    def __len__(self):
        return STEPS

    def __getitem__(self, index):
        part = slice(index * BATCH, (index + 1) * BATCH)
        return tuple(a[part] for a in data())


def net(width, name):
    inputs = keras.Input((6,))
    x = keras.layers.Dense(width, activation="relu", name="hidden")(inputs)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(keras.layers.Dropout(0.1, seed=1)(x)), name=name)


def compiled(model):
    model.compile(
        keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"], jit_compile=False
    )
    return model


def from_arrays(model, callbacks=()):
    x, y = data()
    return compiled(model), dict(x=x, y=y, batch_size=BATCH), list(callbacks)


def from_step(step, **arguments):
    return from_arrays(step.apply(net(8, "net"), **arguments), step.callbacks())


def from_cache(folder, dataset):
    teacher = net(16, "teacher")
    if not (folder / "cache" / "manifest.json").exists():
        soft_targets(
            teacher,
            data(),
            folder / "cache",
            options=CacheOptions(batch_size=BATCH, shard_elements=16, dtype="float32"),
            log_fn=lambda text: None,
        )
    cache = SoftTargetCache(folder / "cache")
    return compiled(Distiller(cache, net(8, "student"), SoftTargets(2.0))), dict(x=dataset(cache)), []


KINDS = {
    "plain": lambda folder: from_arrays(net(8, "net")),
    "pruned": lambda folder: from_step(Prune(0.5, end_step=40)),
    "clustered": lambda folder: from_step(Cluster(4)),
    "quantized": lambda folder: from_step(QuantizeAware(), dry_run=False),  # nothing is exported
    "cache": lambda folder: from_cache(folder, lambda cache: cache.join(data(), batch_size=BATCH, seed=3)),
    "PyDataset": lambda folder: from_cache(folder, lambda cache: cache.join(Batches(), seed=3)),
}


class Tell(keras.callbacks.Callback):
    """Reports each batch to the parent process."""

    def __init__(self, pipe):
        super().__init__()
        self._pipe = pipe

    def on_train_batch_end(self, batch, logs=None):
        os.write(self._pipe, EVENTS["batch"])


def train(kind, folder, epochs, end, pipe=None):
    """Runs one training, from its beginning or from the last saved state; writes all variables to `end`."""
    keras.utils.set_random_seed(11)
    model, fit, callbacks = KINDS[kind](folder)
    if pipe is not None:
        callbacks += [Tell(pipe), BackupAndRestore(folder / "backup", SAVE_EVERY)]
        write = file.write
        file.write = lambda *args: (os.write(pipe, EVENTS["write"]), write(*args))
    model.fit(**fit, epochs=epochs, callbacks=callbacks, verbose=0, shuffle=kind not in ("cache",))
    values = [v.numpy() for v in (*model.variables, *model.optimizer.variables)]
    np.savez(f"{end}.part.npz", *values)
    os.replace(f"{end}.part.npz", end)


def forked(*args):
    """Runs `train` in a fork of this process, which has computed nothing; returns its process id and the pipe of its reports."""
    reads, writes = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child:
        os.close(writes)
        return child, reads
    status = 1
    try:
        os.close(reads)
        train(*args, *([writes] if args[-1].name == "broken.npz" else []))
        status = 0
    except BaseException:
        traceback.print_exc()
    os._exit(status)


def ended(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed(child, pipe, chance):
    """Kills a run at a random moment; returns False if it ended before."""
    kind = chance.choice(list(EVENTS.values()))
    count, pause = chance.randint(1, 12 if kind == EVENTS["batch"] else 12 // SAVE_EVERY), chance.choice([0.0, chance.uniform(0, 0.004)])
    while count:
        select.select([pipe], [], [])
        found = os.read(pipe, 1)
        if not found:
            break
        count -= found == kind
    time.sleep(pause)
    if not count:
        os.kill(child, signal.SIGKILL)
    os.close(pipe)
    status = ended(child)
    if status not in (0, -signal.SIGKILL):
        raise SystemExit(f"a run ended with the status {status}")
    return status != 0


def measure(kind, folder, kills, seed):
    """Returns the result of one kind of training."""
    folder.mkdir(parents=True)
    epochs = 2 + kills * 10 // STEPS
    child, pipe = forked(kind, folder, epochs, folder / "whole.npz")
    os.close(pipe)
    if ended(child):
        raise SystemExit(f"the undisturbed run of {kind} failed")
    chance, done, writing = random.Random(f"{seed} {kind}"), 0, 0
    while done < kills and not (folder / "broken.npz").exists():
        done += killed(*forked(kind, folder, epochs, folder / "broken.npz"), chance)
        # Files that an interrupted write left.
        writing += any(is_temporary(name) for name in os.listdir(folder / "backup")) if (folder / "backup").exists() else 0
        clear_leftovers(folder / "backup")
    if not (folder / "broken.npz").exists():
        child, pipe = forked(kind, folder, epochs, folder / "broken.npz")
        with os.fdopen(pipe, "rb") as rest:
            rest.read()
        if ended(child):
            raise SystemExit(f"the last run of {kind} failed")
    with np.load(folder / "whole.npz") as whole, np.load(folder / "broken.npz") as broken:
        different = sum(not np.array_equal(whole[name], broken[name]) for name in whole.files)
        arrays = len(whole.files)
    return {"kind": kind, "epochs": epochs, "kills": done, "within_a_write": writing, "arrays": arrays, "different": different}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}; all by default")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=pathlib.Path)
    given = parser.parse_args()
    tf_keras(), tfmot()
    with tempfile.TemporaryDirectory() as made:
        for kind in given.kinds or KINDS:
            started = time.monotonic()
            found = measure(kind, (given.folder or pathlib.Path(made)) / kind, given.kills, given.seed)
            print(json.dumps({**found, "seconds": round(time.monotonic() - started, 1)}), flush=True)


if __name__ == "__main__":
    main()
