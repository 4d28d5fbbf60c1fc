"""Runs a step on a model of 57 MB in this process, and prints the growth of the largest resident set beside the bytes of its weights: `memory_job.py STEP`."""

import sys

import keras

import tfdistill
from tfdistill.benchmarking.process_memory import peak_bytes, reset_peak
from tfdistill.compress import LowRank, PruneChannels


def net(channels, layers):
    """Convolutions on images so small that the weights are nearly all of the memory."""
    convolutions = [keras.layers.Conv2D(channels, 3, padding="same", activation="relu", name=f"conv_{i}") for i in range(layers)]
    head = [keras.layers.GlobalAveragePooling2D(name="pool"), keras.layers.Dense(8, name="logits")]
    return keras.Sequential([keras.Input((4, 4, channels), name="image"), *convolutions, *head], name="net")


STEPS = {
    "to_tf_keras": tfdistill.to_tf_keras,
    "to_keras": tfdistill.to_keras,
    "channels": lambda model: PruneChannels(keep_macs=0.5).apply(model),
    "low_rank": lambda model: LowRank(keep_parameters=0.5).apply(model),
}


def main(name):
    """Prints both numbers of bytes."""
    step = STEPS[name]

    def given(model):
        return tfdistill.to_tf_keras(model) if name == "to_keras" else model

    step(given(net(16, 2)))  # what is loaded at the first use is no part of it
    model = given(net(512, 6))
    reset_peak()
    before = peak_bytes()
    step(model)
    print(peak_bytes() - before, 4 * model.count_params())


if __name__ == "__main__":
    main(sys.argv[1])
