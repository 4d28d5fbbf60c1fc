"""Pictures of a run, made from records."""

import math

from tfdistill.utils.files import write_whole
from tfdistill.utils.optional import require

_COLOURS = {
    "teacher": "#4c566a",
    "scratch": "#bf616a",
    "distilled": "#5e81ac",
    "pruned": "#8fbcbb",
    "quantized": "#a3be8c",
    "float32": "#d08770",
    "int8": "#2e7d32",
}


def summary_picture(summary, path):
    """Draws accuracy against size, and the files' latency beside it.

    Args:
        summary: `Summary`.
        path: The .png file to write, whole or not at all.

    Returns:
        The path.
    """
    require("matplotlib", "draw the summary").use("Agg")
    pyplot = require("matplotlib.pyplot", "draw the summary")
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.5), width_ratios=(2, 1), layout="constrained")
    _accuracy_against_size(left, summary)
    _latency(right, summary)
    figure.suptitle(f"{summary.dataset}, seed {summary.seed}, on {summary.host.cpu_model}")
    with write_whole(path) as beside:
        figure.savefig(beside, dpi=120)
    pyplot.close(figure)
    return path


def _accuracy_against_size(axes, summary):
    # A float32 weight takes four bytes; files are as large as they are.
    points = [(s.name, 4 * s.parameters, s.accuracy, "o") for s in summary.stages if s.name != "quantized"]
    points += [(e.variant, e.size_bytes, e.accuracy, "s") for e in summary.exports if e.accuracy is not None]
    for number, (name, size, accuracy, marker) in enumerate(points):
        label = f"{name} file" if marker == "s" else name
        # Those that later ones lie upon are larger, so that a ring of them is seen.
        upon = sum(abs(math.log(other / size)) < 0.1 and abs(value - accuracy) < 0.001 for _, other, value, _ in points[number + 1 :])
        axes.scatter(
            size / 1024,
            100 * accuracy,
            s=90 * (1 + 1.5 * upon),
            marker=marker,
            color=_COLOURS.get(name),
            label=label,
            edgecolor="white",
            zorder=3,
        )
    axes.set_xscale("log")
    axes.set_xlabel("size in KiB: weights at four bytes each (dots), .tflite file (squares)")
    axes.set_ylabel("accuracy on the test part, %")
    axes.grid(alpha=0.3)
    for handle in axes.legend(fontsize=8, loc="best").legend_handles:
        handle.set_sizes([60])


def _latency(axes, summary):
    names = [t.variant for t in summary.benchmarks]
    medians = [t.p50_ms for t in summary.benchmarks]
    tails = [max(t.p90_ms - t.p50_ms, 0.0) for t in summary.benchmarks]
    bars = axes.bar(names, medians, yerr=[[0.0] * len(tails), tails], capsize=4, color=[_COLOURS.get(n) for n in names])
    axes.bar_label(bars, labels=[f"{m:.3f}" for m in medians], label_type="center", color="white")
    axes.set_ylabel("latency in ms: median, whisker to the 90th percentile")
    axes.set_title("one thread", fontsize=10)
    axes.grid(axis="y", alpha=0.3)
