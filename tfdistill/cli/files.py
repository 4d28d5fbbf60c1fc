"""The commands about one file: `tfdistill check`, `tfdistill export`, `tfdistill verify`, `tfdistill blame`, `tfdistill inspect`."""

import fractions
import json
import pathlib
from typing import Annotated, Any, cast

import typer

from tfdistill.cli.data import FORMS, load_all
from tfdistill.cli.quiet import quiet_start
from tfdistill.errors import ConfigurationError

_DATA = f"{FORMS[0].upper()}{FORMS[1:]}. A named function is code of your own that is run."
_VARIANTS = "float32, float16, dynamic_range, int8, int16x8, int4_weights or int8_int4_mixed."
Model = Annotated[pathlib.Path, typer.Argument(help="A .keras or .h5 file of Keras 3 or Keras 2, or a SavedModel folder of Keras 2.")]


def _factor(text):
    try:
        found = float(fractions.Fraction(str(text)))
    except (ValueError, ZeroDivisionError, OverflowError):
        found = 0.0
    if not found:
        raise typer.BadParameter(f"'{text}' is no factor. Give a number or a fraction, such as 0.00392157 or 1/255.")
    return found


Rescale = Annotated[
    float,
    typer.Option(
        parser=_factor, metavar="FACTOR", help="Factor on images of a folder, whose values are 0 to 255: 1/255 for a model of 0 to 1."
    ),
]
Record = Annotated[pathlib.Path | None, typer.Option(help="Write the record to this JSON file.")]


def read_normalization(text):
    """Reads `MEAN,STD`, each one number or one for each channel with spaces between."""
    try:
        mean, std = ([float(number) for number in part.split()] for part in str(text).split(","))
    except ValueError:
        mean = std = []
    if not mean or not std:
        raise typer.BadParameter(
            f"'{text}' is no normalization. Give mean and standard deviation, such as 127.5,127.5 or '124 116 104,58 57 57'."
        )
    return mean, std


def export(
    model: Model,
    out: Annotated[pathlib.Path, typer.Option(help="The .tflite file to write.")],
    variant: Annotated[str, typer.Option(help=_VARIANTS)] = "float32",
    calibration: Annotated[str | None, typer.Option(help=f"Data that shows the ranges to integer activations. {_DATA}")] = None,
    verify_on: Annotated[str | None, typer.Option(help="Data to compare file and model on; the calibration data if not given.")] = None,
    io: Annotated[str, typer.Option(help="Type of float inputs and outputs: auto, float32, int8, uint8 or int16.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Batch size of the file.")] = 1,
    road: Annotated[str, typer.Option(help="Who makes the integers: auto, bridge, converter or quantizer.")] = "auto",
    runtime: Annotated[
        str | None, typer.Option(help="What is to run the file, if not today's LiteRT: tflite-runtime-2.14 or tflite-micro.")
    ] = None,
    rescale: Rescale = 1.0,
    labels: Annotated[
        pathlib.Path | None, typer.Option(help="Text file with the name of a class on each line, to write into the file.")
    ] = None,
    normalization: Annotated[
        Any,
        typer.Option(
            parser=read_normalization,
            metavar="MEAN,STD",
            help="What apps do to the pixels of an image: 127.5,127.5 for a model of -1 to 1; numbers for each channel with spaces between.",
        ),
    ] = None,
    author: Annotated[str, typer.Option(help="Who made the model.")] = "",
    license: Annotated[str, typer.Option(help="Under which terms it may be used, such as Apache-2.0.")] = "",
    record: Record = None,
):
    """Write a Keras model as a .tflite file, verified against the model."""
    quiet_start()
    from tfdistill.bridge.load import load_model
    from tfdistill.convert.variants import variant_named
    from tfdistill.tflite.destination import destination
    from tfdistill.tflite.export import export_tflite

    destination(out)
    refuse_folder(record)
    variant_named(variant)
    about = _metadata(labels, normalization, author, license)
    loaded = load_model(model)
    samples, others = load_all((calibration, verify_on), loaded, rescale)
    settings: dict[str, Any] = {"road": road, "runtime": runtime, "metadata": about}
    done = export_tflite(loaded, out, cast(Any, variant), samples, others, batch_size, cast(Any, io), **settings)
    _show(done, record)


def verify(
    file: Annotated[pathlib.Path, typer.Argument(help="The .tflite file.")],
    model: Model,
    data: Annotated[str, typer.Option(help=f"Data to compare the two on. {_DATA}")],
    variant: Annotated[str | None, typer.Option(help="Variant whose tolerances apply; that of the file if not given.")] = None,
    target: Annotated[
        str | None, typer.Option(help="What runs the file, as in tfdistill benchmark: micro, ssh://pi@board; this process if not given.")
    ] = None,
    rescale: Rescale = 1.0,
    record: Record = None,
):
    """Compare a .tflite file with its Keras model; exit code 3 if it computes something else."""
    quiet_start()
    from tfdistill.bridge.load import load_model
    from tfdistill.cli.target_text import parse_target
    from tfdistill.tflite.verification.verify import verify as compare

    refuse_folder(record)
    device = parse_target(target) if target else None
    loaded = load_model(model)
    (samples,) = load_all((data,), loaded, rescale)
    _show(compare(file, loaded, samples, variant=cast(Any, variant), target=device), record)


