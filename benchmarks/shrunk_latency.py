"""Latency of int8 files of nets with fewer channels against their multiply-accumulates (MACs); writes docs/shrunk_latency.md.

    python benchmarks/shrunk_latency.py [--only NET ...] [--seconds 30] [--records runs/shrunk_latency] [--page docs/shrunk_latency.md]

`PruneChannels` removes 5, 25, 50 and 75 % of the MACs of each net; of nets of inverted residuals, half and three quarters also with their narrow layers left whole and the
other ones in multiples of 16. The int8 files of one net are open in one process and run by turns, on one thread with XNNPACK; the first run of a turn does not count. The
smallest time is shown, as other programs only make runs longer; beside it stands the median of the shares of the whole net's time in the same round. On a machine that does
nothing else the two agree. Weights are random: the times do not depend on them. A net whose record is there is not run again.
"""

import argparse
import dataclasses
import pathlib

import keras
import numpy as np
from forms import settled, small_v3, vit

import tfdistill
from tfdistill.benchmarking.alternating import alternate
from tfdistill.compress import PruneChannels
from tfdistill.host import HostFingerprint, fingerprint
from tfdistill.records import Record
from tfdistill.runtime.profile import profile_operations
from tfdistill.tflite import Tolerances, export_tflite
from tfdistill.utils.files import temporary_folder, write_whole

KEEP_MACS, KEEP_WIDE = (0.95, 0.75, 0.5, 0.25), (0.5, 0.25)
SAMPLES = 16


def application(name, pixels):
    return settled(
        getattr(keras.applications, name)(input_shape=(pixels, pixels, 3), weights=None, classes=10, classifier_activation=None), SAMPLES
    )


# Net -> its name in the table, the function that builds it, and whether it is a convolutional one.
NETS = {
    "MobileNetV3Small": ("MobileNetV3Small, 224 x 224", lambda: small_v3(224), True),
    "MobileNetV2": ("MobileNetV2, 224 x 224", lambda: application("MobileNetV2", 224), True),
    "ResNet50": ("ResNet50, 224 x 224", lambda: application("ResNet50", 224), True),
    "ViT": ("ViT-Tiny (12 blocks, width 192), 96 x 96 in patches of 8", lambda: vit(12, 192, 12, 3, patch=8, hidden=4), False),
}

# Nets of inverted residuals, and what removes the channels inside their blocks alone.
INVERTED = ("MobileNetV3Small", "MobileNetV2")
WIDE = {"exclude": "*_project", "divisor": 16}


def goal(share):
    """The largest share of the latency for a share of the MACs, in convolutional nets."""
    return 1.15 * share + 0.05


@dataclasses.dataclass(frozen=True)
class ShrunkLatency(Record):
    """The int8 files of one net: the whole one, then those with fewer channels.

    Attributes:
        net: Name of the net.
        keep_macs: Largest shares of the MACs that were to stay; 1 of the whole net. The last ones are those of `KEEP_WIDE` where the net is in `INVERTED`.
        macs: Multiply-accumulates.
        size_bytes: Sizes of the files.
        least_ms: Smallest times of one run in milliseconds.
        shares: Medians of the times as shares of that of the whole net in the same round.
        delegated: Shares of the operations that XNNPACK takes.
        depthwise: Shares of the time of a run that depthwise convolutions take.
        host: Machine and package versions.
    """

    net: str
    keep_macs: tuple[float, ...]
    macs: tuple[int, ...]
    size_bytes: tuple[int, ...]
    least_ms: tuple[float, ...]
    shares: tuple[float, ...]
    delegated: tuple[float, ...]
    depthwise: tuple[float, ...]
    host: HostFingerprint


