"""A stand-in for an Android device and its adb: see stand_in_adb.py."""

import json
import os
import pathlib
import stat
import sys

from tfdistill.benchmarking import Adb

NEWER = """INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Min num runs: [100]
INFO: Graph: [model.tflite]
INFO: Loaded model model.tflite
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
VERBOSE: Replacing 58 out of 60 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 3 partitions for subgraph 0.
INFO: Explicitly applied XNNPACK delegate, and the model graph will be partially executed by the delegate w/ 2 delegate kernels.
INFO: The input model file size (MB): 0.004
INFO: Initialized session in 3.337ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=9 first=81913 curr=55502 min=55502 max=81913 avg=58984.7 std=8115 p5=55502 median=56100 p95=81913

INFO: Running benchmark for at least 100 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count=1061 first=56576 curr=56299 min=54669 max=60236 avg=56265.8 std=982 p5=55011 median=56201 p95=58800

INFO: Inference timings in us: Init: 3337, First inference: 81913, Warmup (avg): 58984.7, Inference (avg): 56265.8
INFO: Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual memory footprint of the model at runtime. Take the information at your discretion.
INFO: Memory footprint delta from the start of the tool (MB): init=2.43359 overall=8.5
INFO: Overall peak memory footprint (MB) via periodic monitoring: 93.25
"""
OLDER = "\n".join(line.partition(" p5=")[0] for line in NEWER.splitlines())
SAME = NEWER.replace(
    "count=1061 first=56576 curr=56299 min=54669 max=60236 avg=56265.8 std=982 p5=55011 median=56201 p95=58800",
    "count=100 curr=12(all same) p5=12 median=12 p95=12",
)


class Phone:
    """A stand-in for a device and its adb."""

    def __init__(self, folder):
        self.folder = folder
        source = pathlib.Path(__file__).with_name("stand_in_adb.py")
        self.adb = folder / "adb"
        folder.mkdir(exist_ok=True)
        self.adb.write_text(f"#!{sys.executable}\n{source.read_text()}")
        self.tmp = folder / "data/local/tmp"
        self.tmp.mkdir(parents=True, exist_ok=True)
        (folder / "bin").mkdir(exist_ok=True)
        answers = "ro.product.manufacturer) echo Google;; ro.product.model) echo Pixel 8;; ro.soc.model) echo Tensor G3;; ro.build.version.release) echo 14;;"
        (folder / "bin/getprop").write_text(f"#!/bin/sh\ncase $1 in {answers} esac\n")
        self.program = folder / "benchmark_model_arm64"
        self.program.write_bytes(b"\x7fELF" + bytes(100))
        for path in (self.adb, folder / "bin/getprop"):
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
        self.set()

    def set(self, output=NEWER, **changes):
        settings = {"devices": {"39071FDJH0001": "device"}, "room": 10**9, "vanishes": False, "seconds": 0, **changes}
        (self.folder / "device.json").write_text(json.dumps(settings))
        (self.folder / "output").write_text(output)

    def target(self, **settings):
        return Adb(**{"benchmark_model": str(self.program), "adb": str(self.adb), **settings})

    def leftovers(self):
        return sorted(os.listdir(self.tmp))
