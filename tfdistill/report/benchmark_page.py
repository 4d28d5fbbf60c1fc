"""A page about benchmarks: one HTML file without scripts or anything from elsewhere, for a desktop and a phone, in light and dark."""

import html
import math
import pathlib

from tfdistill.report.roofline_drawing import COLORS, roofline_drawing
from tfdistill.utils.tables import clean, shown

# So many of the slowest operations have a line of their own.
_MOST_OPERATIONS = 12
_STYLE = """
:root{color-scheme:light dark;--ink:#1d2733;--soft:#5b6877;--line:#dfe5ec;--page:#f5f7fa;--card:#fff;--bar:#2563a8;--tail:#a9c8ea;--own:#d9822b;--good:#1b7f4b;--bad:#b3392f}
@media(prefers-color-scheme:dark){:root{--ink:#e6ebf1;--soft:#9aa7b5;--line:#2d3743;--page:#12171d;--card:#1b222b;--bar:#6aa9ef;--tail:#2f4d70;--own:#e9a45b;--good:#5fc48d;--bad:#ee8277}}
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1060px;margin:0 auto;padding:28px 20px 60px}h1{font-size:1.7rem;line-height:1.2;margin:0 0 4px;letter-spacing:-.02em}h2{font-size:1.12rem;margin:34px 0 10px}
h3{font-size:1rem;margin:0 0 2px;overflow-wrap:anywhere}.soft{color:var(--soft)}.small{font-size:.86rem}.card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:16px 18px}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(270px,1fr));gap:14px}.big{font-size:2rem;font-weight:650;letter-spacing:-.03em;line-height:1.25;font-variant-numeric:tabular-nums}
.big small{font-size:1rem;font-weight:500;color:var(--soft)}dl{display:grid;grid-template-columns:auto 1fr;gap:1px 14px;margin:10px 0 0;font-size:.88rem}dt{color:var(--soft)}
dd{margin:0;text-align:right;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}ul.notes{list-style:none;margin:10px 0 0;padding:0;font-size:.88rem}ul.notes li{border-left:3px solid var(--own);padding:2px 0 2px 9px;margin-top:5px}
.row{display:grid;grid-template-columns:minmax(120px,24%) 1fr 92px;gap:12px;align-items:center;padding:5px 0}.row .name{overflow-wrap:anywhere;line-height:1.25}.row .value{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.row.wide{grid-template-columns:1fr auto;gap:4px 10px}.row.wide .track{grid-column:1/-1;grid-row:2}.dot{display:inline-block;width:11px;height:11px;border-radius:50%;margin-right:7px}.under{margin-bottom:12px}
.track{position:relative;height:20px;border-radius:5px;background:color-mix(in srgb,var(--line) 55%,transparent)}.track i{position:absolute;top:0;bottom:0;left:0;border-radius:5px;background:var(--bar)}.track i.tail{background:var(--tail)}
.track i.own{background:var(--own)}.track b{position:absolute;top:3px;bottom:3px;border-left:2px solid var(--card);border-right:2px solid var(--card);background:var(--ink);opacity:.85;min-width:6px}
.strip{display:flex;height:34px;border-radius:8px;overflow:hidden;margin:10px 0 14px}.strip span{background:var(--bar);border-right:1px solid var(--card);min-width:1px}.strip span.own{background:var(--own)}
.key{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:.86rem;color:var(--soft);margin-top:8px}.key i{display:inline-block;width:12px;height:12px;border-radius:3px;margin-right:6px;vertical-align:-1px}
.better{color:var(--good)}.worse{color:var(--bad)}svg{width:100%;max-width:560px;height:auto;display:block}.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(300px,1fr));gap:18px;align-items:start}
@media(max-width:560px){main{padding:18px 12px 40px}.row{grid-template-columns:1fr auto;gap:2px 10px}.row .track{grid-column:1/-1;grid-row:2}.card{padding:13px 13px}}
"""


