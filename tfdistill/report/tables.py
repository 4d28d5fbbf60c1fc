"""Tables for a terminal, made from records."""

import math

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from tfdistill.utils.tables import clean


def summary_table(summary):
    """Makes the one table of a run.

    Args:
        summary: `Summary`.

    Returns:
        A `rich.table.Table`: a row per stage, then a row per file.
    """
    # Without a frame it fits the 80 columns of a plain terminal.
    table = Table(title=f"{summary.dataset}, seed {summary.seed}", box=SIMPLE_HEAD)
    for heading, side in (
        ("model", "left"),
        ("accuracy", "right"),
        ("weights", "right"),
        ("not zero", "right"),
        ("KiB", "right"),
        ("p50 ms", "right"),
        ("p99 ms", "right"),
    ):
        table.add_column(heading, justify=side, no_wrap=True)
    for stage in summary.stages:
        table.add_row(stage.name, _percent(stage.accuracy), f"{stage.parameters:,}", f"{stage.nonzero_parameters:,}", "", "", "")
    table.add_section()
    latencies = {timed.variant: timed for timed in summary.benchmarks}
    for export in summary.exports:
        timed = latencies.get(export.variant)
        times = [f"{timed.p50_ms:.3f}", f"{timed.p99_ms:.3f}"] if timed else ["", ""]
        table.add_row(f"{export.variant} .tflite", _percent(export.accuracy), "", "", f"{export.size_bytes / 1024:.1f}", *times)
    return table


def latency_table(records):
    """Makes the table of several benchmarks.

    Args:
        records: `BenchmarkRecord`s.

    Returns:
        A `rich.table.Table`: a row per file.
    """
    table = Table(title=records[0].target, box=SIMPLE_HEAD)
    for heading in ("file", "KiB", "p50 ms", f"{records[0].confidence:.0%} interval", "p90 ms", "p99 ms", "arena KiB"):
        table.add_column(heading, justify="left" if heading == "file" else "right", overflow="fold")
    for record in records:
        arena = "" if record.arena_bytes is None else f"{record.arena_bytes / 1024:.1f}"
        p50, p90, p99 = ("" if math.isnan(time) else f"{time:.4g}" for time in (record.p50_ms, record.p90_ms, record.p99_ms))
        interval = "" if record.p50_low_ms is None else f"{record.p50_low_ms:.4g} to {record.p50_high_ms:.4g}"
        table.add_row(clean(record.path), f"{record.size_bytes / 1024:.1f}", p50, interval, p90, p99, arena)
    return table


def target_table(records):
    """Makes the table of what files can be benchmarked on.

    Args:
        records: `TargetRecord`s.

    Returns:
        A `rich.table.Table`: a row per target, with the reason of those that cannot be used.
    """
    table = Table(title="targets", box=SIMPLE_HEAD)
    for heading in ("target", "usable", "runtime, or the reason"):
        table.add_column(heading, overflow="fold")
    for record in records:
        words = "\n".join(clean(line, 500) for line in (record.found or record.reason or "").splitlines())
        table.add_row(record.target, "yes" if record.usable else "no", Text(words))  # a text, as brackets in a string are markup
    return table


def _percent(share):
    return "" if share is None else f"{100 * share:.1f} %"
