#!/usr/bin/env python3
"""Measures the kit's model on an Android device with LiteRT's `benchmark_model`, over adb: Python's standard library alone.

    python3 bench.py --benchmark-model PATH [--serial SERIAL] [--threads N] [--gpu] [--json FILE] [MODEL]

`benchmark_model` is LiteRT's own program, built for the device's processor. Both files are pushed into a new folder on the device, which is removed again.
`tfdistill.benchmarking.Adb` measures the same way and compares with other devices.
"""

import argparse
import contextlib
import json
import pathlib
import re
import shlex
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
FOLDER = re.compile(r"/data/local/tmp/tfdistill-[A-Za-z0-9]+")
# The last of its lines of statistics is that of the timed runs, in microseconds.
STATISTICS = re.compile(r"\bcount=\d+ .*")
NUMBER = re.compile(r"\b(\w+)=([-+0-9.eE]+)")
INIT = re.compile(r"Init: ([0-9.eE+]+), First inference: ([0-9.eE+]+)")
DELEGATED = re.compile(r"Replacing (\d+) out of (\d+) node")


class BenchError(Exception):
    """The device or a program failed; the text says how."""


class Device:
    """A device that adb lists.

    Args:
        adb: The adb program.
        serial: Serial number; None for the only device.
    """

    def __init__(self, adb, serial=None):
        self.adb, self.serial = adb, None
        lines = self.run("devices").splitlines()
        listed = dict(line.split("\t")[:2] for line in lines if "\t" in line)
        shown = ", ".join(f"{name} ({state})" for name, state in listed.items()) or "none"
        if serial is None and len(listed) > 1:
            raise BenchError(f"Several devices are connected: {shown}. Name one: --serial {next(iter(listed))}")
        serial = next(iter(listed), None) if serial is None else serial
        if listed.get(serial) != "device":
            raise BenchError(
                f"adb has no device {serial or ''} that is ready; connected: {shown}. Switch USB debugging on, and allow this computer."
            )
        self.serial = serial

    def run(self, *arguments):
        """Runs adb; returns what it prints."""
        command = [self.adb, *(("-s", self.serial) if self.serial else ()), *map(str, arguments)]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False)
        except OSError as error:
            raise BenchError(f"{self.adb} cannot be started: {error.strerror}. Give the path of adb: --adb PATH") from error
        if done.returncode:
            raise BenchError(f"adb {arguments[0]} failed with exit code {done.returncode}:\n{(done.stdout + done.stderr).strip()[-2000:]}")
        return done.stdout + done.stderr

    def shell(self, *words):
        """Runs a program on the device; returns what it prints."""
        return self.run("shell", shlex.join(words))

    @contextlib.contextmanager
    def folder(self):
        """Yields a new folder on the device, which is removed at the end."""
        made = self.shell("mktemp", "-d", "/data/local/tmp/tfdistill-XXXXXXXX").strip()
        if not FOLDER.fullmatch(made):
            raise BenchError(f"The device made no folder: {made!r}")
        try:
            yield made
        finally:
            # Where the device has gone, the error of the block says so.
            with contextlib.suppress(BenchError):
                self.shell("rm", "-rf", made)


def read(text):
    """Returns a dict of what `benchmark_model` measured, times in milliseconds."""
    lines = STATISTICS.findall(text)
    init = INIT.search(text)
    if not lines or init is None:
        raise BenchError(f"benchmark_model printed no statistics:\n{text.strip()[-2000:]}")
    values = {name: float(value) for name, value in NUMBER.findall(lines[-1])}
    mean = values.get("avg", values.get("curr"))  # of runs that all took the same time only `curr` is printed
    delegated = DELEGATED.findall(text)
    return {
        "runs": int(values["count"]),
        "p50_ms": values["median"] / 1e3 if "median" in values else None,
        "p95_ms": values["p95"] / 1e3 if "p95" in values else None,
        "mean_ms": mean / 1e3,
        "min_ms": values.get("min", mean) / 1e3,
        "max_ms": values.get("max", mean) / 1e3,
        "init_ms": float(init[1]) / 1e3,
        "first_inference_ms": float(init[2]) / 1e3,
        "operations": int(delegated[-1][1]) if delegated else None,
        "delegated_operations": int(delegated[-1][0]) if delegated else None,
    }


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Measures a .tflite file on an Android device with LiteRT's benchmark_model, over adb.")
    parser.add_argument("model", nargs="?", type=pathlib.Path, default=HERE / "model.tflite", help="the file; by default that of the kit")
    parser.add_argument("--benchmark-model", type=pathlib.Path, required=True, help="LiteRT's program for the device's processor")
    parser.add_argument("--adb", default="adb", help="the adb program")
    parser.add_argument("--serial", help="serial number, as adb devices lists it")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--gpu", action="store_true", help="let the GPU take what it can")
    parser.add_argument("--json", type=pathlib.Path, help="write the figures to this file")
    given = parser.parse_args(arguments)
    try:
        for path in (given.model, given.benchmark_model):
            if not path.is_file():
                raise BenchError(f"There is no file {path}.")
        device = Device(given.adb, given.serial)
        with device.folder() as folder:
            device.run("push", given.model, f"{folder}/model.tflite")
            device.run("push", given.benchmark_model, f"{folder}/benchmark_model")
            device.shell("chmod", "755", f"{folder}/benchmark_model")
            options = [f"--graph={folder}/model.tflite", f"--num_threads={given.threads}", *(["--use_gpu=true"] if given.gpu else [])]
            found = read(device.shell(f"{folder}/benchmark_model", *options))
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(f"{name:22} {value}" for name, value in found.items()))
    if given.gpu and not found["delegated_operations"]:
        print("The GPU took nothing: these are times of the CPU.", file=sys.stderr)
    if given.json:
        given.json.write_text(json.dumps({"device": device.serial, "gpu": given.gpu, "threads": given.threads, **found}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