def benchmark_page(records, profiles=None, roofs=None, lacking=None, changes=()):
    """Makes the page.

    Args:
        records: `BenchmarkRecord`s, at least one.
        profiles: Dict of path -> `OperationProfile`.
        roofs: Dict of path -> `Roofline`.
        lacking: Dict of path -> list of sentences that say why the file has no profile or roofline.
        changes: `SpeedChange`s since an earlier run.

    Returns:
        The page as a text.
    """
    names = _short_names([record.path for record in records])
    title = names[records[0].path] if len(records) == 1 else f"{len(records)} files"
    targets = ", ".join(dict.fromkeys(record.target for record in records))
    parts = [
        "<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width,initial-scale=1'>",
        f"<title>Benchmark: {_text(title)}</title><style>{_STYLE}</style></head><body><main>",
        f"<h1>Benchmark: {_text(title)}</h1><div class='soft'>{_text(targets)}<br>{_text(records[0].host.line())}, {_text(records[0].host.os)}</div>",
        "<h2>Latency</h2>",
        _latency(records, names),
        "<h2>Files</h2><div class='cards'>",
        *(_card(record, names[record.path], (lacking or {}).get(record.path, ())) for record in records),
        "</div>",
    ]
    if changes:
        parts.append("<h2>Since the last run</h2><div class='card'>")
        parts += [f"<div class='{_direction(change)}'>{_text(change.line())}</div>" for change in changes]
        parts.append("</div>")
    parts += _rooflines(roofs or {}, names)
    parts += [_operations(profile, names.get(path, path)) for path, profile in (profiles or {}).items()]
    parts.append("</main></body></html>")
    return "".join(parts)


def _latency(records, names):
    """A bar of each median, its interval, and the tail up to the 95th percentile, on one scale from zero."""
    tails = [record.p50_ms if math.isnan(record.p95_ms) else record.p95_ms for record in records]
    most = min(max(tails), 2.5 * max(record.p50_ms for record in records)) * 1.04
    rows = []
    for record, tail in zip(records, tails, strict=True):
        interval = ""
        if record.p50_low_ms is not None:
            low, high = 100 * record.p50_low_ms / most, 100 * record.p50_high_ms / most
            interval = f"<b style='left:calc({low:.2f}% - 3px);width:{max(high - low, 0):.2f}%'></b>"
        bars = (
            f"<i class='tail' style='width:{min(100 * tail / most, 100):.2f}%'></i><i style='width:{100 * record.p50_ms / most:.2f}%'></i>"
        )
        rows.append(
            f"<div class='row'><div class='name'>{_text(names[record.path])}</div><div class='track'>{bars}{interval}</div><div class='value'>{_milliseconds(record.p50_ms)}</div></div>"
        )
    level = f"{records[0].confidence:.0%}"
    key = (
        "<div class='key'><span><i style='background:var(--bar)'></i>median</span><span><i style='background:var(--tail)'></i>up to the 95th percentile</span>"
        f"<span><i style='background:var(--ink)'></i>{level} interval of the median</span></div>"
    )
    return f"<div class='card'>{''.join(rows)}{key}</div>"


def _card(record, name, lacking):
    low_high = "unknown" if record.p50_low_ms is None else f"{_milliseconds(record.p50_low_ms)} to {_milliseconds(record.p50_high_ms)}"
    streams = f"{record.streams} streams, " if record.streams > 1 else ""
    batch = f"batch {record.batch}, " if record.batch > 1 else ""
    rows = {
        f"{record.confidence:.0%} interval": low_high,
        "p90, p95, p99": " / ".join(_number(value) for value in (record.p90_ms, record.p95_ms, record.p99_ms)) + " ms",
        "slowest, jitter": f"{_milliseconds(record.max_ms)}, {_milliseconds(record.jitter_ms)}",
        "open, first run": f"{_milliseconds(record.init_ms)}, {_milliseconds(record.first_inference_ms)}",
        "throughput": f"{streams}{batch}{shown('', record.throughput_per_s)} per s",
        "runs": f"{record.runs:,} in {record.processes} {'process' if record.processes == 1 else 'processes'}",
        "file": shown("size_bytes", record.size_bytes),
        "arena": shown("arena_bytes", record.arena_bytes),
        "peak memory": shown("peak_rss_bytes", record.peak_rss_bytes),
        "inputs": "; ".join(f"{clean(key, 40)} {'x'.join(map(str, shape))}" for key, shape in record.input_shapes.items()),
    }
    facts = "".join(f"<dt>{_text(key)}</dt><dd>{_text(value)}</dd>" for key, value in rows.items() if value)
    notes = "".join(f"<li>{_text(note)}</li>" for note in (*record.remarks, *lacking))
    notes = f"<ul class='notes'>{notes}</ul>" if notes else ""
    return f"<section class='card'><h3>{_text(name)}</h3><div class='big'>{_number(record.p50_ms)} <small>ms, median</small></div><dl>{facts}</dl>{notes}</section>"


