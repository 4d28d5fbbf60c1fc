"""Measures the latency and memory of a .tflite file on this board.

    python3 benchmark.py model.tflite
    python3 benchmark.py model.tflite --threads 4 --kernels builtin --json

`tfdistill.benchmark("model.tflite", Ssh("pi@board"))` copies this very program to a board and runs it there.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib

import errors
from errors import KitError

HERE = pathlib.Path(__file__).resolve().parent
# Distribution names of the packages whose version can change a measurement.
PACKAGES = ("ai-edge-litert", "tflite-runtime", "numpy")


def measure_file(path, threads=1, kernels="xnnpack", timing=None, shapes=None, kept=None):
    """Measures a file.

    Args:
        path: The file.
        threads: CPU threads.
        kernels: `xnnpack`, `builtin` or `reference`.
        timing: Dict of the keyword arguments of `measuring.measure`; None for the defaults.
        shapes: Dict of input name -> full shape, for inputs without a fixed size.
        kept: Dict that gets `given`, the inputs of all runs, and `first` and `last`, the outputs of these runs: dicts of name -> array of the tensor's type. None for
            no use of them.

    Returns:
        Dict of the fields of a record of tfdistill that this board knows.

    Raises:
        KitError: if the file does not run here, or an input has no fixed size.
    """
    import machine
    import measuring
    import process_memory
    import runtime

    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    timing = dict(timing or {})
    digest = runtime.sha256(path)  # also brings the file into the page cache
    runtime.load_engine()  # before the baseline, so that the import is in it
    process_memory.reset_peak()
    baseline = process_memory.resident_bytes()
    model = runtime.Model(path, threads, kernels, shapes)
    _require_fixed(model, shapes or {})
    inputs, kept = random_inputs(model), {} if kept is None else kept
    kept["given"] = inputs

    def run():
        model.set_inputs(inputs)
        model.invoke()
        kept["last"] = model.read_outputs()  # the work is certainly done only when the outputs are in host memory
        kept.setdefault("first", kept["last"])

    clock, warmth = machine.clock_mhz(), machine.temperature_c()
    timed = measuring.measure(run, **timing)
    return {
        "sha256": digest,
        "size_bytes": os.path.getsize(path),
        "engine": model.engine,
        "input_shapes": {name: list(tensor.shape) for name, tensor in model.inputs.items()},
        **_statistics(timed, next(iter(model.inputs.values())).shape[:1] or (1,)),
        "confidence": timing.get("confidence", 0.95),
        "init_ms": model.init_seconds * 1e3,
        "arena_bytes": None,
        "baseline_rss_bytes": baseline,
        "peak_rss_bytes": process_memory.peak_bytes(),
        "load_average": load,
        "clock_mhz_before": clock,
        "clock_mhz_after": machine.clock_mhz(),
        "temperature_c_before": warmth,
        "temperature_c_after": machine.temperature_c(),
        **_delegated(model),
        "host": fingerprint(),
    }


def measure_arena(path, shapes=None):
    """Measures the memory of the activations, in bytes, with the built-in kernels; None if they cannot run the file."""
    import delegated
    import process_memory
    import runtime

    try:
        model = runtime.Model(path, 1, "builtin", shapes)
        nodes = delegated.operation_nodes(model.interpreter)
        if nodes is None:
            return None  # old runtimes cannot list their operations
        model.set_inputs(random_inputs(model))
        model.invoke()
        return process_memory.activations_bytes(model.interpreter, nodes, [tensor.index for tensor in model.inputs.values()])
    except KitError:
        return None


def fingerprint():
    """Returns the fields of a record's host: the machine and the versions of the packages."""
    import machine

    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # not installed: left out of the dict
    return {**machine.describe(), "packages": packages}


def random_inputs(model, seed=0):
    """Makes one batch for every input: floats in [0, 1), quantized integers over their whole range, zeros for other integers, which may be indices."""
    import numpy as np

    generator, made = np.random.default_rng(seed), {}
    for name, tensor in model.inputs.items():
        dtype = np.dtype(tensor.dtype)
        if dtype.kind == "f":
            made[name] = generator.random(tensor.shape).astype(dtype)
        elif tensor.scale is not None:
            limits = np.iinfo(dtype)
            made[name] = generator.integers(limits.min, limits.max, tensor.shape, dtype=dtype, endpoint=True)
        else:
            made[name] = np.zeros(tensor.shape, dtype)
    return made


