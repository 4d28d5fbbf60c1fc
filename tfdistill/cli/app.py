"""The command `tfdistill`: its arguments and what it prints."""

import os
import pathlib
import sys
from typing import Annotated

import typer

# Keeps TensorFlow's start-up messages out of the output.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from tfdistill.cli import cache
from tfdistill.errors import TfdistillError
from tfdistill.version import __version__

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Distil and compress Keras models for small devices."
)

app.add_typer(cache.cache, name="cache")
app.command()(cache.label)


def _version(requested):
    if requested:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _common(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False):
    pass


@app.command()
def demo(
    dataset: Annotated[str, typer.Option(help="digits (part of scikit-learn) or fashion-mnist.")] = "digits",
    data: Annotated[pathlib.Path | None, typer.Option(help="Folder of Fashion-MNIST's four files.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights and order.")] = 0,
    out: Annotated[pathlib.Path, typer.Option(help="Folder of the results.")] = pathlib.Path("runs/demo"),
    epochs_scale: Annotated[float, typer.Option(help="Factor on all numbers of epochs.")] = 1.0,
):
    """Teach, prune, quantize, export, verify and time a small model on real images."""
    from rich.console import Console

    from tfdistill.demo import run_demo
    from tfdistill.report.tables import summary_table

    summary = run_demo(dataset=dataset, data=data, seed=seed, out=out, epochs_scale=epochs_scale, log_fn=typer.echo)
    Console().print(summary_table(summary))
    typer.echo(f"Written to {out}: {', '.join(sorted(p.name for p in out.iterdir() if not p.name.startswith('.')))}")


def main():
    """Runs the command. A `TfdistillError` is printed as a message, without a traceback."""
    try:
        app()
    except TfdistillError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(1)
