"""Times the forms in which integer files compute a function: by layer, and in two whole models.

    python benchmarks/forms.py [--rounds 40] [--out runs/forms.json]

Each layer stands between two 1 x 1 convolutions; its time is what the file takes beyond one without the layer. All files run in turn in one process, in LiteRT with
XNNPACK on one thread, and the smallest time of each counts, as other programs only make runs longer. Weights are random: the times do not depend on them.
"""

import argparse
import dataclasses
import pathlib
import tempfile
import time
import warnings

import keras
import numpy as np

from tfdistill import export_tflite
from tfdistill.bridge.adopt.trained_ranges import quantized_layers
from tfdistill.compress import Quantize
from tfdistill.host import HostFingerprint, fingerprint
from tfdistill.records import Record
from tfdistill.runtime.delegated import delegation
from tfdistill.runtime.interpreter import open_file
from tfdistill.runtime.tensors import sample_inputs
from tfdistill.tflite import Tolerances

L = keras.layers
FUNCTIONS = ("elu", "gelu", "hard_shrink", "hard_silu", "log_sigmoid", "mish", "silu", "softplus", "softsign", "squareplus")
# Form -> settings of `Quantize`; None is the float32 file.
FORMS = {
    "float32": None,
    "integers": {},
    "own operations": {"target": "builtin"},
    "approximate": {"approximate": True},
    "islands": {"integer_only": False},
}
CALLS = 10


@dataclasses.dataclass(frozen=True)
class FormTimes(Record):
    """What one layer or model takes in its forms.

    Attributes:
        name: The layer or model.
        files_ms: Form -> time of one inference of the file.
        layer_us: Form -> microseconds beyond the file without the layer; empty for a model.
        partitions: Form -> number of XNNPACK's partitions.
        bytes: Form -> size of the file.
    """

    name: str
    files_ms: dict[str, float]
    layer_us: dict[str, float]
    partitions: dict[str, int]
    bytes: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Forms(Record):
    """The times of all forms."""

    rows: tuple[FormTimes, ...]
    host: HostFingerprint


def between(*stack):
    """Layers between two convolutions, on 24 x 24 pixels of 16 channels or as many tokens."""
    return keras.Sequential([keras.Input((24, 24, 16)), L.Conv2D(16, 1), *stack, L.Conv2D(16, 1)])


def vit(tokens=8, width=64, blocks=4, heads=4, patch=4, hidden=2):
    """A vision transformer of tokens x tokens patches; `hidden` is the width inside its dense blocks as a multiple of `width`."""
    image = keras.Input((patch * tokens, patch * tokens, 3))
    x = L.Reshape((tokens * tokens, width))(L.Conv2D(width, patch, strides=patch)(image))
    for _ in range(blocks):
        n = L.LayerNormalization(epsilon=1e-6)(x)
        x = L.Add()([x, L.MultiHeadAttention(heads, width // heads)(n, n)])
        n = L.LayerNormalization(epsilon=1e-6)(x)
        x = L.Add()([x, L.Dense(width)(L.Dense(hidden * width, "gelu")(n))])
    x = L.GlobalAveragePooling1D()(L.LayerNormalization(epsilon=1e-6)(x))
    return keras.Model(image, L.Dense(10)(x), name="vit")


def small_v3(pixels=96):
    return settled(
        keras.applications.MobileNetV3Small(
            (pixels, pixels, 3), weights=None, classes=10, include_preprocessing=False, classifier_activation=None
        )
    )


def settled(model, samples=32):
    """The model whose normalizations have the statistics of data: with those of a new model its values vanish, and scales are too small for XNNPACK."""
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            layer.momentum = 0.0
    model(np.random.default_rng(0).uniform(0, 1, (samples, *model.input_shape[1:])).astype("float32"), training=True)
    return model


def models():
    """Name -> function that builds it; `"none"` is what the layers stand in."""
    rows = {"none": between, **{name: (lambda name=name: between(L.Activation(name))) for name in FUNCTIONS}}
    # Not a part of the convolution before it: that is reshaped.
    rows["ReLU"] = lambda: between(L.Reshape((576, 16)), L.ReLU(), L.Reshape((24, 24, 16)))
    rows["PReLU"] = lambda: between(L.PReLU(keras.initializers.Constant(0.25), shared_axes=[1, 2]))
    rows["UpSampling2D"] = lambda: between(L.UpSampling2D(2))
    rows["AveragePooling2D, padded"] = lambda: between(L.AveragePooling2D(3, 1, "same"))
    rows["layer normalization"] = lambda: between(L.LayerNormalization())
    rows["attention"] = lambda: between(L.Reshape((576, 16)), attending(), L.Reshape((24, 24, 16)))
    return {**rows, "ViT": vit, "MobileNetV3Small": small_v3}


def attending():
    tokens = keras.Input((576, 16))
    return keras.Model(tokens, L.MultiHeadAttention(1, 16)(tokens, tokens), name="attending")


def written(name, model, folder):
    """Writes the files of a model in all forms that differ; returns a dict of form to path."""
    x = np.random.default_rng(0).uniform(0, 1, (16, *model.input_shape[1:])).astype("float32")
    found, known = {}, []
    for form, settings in FORMS.items():
        path = folder / f"{name}_{form}.tflite"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about approximations, which are meant
            made = model if settings is None else Quantize(**settings).apply(model, x)
            replaced = None if settings is None else [layer.quantization.replaced for layer in quantized_layers(made.legacy)]
            if replaced in known:
                continue
            export_tflite(made, path, "float32" if settings is None else "int8", tolerances=Tolerances())
        known.append(replaced)
        found[form] = path
    return found


def smallest_times(interpreters, rounds):
    """Returns a dict of key to the smallest milliseconds of one inference; the interpreters run in turn."""
    best = dict.fromkeys(interpreters, np.inf)
    for _ in range(rounds):
        for key, interpreter in interpreters.items():
            start = time.perf_counter()
            for _ in range(CALLS):
                interpreter.invoke()
            best[key] = min(best[key], (time.perf_counter() - start) / CALLS * 1e3)
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--out", default="runs/forms.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        for name, build in models().items():
            keras.utils.set_random_seed(0)
            print(f"writing {name}", flush=True)
            paths |= {(name, form): path for form, path in written(name, build(), pathlib.Path(folder)).items()}
        opened = {key: open_file(path, trusted=True) for key, path in paths.items()}
        for file in opened.values():
            file.run(sample_inputs(file.inputs, 0))
        times = smallest_times({key: file.interpreter for key, file in opened.items()}, arguments.rounds)
        partitions = {key: delegation(file.interpreter).partitions for key, file in opened.items()}
        sizes = {key: path.stat().st_size for key, path in paths.items()}
    rows = []
    for name in models():
        files, parts, size = (
            {form: values[found, form] for found, form in values if found == name} for values in (times, partitions, sizes)
        )
        empty = {form: times["none", "float32" if form == "float32" else "integers"] for form in files}
        beyond = {} if name in ("ViT", "MobileNetV3Small") else {form: 1e3 * (files[form] - empty[form]) for form in files}
        rows.append(FormTimes(name, files, beyond, parts, size))
        shown = "  ".join(f"{form} {beyond[form]:.1f} us" if beyond else f"{form} {files[form]:.3f} ms" for form in files)
        print(f"{name:20} {shown}  partitions {parts}")
    record = Forms(tuple(rows), fingerprint())
    pathlib.Path(arguments.out).parent.mkdir(parents=True, exist_ok=True)
    record.save(arguments.out)


if __name__ == "__main__":
    main()
