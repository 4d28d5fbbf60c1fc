"""Accuracy of int8 files whose weights have 4 bits, rounded to nearest and as AdaRound learns, on Fashion-MNIST; writes docs/adaround.md.

    python benchmarks/adaround.py [--only mobilenet resnet vit] [--seeds 2] [--records runs/adaround] [--page docs/adaround.md]

Three nets: a small MobileNetV2 and a small vision transformer of `integers.py`, and a small ResNet of `shrinking_nets.py`. Each is trained on 20,000 images, a minute or
two of one core, and becomes an int8 file with weights of 8 bits, and of 4 bits in five ways. All accuracies are those of the files, on the 10,000 test images.

The data is Debian's package dataset-fashion-mnist (apt install dataset-fashion-mnist); without it Keras downloads it. A run that was interrupted goes on where it
ended: a record and a trained net for each net and seed.
"""

import argparse
import dataclasses
import math
import pathlib
import time

import integers
import keras
import numpy as np
import shrinking_nets

from tfdistill.compress import AdaRound, Quantize
from tfdistill.demo import datasets
from tfdistill.host import HostFingerprint, fingerprint
from tfdistill.records import Record
from tfdistill.runtime.interpreter import open_file
from tfdistill.tflite import Tolerances, export_tflite
from tfdistill.utils.files import temporary_folder, write_whole

TRAINING, CALIBRATION, BATCH, EPOCHS = 20_000, 512, 128, 6
LONG = "AdaRound, 2,000 steps"
NETS = {
    "mobilenet": ("MobileNetV2-like, ReLU6", integers.mobilenet),
    "resnet": ("ResNet-like", lambda: shrinking_nets.net("resnet", (28, 28, 1))),
    "vit": ("ViT, 49 tokens x 32, 3 blocks", integers.vit),
}
# Where the steps of the weights are smaller than the largest weight asks for, the largest are clipped. One step of learning moves none but a few weights in the middle of two
# steps: it leaves the rounding to nearest, with clipped steps in the layers where that makes less error on the calibration data.
STEPS = {
    "8 bits": Quantize(bias_correction=False),
    "nearest": Quantize(weight_bits=4, bias_correction=False),
    "nearest, biases corrected": Quantize(weight_bits=4),
    "nearest, clipped": Quantize(weight_bits=4, rounding=AdaRound(steps=1)),
    "AdaRound": Quantize(weight_bits=4, rounding="adaround"),
    LONG: Quantize(weight_bits=4, rounding=AdaRound(steps=2000)),
}


@dataclasses.dataclass(frozen=True)
class RoundedNet(Record):
    """The files of one net and seed.

    Attributes:
        net: Name of the net.
        seed: Seed of weights, order of the data and training.
        parameters: Number of its parameters.
        accuracies: Way -> accuracy of the file on the test part, 0 to 1.
        size_bytes: Way -> size of the file.
        cpu_seconds: Way -> processor time of `Quantize.apply`.
        host: Machine and package versions.
    """

    net: str
    seed: int
    parameters: int
    accuracies: dict[str, float]
    size_bytes: dict[str, int]
    cpu_seconds: dict[str, float]
    host: HostFingerprint


def recovered(accuracies, whole, way):
    """Returns the share of what rounding to nearest loses that AdaRound gives back; NaN where nothing is lost.

    Args:
        accuracies: Way -> accuracy.
        whole: The way without that loss: `"8 bits"`, or `"float32"`, which lacks the loss by activations of 8 bits, too.
        way: `"AdaRound"`, or `LONG`.
    """
    lost = accuracies[whole] - accuracies["nearest"]
    return (accuracies[way] - accuracies["nearest"]) / lost if lost > 0 else math.nan


