"""Calibrates the five trained nets of MLPerf Tiny to int8 and compares the files with the benchmark's own; writes docs/mlperf_tiny.md.

    TFDISTILL_MLPERF_TINY=folder python benchmarks/mlperf_tiny.py [--only ad01 ...] [--micro PYTHON] [--records runs/mlperf_tiny] [--page docs/mlperf_tiny.md]

The folder holds the nets of github.com/mlcommons/tiny, benchmark/training: the .h5 files and their int8 .tflite files (see NETS). Each .h5 is loaded by
`tfdistill.load_model`, calibrated by `tfdistill.compress.Quantize`, exported by `export_tflite` and run in LiteRT and in tflite-micro. `--micro` names a Python that has
the package tflite-micro; without it the one that runs this script is tried.

The photographs are the two of scikit-learn, which need the package Pillow. The data of the keyword net is made up: smooth noise over the range that the official
file's input has, loud in the first coefficient as spoken words are.
"""

import argparse
import dataclasses
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

import tfdistill
from tfdistill.compress import Quantize
from tfdistill.errors import ConfigurationError
from tfdistill.host import HostFingerprint, fingerprint
from tfdistill.records import Record
from tfdistill.runtime.interpreter import open_file
from tfdistill.tflite import Tolerances
from tfdistill.utils.files import temporary_folder, write_whole
from tfdistill.utils.progress import track

FOLDER = "TFDISTILL_MLPERF_TINY"
SAMPLES = 192


@dataclasses.dataclass(frozen=True)
class TinyNet(Record):
    """One net, calibrated here and by the benchmark's authors. Errors are mean absolute differences to the float net, as a share of its output's range.

    Attributes:
        name: Name of the net.
        data: What it was calibrated and compared on.
        bytes_ours: Size of the file that `export_tflite` wrote.
        bytes_official: Size of the benchmark's own int8 file.
        error_ours: Mean error, on samples that were not calibrated on.
        error_official: The same of the official file.
        argmax_ours: Share of the samples whose largest output is the float net's, 0 to 1; None where the outputs are no classes.
        argmax_official: The same of the official file.
        micro_arena_bytes: Memory that tflite-micro takes for the file; None where tflite-micro was not there.
        micro_largest_steps: Largest difference between tflite-micro and LiteRT's own kernels, in steps of the output.
        micro_reference_steps: The same to LiteRT's reference kernels, which are slow and plain.
        micro_official_steps: Both of the official file.
        host: Machine and package versions.
    """

    name: str
    data: str
    bytes_ours: int
    bytes_official: int
    error_ours: float
    error_official: float
    argmax_ours: float | None
    argmax_official: float | None
    micro_arena_bytes: int | None
    micro_largest_steps: int | None
    micro_reference_steps: int | None
    micro_official_steps: tuple[int, int] | None
    host: HostFingerprint


def sounds(folder, shape):
    """Windows of five frames of the log-mel spectrogram of a machine that works as it should."""
    frames = np.fromfile(folder / "ad01_normal_id_01.bin", "<f4").reshape(-1, 128)
    windows = np.stack([frames[i : i + 5].reshape(-1) for i in range(len(frames) - 4)])
    return windows[np.random.default_rng(0).permutation(len(windows))]


def words(folder, shape):
    """Made-up cepstral coefficients."""
    rng = np.random.default_rng(0)
    coarse = rng.normal(size=(SAMPLES, 8, shape[2], 1)).astype("float32")
    smooth = np.asarray(keras.ops.image.resize(coarse, shape[1:3], interpolation="bilinear"))
    width = 20.0 / (1.0 + np.arange(shape[2], dtype="float32"))
    x = smooth * width[:, None] + rng.normal(size=smooth.shape).astype("float32")
    return x + np.where(np.arange(shape[2]) == 0, rng.uniform(-90, 0, (SAMPLES, 1, 1)), 0.0).astype("float32")[..., None]


def photographs(most):
    def crops(folder, shape):
        from sklearn.datasets import load_sample_images

        rng, images = np.random.default_rng(0), load_sample_images().images
        found = []
        for i in range(SAMPLES):
            image, size = images[i % len(images)], int(rng.integers(shape[1], 400))
            top, left = (int(rng.integers(0, n - size)) for n in image.shape[:2])
            crop = image[top : top + size, left : left + size].astype("float32")
            found.append(np.asarray(keras.ops.image.resize(crop, shape[1:3], interpolation="bilinear")))
        return np.stack(found) * (most / 255.0)

    return crops


