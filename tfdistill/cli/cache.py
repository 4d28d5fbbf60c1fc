"""The commands about stored teacher outputs: `tfdistill cache info`, `tfdistill cache verify`, `tfdistill label`."""

import os
import pathlib
import sys
from typing import Annotated, Any, cast

import typer

from tfdistill.cli.quiet import quiet_start

cache = typer.Typer(no_args_is_help=True, help="Inspect a folder of stored teacher outputs (soft targets).")


def _open(directory):
    quiet_start()
    from tfdistill.distill.cache.reader import SoftTargetCache

    return SoftTargetCache(directory)


@cache.command(epilog="Example: tfdistill cache info soft_targets")
def info(directory: Annotated[pathlib.Path, typer.Argument(help="Folder of the cache.")]):
    """Print what a cache holds."""
    found = _open(directory)
    from rich.console import Console
    from rich.table import Table

    from tfdistill.distill.cache.manifest import inputs_text

    settings = found.manifest.settings
    table = Table(show_header=False)
    rows = {
        "elements": f"{found.elements:,}",
        "size": f"{found.size_bytes / 1e6:.2f} MB in {len(found.manifest.shards)} shards",
        "bytes for each element": str(settings.layout.row_bytes),
        "teacher": f"{settings.teacher.kind}, architecture {settings.teacher.architecture[:12]}, weights {settings.teacher.weights[:12] or '-'}",
        "inputs": inputs_text(settings.inputs),
        "stored": "\n".join(f"{leaf.role} {leaf.name}: {leaf.dtype} {leaf.shape}" for leaf in settings.layout.leaves),
        "views": str(settings.layout.views),
        "teacher's batch size": str(settings.block),
        "written by": f"tfdistill {settings.library_version}",
    }
    if settings.top_k:
        rows["largest logits"] = f"{settings.top_k} of {settings.classes}, the others at temperatures {settings.temperatures}"
    for name, value in rows.items():
        table.add_row(name, value)
    Console().print(table)


@cache.command(epilog="Example: tfdistill cache verify soft_targets")
def verify(directory: Annotated[pathlib.Path, typer.Argument(help="Folder of the cache.")]):
    """Compare every file with its checksum."""
    from tfdistill.utils.progress import progress

    found = _open(directory)
    with progress("Verifying", len(found.manifest.shards)) as advance:
        found.verify(advance)
    typer.echo(f"{len(found.manifest.shards)} shards, {found.elements:,} elements: all whole.")


def label(
    teacher: Annotated[pathlib.Path, typer.Argument(help="A .keras file, .tflite file or SavedModel folder.")],
    dataset: Annotated[str, typer.Argument(help="The function that makes the data, as module:function.")],
    directory: Annotated[pathlib.Path, typer.Argument(help="Folder of the cache.")],
    shards: Annotated[int, typer.Option(min=1, help="Number of files.")] = 16,
    workers: Annotated[int | None, typer.Option(min=1, help="Number of workers; one for each CPU if not given.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each worker.")] = 1,
    address: Annotated[str | None, typer.Option(help="Ray cluster; started on this machine if not given.")] = None,
    dtype: Annotated[str, typer.Option(help="float16, bfloat16 or float32.")] = "float16",
    layer: Annotated[list[str] | None, typer.Option(help="A layer whose output is stored as well; may be given several times.")] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Number of largest logits stored; all if not given.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Number of elements in a batch of the teacher.")] = None,
):
    """Run a teacher on a whole data set and store its outputs, on many processes or machines."""
    quiet_start()
    from tfdistill.distill.cache.options import CacheOptions
    from tfdistill.distill.cache.ray_workers import label_with_ray

    # The user's module is found in the working folder, as with `python -m`.
    sys.path.insert(0, os.getcwd())
    options = CacheOptions(layers=layer or (), dtype=cast(Any, dtype), top_k=top_k, batch_size=batch_size)
    done = label_with_ray(teacher, dataset, directory, shards, address, options=options, workers=workers, threads=threads)
    typer.echo(f"{done.elements:,} elements, {done.size_bytes / 1e6:.2f} MB in {len(done.manifest.shards)} shards: {directory}")
