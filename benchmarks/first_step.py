"""Processor time of quantization-aware training of two GRUs: until the first step, of a later one, and of the file, whose steps are written out.

python benchmarks/first_step.py [--steps 24 48] [--layer GRU] [--units 16]

Gives the numbers that the plan of `QuantizeAware` estimates with (`compress/quantize/scheme.py`). Processor time, as it is the same on a machine that is busy.
"""

import argparse
import time

import keras
import numpy as np

from tfdistill.compress import QuantizeAware
from tfdistill.tflite import export_tflite
from tfdistill.utils.files import temporary_folder

FEATURES, SAMPLES, CLASSES, LAYERS, LATER = 8, 64, 4, 2, 20


def clocked(function, *args):
    """Returns what the function returns and the processor time it took, in seconds."""
    began = time.process_time()
    found = function(*args)
    return found, time.process_time() - began


def measure(layer, steps, units):
    """Returns a dict of what is done to its seconds, and the size of the file in bytes."""
    keras.utils.set_random_seed(0)
    hidden = [layer(units, return_sequences=i < LAYERS - 1) for i in range(LAYERS)]
    model = keras.Sequential([keras.Input((steps, FEATURES)), *hidden, keras.layers.Dense(CLASSES)])
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(SAMPLES, steps, FEATURES)).astype("float32"), rng.integers(0, CLASSES, SAMPLES)
    quantize, seconds = QuantizeAware(), {}
    quantized, seconds["apply"] = clocked(quantize.apply, model)
    quantized.compile(keras.optimizers.SGD(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    _, seconds["first step"] = clocked(quantized.train_on_batch, x, y)
    _, total = clocked(lambda: [quantized.train_on_batch(x, y) for _ in range(LATER)])
    seconds["a later step"] = total / LATER
    _, seconds["first evaluation"] = clocked(quantized.test_on_batch, x, y)
    with temporary_folder() as folder:
        exported = quantize.strip(quantized), folder / "quantized.tflite", "int8"
        record, seconds["export"] = clocked(lambda: export_tflite(*exported, verify_on=(x, y)))
    return seconds, record.size_bytes


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[24, 48])
    parser.add_argument("--layer", choices=["GRU", "LSTM", "SimpleRNN"], default="GRU")
    parser.add_argument("--units", type=int, default=16)
    options = parser.parse_args()
    for steps in options.steps:
        seconds, size = measure(getattr(keras.layers, options.layer), steps, options.units)
        times = ", ".join(f"{what} {found:.2f} s" for what, found in seconds.items())
        print(f"{LAYERS} {options.layer} of {steps} steps: {times}; {size:,} bytes", flush=True)


if __name__ == "__main__":
    main()
