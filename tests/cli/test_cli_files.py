"""`tfdistill check`, `export`, `verify` and `benchmark` as a user types them: from a saved model and data to a verified file, and every mistake."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

import tfdistill
from tfdistill.benchmarking import BenchmarkRecord, SpeedComparison
from tfdistill.cli import app
from tfdistill.preflight import Preflight
from tfdistill.tflite import ExportRecord, FileInspection, LayerErrors, VerificationRecord

MODULE = """
import numpy as np

def samples():
    return np.load({path!r})["x"]

def broken():
    raise RuntimeError("no disk")

def endless():
    while True:
        yield [np.zeros((1, 8, 8, 3), "float32")]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A classifier of bright and dark images, data in every form, and an int8 file."""
    folder = tmp_path_factory.mktemp("cli")
    rng = np.random.default_rng(0)
    x = rng.random((40, 8, 8, 3)).astype("float32")
    y = (np.arange(40) % 2).astype("int32")
    x[y == 0] = 0.6 + 0.4 * x[y == 0]
    x[y == 1] *= 0.4
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((8, 8, 3), name="image"), keras.layers.Flatten(), keras.layers.Dense(2, name="logits")])
    model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, epochs=60, verbose=0)
    model.save(folder / "m.keras")
    np.savez(folder / "data.npz", x=x, y=y)
    np.savez(folder / "named.npz", image=x)
    np.savez(folder / "labels.npz", y=y)
    np.savez(folder / "pickled.npz", x=np.array([{}], dtype=object))
    np.save(folder / "x.npy", x)
    for i, image in enumerate(x):
        place = folder / "images" / ("dark" if y[i] else "bright")
        place.mkdir(parents=True, exist_ok=True)
        keras.utils.save_img(place / f"{i}.png", 255 * image, scale=False)
    (folder / "empty").mkdir()
    (folder / "empty.txt").touch()
    (folder / "cli_data.py").write_text(MODULE.format(path=str(folder / "data.npz")))
    return folder


@pytest.fixture(scope="module")
def exported(folder):
    code, printed = command(folder, "export", "m.keras", "--variant", "int8", "--calibration", "data.npz", "--out", "int8.tflite")
    assert code == 0, printed
    return folder / "int8.tflite"


def command(folder, *words):
    """Runs a command in a folder; returns its exit code and what it printed."""
    import contextlib
    import io

    printed = io.StringIO()
    before, arguments, path = os.getcwd(), sys.argv, list(sys.path)
    os.chdir(folder)
    sys.argv = ["tfdistill", *map(str, words)]
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed), pytest.raises(SystemExit) as end:
            app.main()
    finally:
        os.chdir(before)
        sys.argv, sys.path[:] = arguments, path
    return end.value.code or 0, printed.getvalue()


FORMS = {
    "npz": ["data.npz"],
    "npz by name": ["named.npz"],
    "npy": ["x.npy"],
    "images": ["images", "--rescale", "1/255"],
    "function": ["cli_data:samples"],
}


@pytest.mark.parametrize("form", FORMS)
def test_export_takes_data_in_every_form(folder, tmp_path, form):
    out, record = tmp_path / "m.tflite", tmp_path / "r.json"
    code, printed = command(
        folder, "export", "m.keras", "--variant", "int8", "--calibration", *FORMS[form], "--out", out, "--record", record
    )
    assert code == 0, printed
    found = ExportRecord.load(record)
    assert (found.variant, found.calibration_samples) == ("int8", 40)
    assert out.stat().st_size == found.size_bytes
    assert found.inputs[0].scale == pytest.approx(1 / 255, rel=0.02)
    assert (found.accuracy == 1.0) == (form in ("npz", "images"))
    for words in ("size", "keras accuracy" if found.accuracy else "argmax agreement", "zero point", "image"):
        assert words in printed


def test_blame_shows_the_layers_and_draws_them(folder, exported, tmp_path):
    picture, record = tmp_path / "layers.png", tmp_path / "r.json"
    code, printed = command(folder, "blame", exported, "m.keras", "--data", "data.npz", "--plot", picture, "--record", record)
    assert code == 0, printed
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert next(row.name for row in LayerErrors.load(record).layers) == "image"
    assert "logits" in printed
    assert command(folder, "blame", exported, "m.keras", "--data", "data.npz", "--plot", tmp_path)[0] == 1


def test_export_writes_what_the_file_says_of_itself(folder, tmp_path):
    (tmp_path / "labels.txt").write_text("bright\r\ndark\r\n", encoding="utf-8-sig")
    said = ["--labels", tmp_path / "labels.txt", "--author", "Ada", "--license", "MIT"]
    code, printed = command(folder, "export", "m.keras", "--out", tmp_path / "m.tflite", *said, "--normalization", "0,255 254 253")
    assert code == 0, printed
    found = tfdistill.read_metadata(tmp_path / "m.tflite")
    assert (found.author, found.license, found.labels) == ("Ada", "MIT", {"logits": ("bright", "dark")})
    assert (found.inputs["image"].mean, found.inputs["image"].std) == ((0, 0, 0), (255, 254, 253))
    code, printed = command(folder, "inspect", tmp_path / "m.tflite")
    assert code == 0, printed
    assert "by Ada, MIT, 2 labels of 'logits'" in " ".join(printed.split())
    code, printed = command(folder, "inspect", tmp_path / "m.tflite", "--json")
    assert json.loads(printed)["described"]["provenance"]["export"]["variant"] == "float32"


def test_verify_and_benchmark(folder, exported, tmp_path):
    code, printed = command(folder, "verify", exported, "m.keras", "--data", "data.npz", "--record", tmp_path / "v.json")
    assert code == 0, printed
    record = VerificationRecord.load(tmp_path / "v.json")
    assert (record.variant, record.accuracy) == ("int8", 1.0)
    words = ["verify", exported, "m.keras", "--data", "data.npz", "--target", "cpu:kernels=builtin", "--record", tmp_path / "v2.json"]
    code, printed = command(folder, *words)
    assert code == 0, printed
    assert VerificationRecord.load(tmp_path / "v2.json").engine == "CPU, 1 thread, built-in kernels"
    code, printed = command(folder, "benchmark", exported, "--seconds", "0.05", "--record", tmp_path / "b")
    assert code == 0, printed
    assert BenchmarkRecord.load(tmp_path / "b/int8.json").target == "CPU, 1 thread, XNNPACK"
    assert "p50" in printed
    code, printed = command(folder, "benchmark", exported, exported, "--seconds", "0.05", "--threads", 2)
    assert code == 0, printed
    assert "2 threads" in printed


def test_benchmark_keeps_a_history_draws_a_page_and_prints_json(folder, exported, tmp_path):
    words = ["benchmark", exported, "--seconds", "0.05", "--history", tmp_path / "h.jsonl", "--target", "cpu:threads=1"]
    assert command(folder, *words)[0] == 0
    code, printed = command(
        folder, *words, "--html", tmp_path / "m.html", "--shapes", "image=1x8x8x3", "--cores", min(os.sched_getaffinity(0))
    )
    assert code == 0, printed
    code, printed = command(folder, *words)
    assert code == 0, printed
    assert "same host" in printed
    assert "same file" in printed
    page = (tmp_path / "m.html").read_text(encoding="utf-8")
    assert "int8.tflite" in page
    assert "run by XNNPACK" in page
    code, printed = command(folder, "benchmark", exported, "--seconds", "0.05", "--operations")
    assert code == 0, printed
    assert "slowest operations" in printed
    code, printed = command(folder, "benchmark", exported, "--seconds", "0.05", "--json", "--batch", "1")
    (found,) = json.loads(printed)
    assert BenchmarkRecord.from_dict(found).path == str(exported)


def test_benchmark_compares(folder, exported, tmp_path):
    words = ["benchmark", exported, exported, "--compare", "--seconds", "0.05"]
    code, printed = command(folder, *words, "--json")
    assert code == 0, printed
    assert SpeedComparison.from_dict(json.loads(printed)).files[0].ratio == 1.0
    code, printed = command(folder, *words, "--record", tmp_path)
    assert "ratio" in printed
    assert len(SpeedComparison.load(tmp_path / "comparison.json").files) == 2


def test_inspect_prints_tables_or_json_and_writes_a_page(folder, exported, tmp_path):
    code, printed = command(folder, "inspect", exported, "--html", tmp_path / "m.html", "--target", "edgetpu")
    assert code == 0, printed
    for words in ("FULLY_CONNECTED", "xnnpack", "planned arena", "weights int8", "zero point"):
        assert words in printed
    page = (tmp_path / "m.html").read_text(encoding="utf-8")
    assert "Target edgetpu" in page
    code, printed = command(folder, "inspect", exported, "--json")
    assert code == 0, printed
    assert FileInspection.from_dict(json.loads(printed)) == tfdistill.inspect(exported)


def test_check_prints_tables_or_json_and_fails_by_its_exit_code(folder):
    code, printed = command(folder, "check", "m.keras", "--data", "data.npz", "--target", "micro")
    assert code == 0, printed
    assert [line.split() for line in printed.splitlines()[1:]] == [
        ["model", "sequential"],
        ["variant", "int8"],
        ["target", "micro"],
        ["findings", "none"],
    ]
    keras.Sequential([keras.Input((None, 3), name="any"), keras.layers.Conv1D(8, 3)], name="free").save(folder / "free.keras")
    code, printed = command(folder, "check", "free.keras", "--variant", "float32", "--json")
    assert code == 1, printed
    (found,) = Preflight.from_dict(json.loads(printed))
    assert (found.severity, found.kind, found.layers) == ("fails", "free_axes", ("any",))


MISTAKES = {
    "no model to check": (["check", "none.keras"], 1, "There is no file"),
    "a variant to check": (["check", "m.keras", "--variant", "int7"], 1, "Nearest: 'int8'"),
    "a target to check": (["check", "m.keras", "--target", "xnpack"], 1, "Nearest: 'xnnpack'"),
    "no data to check": (["check", "m.keras", "--data", "none.npz"], 1, "There is no data"),
    "nothing to inspect": (["inspect", "none.tflite"], 1, "There is no file"),
    "no .tflite file": (["inspect", "data.npz"], 1, "not a .tflite file"),
    "an unknown target": (["inspect", "int8.tflite", "--target", "xnpack"], 1, "xnnpack"),
    "a page that is a folder": (["inspect", "int8.tflite", "--html", "images"], 1, "folder"),
    "no model": (["export", "none.keras", "--out", "m.tflite"], 1, "There is no file"),
    "a weights file": (["export", "x.npy", "--out", "m.tflite"], 1, "is no saved model"),
    "an unknown variant": (["export", "m.keras", "--variant", "int7", "--out", "m.tflite"], 1, "Nearest: 'int8'"),
    "no calibration": (["export", "m.keras", "--variant", "int8", "--out", "m.tflite"], 1, "on the command line, --calibration DATA"),
    "another ending": (["export", "m.keras", "--out", "m.lite"], 1, "does not end in .tflite"),
    "no such data": (["export", "m.keras", "--variant", "int8", "--calibration", "none.npz", "--out", "m.tflite"], 1, "There is no data"),
    "no images": (["export", "m.keras", "--variant", "int8", "--calibration", "empty", "--out", "m.tflite"], 1, "holds no images"),
    "labels alone": (["export", "m.keras", "--variant", "int8", "--calibration", "labels.npz", "--out", "m.tflite"], 1, "holds no inputs"),
    "pickled objects": (
        ["export", "m.keras", "--variant", "int8", "--calibration", "pickled.npz", "--out", "m.tflite"],
        1,
        "cannot be read",
    ),
    "no such module": (
        ["export", "m.keras", "--variant", "int8", "--calibration", "nowhere:f", "--out", "m.tflite"],
        1,
        "cannot be imported",
    ),
    "no such function": (
        ["export", "m.keras", "--variant", "int8", "--calibration", "cli_data:f", "--out", "m.tflite"],
        1,
        "cannot be imported",
    ),
    "a function that raises": (
        ["export", "m.keras", "--variant", "int8", "--calibration", "cli_data:broken", "--out", "m.tflite"],
        1,
        "no disk",
    ),
    "images of another scale": (
        ["export", "m.keras", "--variant", "int8", "--calibration", "images", "--verify-on", "x.npy", "--out", "m.tflite"],
        3,
        "one of the two is scaled otherwise",
    ),
    "no file to verify": (["verify", "none.tflite", "m.keras", "--data", "x.npy"], 1, "none.tflite"),
    "no file to benchmark": (["benchmark", "none.tflite"], 1, "There is no file 'none.tflite'"),
    "a damaged file": (["benchmark", "x.npy"], 1, "Error: "),
    "a folder to write": (["export", "m.keras", "--out", "empty"], 1, "The path 'empty' is a folder"),
    "a folder as the record": (["export", "m.keras", "--out", "m.tflite", "--record", "empty"], 1, "--record 'empty' is a folder"),
    "a folder as the record of a comparison": (
        ["verify", "none.tflite", "m.keras", "--data", "x.npy", "--record", "empty"],
        1,
        "write --record empty/record.json",
    ),
    "a file as the folder of records": (["benchmark", "none.tflite", "--record", "m.keras"], 1, "choose another folder"),
    "no file of labels": (["export", "m.keras", "--out", "m.tflite", "--labels", "none.txt"], 1, "--labels 'none.txt' cannot be read"),
    "an empty file of labels": (["export", "m.keras", "--out", "m.tflite", "--labels", "empty.txt"], 1, "--labels 'empty.txt' is empty"),
    "labels that are no text": (
        ["export", "m.keras", "--out", "m.tflite", "--labels", "data.npz"],
        1,
        "a UTF-8 text file with a label on each line",
    ),
    "one number of two": (["export", "m.keras", "--out", "m.tflite", "--normalization", "127.5"], 2, "such as 127.5,127.5"),
    "words for numbers": (["export", "m.keras", "--out", "m.tflite", "--normalization", "mean,std"], 2, "'mean,std' is no normalization"),
    "a deviation of 0": (["export", "m.keras", "--out", "m.tflite", "--normalization", "0,0"], 1, "std=0.0 is out of range"),
    "a factor as text": (["export", "m.keras", "--out", "m.tflite", "--rescale", "small"], 2, "such as 0.00392157 or 1/255"),
    "a factor of zero": (["export", "m.keras", "--out", "m.tflite", "--rescale", "0"], 2, "'0' is no factor"),
    "a factor over nothing": (["export", "m.keras", "--out", "m.tflite", "--rescale", "1/0"], 2, "'1/0' is no factor"),
    "a factor on arrays": (
        ["export", "m.keras", "--variant", "int8", "--calibration", "x.npy", "--rescale", "1/255", "--out", "m.tflite"],
        1,
        "without a folder of images",
    ),
    "a variant in capitals": (["export", "m.keras", "--variant", "INT8", "--out", "m.tflite"], 1, "Nearest: 'int8'"),
    "an option misspelt": (["export", "m.keras", "--varient", "int8", "--out", "m.tflite"], 2, "--variant"),
    "a folder that is no model": (["export", "empty", "--out", "m.tflite"], 1, "holds no saved_model.pb"),
    "a model to benchmark": (["benchmark", "m.keras"], 1, "tfdistill export m.keras --out model.tflite"),
    "file and model the wrong way round": (["verify", "m.keras", "int8.tflite", "--data", "x.npy"], 1, "'int8.tflite' is a .tflite file"),
    "no data to verify on": (["verify", "int8.tflite", "m.keras"], 2, "Missing option '--data'"),
    "a command misspelt": (["exprot"], 2, "Did you mean 'export'"),
    "an unknown data set": (["demo", "--dataset", "mnist"], 1, "one of digits, fashion-mnist"),
    "a cache that is none": (["cache", "info", "empty"], 1, "the folder of a finished cache"),
    "a teacher without data": (["label", "m.keras", "data.npz", "soft_targets"], 1, "a function's name as 'module:function'"),
    "no arguments": (["export"], 2, "Missing argument"),
    "a target misspelt": (["benchmark", "int8.tflite", "--target", "cpv"], 1, "Nearest: 'cpu'"),
    "a setting misspelt": (["benchmark", "int8.tflite", "--target", "cpu:thread=2"], 1, "Nearest: 'threads'"),
    "a shape without a name": (["benchmark", "int8.tflite", "--shapes", "1x8x8x3"], 2, "such as image=1x96x96x3"),
    "a shape of words": (["benchmark", "int8.tflite", "--shapes", "image=small"], 2, "such as image=1x96x96x3"),
    "cores as words": (["benchmark", "int8.tflite", "--cores", "all"], 2, "such as 0 or 0,2"),
    "one file to compare": (["benchmark", "int8.tflite", "--compare"], 1, "two or more"),
    "a comparison with a page": (["benchmark", "int8.tflite", "int8.tflite", "--compare", "--html", "p.html"], 1, "leave --html out"),
    "a folder as the history": (["benchmark", "int8.tflite", "--history", "images"], 1, "--history 'images' is a folder"),
    "a folder as the page": (["benchmark", "int8.tflite", "--html", "images"], 1, "--html 'images' is a folder"),
    "no threads": (["benchmark", "m.tflite", "--threads", "0"], 2, "threads"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(folder, exported, mistake):
    words, expected, said = MISTAKES[mistake]
    code, printed = command(folder, *words)
    assert code == expected, printed
    assert said in " ".join(printed.replace("│", " ").split())
    assert "Traceback" not in printed
    assert not (folder / "m.tflite").exists()


def test_a_file_of_another_model_has_an_exit_code_of_its_own(folder, exported, tmp_path):
    keras.utils.set_random_seed(9)
    other = keras.Sequential([keras.Input((8, 8, 3), name="image"), keras.layers.Flatten(), keras.layers.Dense(2, name="logits")])
    other.save(tmp_path / "other.keras")
    code, printed = command(folder, "verify", exported, tmp_path / "other.keras", "--data", "data.npz")
    assert code == 3, printed
    assert "Error: Output 'logits'" in printed


@pytest.mark.parametrize(
    "words", [("check",), ("export",), ("verify",), ("benchmark",), ("demo",), ("label",), ("cache", "info"), ("cache", "verify")]
)
def test_help_has_an_example(folder, words):
    code, printed = command(folder, *words, "--help")
    assert code == 0
    assert f"Example: tfdistill {' '.join(words)} " in " ".join(printed.split())


def in_a_process(folder, *words):
    """Runs a command in a process of its own, where TensorFlow has not started yet."""
    settings = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        [sys.executable, "-m", "tfdistill", *map(str, words)], capture_output=True, text=True, check=False, cwd=folder, env=settings
    )


QUIET = {
    "check": ["check", "m.keras", "--data", "data.npz"],
    "export": ["export", "m.keras", "--out", "quiet.tflite", "--record", "quiet.json"],
    "verify": ["verify", "int8.tflite", "m.keras", "--data", "data.npz"],
    "benchmark": ["benchmark", "int8.tflite", "--seconds", "0.05"],
    "label": ["label", "m.keras", "cli_data:samples", "soft_targets", "--shards", "1"],
    "cache info": ["cache", "info", "made"],
    "cache verify": ["cache", "verify", "made"],
    "help": ["--help"],
    "nothing": ["--version"],
}


@pytest.mark.slow
@pytest.mark.parametrize("words", QUIET)
def test_a_command_prints_nothing_but_its_own(folder, exported, words):
    if "made" in QUIET[words]:
        tfdistill.soft_targets(keras.saving.load_model(folder / "m.keras"), np.load(folder / "x.npy"), folder / "made")
    done = in_a_process(folder, *QUIET[words])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.slow
def test_tensorflow_greets_with_v(folder):
    assert "oneDNN" in in_a_process(folder, "-v", *QUIET["export"]).stderr
    assert json.loads((folder / "quiet.json").read_text())["variant"] == "float32"
    assert pathlib.Path(folder / "quiet.tflite").exists()