def measure(net, seconds):
    """Returns the `ShrunkLatency` of a net."""
    keras.utils.set_random_seed(0)
    model = NETS[net][1]()
    x = np.random.default_rng(1).uniform(0, 1, (SAMPLES, *model.input_shape[1:])).astype("float32")
    keep = [(share, {}) for share in KEEP_MACS] + [(share, WIDE) for share in KEEP_WIDE if net in INVERTED]
    models = [model, *(settled(PruneChannels(keep_macs=share, **settings).apply(model), SAMPLES) for share, settings in keep)]
    with temporary_folder() as folder:
        records = []
        for number, each in enumerate(models):
            records.append(export_tflite(each, folder / f"{number}.tflite", "int8", calibration=x, tolerances=Tolerances()))
            print(f"{net}: {records[-1].size_bytes:,} bytes", flush=True)
        found = alternate(*(record.path for record in records), seconds=seconds, amx=False)
        depthwise = tuple(sum(op.share for op in profile_operations(record.path, amx=False) if "DWConv" in op.name) for record in records)
    return ShrunkLatency(
        net=net,
        keep_macs=(1.0, *(share for share, _ in keep)),
        macs=tuple(tfdistill.profile(each).macs for each in models),
        size_bytes=tuple(record.size_bytes for record in records),
        least_ms=found.least_ms,
        shares=found.shares,
        delegated=found.delegated,
        depthwise=depthwise,
        host=fingerprint(),
    )


def page(rows):
    """Returns the page of the records, in Markdown."""
    lines = [
        "# Latency of smaller shapes",
        "",
        "Int8 files of nets of which `PruneChannels(keep_macs=...)` has removed channels, against their multiply-accumulates (MACs). All files of a net are open in one process and",
        "run by turns, on one thread with XNNPACK; the first run of a turn does not count. The smallest time is shown, as other programs only make runs longer; beside its share of the whole",
        "net's time stands the median of these shares round by round. Weights are random. Made by `benchmarks/shrunk_latency.py`.",
        "",
        "The goal for convolutional nets is a share of the latency of at most 1.15 times the share of the MACs, plus 0.05. Half of the channels are a quarter of the MACs of most",
        'convolutions, but half of those of depthwise ones, and half of the activations: what takes their share of the time falls more slowly than the MACs. In the rows "wide" the narrow',
        'layers between the blocks stay whole and the others multiples of 16, `PruneChannels(exclude="*_project", divisor=16)`: the depthwise convolutions lose as much as the others; and',
        "the kernels of processors with AVX-512 compute 16 channels at once, so that eight take as long.",
        "Where time is what counts, `keep_latency=` removes channels until it is met.",
        "",
        "| net | `keep_macs` | MACs, millions | share | file, KiB | ms | share | median share | goal | depthwise | by XNNPACK |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        shown, _, convolutional = NETS[row.net]
        for i, keep in enumerate(row.keep_macs):
            share, latency = row.macs[i] / row.macs[0], row.least_ms[i] / row.least_ms[0]
            wide = ", wide" if i > len(KEEP_MACS) else ""
            cells = [shown if i == 0 else "", "all" if i == 0 else f"{keep:g}{wide}", f"{row.macs[i] / 1e6:,.1f}", f"{share:.2f}"]
            cells += [f"{row.size_bytes[i] / 1024:,.0f}", f"{row.least_ms[i]:.2f}", f"{latency:.2f}", f"{row.shares[i]:.2f}"]
            cells += [f"{goal(share):.2f}, {'met' if latency <= goal(share) else 'missed'}" if convolutional and i else ""]
            cells += [f"{100 * found[i]:.0f} %" for found in (row.depthwise, row.delegated)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"On {rows[0].host.packages_line()}.", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--seconds", type=float, default=30.0, help="how long the files of a net run")
    parser.add_argument("--records", type=pathlib.Path, default=pathlib.Path("runs/shrunk_latency"))
    parser.add_argument("--page", type=pathlib.Path, default=pathlib.Path("docs/shrunk_latency.md"))
    arguments = parser.parse_args()
    paths = {net: arguments.records / f"{net}.json" for net in NETS}
    for net in arguments.only:
        if not paths[net].exists():
            measure(net, arguments.seconds).save(paths[net])
        with write_whole(arguments.page) as beside:
            beside.write_text(page([ShrunkLatency.load(path) for path in paths.values() if path.exists()]), encoding="utf-8")
    print(arguments.page.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
