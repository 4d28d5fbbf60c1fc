"""Bytes against accuracy of int8 files with weights of 4 bits in some layers, on Fashion-MNIST; writes docs/mixed_bits.md and its picture.

    python benchmarks/mixed_bits.py [--only convnet mobilenet vit] [--seed 0] [--records runs/mixed_bits] [--page docs/mixed_bits.md]

Three nets, each trained on 20,000 images and calibrated on 256 of them without labels: all weights at 8 bits, all at 4 that can have them, and mixed, as
`tfdistill.compress.assign_bits` chooses for budgets of bytes between. All accuracies are those of the files, on the 10,000 test images, which nothing else has seen.

The data is Debian's package dataset-fashion-mnist (apt install dataset-fashion-mnist); without it Keras downloads it. Trained nets and measured ones stay in the
folder of the records, and are not made again.
"""

import argparse
import dataclasses
import pathlib

import keras
import numpy as np
from integers import BATCH, EPOCHS, TRAINING, _normalized, _schedule, mobilenet, vit

from tfdistill.compress import Quantize, assign_bits
from tfdistill.demo import datasets
from tfdistill.host import HostFingerprint, fingerprint
from tfdistill.records import Record
from tfdistill.runtime.interpreter import open_file
from tfdistill.tflite import Tolerances, export_tflite
from tfdistill.utils.files import temporary_folder, write_whole
from tfdistill.utils.optional import require

L = keras.layers
CALIBRATION = 256
# Budgets of bytes, as shares of the way from the file of all 4 bits to that of all 8.
BUDGETS = (0.15, 0.3, 0.45, 0.6, 0.75, 0.9)


@dataclasses.dataclass(frozen=True)
class MixedFile(Record):
    """One file.

    Attributes:
        way: `"all 8"`, `"all 4"` or `"mixed"`.
        size_bytes: Its size.
        accuracy: On the test part, 0 to 1.
        above_line: Accuracy above the line that joins all 4 and all 8, at its size.
        low: Lower end of the 95 % interval of that, of the accuracy paired with the two files' on the same images.
        high: Upper end.
        narrow: Paths of the layers with weights of 4 bits.
        budget_bytes: Budget that it was made for; None for none.
    """

    way: str
    size_bytes: int
    accuracy: float
    above_line: float
    low: float
    high: float
    narrow: tuple[str, ...] = ()
    budget_bytes: int | None = None


@dataclasses.dataclass(frozen=True)
class MixedNet(Record):
    """The files of one net.

    Attributes:
        net: Name of the net.
        seed: Seed of weights, order of the data and training.
        parameters: Number of its parameters.
        float_accuracy: Accuracy of the float net on the test part.
        files: `MixedFile` of all, the smallest first.
        host: Machine and package versions.
    """

    net: str
    seed: int
    parameters: int
    float_accuracy: float
    files: tuple[MixedFile, ...]
    host: HostFingerprint


def convnet():
    """Six convolutions and a dense layer."""
    inputs = keras.Input((28, 28, 1), name="image")
    x = inputs
    for width, strides in ((16, 2), (24, 1), (24, 2), (32, 1), (32, 1), (48, 1)):
        x = L.ReLU()(_normalized(L.Conv2D(width, 3, strides, padding="same", use_bias=False)(x)))
    return keras.Model(inputs, L.Dense(10, name="logits")(L.GlobalAveragePooling2D()(x)), name="convnet")


NETS = {"convnet": convnet, "mobilenet": mobilenet, "vit": vit}
SHOWN = {"convnet": "six convolutions", "mobilenet": "MobileNetV2-like, ReLU6", "vit": "ViT, 49 tokens x 32, 3 blocks"}