def trained(name, seed, data, path):
    """Returns a trained net, which is kept in a file."""
    if path.exists():
        return keras.models.load_model(path)
    keras.utils.set_random_seed(seed)
    model = NETS[name][1]()
    rates = keras.optimizers.schedules.CosineDecay(3e-3, EPOCHS * (TRAINING // BATCH))
    model.compile(
        keras.optimizers.AdamW(rates, weight_decay=1e-4), keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False
    )
    model.fit(data.x_train, data.y_train, batch_size=BATCH, epochs=EPOCHS, verbose=0)
    model.save(path)
    return model


def measure(name, seed, data, path):
    """Returns the `RoundedNet` of a net and a seed."""
    keras.backend.clear_session()
    model = trained(name, seed, data, path)
    calibration = data.x_train[np.random.default_rng(seed).choice(len(data.x_train), CALIBRATION, replace=False)]
    accuracies, sizes, seconds = {}, {}, {}
    with temporary_folder() as folder:

        def exported(way, made, variant="int8"):
            record = export_tflite(made, folder / "net.tflite", variant, tolerances=Tolerances())
            (outputs,) = open_file(record.path, trusted=True).run(data.x_test).values()
            accuracies[way], sizes[way] = float((outputs.argmax(-1) == data.y_test).mean()), record.size_bytes

        exported("float32", model, "float32")
        for way, step in STEPS.items():
            began = time.process_time()
            made = step.apply(model, calibration)
            seconds[way] = round(time.process_time() - began, 1)
            exported(way, made)
            print(name, seed, way, round(100 * accuracies[way], 2), seconds[way], flush=True)
    return RoundedNet(name, seed, model.count_params(), accuracies, sizes, seconds, fingerprint())


def page(rows):
    """Returns the page of the records, in Markdown."""
    lines = [
        "# Weights of 4 bits, rounded to nearest and as learned",
        "",
        f"Fashion-MNIST, {TRAINING:,} training images, {EPOCHS} epochs: accuracy of the .tflite files on the 10,000 test images, in %, each the mean over the seeds.",
        f"Activations have 8 bits; calibration, and learning, on {CALIBRATION:,} images without labels. Recovered is the share of what rounding to nearest",
        "loses that AdaRound gives back, of the means, with the worst seed in brackets, in 500 steps and in 2,000: against the file with weights of 8 bits, which differs in the",
        "weights alone, and against float32, which has no rounding of activations either. Made by `benchmarks/adaround.py`.",
        "",
        "- nearest: each weight to the nearest step; the largest weight of a channel (of a dense layer) is the last step.",
        "- nearest, biases corrected: the same with `bias_correction=True`, the default.",
        "- nearest, clipped: steps of the least squared error of the weights, in the layers where that makes less error on the calibration data; biases corrected.",
        '- AdaRound: `rounding="adaround"`, 500 steps, biases corrected; and `AdaRound(steps=2000)`. CPU: processor time of `Quantize.apply` with 2,000 steps, 500 steps, and to nearest.',
        "",
        "| net | seeds | parameters | float32 | 8 bits | nearest | nearest, biases corrected | nearest, clipped | AdaRound | 2,000 steps | recovered, of 8 bits | of float32 | bytes, 4 / 8 bits | CPU, s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, (shown, _) in NETS.items():
        found = [row for row in rows if row.net == name]
        if not found:
            continue
        means = {way: 100 * np.mean([row.accuracies[way] for row in found]) for way in ("float32", *STEPS)}
        shares = [
            " / ".join(
                f"{recovered(means, whole, way):.0%} ({min(recovered(row.accuracies, whole, way) for row in found):.0%})"
                for way in ("AdaRound", LONG)
            )
            for whole in ("8 bits", "float32")
        ]
        share = np.mean([row.size_bytes["AdaRound"] / row.size_bytes["8 bits"] for row in found])
        seconds = " / ".join(f"{np.mean([row.cpu_seconds[way] for row in found]):.0f}" for way in (LONG, "AdaRound", "nearest"))
        cells = " | ".join(f"{mean:.2f}" for mean in means.values())
        lines.append(f"| {shown} | {len(found)} | {found[0].parameters:,} | {cells} | {' | '.join(shares)} | {share:.2f} | {seconds} |")
    return "\n".join([*lines, "", f"On {rows[0].host.packages_line()}.", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--records", type=pathlib.Path, default=pathlib.Path("runs/adaround"))
    parser.add_argument("--page", type=pathlib.Path, default=pathlib.Path("docs/adaround.md"))
    arguments = parser.parse_args()
    arguments.records.mkdir(parents=True, exist_ok=True)
    data = datasets.fashion_mnist().first(TRAINING)
    for seed in range(arguments.seeds):
        for name in arguments.only:
            path = arguments.records / f"{name}_{seed}.json"
            if not path.exists():
                measure(name, seed, data, path.with_suffix(".keras")).save(path)
            rows = [RoundedNet.load(path) for path in sorted(arguments.records.glob("*.json"))]
            with write_whole(arguments.page) as beside:
                beside.write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
