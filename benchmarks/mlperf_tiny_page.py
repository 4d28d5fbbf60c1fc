"""The records of `benchmarks/mlperf_tiny.py`, and the page that is made from them alone."""

import dataclasses

from tfdistill.host import HostFingerprint
from tfdistill.records import Record


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


@dataclasses.dataclass(frozen=True)
class RebuiltNet(Record):
    """One net written in Keras 3, with the weights of the trained one.

    Attributes:
        name: Name of the net.
        parameters: Number of its weights.
        float_bytes: Size of the float32 file that `export_tflite` wrote.
        float_bytes_official: Size of the benchmark's own float file.
        int8_bytes: Size of the int8 file that `export_tflite` wrote.
        int8_bytes_official: Size of the benchmark's own int8 file.
        largest_difference: Largest absolute difference of its outputs to the trained net's.
        host: Machine and package versions.
    """

    name: str
    parameters: int
    float_bytes: int
    float_bytes_official: int
    int8_bytes: int
    int8_bytes_official: int
    largest_difference: float
    host: HostFingerprint


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

REBUILT = """## The four nets written in Keras 3

`benchmarks/mlperf_tiny_nets.py` has the four reference nets as Keras 3 code. The weights of the benchmark's .h5 files fit in, and the outputs are then those of the trained
nets: **difference** is the largest one on 96 samples. Calibrated by `Quantize` as above, the autoencoder by `Quantize(per_channel_dense=False)`. The published float file of
ds_cnn is small because the kernels of its convolutions are 8-bit integers (dynamic range).

| net | parameters | float32, bytes | published | int8, bytes | published | difference |
|---|---:|---:|---:|---:|---:|---:|"""


def page(rows, rebuilt):
    """Returns the page of the records, in Markdown.

    Args:
        rows: `TinyNet`s, at least one.
        rebuilt: `RebuiltNet`s.
    """
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
    return HEAD + "\n".join([*lines, "", *_rebuilt(rebuilt)]) + f"\nOn {rows[0].host.packages_line()}.\n"


def _rebuilt(rows):
    lines = [REBUILT] if rows else []
    for row in rows:
        lines.append(
            f"| {row.name} | {row.parameters:,} | {row.float_bytes:,} | {row.float_bytes_official:,} | {row.int8_bytes:,} | {row.int8_bytes_official:,} "
            f"| {row.largest_difference:g} |"
        )
    return [*lines, ""] if lines else []
