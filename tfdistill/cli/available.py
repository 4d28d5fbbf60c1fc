"""The command `tfdistill targets`."""

import json
from typing import Annotated

import typer


def targets(
    as_json: Annotated[bool, typer.Option("--json", help="Print the targets as JSON.")] = False,
):
    """Show what files can be benchmarked on here, and why they cannot on the rest."""
    from rich.console import Console

    from tfdistill.benchmarking.available import available_targets
    from tfdistill.report.tables import target_table

    found = available_targets()
    if as_json:
        typer.echo(json.dumps([record.to_dict() for record in found], indent=2, allow_nan=False))
    else:
        Console().print(target_table(found))