def trained(name, seed, data, folder):
    """Returns the trained net, from the folder if it is there."""
    path = folder / f"{name}_{seed}.keras"
    if path.exists():
        return keras.models.load_model(path)
    keras.utils.set_random_seed(seed)
    model = NETS[name]()
    model.compile(_schedule(3e-3, EPOCHS), keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    model.fit(data.x_train, data.y_train, batch_size=BATCH, epochs=EPOCHS, verbose=0)
    folder.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as beside:
        model.save(beside)
    return model


def measure(name, seed, data, folder):
    """Returns the `MixedNet` of a net and a seed."""
    model = trained(name, seed, data, folder)
    calibration = data.x_train[np.random.default_rng(seed).choice(len(data.x_train), CALIBRATION, replace=False)]
    made = []  # (way, budget, narrow layers, bytes, whether each test image is right)
    with temporary_folder() as place:

        def add(way, weight_bits, budget=None, narrow=()):
            quantized = Quantize(weight_bits=weight_bits).apply(model, calibration)
            record = export_tflite(quantized, place / "net.tflite", "int8", tolerances=Tolerances())
            (outputs,) = open_file(record.path, trusted=True).run(data.x_test).values()
            made.append((way, budget, narrow, record.size_bytes, outputs.argmax(-1) == data.y_test))

        add("all 8", 8)
        add("all 4", 4)
        large, small = made[0][3], made[1][3]
        for share in BUDGETS:
            budget = round(small + share * (large - small))
            assigned = assign_bits(model, calibration, size_bytes=budget, bits=(4, 8))
            narrow = tuple(row.name for row in assigned.layers if row.bits == 4)
            if all(narrow != other[2] for other in made):
                add("mixed", assigned.weight_bits, budget, narrow)
    whole, least = made[0][4], made[1][4]
    files = []
    for way, budget, narrow, size, right in sorted(made, key=lambda one: one[3]):
        share = (size - small) / (large - small)
        above, (low, high) = above_line(right, whole, least, share)
        files.append(MixedFile(way, size, float(right.mean()), above, low, high, narrow, budget))
    float_right = model.predict(data.x_test, verbose=0, batch_size=500).argmax(-1) == data.y_test
    return MixedNet(name, seed, model.count_params(), float(float_right.mean()), tuple(files), fingerprint())


def above_line(right, whole, least, share):
    """Returns how far an accuracy is above the line between two others, and the 95 % interval of that.

    Args:
        right: Booleans (images,), whether a file is right.
        whole: The same of the file at the line's upper end.
        least: The same at its lower end.
        share: Where on the line, 0 to 1.
    """
    difference = right.astype(float) - (share * whole + (1 - share) * least)
    half = 1.96 * difference.std(ddof=1) / np.sqrt(len(difference))
    return float(difference.mean()), (float(difference.mean() - half), float(difference.mean() + half))


def page(rows, picture):
    """Returns the page of the records, in Markdown."""
    rows = sorted(rows, key=lambda row: list(NETS).index(row.net))
    lines = [
        "# Weights of 4 bits in some layers",
        "",
        f"Fashion-MNIST, {TRAINING:,} training images, {EPOCHS} epochs. Each net becomes int8 files by calibration alone, on {CALIBRATION} images without labels: with weights of",
        "8 bits, with weights of 4 bits wherever TFLite has them, and mixed, as `tfdistill.compress.assign_bits(model, x, size_bytes=...)` chooses for budgets between. Accuracy is",
        "that of the files on the 10,000 test images, in %. The last column is how far a file lies above the straight line that joins all 4 and all 8, in points, with the 95 %",
        "interval of that on these images. Made by `benchmarks/mixed_bits.py`.",
        "",
        f"![Accuracy of the files against their bytes]({picture})",
        "",
    ]
    for row in rows:
        lines += [
            f"## {SHOWN[row.net]}",
            "",
            f"{row.parameters:,} parameters, float {100 * row.float_accuracy:.2f} %.",
            "",
            "| bits of weights | bytes | budget | layers at 4 bits | accuracy, % | above the line, points |",
            "|---|---:|---:|---:|---:|---:|",
        ]
        for file in row.files:
            budget = "" if file.budget_bytes is None else f"{file.budget_bytes:,}"
            narrow = {"all 8": "none", "all 4": "all"}.get(file.way, str(len(file.narrow)))
            above = "" if file.way != "mixed" else f"{100 * file.above_line:+.2f} ({100 * file.low:+.2f} to {100 * file.high:+.2f})"
            lines.append(f"| {file.way} | {file.size_bytes:,} | {budget} | {narrow} | {100 * file.accuracy:.2f} | {above} |")
        lines.append("")
    mixed = [(row.net, file) for row in rows for file in row.files if file.way == "mixed"]
    below = [(net, file) for net, file in mixed if file.high < 0]
    told = f"{len(mixed)} mixed files: {sum(file.low > 0 for _, file in mixed)} lie above the line, with the whole interval; {len(below)} lie below it so."
    return "\n".join([*lines, told, "", f"On {rows[0].host.packages_line()}.", ""])


def draw(rows, path):
    """Draws accuracy against bytes of each net's files, and the line between all 4 and all 8."""
    require("matplotlib", "draw the files").use("Agg")
    pyplot = require("matplotlib.pyplot", "draw the files")
    figure, places = pyplot.subplots(1, len(rows), figsize=(4.2 * len(rows), 3.8), layout="constrained", squeeze=False)
    for axes, row in zip(places[0], rows, strict=True):
        ends = [file for file in row.files if file.way != "mixed"]
        axes.plot(
            [e.size_bytes / 1024 for e in ends],
            [100 * e.accuracy for e in ends],
            color="#4c566a",
            linewidth=1,
            label="line from all 4 to all 8",
        )
        for way, colour, marker in (("all 4", "#bf616a", "s"), ("mixed", "#5e81ac", "o"), ("all 8", "#2e7d32", "s")):
            files = [file for file in row.files if file.way == way]
            axes.scatter(
                [f.size_bytes / 1024 for f in files], [100 * f.accuracy for f in files], color=colour, marker=marker, label=way, zorder=3
            )
        axes.axhline(100 * row.float_accuracy, color="#d08770", linewidth=1, linestyle=":", label="float")
        axes.set_title(SHOWN[row.net], fontsize=10)
        axes.set_xlabel("size of the file, KiB")
        axes.grid(alpha=0.3)
    places[0][0].set_ylabel("accuracy on the test part, %")
    places[0][0].legend(fontsize=8, loc="lower right")
    with write_whole(path) as beside:
        figure.savefig(beside, dpi=100, format="png")
    pyplot.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--records", type=pathlib.Path, default=pathlib.Path("runs/mixed_bits"))
    parser.add_argument("--page", type=pathlib.Path, default=pathlib.Path("docs/mixed_bits.md"))
    arguments = parser.parse_args()
    data = datasets.fashion_mnist().first(TRAINING)
    for name in arguments.only:
        path = arguments.records / f"{name}_{arguments.seed}.json"
        if not path.exists():
            keras.backend.clear_session()
            row = measure(name, arguments.seed, data, arguments.records)
            row.save(path)
            print(name, [(file.way, file.size_bytes, round(100 * file.accuracy, 2)) for file in row.files], flush=True)
    rows = [MixedNet.load(path) for path in sorted(arguments.records.glob("*.json"))]
    rows.sort(key=lambda row: list(NETS).index(row.net))
    picture = arguments.page.with_suffix(".png")
    draw(rows, picture)
    with write_whole(arguments.page) as beside:
        beside.write_text(page(rows, picture.name), encoding="utf-8")


if __name__ == "__main__":
    main()