def wake_words(folder, shape):
    """The spectrograms that come with the net."""
    x = np.load(folder / "calibration_samples.npz")["specs"].astype("float32")
    return x[np.random.default_rng(0).permutation(len(x))]


# Net -> (.h5 file, official int8 file, function of the folder and of the shape of the input that returns the data, what that is, whether the outputs are classes,
# how it is quantized). The official file of the autoencoder, dense layers only, has one scale for each of them.
NETS = {
    "ad01": ("ad01.h5", "ad01_int8.tflite", sounds, "windows of a recording of ToyADMOS", False, Quantize(per_channel_dense=False)),
    "ad01, a scale for each output": ("ad01.h5", "ad01_int8.tflite", sounds, "windows of a recording of ToyADMOS", False, Quantize()),
    "kws": ("kws_model.h5", "kws_ref_model.tflite", words, "made-up cepstral coefficients", True, Quantize()),
    "resnet": ("pretrainedResnet.h5", "pretrainedResnet_quant.tflite", photographs(255.0), "crops of two photographs", True, Quantize()),
    "str_ww": ("str_ww_ref_model.h5", "str_ww_ref_model.tflite", wake_words, "the net's own calibration spectrograms", True, Quantize()),
    "vww": ("vww_96.h5", "vww_96_int8.tflite", photographs(1.0), "crops of two photographs", True, Quantize()),
}


