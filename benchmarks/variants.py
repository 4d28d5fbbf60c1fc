"""Every variant of a .tflite file for six nets: size, error, agreement, accuracy and latency; writes docs/variants.md.

    python benchmarks/variants.py [--only digits ...] [--variants int8 ...] [--images 6000] [--epochs 6] [--records runs/variants] [--page docs/variants.md]

Four nets are trained here, for some seconds: the demo's student on scikit-learn's digits and on Fashion-MNIST, and a transformer and a GRU that read the rows of
Fashion-MNIST's images. MobileNetV2 (alpha 0.35) and ResNet50 have random weights, and normalizations with the statistics of images of Fashion-MNIST, enlarged.
All files of a net are timed in one process, by turns, one thread. The data is Debian's package dataset-fashion-mnist (apt install dataset-fashion-mnist); without it
Keras downloads it. A run that was interrupted goes on where it ended: a record for each net.
"""

import argparse
import dataclasses
import pathlib
import re
import warnings

import keras
import numpy as np

from tfdistill.benchmarking.alternating import alternate
from tfdistill.demo import datasets
from tfdistill.demo.models import student, transformer
from tfdistill.errors import TfdistillError
from tfdistill.host import HostFingerprint, fingerprint
from tfdistill.records import Record
from tfdistill.tflite import Tolerances, export_tflite
from tfdistill.utils.files import temporary_folder, write_whole
from tfdistill.utils.progress import track

L = keras.layers
CALIBRATION, SEED, BATCH = 128, 0, 64
# Column of the page -> arguments of `export_tflite`. The first one is what the others' sizes and times are shares of.
VARIANTS = {
    "float32": {"variant": "float32"},
    "float16": {"variant": "float16"},
    "dynamic_range": {"variant": "dynamic_range"},
    "int8, float32 I/O": {"variant": "int8", "io": "float32"},
    "int8": {"variant": "int8"},
    "int16x8": {"variant": "int16x8"},
    "int4_weights": {"variant": "int4_weights"},
    "int8_int4_mixed": {"variant": "int8_int4_mixed"},
    "int8_int4_mixed, road=quantizer": {"variant": "int8_int4_mixed", "road": "quantizer"},
}


@dataclasses.dataclass(frozen=True)
class VariantFile(Record):
    """One variant of one net.

    Attributes:
        variant: Name of the variant, with what else was asked for.
        reason: Why there is no file; empty if there is one, and the other fields are then None.
        road: Who made the integers, as in `ExportRecord`.
        size_bytes: Size of the file.
        mean_error: Mean absolute difference to the Keras model on the test data, as a share of the output's scale.
        agreement: Share (0 to 1) of the test data for which file and Keras model predict the same class.
        accuracy: Accuracy (0 to 1) of the file; None for a net that was not trained.
        p50_ms: Median time of one run, in milliseconds.
        kernels: Type of the weights -> number of tensors of that type.
    """

    variant: str
    reason: str = ""
    road: str | None = None
    size_bytes: int | None = None
    mean_error: float | None = None
    agreement: float | None = None
    accuracy: float | None = None
    p50_ms: float | None = None
    kernels: dict[str, int] | None = None


@dataclasses.dataclass(frozen=True)
class NetOfVariants(Record):
    """The files of one net.

    Attributes:
        net: Name of the net.
        parameters: Number of its parameters.
        samples: Number of samples of the test data.
        accuracy: Accuracy (0 to 1) of the Keras model; None for a net that was not trained.
        files: A `VariantFile` for each variant.
        host: Machine and package versions.
    """

    net: str
    parameters: int
    samples: int
    accuracy: float | None
    files: tuple[VariantFile, ...]
    host: HostFingerprint


