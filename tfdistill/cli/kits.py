"""The command `tfdistill kit`."""

import pathlib
import sys
import threading
import webbrowser
from typing import Annotated, Any, cast

import typer

from tfdistill.cli.data import load_data
from tfdistill.cli.files import label_lines, read_normalization
from tfdistill.errors import ConfigurationError


def kit(
    file: Annotated[pathlib.Path, typer.Argument(help="A .tflite file, from any converter.")],
    device: Annotated[str, typer.Option("--for", metavar="DEVICE", help="raspberry_pi, android, web or microcontroller.")],
    out: Annotated[pathlib.Path, typer.Option(help="The folder to write.")],
    labels: Annotated[
        pathlib.Path | None, typer.Option(help="Text file with the name of a class on each line, for a file that does not say them.")
    ] = None,
    normalization: Annotated[
        Any,
        typer.Option(
            parser=read_normalization, metavar="MEAN,STD", help="What becomes of the pixels of an image, for a file that does not say it."
        ),
    ] = None,
    samples: Annotated[
        pathlib.Path | None,
        typer.Option(help="An .npz or .npy file with the array x, or an array for each input: real data for the test vectors."),
    ] = None,
    arena_bytes: Annotated[int | None, typer.Option(min=1, help="Memory of a microcontroller for the tensors.")] = None,
    flash_bytes: Annotated[int | None, typer.Option(min=1, help="Memory of a microcontroller for the file.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a kit that is there and was not changed.")] = False,
    open_page: Annotated[bool, typer.Option("--open", help="Show the page of a web kit in a browser, until Control-C.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of --open; 0 for any.")] = 0,
    record: Annotated[pathlib.Path | None, typer.Option(help="Write the record to this JSON file.")] = None,
):
    """Make a folder that puts a .tflite file on a device."""
    from rich.console import Console

    from tfdistill.kits.make import kit as make_kit
    from tfdistill.tflite.metadata.settings import Normalization
    from tfdistill.utils.serve import served

    if open_page and device != "web":
        raise ConfigurationError(f"--open is given for {device}, which has no page.", "--for web", "leave --open out")
    names = None if labels is None else label_lines(labels)
    how = None if normalization is None else Normalization(*normalization)
    data = None if samples is None else load_data(str(samples), None)
    data = data[0] if isinstance(data, tuple) else data  # labels beside them
    done = make_kit(
        file,
        cast(Any, device),
        out,
        labels=names,
        normalization=how,
        samples=data,
        overwrite=overwrite,
        arena_bytes=arena_bytes,
        flash_bytes=flash_bytes,
    )
    Console().print(done)
    if record is not None:
        typer.echo(f"Record: {done.save(record)}")
    if not open_page:
        return
    with served(out, port) as address:
        typer.echo(f"The page is at {address} (Control-C ends it)")
        sys.stdout.flush()
        webbrowser.open(address)
        try:
            until_interrupted()
        except KeyboardInterrupt:
            typer.echo("Ended.")


def until_interrupted():
    """Waits for Control-C."""
    threading.Event().wait()