def measure(name, folder, micro):
    """Returns the `TinyNet` of a net."""
    h5, official, samples, data, classes, step = NETS[name]
    model = tfdistill.load_model(folder / h5)
    theirs = open_file(folder / official)
    x = samples(folder, next(iter(theirs.inputs.values())).shape)
    calibration, held_out = x[: len(x) // 2], x[len(x) // 2 :]
    expected = np.asarray(model.predict(held_out, verbose=0))
    with temporary_folder() as place:
        path = place / "net.tflite"
        quantized = step.apply(model, calibration=calibration)
        record = tfdistill.export_tflite(quantized, path, "int8", calibration=calibration, tolerances=Tolerances())
        ours = _outputs(open_file(path, trusted=True), held_out)
        arena, steps = in_micro(path, held_out, place, micro)
        _, official_steps = in_micro(folder / official, held_out, place, micro)
    steps = steps or (None, None)
    others = _outputs(theirs, held_out)
    scale = float(np.ptp(expected))

    def agreement(outputs):
        return float((outputs.argmax(-1) == expected.argmax(-1)).mean()) if classes else None

    return TinyNet(
        name=name,
        data=data,
        bytes_ours=record.size_bytes,
        bytes_official=(folder / official).stat().st_size,
        error_ours=float(np.abs(ours - expected).mean()) / scale,
        error_official=float(np.abs(others - expected).mean()) / scale,
        argmax_ours=agreement(ours),
        argmax_official=agreement(others),
        micro_arena_bytes=arena,
        micro_largest_steps=steps[0],
        micro_reference_steps=steps[1],
        micro_official_steps=official_steps,
        host=fingerprint(),
    )


def _outputs(file, x):
    (outputs,) = file.run(x).values()
    return outputs


# Runs in a Python that has tflite-micro: argv is the file, the inputs, where the outputs go. It prints the memory that it takes.
_IN_MICRO = """
import sys
import numpy as np
from tflite_micro import runtime
interpreter = runtime.Interpreter.from_file(sys.argv[1], arena_size=1 << 24)
inputs, outputs = np.load(sys.argv[2]), []
for x in inputs:
    interpreter.set_input(x, 0)
    interpreter.invoke()
    outputs.append(np.array(interpreter.get_output(0)))
np.save(sys.argv[3], np.stack(outputs))
interpreter.print_allocations()
"""


def in_micro(path, x, place, python):
    """Runs a file in tflite-micro; returns its memory in bytes, and the largest differences to LiteRT's own kernels and to its reference kernels, in steps."""
    file = open_file(path, trusted=True, xnnpack=False)
    plain = Interpreter(str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    plain.allocate_tensors()
    (entry,), (end,) = plain.get_input_details(), plain.get_output_details()
    (source,) = file.inputs.values()
    given = source.quantize(x)[:, None]
    np.save(place / "inputs.npy", given)
    done = subprocess.run(
        [python, "-c", _IN_MICRO, str(path), str(place / "inputs.npy"), str(place / "outputs.npy")], capture_output=True, text=True
    )
    if "No module named 'tflite_micro'" in done.stderr:
        print(f"{python} has no tflite-micro: its columns stay empty. Fix: pip install tflite-micro, or --micro /path/to/python")
        return None, None
    if done.returncode:
        raise RuntimeError(f"tflite-micro failed on {path.name}:\n{done.stdout}{done.stderr}")
    said = next(line for line in (done.stdout + done.stderr).splitlines() if "Arena allocation total" in line)
    own, reference = [], []
    for sample in given:
        file.set_inputs({source.name: sample})
        file.invoke()
        own += file.read_outputs().values()
        plain.set_tensor(entry["index"], sample)
        plain.invoke()
        reference.append(plain.get_tensor(end["index"]))
    found = np.load(place / "outputs.npy").astype(int).reshape(len(given), -1)
    apart = tuple(int(np.abs(found - np.stack(values).astype(int).reshape(len(given), -1)).max()) for values in (own, reference))
    return int(said.split("total")[1].split()[0]), apart


HEAD = """# MLPerf Tiny

The five trained nets of [MLPerf Tiny](https://github.com/mlcommons/tiny), from their .h5 files: `tfdistill.load_model`, `Quantize().apply(model, calibration=x)`,
`export_tflite`, against the int8 files that the benchmark publishes. Made by `benchmarks/mlperf_tiny.py`. The autoencoder (ad01) is made of dense layers alone; its
official file has one scale for each of them, and so has ours, by `Quantize(per_channel_dense=False)`. The row below it is the default: finer, and larger.

- **error**: mean absolute difference to the float net on samples that were not calibrated on, as a share of the float net's range of outputs. The official files were
  calibrated on other data.
- **argmax**: share of the samples whose largest output is that of the float net.
- **tflite-micro**: memory for tensors and bookkeeping.
- **steps**: largest difference between tflite-micro and LiteRT's own kernels, and after the slash its reference kernels (`OpResolverType.BUILTIN_REF`), in steps of the
  output; in brackets those of the official file.

Bytes and error are at most those of the official file in every row but the second. That one stays the default, as its error is smaller by far; on a microcontroller
the scales take memory, too.

tflite-micro computes nearly what LiteRT's reference kernels do. Run operation by operation, both give the same to the bit in all convolutions, sums, means and poolings of
kws and resnet, ours and the official ones. FULLY_CONNECTED of resnet differs by one step in both files; ad01 is ten such layers. LiteRT's own kernels round
otherwise: first in MEAN of our kws, by one step, where the official file has AVERAGE_POOL_2D, and in the third CONV_2D of both files of resnet, by one step. A step
of the logits, 0.1, is up to 8 steps of 1/256 behind a softmax.

"""


def page(rows):
    """Returns the page of the records, in Markdown."""
    lines = [
        "| net | bytes | official | error | official | argmax | official | tflite-micro, bytes | steps | data |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        micro = ["", ""]
        if row.micro_arena_bytes is not None:
            official = "/".join(map(str, row.micro_official_steps))
            micro = [f"{row.micro_arena_bytes:,}", f"{row.micro_largest_steps}/{row.micro_reference_steps} ({official})"]
        argmax = ["" if share is None else f"{100 * share:.1f} %" for share in (row.argmax_ours, row.argmax_official)]
        lines.append(
            f"| {row.name} | {row.bytes_ours:,} | {row.bytes_official:,} | {100 * row.error_ours:.3f} % | {100 * row.error_official:.3f} % "
            f"| {argmax[0]} | {argmax[1]} | {micro[0]} | {micro[1]} | {row.data} |"
        )
    versions = ", ".join(f"{name} {version}" for name, version in sorted(rows[0].host.packages.items()))
    return HEAD + "\n".join(lines) + f"\n\nOn {rows[0].host.cpu_model}; {versions}.\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--micro", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--records", type=pathlib.Path, default=pathlib.Path("runs/mlperf_tiny"))
    parser.add_argument("--page", type=pathlib.Path, default=pathlib.Path("docs/mlperf_tiny.md"))
    arguments = parser.parse_args()
    if FOLDER not in os.environ:
        raise ConfigurationError(f"{FOLDER} is not set.", "the folder with the nets of MLPerf Tiny, such as ad01.h5 and ad01_int8.tflite")
    for name in track(arguments.only, "Nets"):
        keras.utils.set_random_seed(0)
        row = measure(name, pathlib.Path(os.environ[FOLDER]), arguments.micro)
        row.save(arguments.records / f"{name.replace(', ', '_').replace(' ', '_')}.json")
        print(row, flush=True)
    rows = [
        TinyNet.load(path) for name in NETS if (path := arguments.records / f"{name.replace(', ', '_').replace(' ', '_')}.json").exists()
    ]
    with write_whole(arguments.page) as beside:
        beside.write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