def blame(
    file: Annotated[pathlib.Path, typer.Argument(help="The .tflite file.")],
    model: Model,
    data: Annotated[str, typer.Option(help=f"Data to run the two on. {_DATA}")],
    plot: Annotated[pathlib.Path | None, typer.Option(help="Draw the errors of the layers to this .png, .svg or .pdf file.")] = None,
    rescale: Rescale = 1.0,
    record: Record = None,
):
    """Show in which layer of a .tflite file its error arises."""
    quiet_start()
    from tfdistill.bridge.load import load_model
    from tfdistill.tflite.blame.layer_error import layer_error

    refuse_folder(record)
    refuse_folder(plot, "--plot", "layers.png")
    loaded = load_model(model)
    (samples,) = load_all((data,), loaded, rescale)
    found = layer_error(loaded, file, samples)
    _show(found, record)
    if plot is not None:
        typer.echo(f"Picture: {found.plot(plot)}")


def inspect(
    file: Annotated[pathlib.Path, typer.Argument(help="A .tflite file, from any converter.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON, every operation included.")] = False,
    page: Annotated[pathlib.Path | None, typer.Option("--html", help="Write a page that draws the operations to this file.")] = None,
    target: Annotated[
        str, typer.Option(help="Target that the colors of the page show: xnnpack, builtin, micro, edgetpu or gpu.")
    ] = "xnnpack",
    explorer: Annotated[
        bool, typer.Option("--explorer", help="Open the file in Model Explorer, where ai-edge-model-explorer is installed, until Ctrl+C.")
    ] = False,
):
    """Show what is in a .tflite file, without running it."""
    from tfdistill.cli.explorer import explore, explorer_program
    from tfdistill.report.graph_page import graph_page
    from tfdistill.runtime.interpreter import read_file
    from tfdistill.runtime.operations import require_target
    from tfdistill.tflite.inspection.inspect import inspect as found_in
    from tfdistill.utils.files import write_whole

    require_target(target)
    refuse_folder(page, "--html", "page.html")
    program = explorer_program() if explorer else None
    read = read_file(file)
    found = found_in(read)
    typer.echo(json.dumps(found.to_dict(), indent=2, allow_nan=False) if as_json else str(found))
    if page is not None:
        with write_whole(page) as temporary:
            temporary.write_text(graph_page(found, target), encoding="utf-8")
        typer.echo(f"Page: {page}", err=as_json)
    if program is not None:
        explore(program, read, found, target)


def check(
    model: Model,
    variant: Annotated[str, typer.Option(help=_VARIANTS)] = "int8",
    target: Annotated[str, typer.Option(help="What is to run the file: xnnpack, builtin, micro, edgetpu or gpu.")] = "xnnpack",
    data: Annotated[
        str | None, typer.Option(help=f"Samples, with which inputs and outputs of several scales are measured. {_DATA}")
    ] = None,
    rescale: Rescale = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
):
    """Find what will fail, be slow or be inexact on a device before a model is trained; exit code 1 if something fails."""
    quiet_start()
    from tfdistill.bridge.load import load_model
    from tfdistill.convert.variants import variant_named
    from tfdistill.preflight.run import check as find
    from tfdistill.runtime.operations import require_target

    variant_named(variant)
    require_target(target)
    loaded = load_model(model)
    (samples,) = load_all((data,), loaded, rescale)
    found = find(loaded, cast(Any, variant), cast(Any, target), samples)
    typer.echo(json.dumps(found.to_dict(), indent=2, allow_nan=False) if as_json else str(found))
    if found.fails:
        raise typer.Exit(1)


def refuse_folder(path, option="--record", name="record.json"):
    """Raises a `ConfigurationError` if the file that an option names is a folder: before the work whose result it gets.

    Args:
        path: The file, or None.
        option: The option.
        name: Name of a file that can be written there.
    """
    if path is not None and path.is_dir():
        raise ConfigurationError(f"{option} '{path}' is a folder.", "the file to write", f"write {option} {path / name}")


def _metadata(labels, normalization, author, license):
    """Returns the `FileMetadata` that options ask for; None if none does."""
    from tfdistill.tflite.metadata.settings import FileMetadata, Normalization

    if labels is None and normalization is None and not author and not license:
        return None
    lines = () if labels is None else label_lines(labels)
    return FileMetadata(author=author, license=license, labels=lines, normalization=normalization and Normalization(*normalization))


def label_lines(path):
    """Returns the lines of a file of labels.

    Raises:
        ConfigurationError: if it cannot be read or is empty.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # Notepad marks its files
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--labels '{path}' cannot be read: {error}.", "a UTF-8 text file with a label on each line") from error
    if not lines:
        raise ConfigurationError(f"--labels '{path}' is empty.", "a UTF-8 text file with a label on each line")
    return lines


def _show(record, path):
    typer.echo(str(record))
    if path is not None:
        typer.echo(f"Record: {record.save(path)}")
