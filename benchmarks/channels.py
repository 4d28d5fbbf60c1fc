"""Cost of channel pruning: seconds to plan, rebuild and compare a model, and the peak of memory.

    python benchmarks/channels.py [--keep-macs 0.5] [--out runs/channels.json]

Every model has random weights and inputs of 224 x 224, and is pruned in a process of its own; memory is the growth of the largest resident set, beside the
bytes of the model's weights.
"""

import argparse
import dataclasses
import json
import pathlib
import subprocess
import sys
import time

import keras

import tfdistill
from tfdistill.benchmarking.process_memory import peak_bytes, reset_peak
from tfdistill.compress import PruneChannels
from tfdistill.host import HostFingerprint, fingerprint
from tfdistill.records import Record

MODELS = ("MobileNetV2", "ResNet50")


@dataclasses.dataclass(frozen=True)
class ChannelCost(Record):
    """Cost of pruning one model.

    Attributes:
        wall_seconds: Time of `PruneChannels.apply`.
        cpu_seconds: Processor time of it, on all cores.
        peak_growth_bytes: Growth of the largest resident set.
        weights_bytes: Bytes of the model's weights.
        macs: Multiply-accumulates before.
        pruned_macs: Multiply-accumulates afterwards.
    """

    wall_seconds: float
    cpu_seconds: float
    peak_growth_bytes: int
    weights_bytes: int
    macs: int
    pruned_macs: int


@dataclasses.dataclass(frozen=True)
class ChannelCosts(Record):
    """Cost of pruning by model, and where it was measured."""

    models: dict[str, ChannelCost]
    host: HostFingerprint


def prune(name, keep_macs):
    """Prunes one model in this process; returns a `ChannelCost`."""
    model = getattr(keras.applications, name)(weights=None)
    step = PruneChannels(keep_macs=keep_macs)
    # What is loaded at the first use is no part of the cost.
    step.apply(keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(32, 3, name="first"), keras.layers.Conv2D(16, 3)]))
    reset_peak()
    before, wall, cpu = peak_bytes(), time.perf_counter(), time.process_time()
    small = step.apply(model)
    wall, cpu, grown = time.perf_counter() - wall, time.process_time() - cpu, peak_bytes() - before
    return ChannelCost(wall, cpu, grown, 4 * model.count_params(), tfdistill.profile(model).macs, tfdistill.profile(small).macs)


def main():
    """Prunes every model in a process of its own, and prints and saves the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep-macs", type=float, default=0.5)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/channels.json"))
    parser.add_argument("--model", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.model:
        print(json.dumps(prune(arguments.model, arguments.keep_macs).to_dict()))
        return
    costs = {}
    for name in MODELS:
        command = [sys.executable, __file__, "--model", name, "--keep-macs", str(arguments.keep_macs)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        costs[name] = ChannelCost.from_dict(json.loads(done.stdout.splitlines()[-1]))
    record = ChannelCosts(costs, fingerprint())
    record.save(arguments.out)
    print(record)


if __name__ == "__main__":
    main()
