"""The demo as a user runs it, and the mistakes that are refused before any training."""

import io
import json
import pathlib
import subprocess
import sys

import fresh
import keras
import numpy as np
import pytest
from rich.console import Console

from tfdistill.demo import datasets, models
from tfdistill.errors import ConfigurationError
from tfdistill.host import fingerprint
from tfdistill.report.plots import summary_picture
from tfdistill.report.summary import Exported, Stage, Summary, Timed
from tfdistill.report.tables import summary_table

COMMAND = [str(pathlib.Path(sys.executable).with_name("tfdistill"))]
FILES = {
    "soft_targets",
    "teacher.keras",
    "scratch.keras",
    "student.keras",
    "student_float32.tflite",
    "student_int8.tflite",
    "summary.json",
    "summary.png",
}


def run(*arguments):
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_main_job_ends_with_a_small_verified_file(tmp_path):
    done = run("demo", "--out", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert {p.name for p in tmp_path.iterdir()} == FILES
    summary = Summary.load(tmp_path / "summary.json")
    stages = {stage.name: stage for stage in summary.stages}
    assert list(stages) == ["teacher", "scratch", "distilled", "pruned", "quantized"]
    exports = {export.variant: export for export in summary.exports}
    assert list(exports) == ["float32", "int8"]
    assert set(exports["int8"].dtypes) == {"int8", "int32"}
    assert exports["int8"].size_bytes <= 0.3 * exports["float32"].size_bytes
    assert abs(exports["int8"].accuracy - stages["quantized"].accuracy) <= 0.015
    assert stages["distilled"].accuracy > 0.95
    assert stages["pruned"].nonzero_parameters < 0.55 * stages["pruned"].parameters
    assert stages["quantized"].parameters == stages["pruned"].parameters
    assert stages["quantized"].nonzero_parameters <= stages["pruned"].nonzero_parameters
    assert [timed.variant for timed in summary.benchmarks] == ["float32", "int8"]
    assert all(0 < t.p50_ms <= t.p90_ms <= t.p99_ms for t in summary.benchmarks)
    for word in ("teacher", "s saved", "quantized", "int8 .tflite", "summary.png"):
        assert word in done.stdout
    # The files belong together: the saved student is the one that the float32 file was made of.
    data = datasets.load("digits")
    student = keras.saving.load_model(tmp_path / "student.keras")
    right = np.mean(student.predict(data.x_test, verbose=0).argmax(-1) == data.y_test)
    assert right == pytest.approx(stages["pruned"].accuracy)
    assert exports["float32"].accuracy == pytest.approx(stages["pruned"].accuracy)


MISTAKES = {
    "out is a file": (["demo", "--out", __file__], "cannot be written"),
    "unknown data set": (["demo", "--dataset", "mnist"], "There is no data set 'mnist'"),
    "no epochs": (["demo", "--epochs-scale", "0"], "above 0"),
    "folder without the files": (
        ["demo", "--dataset", "fashion-mnist", "--data", pathlib.Path(__file__).parent],
        "train-images-idx3-ubyte.gz",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_a_message_not_a_traceback(mistake, tmp_path):
    arguments, words = MISTAKES[mistake]
    out = [] if "--out" in arguments else ["--out", tmp_path]
    done = fresh.run("tfdistill", *arguments, *out)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_version():
    from tfdistill import __version__

    assert run("--version").stdout.strip() == __version__


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1)])
def test_the_teacher_is_far_larger_than_the_student(shape):
    teacher, student = models.teacher(shape, 10), models.student(shape, 10)
    assert teacher.output_shape == student.output_shape == (None, 10)
    assert teacher.count_params() > 8 * student.count_params()


def a_summary():
    return Summary(
        dataset="digits",
        seed=0,
        host=fingerprint(),
        stages=tuple(Stage(n, 0.98, 1000, 500, 1.0) for n in ("teacher", "scratch", "distilled", "pruned", "quantized")),
        exports=tuple(Exported(v, f"{v}.tflite", s, 0.97, 0.1, 0.99, {"int8": 3}) for v, s in (("float32", 4000), ("int8", 1200))),
        benchmarks=(Timed("float32", 0.2, 0.3, 0.4), Timed("int8", 0.1, 0.1, 0.2)),
    )


def test_the_report_is_made_of_the_record_alone(tmp_path):
    summary = Summary.load(a_summary().save(tmp_path / "summary.json"))
    assert summary == a_summary()
    assert set(json.loads((tmp_path / "summary.json").read_text())) == {"dataset", "seed", "host", "stages", "exports", "benchmarks"}
    picture = summary_picture(summary, tmp_path / "summary.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    table = summary_table(summary)
    assert table.row_count == 7
    console = Console(width=80, file=io.StringIO())
    console.print(table)
    # Nothing is cut off on a plain terminal.
    assert "int8 .tflite" in console.file.getvalue()
    assert "…" not in console.file.getvalue()


def test_a_factor_of_epochs_keeps_at_least_one():
    from tfdistill.demo.run import PLANS, run_demo

    assert PLANS["digits"].scaled(0.001).teacher_epochs == 1
    with pytest.raises(ConfigurationError, match="above 0"):
        run_demo(epochs_scale=-1)
