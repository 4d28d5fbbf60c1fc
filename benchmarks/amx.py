"""Times of int8 files of one layer with AMX, the matrix unit of recent Intel server processors, and without it; writes docs/amx.md.

    python benchmarks/amx.py [--seconds 1] [--page docs/amx.md]

Each layer is a float32 file and an int8 file, which run by turns in one process, once where XNNPACK may use AMX and once where it may not. On a processor without AMX the
last two columns are the same.
"""

import argparse
import pathlib

import keras
import numpy as np

from tfdistill.benchmarking.alternating import alternate
from tfdistill.host import fingerprint
from tfdistill.runtime.amx import has_amx
from tfdistill.tflite import Tolerances, export_tflite
from tfdistill.utils.files import temporary_folder, write_whole
from tfdistill.utils.progress import progress

L = keras.layers
# What is shown -> shape of the image, layer.
LAYERS = {
    **{
        f"3x3 convolution, {n} to {n} channels, 28x28": ((28, 28, n), lambda n=n: L.Conv2D(n, 3, padding="same"))
        for n in (8, 16, 32, 64, 128)
    },
    **{f"1x1 convolution, {n} to {n} channels, 14x14": ((14, 14, n), lambda n=n: L.Conv2D(n, 1)) for n in (16, 64, 256)},
    "7x7 convolution of 32 groups, 64 channels, 14x14": ((14, 14, 64), lambda: L.Conv2D(64, 7, padding="same", groups=32)),
    "3x3 transposed convolution, 16 to 16 channels, 28x28": ((28, 28, 16), lambda: L.Conv2DTranspose(16, 3, padding="same", strides=2)),
    "dense, 1024 to 1024": ((1024,), lambda: L.Dense(1024)),
}


def times(name, folder, seconds):
    """Returns the milliseconds of the float32 file, and of the int8 file with AMX and without."""
    shape, layer = LAYERS[name]
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input(shape, name="x"), layer()])
    x = np.random.default_rng(0).normal(size=(32, *shape)).astype("float32")
    whole = export_tflite(model, folder / "float32.tflite").path
    integers = export_tflite(model, folder / "int8.tflite", "int8", calibration=x, tolerances=Tolerances()).path
    with_amx, without = (alternate(whole, integers, seconds=seconds, amx=amx).p50_ms for amx in (True, False))
    return without[0], with_amx[1], without[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--page", type=pathlib.Path, default=pathlib.Path("docs/amx.md"))
    arguments = parser.parse_args()
    host = fingerprint()
    lines = [
        "# int8 with AMX and without",
        "",
        "AMX is the matrix unit of recent Intel server processors. XNNPACK runs int8 convolutions and dense layers on it wherever the kernel grants it, whatever their size. No",
        "phone or board has it, so `Cpu(amx=False)` measures without it, and so do docs/coverage.md, docs/recurrent.md and docs/variants.md. Median times of one run in milliseconds, one thread; the files run by",
        "turns. Made by `benchmarks/amx.py`.",
        "",
        "| one layer | float32 | int8 with AMX | int8 without | with / without |",
        "|---|---:|---:|---:|---:|",
    ]
    with temporary_folder() as folder, progress("Layers", total=len(LAYERS)) as advance:
        for name in LAYERS:
            whole, with_amx, without = times(name, folder, arguments.seconds)
            lines.append(f"| {name} | {whole:.4f} | {with_amx:.4f} | {without:.4f} | {with_amx / without:.2f} |")
            advance()
    lines += ["", f"On {host.packages_line()}.{'' if has_amx() else ' This processor has no AMX.'}", ""]
    with write_whole(arguments.page) as beside:
        beside.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
