"""Accuracy of int8 files by calibration alone and by training, on Fashion-MNIST; writes docs/integers.md.

    python benchmarks/integers.py [--only mobilenet squeeze vit] [--seeds 3] [--records runs/integers] [--page docs/integers.md]

Three nets with what makes integers hard: a small MobileNetV2, one with squeeze-excite and hard-swish, and a small vision transformer. Each is trained on 20,000 images,
then becomes an int8 file in three ways: by calibration on 200 of them, the same with bias correction, and by quantization-aware training of two epochs with
the float net as the teacher. All accuracies are those of the files, on the 10,000 test images.

The data is Debian's package dataset-fashion-mnist (apt install dataset-fashion-mnist); without it Keras downloads it. A run that was interrupted goes on where it
ended: a record for each net and seed.
"""

import argparse
import dataclasses
import pathlib

import keras
import numpy as np

from tfdistill import Distiller
from tfdistill.compress import Quantize, QuantizeAware
from tfdistill.demo import datasets
from tfdistill.host import HostFingerprint, fingerprint
from tfdistill.losses import SoftTargets
from tfdistill.records import Record
from tfdistill.runtime.interpreter import open_file
from tfdistill.tflite import Tolerances, export_tflite
from tfdistill.utils.files import temporary_folder, write_whole

L = keras.layers
TRAINING, CALIBRATION, BATCH = 20_000, 200, 128
EPOCHS, QAT_EPOCHS, MOMENTUM = 8, 2, 0.9
WAYS = ("float32", "calibration", "with bias correction", "QAT, teacher on")


@dataclasses.dataclass(frozen=True)
class IntegerNet(Record):
    """The files of one net and seed.

    Attributes:
        net: Name of the net.
        seed: Seed of weights, order of the data and training.
        parameters: Number of its parameters.
        accuracies: Way -> accuracy of the file on the test part, 0 to 1.
        size_bytes: Way -> size of the file.
        host: Machine and package versions.
    """

    net: str
    seed: int
    parameters: int
    accuracies: dict[str, float]
    size_bytes: dict[str, int]
    host: HostFingerprint


def _normalized(x):
    return L.BatchNormalization(momentum=MOMENTUM)(x)


