"""Calibrates the five trained nets of MLPerf Tiny, and four of them written in Keras 3, to int8 and compares the files with the benchmark's own.

Writes docs/mlperf_tiny.md.

    TFDISTILL_MLPERF_TINY=folder python benchmarks/mlperf_tiny.py [--only ad01 ...] [--micro PYTHON] [--records runs/mlperf_tiny] [--page docs/mlperf_tiny.md]

The folder holds the nets of github.com/mlcommons/tiny, benchmark/training: the .h5 files and their int8 .tflite files (see NETS). Each .h5 is loaded by
`tfdistill.load_model`, calibrated by `tfdistill.compress.Quantize`, exported by `export_tflite` and run in LiteRT and in tflite-micro. `--micro` names a Python that has
the package tflite-micro; without it the one that runs this script is tried.

The photographs are the two of scikit-learn, which need the package Pillow. The data of the keyword net is made up: smooth noise over the range that the official
file's input has, loud in the first coefficient as spoken words are.
"""

import argparse
import os
import pathlib
import subprocess
import sys

import keras
import mlperf_tiny_nets
import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from mlperf_tiny_page import RebuiltNet, TinyNet, page

import tfdistill
from tfdistill.compress import Quantize
from tfdistill.errors import ConfigurationError
from tfdistill.host import fingerprint
from tfdistill.runtime.interpreter import open_file
from tfdistill.tflite import Tolerances
from tfdistill.utils.files import temporary_folder, write_whole
from tfdistill.utils.progress import track

FOLDER = "TFDISTILL_MLPERF_TINY"
SAMPLES = 192


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


# Net -> (function that makes it, row of `NETS` of the trained one, official float file).
REBUILT = {
    "resnet8": (mlperf_tiny_nets.resnet8, "resnet", "pretrainedResnet.tflite"),
    "mobilenet_v1": (mlperf_tiny_nets.mobilenet_v1, "vww", "vww_96_float.tflite"),
    "autoencoder": (mlperf_tiny_nets.autoencoder, "ad01", "ad01_fp32.tflite"),
    "ds_cnn": (mlperf_tiny_nets.ds_cnn, "kws", "kws_ref_model_float32.tflite"),
}


def measure_rebuilt(name, folder):
    """Returns the `RebuiltNet` of a net."""
    make, trained, official_float = REBUILT[name]
    h5, official, samples, _, _, step = NETS[trained]
    model, original = make(), tfdistill.load_model(folder / h5)
    model.set_weights(original.get_weights())
    x = samples(folder, (1, *model.input_shape[1:]))
    calibration, held_out = x[: len(x) // 2], x[len(x) // 2 :]
    difference = np.abs(model.predict(held_out, verbose=0) - original.predict(held_out, verbose=0)).max()
    with temporary_folder() as place:
        float32 = tfdistill.export_tflite(model, place / "float.tflite", "float32", tolerances=Tolerances())
        quantized = step.apply(model, calibration=calibration)
        int8 = tfdistill.export_tflite(quantized, place / "int8.tflite", "int8", calibration=calibration, tolerances=Tolerances())
    return RebuiltNet(
        name=name,
        parameters=model.count_params(),
        float_bytes=float32.size_bytes,
        float_bytes_official=(folder / official_float).stat().st_size,
        int8_bytes=int8.size_bytes,
        int8_bytes_official=(folder / official).stat().st_size,
        largest_difference=float(difference),
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[*NETS, *REBUILT], default=[*NETS, *REBUILT])
    parser.add_argument("--micro", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--records", type=pathlib.Path, default=pathlib.Path("runs/mlperf_tiny"))
    parser.add_argument("--page", type=pathlib.Path, default=pathlib.Path("docs/mlperf_tiny.md"))
    arguments = parser.parse_args()
    if FOLDER not in os.environ:
        raise ConfigurationError(f"{FOLDER} is not set.", "the folder with the nets of MLPerf Tiny, such as ad01.h5 and ad01_int8.tflite")
    folder, paths = (
        pathlib.Path(os.environ[FOLDER]),
        {name: arguments.records / f"{name.replace(', ', '_').replace(' ', '_')}.json" for name in (*NETS, *REBUILT)},
    )
    for name in track(arguments.only, "Nets"):
        keras.utils.set_random_seed(0)
        row = measure(name, folder, arguments.micro) if name in NETS else measure_rebuilt(name, folder)
        row.save(paths[name])
        print(row, flush=True)
    rows = [TinyNet.load(paths[name]) for name in NETS if paths[name].exists()]
    rebuilt = [RebuiltNet.load(paths[name]) for name in REBUILT if paths[name].exists()]
    with write_whole(arguments.page) as beside:
        beside.write_text(page(rows, rebuilt), encoding="utf-8")


if __name__ == "__main__":
    main()
