"""Times files on a GPU by the library and by LiteRT's own `litert-benchmark`; writes a table into docs/targets.md.

    python benchmarks/gpu_time.py [--software] [--page docs/targets.md]

`--software` takes the Vulkan driver of Debian's package chromium, which computes on the CPU: its times say nothing of a GPU, but the difference between the two programs
does. `litert-benchmark` times the call alone, which returns while the GPU still works.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys

import real_files

import tfdistill
from tfdistill.benchmarking import BenchmarkRecord, Gpu, Timing
from tfdistill.utils.files import temporary_folder, write_whole

BEGIN, END = "<!-- gpu_time -->", "<!-- end -->"
SOFTWARE = "/usr/lib/chromium/vk_swiftshader_icd.json"
FILES = ("mediapipe/iris_landmark", "mediapipe/face_landmark", "mediapipe/selfie_segmentation_landscape")
RUNS = 20


def theirs(path, folder):
    """Returns the median that `litert-benchmark` prints, in milliseconds, and whether it says that the file is fully accelerated."""
    result = folder / "result.json"
    code = "from ai_edge_litert.tools.benchmark_litert_model import main; main()"
    command = [sys.executable, "-c", code, "--model", path, "--use_gpu", "--num_runs", str(RUNS), "--result_json", result]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    found = json.loads(result.read_text(encoding="utf-8"))
    return _value(found, "median"), _value(found, "accelerated")


def _value(found, word):
    """Returns the first number or truth in nested dicts whose key holds a word."""
    for key, value in found.items():
        if isinstance(value, dict):
            inner = _value(value, word)
            if inner is not None:
                return inner
        elif word in key.lower():
            return value
    return None


def table(rows, software):
    """Returns the table as Markdown; `rows` holds (name, record, their milliseconds)."""
    head = "| file | `tfdistill.benchmark`, ms | `litert-benchmark`, ms | operations on the GPU | largest difference to the CPU |\n|---|---:|---:|---:|---:|\n"
    body = "".join(
        f"| {name} | {record.p50_ms:.2f} | {median:.2f} | {record.delegated_operations} of {record.operations} | {record.reference_max_abs_error or 0:.1e} |\n"
        for name, record, median in rows
    )
    device = "SwiftShader, a GPU in software" if software else "the machine's GPU"
    return f"Medians on {device} (`benchmarks/gpu_time.py`). `litert-benchmark` does not wait for the GPU.\n\n{head}{body}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--software", action="store_true", help="take the driver of Debian's package chromium")
    parser.add_argument("--page", type=pathlib.Path, default=pathlib.Path("docs/targets.md"))
    arguments = parser.parse_args()
    timing, rows = Timing(min_runs=RUNS, max_seconds=30), []
    with temporary_folder() as folder:
        os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
        if arguments.software:
            os.environ.update(VK_ICD_FILENAMES=SOFTWARE, VK_DRIVER_FILES=SOFTWARE)
        for name in FILES:
            path = real_files.fetched(name, real_files.cache_folder())
            record: BenchmarkRecord = tfdistill.benchmark(path, Gpu(), timing=timing)
            rows.append((name, record, theirs(path, folder)[0]))
            print(*rows[-1][:1], f"{record.p50_ms:.3f} ms, litert-benchmark {rows[-1][2]} ms")
    text = arguments.page.read_text(encoding="utf-8")
    before, after = text.partition(BEGIN)[0], text.partition(BEGIN)[2].partition(END)[2]
    with write_whole(arguments.page) as temporary:
        temporary.write_text(f"{before}{BEGIN}\n{table(rows, arguments.software)}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