def _inverted(x, width, strides, activation, squeeze=False):
    """An inverted residual block (Sandler et al., 2018), with squeeze-excite as in MobileNetV3 if asked for."""
    inputs, wide = x, 4 * x.shape[-1]
    x = L.Activation(activation)(_normalized(L.Conv2D(wide, 1, use_bias=False)(x)))
    x = L.Activation(activation)(_normalized(L.DepthwiseConv2D(3, strides, padding="same", use_bias=False)(x)))
    if squeeze:
        gate = L.Conv2D(wide // 4, 1, activation="relu")(L.GlobalAveragePooling2D(keepdims=True)(x))
        x = L.Multiply()([x, L.Conv2D(wide, 1, activation="hard_sigmoid")(gate)])
    x = _normalized(L.Conv2D(width, 1, use_bias=False)(x))
    return L.Add()([inputs, x]) if strides == 1 and width == inputs.shape[-1] else x


def _convolutional(name, activation, squeeze):
    inputs = keras.Input((28, 28, 1), name="image")
    x = L.Activation(activation)(_normalized(L.Conv2D(16, 3, 2, padding="same", use_bias=False)(inputs)))
    for width, strides in ((16, 1), (24, 2), (24, 1), (32, 2), (32, 1)):
        x = _inverted(x, width, strides, activation, squeeze)
    x = L.Activation(activation)(_normalized(L.Conv2D(64, 1, use_bias=False)(x)))
    return keras.Model(inputs, L.Dense(10, name="logits")(L.GlobalAveragePooling2D()(x)), name=name)


def mobilenet():
    return _convolutional("mobilenet", "relu6", False)


def squeeze():
    return _convolutional("squeeze", "hard_silu", True)


def vit():
    """A vision transformer of 49 patches, 32 wide, three blocks (Dosovitskiy et al., 2021)."""
    width = 32
    inputs = keras.Input((28, 28, 1), name="image")
    x = L.Reshape((49, width))(L.Conv2D(width, 4, 4, name="patches")(inputs))
    x = x + L.Embedding(49, width, name="positions")(keras.ops.arange(49)[None])
    for _ in range(3):
        y = L.LayerNormalization(epsilon=1e-6)(x)
        x = L.Add()([x, L.MultiHeadAttention(4, width // 4)(y, y)])
        y = L.LayerNormalization(epsilon=1e-6)(x)
        x = L.Add()([x, L.Dense(width)(L.Dense(2 * width, activation="gelu")(y))])
    x = L.GlobalAveragePooling1D()(L.LayerNormalization(epsilon=1e-6)(x))
    return keras.Model(inputs, L.Dense(10, name="logits")(x), name="vit")


NETS = {"mobilenet": mobilenet, "squeeze": squeeze, "vit": vit}
SHOWN = {"mobilenet": "MobileNetV2-like, ReLU6", "squeeze": "with squeeze-excite and hard-swish", "vit": "ViT, 49 tokens x 32, 3 blocks"}


def _schedule(rate, epochs):
    return keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(rate, epochs * (TRAINING // BATCH)), weight_decay=1e-4)


def measure(name, seed, data):
    """Returns the `IntegerNet` of a net and a seed."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model = NETS[name]()
    labels = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(_schedule(3e-3, EPOCHS), labels, jit_compile=False)
    model.fit(data.x_train, data.y_train, batch_size=BATCH, epochs=EPOCHS, verbose=0)
    calibration = data.x_train[np.random.default_rng(seed).choice(len(data.x_train), CALIBRATION, replace=False)]
    accuracies, sizes = {}, {}
    with temporary_folder() as folder:

        def exported(way, made, variant="int8"):
            record = export_tflite(
                made, folder / "net.tflite", variant, calibration=calibration if variant == "int8" else None, tolerances=Tolerances()
            )
            (outputs,) = open_file(record.path, trusted=True).run(data.x_test).values()
            accuracies[way], sizes[way] = float((outputs.argmax(-1) == data.y_test).mean()), record.size_bytes

        exported("float32", model, "float32")
        exported("calibration", Quantize(bias_correction=False).apply(model, calibration))
        exported("with bias correction", model)  # the default of export_tflite
        step = QuantizeAware()
        student = step.apply(model, calibration)
        distiller = Distiller(model, student, SoftTargets(2.0), student_loss_weight=0.3)
        distiller.compile(_schedule(3e-4, QAT_EPOCHS), labels)
        distiller.fit(data.x_train, data.y_train, batch_size=BATCH, epochs=QAT_EPOCHS, verbose=0, callbacks=step.callbacks())
        exported("QAT, teacher on", step.strip(student))
    return IntegerNet(name, seed, model.count_params(), accuracies, sizes, fingerprint())


def page(rows):
    """Returns the page of the records, in Markdown."""
    seeds = max(sum(row.net == name for row in rows) for name in NETS)
    lines = [
        "# Integers by calibration and by training",
        "",
        f"Fashion-MNIST, {TRAINING:,} training images, {EPOCHS} epochs, {seeds} seeds: accuracy of the .tflite files on the 10,000 test images, in %; of the int8 files the",
        f"points that they differ by from the float32 file, mean and standard deviation over the seeds, and the worst in brackets. Calibration on {CALIBRATION} images;",
        f"QAT: {QAT_EPOCHS} epochs with the float net as the teacher. Made by `benchmarks/integers.py`.",
        "",
        "| net | parameters | float32, % | calibration | with bias correction | QAT, teacher on | int8 / float32, bytes |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name in NETS:
        found = [row for row in rows if row.net == name]
        if not found:
            continue
        cells = [f"{100 * np.mean([row.accuracies['float32'] for row in found]):.2f}"]
        for way in WAYS[1:]:
            points = [100 * (row.accuracies[way] - row.accuracies["float32"]) for row in found]
            spread = np.std(points, ddof=1) if len(points) > 1 else 0.0
            cells.append(f"{np.mean(points):+.2f} ± {spread:.2f} ({min(points):+.2f})")
        share = np.mean([row.size_bytes["calibration"] / row.size_bytes["float32"] for row in found])
        lines.append(f"| {SHOWN[name]} | {found[0].parameters:,} | {' | '.join(cells)} | {share:.2f} |")
    return "\n".join([*lines, "", f"On {rows[0].host.packages_line()}.", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--records", type=pathlib.Path, default=pathlib.Path("runs/integers"))
    parser.add_argument("--page", type=pathlib.Path, default=pathlib.Path("docs/integers.md"))
    arguments = parser.parse_args()
    data = datasets.fashion_mnist().first(TRAINING)
    for seed in range(arguments.seeds):
        for name in arguments.only:
            path = arguments.records / f"{name}_{seed}.json"
            if not path.exists():
                row = measure(name, seed, data)
                row.save(path)
                print(name, seed, {way: round(100 * share, 2) for way, share in row.accuracies.items()}, flush=True)
            rows = [IntegerNet.load(path) for path in sorted(arguments.records.glob("*.json"))]
            with write_whole(arguments.page) as beside:
                beside.write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