def _require_fixed(model, shapes):
    free = {n: t.signature for n, t in model.inputs.items() if n not in shapes and None in t.signature[1:]}
    if free:
        raise KitError(f"These inputs have no fixed size: {free}. Time and memory depend on it.", "give their shapes")


def _statistics(timed, batch):
    """Returns what the times tell: median with its interval, tails, jitter between successive runs, and a drift over the runs."""
    import measuring
    import numpy as np

    seconds = timed.seconds
    low, high = (None, None) if timed.interval is None else (end * 1e3 for end in timed.interval)
    return {
        **{f"p{p}_ms": float(np.percentile(seconds, p)) * 1e3 for p in (50, 90, 95, 99)},
        "mean_ms": float(seconds.mean()) * 1e3,
        "min_ms": float(seconds.min()) * 1e3,
        "p50_low_ms": low,
        "p50_high_ms": high,
        "runs": len(seconds),
        "warmup_runs": timed.warmup_runs,
        "converged": bool(timed.converged),
        "warmup_stable": bool(timed.warmup_stable),
        "first_inference_ms": timed.first_seconds * 1e3,
        "max_ms": float(seconds.max()) * 1e3,
        "jitter_ms": float(measuring.jitter(seconds)) * 1e3,
        "drift": float(measuring.drift(seconds)),
        "throughput_per_s": batch[0] * len(seconds) / float(seconds.sum()),
        "batch": int(batch[0]),
    }


def _delegated(model):
    import delegated

    found = delegated.delegation(model.interpreter)
    if found is None:
        return {"operations": None, "delegated_operations": None, "partitions": None, "left_operations": {}}
    left = {f"{name} {kind}": count for (name, kind), count in found.left.items()}
    return {
        "operations": found.operations,
        "delegated_operations": found.delegated,
        "partitions": found.partitions,
        "left_operations": left,
    }


def main():
    """Measures the file of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "file", nargs="?", default=HERE / "model.tflite", help="the .tflite file (default: model.tflite beside this program)"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--kernels", choices=("xnnpack", "builtin", "reference"), default="xnnpack")
    parser.add_argument("--seconds", type=float, default=10.0, help="time limit of the timed runs (default: 10)")
    parser.add_argument("--shape", action="append", default=[], metavar="NAME=1,96,96,3", help="shape of an input without a fixed size")
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")
    parser.add_argument("--request", help=argparse.SUPPRESS)
    parser.add_argument("--result-fd", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.request:
        import answers

        answers.serve_request(given.request, given.result_fd)
        return 0
    errors.require_numpy()
    shapes = {}
    for text in given.shape:
        name, _, sizes = text.rpartition("=")
        try:
            shapes[name] = [int(size) for size in sizes.split(",")]
        except ValueError:
            parser.error(f"--shape {text} is not NAME=1,96,96,3")
    timing = {"max_seconds": given.seconds, "min_seconds": min(0.5, given.seconds)}
    record = measure_file(given.file, given.threads, given.kernels, timing, shapes)
    record["arena_bytes"] = measure_arena(given.file, shapes)
    print(json.dumps(record, indent=2) if given.json else _shown(record))
    return 0


def _shown(record):
    host = record["host"]
    lines = [
        f"{record['p50_ms']:.3f} ms median, {record['p90_ms']:.3f} ms 90th and {record['p99_ms']:.3f} ms 99th percentile, {record['runs']} runs",
        f"{record['init_ms']:.1f} ms to open; {record['peak_rss_bytes'] / 1e6:.1f} MB at most, activations "
        + (f"{record['arena_bytes']:,} bytes" if record["arena_bytes"] is not None else "unknown"),
        f"{host['cpu_model']}, {host['machine']}, Python {host['python']}, " + ", ".join(f"{n} {v}" for n, v in host["packages"].items()),
    ]
    if not record["converged"]:
        lines.append("The time limit came before the median was known to 2 %: raise --seconds, or end other programs.")
    before, after = record["clock_mhz_before"], record["clock_mhz_after"]
    if before and after and after < 0.95 * before:
        warmth = f" at {record['temperature_c_after']:.0f} degrees" if record["temperature_c_after"] else ""
        lines.append(f"The processor slowed down from {before:,.0f} to {after:,.0f} MHz{warmth}: cool it, or check its power supply.")
    if abs(record["drift"]) > 0.05:
        lines.append(
            f"The last third of the runs took {abs(record['drift']):.0%} {'longer' if record['drift'] > 0 else 'less'} than the first."
        )
    return "\n".join(lines)


if __name__ == "__main__":
    errors.run(main)
