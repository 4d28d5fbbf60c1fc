"""Writes caches in processes that are killed: `python soft_targets_job.py FOLDER ROUNDS SEED`.

TensorFlow is imported once, and each writer is a fork made before TensorFlow did anything. In FOLDER/undisturbed lies the cache of a run that nobody
disturbed; in FOLDER/killed_N that of a run which was killed at a random moment, and started again until it was done.
"""

import os
import pathlib
import random
import signal
import sys
import time

import keras
import numpy as np

from tfdistill.distill.cache.build import soft_targets
from tfdistill.distill.cache.options import CacheOptions

ELEMENTS, SHARD, BATCH = 4096, 64, 32


def teacher():
    """The same weights in every process."""
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(24, activation="relu"), keras.layers.Dense(5)])
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(size=w.shape).astype("float32") for w in model.weights])
    return model


def write(directory):
    x = np.random.default_rng(2).normal(size=(ELEMENTS, 6)).astype("float32")
    soft_targets(teacher(), x, directory, options=CacheOptions(batch_size=BATCH, shard_elements=SHARD))


def forked(directory):
    child = os.fork()
    if child == 0:
        try:
            write(directory)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return child


def wait_for(path, child):
    while not path.exists():
        time.sleep(0.002)
        done, _ = os.waitpid(child, os.WNOHANG)
        if done:
            return


def main():
    folder, rounds, chance = pathlib.Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
    undisturbed = folder / "undisturbed"
    child = forked(undisturbed)
    wait_for(undisturbed / "plan.json", child)
    began = time.monotonic()
    _, status = os.waitpid(child, 0)
    if status:
        sys.exit("the undisturbed run failed")
    seconds = time.monotonic() - began
    middle = 0
    for number in range(rounds):
        directory = folder / f"killed_{number}"
        child = forked(directory)
        wait_for(directory / "plan.json", child)
        time.sleep(chance.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        middle += not (directory / "manifest.json").exists()
        _, status = os.waitpid(forked(directory), 0)
        if status:
            sys.exit(f"run {number} did not go on")
    print(middle)


if __name__ == "__main__":
    main()
