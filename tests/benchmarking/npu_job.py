"""Benchmarks files on an NPU target: python npu_job.py PACKAGE REQUESTS. Runs in an environment of its own, without Keras and TensorFlow.

REQUESTS is a JSON list of [path, fields of Npu]; prints a JSON list of records, or of [class, text] of errors.
"""

import importlib.util
import json
import sys


def main(package, requests):
    # The package without the code of its `__init__`, which imports Keras.
    spec = importlib.util.spec_from_loader("tfdistill", loader=None, is_package=True)
    spec.submodule_search_locations = [package]
    sys.modules["tfdistill"] = importlib.util.module_from_spec(spec)

    from tfdistill.benchmarking.run import benchmark
    from tfdistill.benchmarking.targets.npu import Npu
    from tfdistill.benchmarking.timing import Timing
    from tfdistill.errors import TfdistillError

    timing, found = Timing(warmup_seconds=0, warmup_runs=0, min_runs=3, min_seconds=0, max_seconds=0.1), []
    for path, settings in json.loads(requests):
        try:
            found.append(benchmark(path, Npu(**settings), timing=timing).to_dict())
        except TfdistillError as error:
            found.append([type(error).__name__, str(error)])
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
