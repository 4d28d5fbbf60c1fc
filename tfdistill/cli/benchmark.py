"""The command `tfdistill benchmark`."""

import contextlib
import dataclasses
import json
import pathlib
import sys
from typing import Annotated, Any, cast

import typer

from tfdistill.errors import ConfigurationError, TfdistillError


def benchmark(
    files: Annotated[list[pathlib.Path], typer.Argument(help="One or several .tflite files.")],
    target: Annotated[
        str,
        typer.Option(
            help="Where they run: a kind, such as cpu, or with settings: cpu:threads=2. Kinds and settings are those of tfdistill.benchmarking's targets; KIND://VALUE gives the first one."
        ),
    ] = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; short for --target cpu:threads=N.")] = None,
    seconds: Annotated[float, typer.Option(min=0.01, help="Longest time of the timed runs of each file.")] = 10.0,
    shapes: Annotated[
        list[str] | None, typer.Option(help="Shape of an input, batch included, such as image=1x96x96x3; once for each input.")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Batch size of all inputs.")] = None,
    streams: Annotated[int, typer.Option(min=1, help="Processes that run a file at the same time, for its throughput.")] = 1,
    cores: Annotated[str | None, typer.Option(help="Cores that the file may run on, such as 0 or 0,2.")] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Run all files by turns and say how many times as fast they are as the first.")
    ] = False,
    record: Annotated[pathlib.Path | None, typer.Option(help="Write the records to this folder, as JSON files.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the records as JSON.")] = False,
    operations: Annotated[
        bool, typer.Option("--operations", help="Print the times of the operations inside each file, on the CPU with XNNPACK.")
    ] = False,
    page: Annotated[
        pathlib.Path | None, typer.Option("--html", help="Write a page with times, operations and what the machine could do to this file.")
    ] = None,
    history: Annotated[
        pathlib.Path | None, typer.Option(help="Append the records to this file, and say what changed since the last ones in it.")
    ] = None,
):
    """Measure latency, memory and throughput of .tflite files, each in processes of its own, or compare their speed."""
    from tfdistill.benchmarking.run import benchmark as measure
    from tfdistill.benchmarking.timing import Timing
    from tfdistill.cli.files import refuse_folder
    from tfdistill.utils.files import writable_folder

    refuse_folder(page, "--html", "page.html")
    refuse_folder(history, "--history", "history.jsonl")
    if record is not None:
        writable_folder(record)
    where, sizes = _target(target, threads), _shapes(shapes)
    timing = Timing(min_seconds=min(0.5, seconds), max_seconds=seconds, cores=cast(Any, _cores(cores)))
    if compare:
        _refuse_with_compare(batch=batch, streams=streams if streams > 1 else None, html=page, history=history)
        _compare(
            files,
            where,
            dataclasses.replace(timing, processes=8, warmup_seconds=0.1, min_seconds=min(2.0, seconds)),
            sizes,
            record,
            as_json,
        )
        return
    done = []
    for path in files:
        done.append(measure(path, where, timing=timing, shapes=sizes, batch=batch, streams=streams))
        if len(files) > 1 and sys.stderr.isatty():
            typer.echo(f"{path}: {done[-1].p50_ms:.4g} ms", err=True)
    changes = [] if history is None else _changes(history, done)
    if as_json:
        typer.echo(json.dumps([one.to_dict() for one in done], indent=2, allow_nan=False))
    else:
        _print(done)
    for one in done if operations else ():
        typer.echo(str(_profile(one)), err=as_json)
    for change in changes:
        typer.echo(change.line(), err=as_json)
    for one in done if record else ():
        saved = one.save(cast(Any, record) / f"{pathlib.Path(one.path).stem}.json")
        typer.echo(f"Record: {saved}", err=as_json)
    if page is not None:
        _write_page(page, done, changes)
        typer.echo(f"Page: {page}", err=as_json)


def _print(done):
    from rich.console import Console

    from tfdistill.report.tables import latency_table

    if len(done) == 1:
        typer.echo(str(done[0]))
        return
    Console().print(latency_table(done))
    for one in done:
        for remark in one.remarks:
            typer.echo(f"{one.path}: {remark}")


def _compare(files, where, timing, sizes, record, as_json):
    from tfdistill.benchmarking.comparing import compare_speed

    found = compare_speed(files, where, timing=timing, shapes=sizes)
    typer.echo(json.dumps(found.to_dict(), indent=2, allow_nan=False) if as_json else str(found))
    if record is not None:
        typer.echo(f"Record: {found.save(record / 'comparison.json')}", err=as_json)


def _changes(path, done):
    from tfdistill.benchmarking.history import History

    kept = History(path)
    broken = kept.damaged()
    if broken:
        typer.echo(f"{path}: {broken} damaged {'line was' if broken == 1 else 'lines were'} passed over.", err=True)
    return [change for change in map(kept.add, done) if change is not None]


def _write_page(page, done, changes):
    from tfdistill.benchmarking.peak import roofline
    from tfdistill.report.benchmark_page import benchmark_page
    from tfdistill.utils.files import write_whole

    profiles, roofs, lacking = {}, {}, {}
    for one in done:
        # Each is an addition to the page: the reason stands there where one cannot be had.
        for found, make in ((profiles, _profile), (roofs, roofline)):
            try:
                found[one.path] = make(one)
            except TfdistillError as error:
                lacking.setdefault(one.path, []).append(error.happened)
    with write_whole(page) as temporary:
        temporary.write_text(benchmark_page(done, profiles, roofs, lacking, changes), encoding="utf-8")


def _profile(record):
    from tfdistill.benchmarking.operations import profile_operations

    settings = record.target_settings
    if settings["kind"] != "cpu" or settings.get("kernels", "xnnpack") != "xnnpack" or not settings.get("xnnpack", True):
        raise ConfigurationError("Operations are timed one by one on the CPU with XNNPACK only.", "that target")
    return profile_operations(record.path, threads=settings["threads"], amx=settings.get("amx", True))


def _target(text, threads):
    from tfdistill.cli.target_text import parse_target

    where = parse_target(text)
    if threads is None:
        return where
    if not hasattr(where, "threads"):
        raise ConfigurationError(f"--target {text} has no threads.", "--threads with a target that has them", "leave --threads out")
    return dataclasses.replace(where, threads=threads)


def _shapes(texts):
    found = {}
    for text in texts or ():
        name, _, sizes = text.rpartition("=")
        try:
            found[name] = [int(size) for size in sizes.lower().replace(",", "x").split("x")]
        except ValueError:
            name = ""
        if not name:
            raise typer.BadParameter(f"'{text}' is no shape. Give the name of an input and its sizes, such as image=1x96x96x3.")
    return found or None


def _cores(text):
    if text is None:
        return None
    with contextlib.suppress(ValueError):
        return [int(core) for core in text.split(",")]
    raise typer.BadParameter(f"'{text}' names no cores. Give numbers, such as 0 or 0,2.")


def _refuse_with_compare(**given):
    for name, value in given.items():
        if value is not None:
            raise ConfigurationError(f"--compare with --{name} says nothing.", "one of the two", f"leave --{name} out, or --compare")