def _rooflines(roofs, names):
    if not roofs:
        return []
    lines = []
    for i, (path, roof) in enumerate(roofs.items()):
        color = COLORS[i % len(COLORS)]
        lines.append(
            f"<div class='row wide'><div class='name'><i class='dot' style='background:{color}'></i>{_text(names.get(path, path))}</div>"
            f"<div class='track'><i style='width:{min(100 * roof.share, 100):.2f}%;background:{color}'></i></div>"
            f"<div class='value'>{100 * roof.share:.3g} %</div></div><div class='small soft under'>{_number(roof.gmac_per_s)} of {_number(roof.peak_gmac_per_s)} GMAC/s "
            f"({_text(roof.compute_type)}), {roof.macs:,} multiply-accumulates, {roof.macs_per_byte:.3g} for each byte; bound by {_text(roof.bound)}</div>"
        )
    drawing = roofline_drawing({names.get(path, path): roof for path, roof in roofs.items()})
    return [f"<h2>Against this machine's measured peak</h2><div class='card two'><div>{''.join(lines)}</div>{drawing}</div>"]


def _operations(profile, name):
    """The operations in their order as a strip, and the slowest with a bar each."""
    whole = profile.total_us or 1.0
    strip = "".join(
        f"<span{'' if row.delegated else ' class=own'} style='flex:{max(row.mean_us / whole, 1e-4):.5f}' title='{_text(f'{row.name}: {row.mean_us:.1f} us')}'></span>"
        for row in profile.operations
    )
    slowest = profile.slowest(_MOST_OPERATIONS)
    most = slowest[0].mean_us if slowest else 1.0
    rows = "".join(
        f"<div class='row'><div class='name small'>{_text(clean(row.name, 70))}</div><div class='track'><i{'' if row.delegated else ' class=own'}"
        f" style='width:{100 * row.mean_us / (most or 1):.2f}%'></i></div><div class='value small'>{row.mean_us:,.1f} us</div></div>"
        for row in slowest
    )
    left = sum(not row.delegated for row in profile.operations)
    return (
        f"<h2>Operations of {_text(name)}</h2><div class='card'><div class='soft small'>{len(profile.operations)} operations in their order, {whole:,.0f} us in all, "
        f"{left} outside XNNPACK; the slowest below</div><div class='strip'>{strip}</div>{rows}<div class='key'><span><i style='background:var(--bar)'></i>run by XNNPACK</span>"
        "<span><i style='background:var(--own)'></i>run by the interpreter's own kernels</span></div></div>"
    )


def _short_names(paths):
    """Dict of path -> file name, with its folder where two have the same."""
    names = {path: pathlib.PurePath(path).name for path in paths}
    several = {name for name in names.values() if list(names.values()).count(name) > 1}
    return {path: path if name in several else name for path, name in names.items()}


def _direction(change):
    return "" if not change.intervals_apart else "better" if change.change < 0 else "worse"


def _milliseconds(value):
    return f"{_number(value)} ms"


def _number(value):
    if value is None or math.isnan(value):
        return "unknown"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def _text(value):
    return html.escape(clean(str(value), 400))
