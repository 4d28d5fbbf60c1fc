"""A page that draws the operations of a .tflite file, one HTML file without scripts or anything from elsewhere."""

import html

# Size of a box, of the gaps between boxes, and of the text in it, in pixels.
_WIDTH, _HEIGHT, _GAP, _ROW = 176, 46, 18, 78
# So many characters of a text are drawn; all of it stands in the tip.
_MOST = 27
COLORS = {"float": "#f3b0a5", "left": "#f5d58a", "taken": "#b5dcb0", "unknown": "#dddddd"}
MEANINGS = {
    "float": "computes in floats, in a file of integers",
    "left": "the target does not take it",
    "taken": "the target takes it",
    "unknown": "the target's table does not have it",
}
_STYLE = """body{font:14px/1.45 system-ui,sans-serif;margin:24px;color:#222}svg text{font:12px system-ui,sans-serif}
svg .name{font-weight:600}.key span{display:inline-block;padding:2px 8px;margin-right:10px;border:1px solid #888}
div.graph{overflow:auto;border:1px solid #ccc;margin:12px 0;max-height:85vh}table{border-collapse:collapse}td,th{padding:2px 10px;text-align:left}"""


def graph_page(inspection, target="xnnpack"):
    """Makes the page.

    Args:
        inspection: `FileInspection`.
        target: Name of the target that the colors show.

    Returns:
        The page as a text.
    """
    title = html.escape(inspection.census.path)
    keys = "".join(f'<span style="background:{COLORS[kind]}">{html.escape(meaning)}</span>' for kind, meaning in MEANINGS.items())
    parts = [f"<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'><title>{title}</title><style>{_STYLE}</style></head><body>"]
    parts.append(
        f"<h1>{title}</h1>{inspection._repr_html_()}<p class='key'>Target {html.escape(target)} ({html.escape(inspection.targets[target].runtime)}): {keys}</p>"
    )
    for graph in sorted({operation.graph for operation in inspection.operations}):
        operations = [operation for operation in inspection.operations if operation.graph == graph]
        in_islands = {i for island in inspection.float_islands if island.graph == graph for i in island.operations}
        parts.append(f"<h2>Graph {graph}</h2><div class='graph'>{_drawn(operations, in_islands, target)}</div>")
    return "".join([*parts, "</body></html>"])


def _drawn(operations, in_islands, target):
    """The operations of one graph as an SVG drawing: those that wait for nothing above, each below all that it reads."""
    places = _places(operations)
    width = max(x for x, _ in places.values()) + _WIDTH + 2 * _GAP
    height = max(y for _, y in places.values()) + _HEIGHT + _GAP
    lines, boxes = [], []
    for operation in operations:
        x, y = places[operation.index]
        lines += [_line(places[read], (x, y)) for read in operation.reads]
        kind = state_of(operation, in_islands, target)
        shape = "x".join(map(str, operation.shape))
        boxes.append(
            f"<g><title>{html.escape(_tip(operation))}</title>"
            f"<rect x='{x:g}' y='{y:g}' width='{_WIDTH}' height='{_HEIGHT}' rx='5' fill='{COLORS[kind]}' stroke='#666'/>"
            f"<text class='name' x='{x + 8:g}' y='{y + 19:g}'>{html.escape(operation.name[:_MOST])}</text>"
            f"<text x='{x + 8:g}' y='{y + 37:g}'>{html.escape(f'{operation.kind} {shape}'[:_MOST])}</text></g>"
        )
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width:g}' height='{height:g}'><g fill='none' stroke='#999'>{''.join(lines)}</g>"
        f"{''.join(boxes)}</svg>"
    )


def _line(above, below):
    """A line between two boxes; one that passes boxes leaves and comes in at the right, so that it is seen beside them."""
    (x, y), (to_x, to_y) = above, below
    y += _HEIGHT
    if to_y - y > _ROW:
        aside = max(x, to_x) + _WIDTH + _GAP
        return f"<path d='M{x + 0.8 * _WIDTH:g} {y:g}C{aside:g} {y + _GAP:g} {aside:g} {to_y - _GAP:g} {to_x + 0.8 * _WIDTH:g} {to_y:g}'/>"
    middle = (y + to_y) / 2
    return f"<path d='M{x + _WIDTH / 2:g} {y:g}C{x + _WIDTH / 2:g} {middle:g} {to_x + _WIDTH / 2:g} {middle:g} {to_x + _WIDTH / 2:g} {to_y:g}'/>"


def _places(operations):
    """Dict of index -> left and upper edge of its box: a row below the last that it reads, beside the others of its row, near what it reads."""
    rows, row_of = {}, {}
    for operation in operations:
        row_of[operation.index] = max((row_of[read] + 1 for read in operation.reads), default=0)
        rows.setdefault(row_of[operation.index], []).append(operation)
    columns, places = {}, {}
    for row in sorted(rows):

        def wanted(operation):
            above = [columns[read] for read in operation.reads]
            return sum(above) / len(above) if above else 0.0

        free = 0
        for operation in sorted(rows[row], key=lambda o: (wanted(o), o.index)):
            column = max(free, int(wanted(operation)))
            columns[operation.index], free = column, column + 1
            places[operation.index] = (_GAP + column * (_WIDTH + _GAP), _GAP + row * _ROW)
    return places


def state_of(operation, in_islands, target):
    """Returns the key of `COLORS` and `MEANINGS` of a `FileOperation`; `in_islands` has the indices of those that compute in floats among integers."""
    if operation.index in in_islands:
        return "float"
    return {True: "taken", False: "left", None: "unknown"}[operation.targets[target]]


def _tip(operation):
    takes = {True: "yes", False: "no", None: "not known"}
    lines = [
        f"{operation.index}: {operation.name}, version {operation.version}",
        f"writes {operation.output}",
        f"{operation.kind} {list(operation.shape)}",
        *([f"{operation.macs:,} multiply-accumulates"] if operation.macs else []),
        *([f"{operation.weights_bytes:,} bytes of constants"] if operation.weights_bytes else []),
        *(f"{target}: {takes[taken]}" for target, taken in operation.targets.items()),
    ]
    return "\n".join(lines)
