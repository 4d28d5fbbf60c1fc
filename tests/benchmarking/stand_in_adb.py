"""A stand-in for adb and an Android device, as neither is here: a program with the commands that are used, a device whose file system is a folder and whose shell is
this machine's sh, and the words with which adb fails. What it is to do stands in device.json beside it."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = "data/local/tmp"
# What runs as `benchmark_model` on the device: it prints what that program does (tensorflow/lite/tools/benchmark, tsl/util/stats_calculator.h).
PROGRAM = """#!/bin/sh
echo "$0 $*" >> {log}
case "$*" in *--graph=*) ;; *) echo "ERROR: Please specify the name of your TF Lite input file with --graph"; exit 1;; esac
graph=$(echo "$*" | sed -e "s/.*--graph=//" -e "s/ --.*//")
head -c 8 "$graph" | grep -q TFL3 || { echo "ERROR: Failed to load model $graph"; echo "ERROR: Benchmarking failed."; exit 1; }
sleep {seconds}
cat {output}
"""


def fail(text, code=1):
    sys.stderr.write(text + "\n")
    sys.exit(code)


def on_device(text):
    """A text of the device's shell, with the paths of the folder that is its file system."""
    return text.replace(ROOT, str(HERE / ROOT).lstrip("/"))


def main(arguments):
    settings = json.loads((HERE / "device.json").read_text())
    serial = None
    if arguments[:1] == ["-s"]:
        serial, arguments = arguments[1], arguments[2:]
    command, *rest = arguments
    if command == "devices":
        print("List of devices attached")
        for name, state in settings["devices"].items():
            print(f"{name}\t{state}")
        print()
        return
    state = settings["devices"].get(serial)
    if state is None:
        fail(f"adb: device '{serial}' not found")
    if state != "device":
        fail(
            {"offline": "adb: device offline", "unauthorized": "adb: device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set"}[
                state
            ]
        )
    if command == "push":
        source, target = rest
        if pathlib.Path(source).stat().st_size > settings["room"]:
            fail(f"adb: error: failed to copy '{source}' to '{target}': remote write failed: No space left on device")
        path = "/" + on_device(target.lstrip("/"))
        if target.endswith("/benchmark_model"):
            program = (
                PROGRAM.replace("{log}", str(HERE / "log"))
                .replace("{output}", str(HERE / "output"))
                .replace("{seconds}", str(settings["seconds"]))
            )
            pathlib.Path(path).write_text(program)
        else:
            shutil.copy(source, path)
        print(f"{source}: 1 file pushed, 0 skipped. 35.2 MB/s ({pathlib.Path(source).stat().st_size} bytes in 0.001s)")
        return
    if command == "shell":
        text = on_device(" ".join(rest))
        if settings["vanishes"] and "--graph=" in text:
            print("INFO: STARTING!", flush=True)
            time.sleep(0.2)
            settings["devices"] = {}
            (HERE / "device.json").write_text(json.dumps(settings))
            sys.exit(255)  # adb says nothing here
        environment = {"PATH": f"{HERE / 'bin'}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["sh", "-c", text], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
        )
        sys.stdout.write(done.stdout.decode(errors="replace").replace(str(HERE / ROOT), f"/{ROOT}"))
        sys.stdout.flush()
        sys.exit(done.returncode if done.returncode >= 0 else 128 - done.returncode)
    fail(f"adb: unknown command {command}")


if __name__ == "__main__":
    main(sys.argv[1:])
