"""Size and latency of GRU and LSTM as integer files, whose steps are written out, against float32; writes docs/recurrent.md.

python benchmarks/recurrent.py [--steps 128] [--units 32] [--records runs/recurrent] [--page docs/recurrent.md]
"""

import argparse
import dataclasses
import pathlib

import keras
import numpy as np

from tfdistill.benchmarking.alternating import alternate
from tfdistill.host import HostFingerprint, fingerprint
from tfdistill.records import Record
from tfdistill.tflite import Tolerances, export_tflite
from tfdistill.utils.files import temporary_folder, write_whole
from tfdistill.utils.progress import track

FEATURES, SAMPLES = 16, 64
LAYERS = {"GRU": keras.layers.GRU, "LSTM": keras.layers.LSTM}


@dataclasses.dataclass(frozen=True)
class RecurrentFiles(Record):
    """The files of one recurrent layer and a dense layer behind it.

    Attributes:
        layer: Class of the layer.
        steps: Length of the sequence.
        float_bytes: Size of the float32 file.
        int8_bytes: Size of the int8 file, by calibration alone.
        step_bytes: What each step adds to the int8 file, against one of half as many steps.
        float_ms: Median time of the float32 file in milliseconds, one thread, alternating with the int8 file.
        int8_ms: The same of the int8 file.
        error: Mean absolute difference of the int8 file to the Keras model on other samples, as a share of the output's range.
        operations: Number of operations in the int8 file.
        host: Machine and package versions.
    """

    layer: str
    steps: int
    float_bytes: int
    int8_bytes: int
    step_bytes: float
    float_ms: float
    int8_ms: float
    error: float
    operations: int
    host: HostFingerprint


def sequences(steps, seed):
    """Random walks, slow and fast ones."""
    rng = np.random.default_rng(seed)
    walks = np.cumsum(rng.normal(size=(SAMPLES, steps, FEATURES)), axis=1) * rng.uniform(0.05, 0.3, (SAMPLES, 1, FEATURES))
    return walks.astype("float32")


def model_of(layer, steps, units):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((steps, FEATURES)), LAYERS[layer](units), keras.layers.Dense(10)])


def measure(layer, steps, units):
    """Returns the `RecurrentFiles` of one row."""
    with temporary_folder() as folder:

        def exported(steps):
            return export_tflite(
                model_of(layer, steps, units),
                folder / f"{steps}.tflite",
                "int8",
                calibration=sequences(steps, 0),
                verify_on=sequences(steps, 1),
                tolerances=Tolerances(),
            )

        float32 = export_tflite(model_of(layer, steps, units), folder / "float32.tflite")
        half, whole = exported(steps // 2), exported(steps)
        (output,) = whole.verification.outputs.values()
        times = alternate(float32.path, whole.path, amx=False)
    return RecurrentFiles(
        layer=layer,
        steps=steps,
        float_bytes=float32.size_bytes,
        int8_bytes=whole.size_bytes,
        step_bytes=(whole.size_bytes - half.size_bytes) / (steps - steps // 2),
        float_ms=times.p50_ms[0],
        int8_ms=times.p50_ms[1],
        error=output.mean_abs_error / output.scale,
        operations=sum(op.count for op in whole.census.ops),
        host=fingerprint(),
    )


def page(rows, units):
    """Returns the page of the records, in Markdown."""
    lines = [
        "# Recurrent layers as integer files",
        "",
        f"GRU and LSTM of {units} units on {FEATURES} features, and a dense layer of 10; int8 by calibration alone, every step written out. One thread, XNNPACK without AMX, medians of runs",
        "that alternate. The error is the mean difference to the Keras model on other data than the calibration's, as a share of the output's range. Made by",
        "`benchmarks/recurrent.py`.",
        "",
        "| layer | steps | float32, bytes | int8, bytes | a step, bytes | operations | float32, ms | int8, ms | ratio | error |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for r in rows:
        lines.append(
            f"| {r.layer} | {r.steps} | {r.float_bytes:,} | {r.int8_bytes:,} | {r.step_bytes:,.0f} | {r.operations:,} | {r.float_ms:.3f} | {r.int8_ms:.3f} "
            f"| {r.int8_ms / r.float_ms:.2f} | {100 * r.error:.2f} % |"
        )
    return "\n".join([*lines, "", f"On {rows[0].host.packages_line()}.", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[128])
    parser.add_argument("--units", type=int, default=32)
    parser.add_argument("--records", type=pathlib.Path, default=pathlib.Path("runs/recurrent"))
    parser.add_argument("--page", type=pathlib.Path, default=pathlib.Path("docs/recurrent.md"))
    arguments = parser.parse_args()
    paths = {(layer, steps): arguments.records / f"{layer}_{steps}_{arguments.units}.json" for layer in LAYERS for steps in arguments.steps}
    for (layer, steps), path in track(paths.items(), "Layers"):
        if not path.exists():  # a run that was interrupted goes on
            measure(layer, steps, arguments.units).save(path)
        rows = [RecurrentFiles.load(path) for path in paths.values() if path.exists()]
        with write_whole(arguments.page) as beside:
            beside.write_text(page(rows, arguments.units), encoding="utf-8")
    print(arguments.page.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
