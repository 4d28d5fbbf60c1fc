"""The command `tfdistill`: its arguments and what it prints."""

import pathlib
import sys
from typing import Annotated

import typer

from tfdistill.cli import available, benchmark, cache, files, kits
from tfdistill.cli.quiet import quiet_start, set_verbose
from tfdistill.errors import TfdistillError, VerificationError
from tfdistill.version import __version__

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Distil and compress Keras models for small devices. Exit codes: 0 done, 1 an error, or something that check finds to fail, 2 wrong arguments, 3 a file that does not compute what "
    "its model does.",
)

app.add_typer(cache.cache, name="cache")
app.command(epilog="Example: tfdistill label teacher.keras my_data:training soft_targets --shards 8")(cache.label)
app.command(epilog="Example: tfdistill check m.keras --target micro --data test.npz")(files.check)
app.command(epilog="Example: tfdistill export m.keras --variant int8 --calibration images/ --out m.tflite")(files.export)
app.command(epilog="Example: tfdistill verify m.tflite m.keras --data test.npz")(files.verify)
app.command(epilog="Example: tfdistill blame m.tflite m.keras --data test.npz --plot layers.png")(files.blame)
app.command(epilog="Example: tfdistill benchmark float.tflite int8.tflite --threads 2 --html page.html")(benchmark.benchmark)
app.command(epilog="Example: tfdistill inspect m.tflite --html m.html")(files.inspect)
app.command(epilog="Example: tfdistill kit m.tflite --for web --out page --open")(kits.kit)
app.command(name="targets", epilog="Example: tfdistill targets --json")(available.targets)


def _version(requested):
    if requested:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what TensorFlow prints.")] = False,
):
    set_verbose(verbose)


@app.command(epilog="Example: tfdistill demo --dataset digits --out runs/demo")
def demo(
    dataset: Annotated[str, typer.Option(help="digits (part of scikit-learn) or fashion-mnist.")] = "digits",
    data: Annotated[pathlib.Path | None, typer.Option(help="Folder of Fashion-MNIST's four files.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights and order.")] = 0,
    out: Annotated[pathlib.Path, typer.Option(help="Folder of the results.")] = pathlib.Path("runs/demo"),
    epochs_scale: Annotated[float, typer.Option(help="Factor on all numbers of epochs.")] = 1.0,
):
    """Teach, prune, quantize, export, verify and time a small model on real images."""
    quiet_start()
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
        sys.exit(3 if isinstance(error, VerificationError) else 1)
