"""Tables of records, for terminals and notebooks."""

import dataclasses
import html
import io
import shutil
import typing

# So many rows of a long table are shown, and so many characters of a text, which may come from a foreign file.
MOST_ROWS, MOST_CHARACTERS = 20, 200
# Width of printed tables: that of the terminal within these bounds.
_WIDTHS = (80, 140)
_UNITS = {"_bytes": "B", "_ms": "ms", "_seconds": "s"}


class Section(typing.NamedTuple):
    """A part of a record's table.

    Attributes:
        title: Heading; empty for none.
        header: Names of the columns; None for rows of a name and a value.
        rows: Rows of texts.
    """

    title: str
    header: tuple | None
    rows: list


def sections(record):
    """Returns the parts of a record's table: its summary, then one table for each field with several records.

    Args:
        record: `tfdistill.records.Record`.
    """
    lines = [(label(name), shown(name, value)) for name, value in record.summary().items()]
    found = [Section(type(record).__name__, None, [line for line in lines if line[1]])]
    for title, rows in record.parts().items():
        found += [_table(label(title), rows)] if rows else []
    return found


def _table(title, rows):
    named = rows.items() if isinstance(rows, dict) else ((None, row) for row in rows)
    lines = [{"name": name, **row.summary()} if name is not None else row.summary() for name, row in named]
    names = [
        name for name in dict.fromkeys(n for line in lines for n in line) if any(line.get(name) not in (None, "", (), {}) for line in lines)
    ]
    body = [[shown(name, line.get(name)) for name in names] for line in lines[:MOST_ROWS]]
    if len(lines) > MOST_ROWS:
        body.append([f"and {len(lines) - MOST_ROWS} more", *[""] * (len(names) - 1)])
    return Section(title, tuple(map(label, names)), body)


def label(name):
    """Returns a field's name without its unit, in words."""
    for suffix in _UNITS:
        name = name.removesuffix(suffix)
    return name.replace("_", " ")


def shown(name, value):
    """Returns a value as text, with the unit that its field's name ends in; empty for None."""
    if value is None or (isinstance(value, (tuple, dict, list)) and not value):
        return ""
    if dataclasses.is_dataclass(value):
        return clean(value.line())
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return clean(", ".join(f"{key}: {shown('', inner)}" for key, inner in value.items()))
    if isinstance(value, (tuple, list)):
        if all(isinstance(inner, str) and " " in inner for inner in value):
            return "\n".join(clean(inner, 1000) for inner in value)  # sentences
        return clean(", ".join(shown("", inner) or "any" for inner in value))
    if isinstance(value, str):
        return clean(value[:12] if name.endswith("sha256") else value)
    text = f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if abs(value) < 1000 else f"{value:,.1f}"
    unit = next((unit for suffix, unit in _UNITS.items() if name.endswith(suffix)), "")
    if unit == "B" and value >= 1024:
        return f"{value / 1024:,.1f} KiB" if value < 10 * 1024**2 else f"{value / 1024**2:,.1f} MiB"
    return f"{text} {unit}".strip()


def clean(text, most=MOST_CHARACTERS):
    """Returns a text without characters that a terminal obeys, and cut to a length."""
    text = "".join(c if c.isprintable() else "\ufffd" for c in text)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def as_rich(record):
    """Returns a record's tables as an object that rich prints."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts = []
    for section in sections(record):
        parts.append(Text(section.title, style="bold"))
        table = Table(box=SIMPLE_HEAD if section.header else None, show_header=section.header is not None, pad_edge=bool(section.header))
        for i, heading in enumerate(section.header or ("", "")):
            words = [word for row in [(section.header or ("", "")), *section.rows] for word in row[i].split()]
            table.add_column(Text(heading), overflow="fold", min_width=min(16, max(map(len, words), default=0)))
        for row in section.rows:
            table.add_row(*(Text(cell) for cell in row))
        parts.append(table)
    return Group(*parts)


def as_text(record):
    """Returns a record's tables as plain text, as wide as the terminal."""
    from rich.console import Console

    width = min(max(shutil.get_terminal_size((_WIDTHS[0], 24)).columns, _WIDTHS[0]), _WIDTHS[1])
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False, legacy_windows=False)
    console.print(as_rich(record))
    return "\n".join(line.rstrip() for line in console.file.getvalue().rstrip().splitlines())


def as_html(record):
    """Returns a record's tables as HTML."""
    parts = []
    for section in sections(record):
        head = f"<tr>{''.join(f'<th>{_escaped(cell)}</th>' for cell in section.header)}</tr>" if section.header else ""
        body = "".join(f"<tr>{''.join(f'<td>{_escaped(cell)}</td>' for cell in row)}</tr>" for row in section.rows)
        parts.append(f"<p><b>{_escaped(section.title)}</b></p><table>{head}{body}</table>")
    return "".join(parts)


def _escaped(text):
    return html.escape(text).replace("\n", "<br>")
