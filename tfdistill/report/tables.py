"""Tables for a terminal, made from records."""

from rich.table import Table


def summary_table(summary):
    """Makes the one table of a run.

    Args:
        summary: `Summary`.

    Returns:
        A `rich.table.Table`: a row per stage, then a row per file.
    """
    table = Table(title=f"{summary.dataset}, seed {summary.seed}")
    for heading, side in (
        ("model", "left"),
        ("accuracy", "right"),
        ("weights", "right"),
        ("not zero", "right"),
        ("size", "right"),
        ("p50", "right"),
        ("p99", "right"),
    ):
        table.add_column(heading, justify=side)
    for stage in summary.stages:
        table.add_row(stage.name, _percent(stage.accuracy), f"{stage.parameters:,}", f"{stage.nonzero_parameters:,}", "", "", "")
    table.add_section()
    latencies = {timed.variant: timed for timed in summary.benchmarks}
    for export in summary.exports:
        timed = latencies.get(export.variant)
        times = [f"{timed.p50_ms:.3f} ms", f"{timed.p99_ms:.3f} ms"] if timed else ["", ""]
        table.add_row(f"{export.variant} .tflite", _percent(export.accuracy), "", "", f"{export.size_bytes / 1024:.1f} KiB", *times)
    return table


def _percent(share):
    return "" if share is None else f"{100 * share:.1f} %"
