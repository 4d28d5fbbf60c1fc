"""Cost of the bridge: seconds to rebuild a model in tf_keras and to make it quantization-aware, and the peak of memory.

    python benchmarks/bridge.py [--rounds 5] [--out runs/bridge.json]

Times are medians in one process, after one round that is not counted; memory is the growth of the largest resident set in a process of its
own, which has built the model before, beside the bytes of its weights.
"""

import argparse
import dataclasses
import subprocess
import sys
import time

import keras
import numpy as np

from tfdistill.benchmarking.process_memory import peak_bytes, reset_peak
from tfdistill.bridge import to_tf_keras
from tfdistill.compress import QuantizeAware
from tfdistill.host import HostFingerprint, fingerprint
from tfdistill.records import Record
from tfdistill.utils.progress import track


@dataclasses.dataclass(frozen=True)
class BridgeCosts(Record):
    """Median seconds by model; for the large one, the growth of the memory's peak and the size of its weights in bytes."""

    bridging_seconds: dict[str, float]
    quantizing_seconds: dict[str, float]
    peak_growth_bytes: int
    weights_bytes: int
    host: HostFingerprint


def small():
    return keras.applications.MobileNetV2(weights=None, input_shape=(224, 224, 3))


def large():
    """25.6 million parameters."""
    return keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3))


def grown():
    """In a process of its own, rebuilds the large model; prints the growth of the largest resident set and the bytes of the weights."""
    to_tf_keras(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))  # loads tf_keras
    model = large()
    reset_peak()
    before = peak_bytes()
    to_tf_keras(model)
    print(peak_bytes() - before, 4 * model.count_params())


def seconds(act, rounds, description):
    act()
    found = []
    for _ in track(range(rounds), description):
        began = time.perf_counter()
        act()
        found.append(time.perf_counter() - began)
        keras.backend.clear_session()
    return float(np.median(found))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", default="runs/bridge.json")
    parser.add_argument("--grown", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.grown:
        grown()
        return
    model = small()
    bridging = {"MobileNetV2": seconds(lambda: to_tf_keras(model), arguments.rounds, "Bridging")}
    quantizing = {"MobileNetV2": seconds(lambda: QuantizeAware().apply(model), max(1, arguments.rounds // 2), "Making quantization-aware")}
    told = subprocess.run([sys.executable, __file__, "--grown"], capture_output=True, text=True, check=True).stdout.split()
    record = BridgeCosts(bridging, quantizing, int(told[-2]), int(told[-1]), fingerprint())
    record.save(arguments.out)
    print(f"{record.host.cpu_model}, medians of {arguments.rounds} rounds")
    print(f"bridging MobileNetV2, compared on random input: {bridging['MobileNetV2']:.2f} s (at most 3)")
    print(f"making MobileNetV2 quantization-aware: {quantizing['MobileNetV2']:.2f} s")
    print(
        f"bridging ResNet50: {record.peak_growth_bytes / 1e6:.0f} MB beside {record.weights_bytes / 1e6:.0f} MB of weights, "
        f"{record.peak_growth_bytes / record.weights_bytes:.2f} times (at most 2)"
    )


if __name__ == "__main__":
    main()