def trained(make, data, settings):
    """Returns a net that is trained on images, with data for calibration and for the test."""
    keras.utils.set_random_seed(SEED)
    model = make(data.shape, data.classes)
    model.compile(keras.optimizers.AdamW(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    data = data.first(settings.images)
    model.fit(data.x_train, data.y_train, epochs=settings.epochs, batch_size=BATCH, verbose=0)
    return model, data.x_train[:CALIBRATION], (data.x_test[: settings.tests], data.y_test[: settings.tests])


def gru(shape, classes):
    """Reads an image row by row."""
    inputs = keras.Input(shape)
    x = L.GRU(32)(L.Reshape(shape[:2])(inputs))
    return keras.Model(inputs, L.Dense(classes, name="logits")(L.Dense(32, activation="relu", name="hidden")(x)), name="gru")


def of_random_weights(make, size, settings):
    """Returns a net of random weights whose normalizations have the statistics of images, with data likewise."""
    images = datasets.load("fashion-mnist").first(CALIBRATION)

    def enlarged(x):
        x = keras.ops.image.resize(np.repeat(x, 3, axis=-1), (size, size), interpolation="bilinear")
        return np.asarray(2 * x - 1)

    keras.utils.set_random_seed(SEED)
    model = make(input_shape=(size, size, 3), weights=None, classes=10, classifier_activation=None)
    # In one batch without momentum, the moving statistics become those of the batch.
    normalizations = [layer for layer in model.layers if isinstance(layer, L.BatchNormalization)]
    before = [layer.momentum for layer in normalizations]
    for layer in normalizations:
        layer.momentum = 0.0
    x = enlarged(images.x_train[:CALIBRATION])
    model(x, training=True)
    for layer, momentum in zip(normalizations, before, strict=True):
        layer.momentum = momentum
    return model, x[:64], enlarged(images.x_test[: min(settings.tests, 128)])


def mobilenet(**arguments):
    return keras.applications.MobileNetV2(alpha=0.35, **arguments)


# Name -> what it is on the page, and function of the settings that makes it.
NETS = {
    "digits": ("the demo's student, digits, 8 x 8", lambda s: trained(student, datasets.load("digits"), s)),
    "fashion": ("the demo's student, Fashion-MNIST, 28 x 28", lambda s: trained(student, datasets.load("fashion-mnist"), s)),
    "transformer": (
        "a transformer of two blocks of 32, rows of Fashion-MNIST",
        lambda s: trained(lambda shape, classes: transformer(shape, classes, 2, 32, 4, "transformer"), datasets.load("fashion-mnist"), s),
    ),
    "gru": ("a GRU of 32 units and two dense layers, rows of Fashion-MNIST", lambda s: trained(gru, datasets.load("fashion-mnist"), s)),
    "mobilenet": ("MobileNetV2, alpha 0.35, 96 x 96, random weights", lambda s: of_random_weights(mobilenet, 96, s)),
    "resnet": ("ResNet50, 64 x 64, random weights", lambda s: of_random_weights(keras.applications.ResNet50, 64, s)),
}


def measure(net, settings):
    """Returns the `NetOfVariants` of a net."""
    model, calibration, tests = NETS[net][1](settings)
    labelled = isinstance(tests, tuple)
    with temporary_folder() as folder:
        files, paths = {}, {}
        for name in settings.variants:
            path = pathlib.Path(folder) / f"{len(files)}.tflite"
            files[name] = exported(model, path, name, calibration, tests)
            if not files[name].reason:
                paths[name] = path
        times = dict(zip(paths, alternate(*paths.values(), seconds=settings.seconds, amx=False).p50_ms, strict=True))
    made = tuple(dataclasses.replace(file, p50_ms=times.get(name)) for name, file in files.items())
    accuracy = float((np.asarray(model.predict(tests[0], verbose=0)).argmax(-1) == tests[1]).mean()) if labelled else None
    return NetOfVariants(net, model.count_params(), len(tests[0] if labelled else tests), accuracy, made, fingerprint())


def exported(model, path, name, calibration, tests):
    """Returns the `VariantFile` of a variant, without its time."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the record has what they say
            record = export_tflite(
                model, path, **VARIANTS[name], calibration=calibration, verify_on=tests, tolerances=Tolerances(), task="multiclass"
            )
    except TfdistillError as error:
        return VariantFile(name, error.happened)
    (output,) = record.verification.outputs.values()
    kernels = {}
    for kernel in record.census.kernels:
        kernels[kernel.dtype] = kernels.get(kernel.dtype, 0) + 1
    return VariantFile(
        name,
        road=record.road,
        size_bytes=record.size_bytes,
        mean_error=output.mean_abs_error / output.scale,
        agreement=output.argmax_agreement,
        accuracy=output.accuracy,
        kernels=kernels,
    )


def page(rows):
    """Returns the page of the records, in Markdown."""
    lines = [
        "# Every variant",
        "",
        "Size, error and speed of every variant of `export_tflite`, without training for any of them. The error is the mean difference to the Keras model as a share of the",
        "output's scale; agreement is the share of test images for which file and model name the same class. One thread, XNNPACK without AMX, medians of runs that alternate in one process.",
        "Weights are counted by tensors. Where there is no file, the cell says why. Made by `benchmarks/variants.py` (`make variants`).",
        "",
        "- `int4_weights` saves bytes, not time: the weights are made floats again on the device.",
        '- `int8_int4_mixed` is made by the bridge, with corrected biases, or with `road="quantizer"` by litert-quantizer. The first and last layers with weights keep 8 bits.',
        "- Random weights say nothing about accuracy, and their agreement is that of classes that lie close together.",
    ]
    for row in rows:
        accuracy = "" if row.accuracy is None else f"; accuracy of the Keras model {100 * row.accuracy:.1f} %"
        lines += [
            "",
            f"## {NETS[row.net][0][0].upper()}{NETS[row.net][0][1:]}",
            "",
            f"{row.parameters:,} parameters; {row.samples:,} test images{accuracy}.",
            "",
            "| variant | bytes | of float32 | mean error | agreement | accuracy | ms | of float32 | weights |",
            "|---|---:|---:|---:|---:|---:|---:|---:|---|",
        ]
        first = row.files[0]
        lines += [_line(file, first) for file in row.files]
    host = rows[0].host
    return "\n".join([*lines, "", f"On {host.packages_line()}.", ""])


def _line(file, first):
    if file.reason:
        return f"| {file.variant} | {_reason(file.reason)} | | | | | | | |"
    accuracy = "" if file.accuracy is None else f"{100 * file.accuracy:.1f} %"
    kernels = ", ".join(f"{count} {dtype}" for dtype, count in sorted(file.kernels.items()))
    return (
        f"| {file.variant} | {file.size_bytes:,} | {file.size_bytes / first.size_bytes:.2f} | {100 * file.mean_error:.2f} % | {100 * file.agreement:.1f} % "
        f"| {accuracy} | {file.p50_ms:.3f} | {file.p50_ms / first.p50_ms:.2f} | {kernels} |"
    )


def _reason(text):
    """Returns why there is no file, in one line of a table: without the folder of this run, what the converter printed, and all but the first of several tensors."""
    first, *others = re.sub(r"'[^']*/\d+\.tflite'", "the file", text).partition("\nThe converter said:")[0].splitlines()
    return " ".join([first, *(line.strip() for line in others[:1]), *(["..."] if len(others) > 1 else [])]).replace("|", "/")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--images", type=int, default=6000, help="training images")
    parser.add_argument("--tests", type=int, default=1000, help="test images")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=5.0, help="time of the runs of all files of a net")
    parser.add_argument("--records", type=pathlib.Path, default=pathlib.Path("runs/variants"))
    parser.add_argument("--page", type=pathlib.Path, default=pathlib.Path("docs/variants.md"))
    settings = parser.parse_args()
    paths = {net: settings.records / f"{net}.json" for net in settings.only}
    for net, path in track(paths.items(), "Nets"):
        if not path.exists():  # a run that was interrupted goes on
            measure(net, settings).save(path)
        rows = [NetOfVariants.load(path) for path in paths.values() if path.exists()]
        with write_whole(settings.page) as beside:
            beside.write_text(page(rows), encoding="utf-8")
    print(settings.page.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
