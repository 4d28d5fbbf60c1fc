"""The kit of boards as a person uses it: its programs, on this machine and on emulated Raspberry Pis."""

import ast
import configparser
import json
import pathlib
import re
import shutil
import subprocess
import sys

import board_kit
import environments
import keras
import numpy as np
import pytest
from board_kit import FOLDER, LABELS, make_kit, run
from PIL import Image
from small_files import int8_file

import tfdistill
from tfdistill.runtime.interpreter import open_file

errors, description, metadata, runtime, selftest, classifier = (
    board_kit.module(name) for name in ("errors", "description", "metadata", "runtime", "selftest", "classifier")
)
PROGRAMS = sorted(FOLDER.glob("*.py"))


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    return make_kit(tmp_path_factory.mktemp("kit") / "kit")


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    Image.fromarray(np.random.default_rng(5).integers(0, 256, (8, 8), dtype=np.uint8)).save(path)
    return path


def test_shared_modules_are_copies():
    done = subprocess.run([sys.executable, "docs/make_kits.py", "--check"], cwd=FOLDER.parents[1], capture_output=True, text=True)
    assert done.returncode == 0, f"run python docs/make_kits.py: {done.stdout}"


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_a_program_has_the_syntax_of_python_3_8_and_knows_no_tfdistill(path):
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    own = {each.stem for each in PROGRAMS}
    outside = {"numpy", "PIL"}
    unknown = {name.partition(".")[0] for name in names} - own - outside - set(sys.stdlib_module_names)
    assert unknown == set()
    assert len(path.read_text().splitlines()) <= 320


def test_selftest_passes_and_finds_what_differs(kit, tmp_path):
    done = run(kit, "selftest.py")
    assert (done.returncode, done.stdout.count("equal to the bit")) == (0, 3), done.stdout + done.stderr
    changed = shutil.copytree(kit, tmp_path / "changed")
    vector = changed / "vectors/1_outputs_logits.bin"
    vector.write_bytes(bytes([(vector.read_bytes()[0] + 1) % 256]) + vector.read_bytes()[1:])
    done = run(changed, "selftest.py")
    assert done.returncode == 1
    assert "vector 1, output 'logits': 1 steps apart, 0 are allowed" in done.stdout
    assert "self-test FAILED: 2 of 3" in done.stdout


@pytest.mark.parametrize(
    ("found", "expected", "tolerance", "passed"),
    [
        ([1, 2], [1, 2], {}, True),
        ([1, 3], [1, 2], {}, False),
        ([1, 3], [1, 2], {"steps": 1}, True),
        ([1.0, 2.0], [1.0, 2.0 + 1e-6], {}, True),
        ([1.0, 2.0], [1.0, 2.1], {}, False),
        ([1.0, 2.0], [1.0, 2.1], {"abs": 0.2}, True),
        ([np.nan, 1.0], [np.nan, 1.0], {}, True),
        ([np.nan, 1.0], [0.0, 1.0], {"abs": 9.0}, False),
        ([np.inf, 1.0], [np.inf, 1.0], {}, True),
    ],
)
def test_outputs_are_compared_within_a_tolerance(found, expected, tolerance, passed):
    kind = "int8" if isinstance(found[0], int) else "float32"
    assert selftest._compared(np.array(found, kind), np.array(expected, kind), tolerance)["passed"] is passed


def test_another_model_than_that_of_the_vectors_is_said(kit, tmp_path):
    other = shutil.copytree(kit, tmp_path / "other")
    shutil.copy(int8_file("uint8"), other / "model.tflite")
    for command in (("selftest.py",), ("classify.py", "picture.png"), ("serve.py",)):
        done = run(other, *command)
        assert done.returncode == 1
        assert "another model than the one that model.json and the test vectors were made for" in done.stderr
        assert "Fix: make the kit for it: tfdistill kit" in done.stderr


def test_classes_are_those_of_the_desk(kit, picture):
    found = json.loads(run(kit, "classify.py", picture, "--json", "--top", "10").stdout)
    assert [each["index"] for each in found["classes"]] == list(np.argsort(-logits_of(picture), kind="stable"))
    assert found["classes"][0]["label"] == LABELS[found["classes"][0]["index"]]
    assert sum(each["score"] for each in found["classes"]) == pytest.approx(1, abs=1e-4)
    shown = run(kit, "classify.py", picture, picture)
    assert shown.stdout.count(found["classes"][0]["label"]) == 2
    by_pipe = run(kit, "classify.py", "-", "--json", "--top", "10", stdin=picture.read_bytes())
    assert json.loads(by_pipe.stdout)["classes"] == found["classes"]


def logits_of(picture):
    pixels = keras.utils.img_to_array(keras.utils.load_img(picture, color_mode="grayscale"))
    return open_file(int8_file()).run(pixels[None])["logits"][0]


def test_one_bad_picture_of_several_does_not_stop_the_others(kit, picture, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"nothing")
    done = run(kit, "classify.py", tmp_path / "bad.png", picture, "--json")
    assert (done.returncode, len(done.stdout.splitlines())) == (1, 1)
    assert "no picture" in done.stderr
    assert "none.png' cannot be read: No such file" in run(kit, "classify.py", tmp_path / "none.png").stderr


def test_the_metadata_inside_the_file_goes_before_model_json(tmp_path, picture):
    path = tmp_path / "described.tflite"
    about = tfdistill.tflite.FileMetadata(labels=[f"inside {i}" for i in range(10)], normalization=tfdistill.tflite.Normalization(0, 255))
    shutil.copy(int8_file(), path)
    tfdistill.add_metadata(path, about)
    inside = metadata.read(path)
    assert inside["outputs"][0]["labels"][3] == "inside 3"
    assert (inside["inputs"][0]["mean"], inside["inputs"][0]["std"]) == ([0.0], [255.0])
    kit = make_kit(tmp_path / "kit", path, normalization={"mean": [7.0], "std": [3.0]})
    found = json.loads(run(kit, "classify.py", picture, "--json", "--top", "10").stdout)
    pixels = keras.utils.img_to_array(keras.utils.load_img(picture, color_mode="grayscale")) / 255
    expected = open_file(int8_file()).run(pixels[None])["logits"][0]
    assert [each["label"] for each in found["classes"]] == [f"inside {i}" for i in np.argsort(-expected, kind="stable")]
    (kit / "model.json").unlink()
    assert json.loads(run(kit, "classify.py", picture, "--json", "--top", "10").stdout)["classes"] == found["classes"]


def test_a_file_without_metadata_or_model_json(tmp_path, picture):
    alone = shutil.copytree(FOLDER, tmp_path / "alone", ignore=shutil.ignore_patterns("__pycache__"))
    done = run(alone, "classify.py", picture, "--model", int8_file(), "--json")
    assert json.loads(done.stdout)["classes"][0]["label"].startswith("class ")
    assert "There is no model" in run(alone, "classify.py", picture).stderr
    assert "There are no test vectors" in run(alone, "selftest.py", "--model", int8_file()).stderr


@pytest.mark.parametrize("seed", range(40))
def test_metadata_of_a_damaged_file_is_an_error_of_the_kit(seed, tmp_path):
    path = tmp_path / "damaged.tflite"
    shutil.copy(int8_file(), path)
    tfdistill.add_metadata(path, tfdistill.tflite.FileMetadata(labels=LABELS))
    content, rng = bytearray(path.read_bytes()), np.random.default_rng(seed)
    for place in rng.integers(8, len(content), 20):
        content[place] = rng.integers(256)
    path.write_bytes(content[: len(content) - seed * 3])
    try:
        metadata.read(path)
    except errors.KitError as error:
        said = error.happened
        assert "damaged" in said or "labels" in said


BAD_JSON = {
    "no JSON": ("{", "cannot be read"),
    "another format": ('{"format": 2}', "not of the format 1"),
    "a list": ("[]", "not of the format 1"),
    "inputs that are none": ('{"format": 1, "inputs": 3}', "'inputs' is no list"),
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_a_damaged_model_json_is_said(name, tmp_path):
    shutil.copy(int8_file(), tmp_path / "model.tflite")
    (tmp_path / "model.json").write_text(BAD_JSON[name][0])
    with pytest.raises(errors.KitError, match=BAD_JSON[name][1]):
        description.Description(tmp_path / "model.tflite")


def test_labels_that_do_not_fit_are_said(tmp_path):
    kit = make_kit(tmp_path / "kit", labels=["one", "two"])
    with pytest.raises(errors.KitError, match="There are 2 labels for the 10 values"):
        classifier.Classifier(kit / "model.tflite")


@pytest.mark.parametrize(
    ("scores", "activation", "expected"),
    [
        ([2.0, 2.0], "none", [0.5, 0.5]),
        ([0.9, 0.1], "softmax", [0.9, 0.1]),
        ([0.9, 0.1], None, [0.9, 0.1]),
        ([3.0, -3.0], None, [1 / (1 + np.exp(-6)), 1 / (1 + np.exp(6))]),
        ([1000.0, 0.0], "none", [1.0, 0.0]),
        ([0.7], "none", [0.7]),
    ],
)
def test_scores_become_probabilities(scores, activation, expected):
    np.testing.assert_allclose(classifier.probabilities(np.array(scores, "float32"), activation), expected, atol=1e-6)


def counting_file(path):
    """A file that takes a picture and a state, and gives scores and the next state: the state plus the picture's mean."""
    picture, state = keras.Input((4, 4, 1), name="image"), keras.Input((1,), name="state")
    mean = keras.layers.GlobalAveragePooling2D()(picture)
    total = keras.layers.Add(name="next")([mean, state])
    scores = keras.layers.Concatenate(name="scores")([total, mean])
    model = keras.Model([picture, state], {"scores": scores, "next": total})
    ones = {"image": np.ones((4, 4, 4, 1), "float32"), "state": np.ones((4, 1), "float32")}
    tfdistill.export_tflite(model, path, verify_on=ones)
    return path


def test_states_go_from_one_run_to_the_next(tmp_path):
    path = counting_file(tmp_path / "counting.tflite")
    kit = make_kit(tmp_path / "kit", path, labels=None)
    known = json.loads((kit / "model.json").read_text())
    known["states"] = [{"input": "state", "output": "next"}]
    for side, name in (("inputs", "state"), ("outputs", "next")):
        next(each for each in known[side] if each["name"] == name)["kind"] = "state"
    steps = np.arange(1, 4, dtype="float32")
    images = np.broadcast_to(steps[:, None, None, None, None], (3, 1, 4, 4, 1)).astype("float32")
    totals = np.cumsum(steps)
    (kit / "vectors/s_image.bin").write_bytes(images.tobytes())
    (kit / "vectors/s_scores.bin").write_bytes(np.stack([totals, steps], 1).astype("float32").tobytes())
    known["vectors"] = [{"inputs": {"image": "vectors/s_image.bin"}, "outputs": {"scores": "vectors/s_scores.bin"}, "steps": 3}]
    (kit / "model.json").write_text(json.dumps(known))
    results = selftest.run(kit / "model.tflite")
    assert [result["passed"] for result in results] == [True], results
    counting = classifier.Classifier(kit / "model.tflite")
    found = [counting.classify(np.full((4, 4, 1), step, np.uint8), top=1)["classes"][0] for step in (1, 2, 3)]
    assert [each["index"] for each in found] == [0, 0, 0]
    np.testing.assert_allclose(counting._states._now["state"], [[6.0]])


ADVICE = [
    ((3, 11), "aarch64", True, "pip install ai-edge-litert"),
    ((3, 13), "x86_64", True, "pip install ai-edge-litert"),
    ((3, 9), "aarch64", True, 'pip install "tflite-runtime==2.14.0" "numpy<2"'),
    ((3, 11), "armv7l", False, 'pip install "tflite-runtime==2.14.0" "numpy<2"'),
    ((3, 13), "armv7l", False, "use a Python that has a runtime"),
    ((3, 11), "armv6l", False, "none is built for armv6"),
]


@pytest.mark.parametrize(("version", "machine", "wide", "said"), ADVICE)
def test_what_to_install_depends_on_the_board(version, machine, wide, said):
    assert said in runtime.advice(version, machine, wide)


def test_benchmark_prints_what_it_measured(kit):
    shown = run(kit, "benchmark.py", "--seconds", "0.2")
    assert re.search(r"\d ms median", shown.stdout), shown.stderr
    record = json.loads(run(kit, "benchmark.py", "--seconds", "0.2", "--json", "--kernels", "builtin", kit / "model.tflite").stdout)
    assert record["p50_ms"] > 0
    assert record["host"]["packages"]["numpy"] == np.__version__
    assert "There is no file" in run(kit, "benchmark.py", "none.tflite").stderr


FAKE_CAMERA = """
import numpy as np
CAP_PROP_FRAME_WIDTH, CAP_PROP_FRAME_HEIGHT = 3, 4
class VideoCapture:
    left = {frames}
    def __init__(self, number): self.number = number
    def isOpened(self): return self.number == 0
    def set(self, *_): pass
    def read(self):
        self.left -= 1
        return self.left >= 0, np.full((8, 8, 3), (0, 0, 255), np.uint8)
    def release(self): print("released")
"""


def test_the_camera_of_the_board(kit, tmp_path):
    """A stand-in for OpenCV in place of a camera: red pictures, with blue first."""
    (tmp_path / "cv2.py").write_text(FAKE_CAMERA.format(frames=5))
    settings = {"env": {"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"}}
    done = run(kit, "classify.py", "--camera", "--frames", "2", "--json", **settings)
    lines = done.stdout.splitlines()
    assert (len(lines), lines[-1]) == (3, "released"), done.stderr
    red = open_file(int8_file()).run(np.full((1, 8, 8, 1), (255 * 19595 + 0x8000) >> 16, "float32"))["logits"][0]
    assert json.loads(lines[0])["classes"][0]["index"] == red.argmax()
    assert "gives no more pictures" in run(kit, "classify.py", "--camera", **settings).stderr
    assert "opens no camera 3" in run(kit, "classify.py", "--camera", "--camera-number", "3", **settings).stderr
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1 is not there')")
    said = run(kit, "classify.py", "--camera", **settings).stderr
    assert "libGL.so.1 is not there" in said
    assert "sudo apt install python3-picamera2" in said


FAKE_PICAMERA = """
import numpy as np
class Picamera2:
    def __init__(self, number):
        if number:
            raise IndexError("list index out of range")
    def create_video_configuration(self, main): return main
    def configure(self, main): self.main = main
    def start(self): print("started", self.main["format"])
    def capture_array(self): return np.full((8, 8, 4), (255, 0, 0, 255), np.uint8)
    def stop(self): print("stopped")
    def close(self): print("closed")
"""


def test_the_camera_on_the_boards_connector(kit, tmp_path):
    """A stand-in for Picamera2, which is preferred: red pictures with red first, which libcamera calls BGR888."""
    (tmp_path / "picamera2.py").write_text(FAKE_PICAMERA)
    settings = {"env": {"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"}}
    done = run(kit, "classify.py", "--camera", "--frames", "1", "--json", **settings)
    began, found, *ended = done.stdout.splitlines()
    assert (began, ended) == ("started BGR888", ["stopped", "closed"]), done.stderr
    red = open_file(int8_file()).run(np.full((1, 8, 8, 1), (255 * 19595 + 0x8000) >> 16, "float32"))["logits"][0]
    assert json.loads(found)["classes"][0]["index"] == red.argmax()
    assert "Picamera2 opens no camera 2" in run(kit, "classify.py", "--camera", "--camera-number", "2", **settings).stderr


def test_the_code_of_its_readme_runs(kit):
    text = (kit / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code + "print(outputs)"], cwd=kit, capture_output=True, text=True)
    assert "logits" in done.stdout, done.stderr


def test_the_unit_and_the_scripts_can_be_read():
    unit = configparser.ConfigParser(strict=True, interpolation=None)
    unit.optionxform = str
    unit.read_string((FOLDER / "classifier.service").read_text())
    assert unit["Service"]["ExecStart"].endswith("serve.py")
    subprocess.run(["sh", "-n", FOLDER / "install.sh"], check=True)


@pytest.mark.slow
def test_install_makes_what_the_readme_says(kit, tmp_path, picture):
    copied = shutil.copytree(kit, tmp_path / "kit")
    done = subprocess.run(
        ["sh", copied / "install.sh"], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "self-test passed" in done.stdout
    found = run(copied, "classify.py", picture, python=copied / ".venv/bin/python")
    assert "digit" in found.stdout, found.stderr


BOARDS = {
    "pi4": (("ai-edge-litert==2.3.0", "numpy==2.4.6"), "pi4", "ai_edge_litert"),
    "pi5": (("ai-edge-litert==2.3.0", "numpy==2.4.6"), "pi5", "ai_edge_litert"),
    "an old runtime": (("tflite-runtime==2.14.0", "numpy<2"), "pi4", "tflite_runtime"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BOARDS)
def test_selftest_on_emulated_boards_is_equal_to_the_bit(name, kit, picture):
    requirements, program, engine = BOARDS[name]
    python = environments.emulated_boards(*requirements) / program
    done = run(kit, "selftest.py", python=python)
    assert (done.returncode, done.stdout.count("equal to the bit")) == (0, 3), done.stdout + done.stderr
    record = json.loads(run(kit, "benchmark.py", "--seconds", "0.2", "--json", kit / "model.tflite", python=python).stdout)
    assert (record["engine"], record["host"]["machine"]) == (engine, "aarch64")
    # There is no Pillow: the kit's own reader decodes the picture.
    found, here = (json.loads(run(kit, "classify.py", picture, "--json", **settings).stdout) for settings in ({"python": python}, {}))
    if engine == "ai_edge_litert":
        assert found["classes"] == here["classes"]
    else:
        assert found["classes"][0]["label"] == here["classes"][0]["label"]


@pytest.mark.slow
def test_python_3_8_with_the_old_runtime(kit, picture, tmp_path):
    python = _python_3_8()
    made = environments.python_with("tflite-runtime==2.14.0", "numpy<2", python=python)
    done = run(kit, "selftest.py", python=made)
    assert (done.returncode, done.stdout.count("equal to the bit")) == (0, 3), done.stdout + done.stderr
    assert "ms median" in run(kit, "benchmark.py", "--seconds", "0.2", python=made).stdout
    # Without the outputs of the built-in kernels, those of XNNPACK are a step away.
    known = json.loads((kit / "model.json").read_text())
    for vector in known["vectors"]:
        del vector["outputs_builtin"]
    other = shutil.copytree(kit, tmp_path / "other")
    (other / "model.json").write_text(json.dumps(known))
    done = run(other, "selftest.py", python=made)
    assert (done.returncode, "1 steps apart, 1 are allowed" in done.stdout) == (0, True), done.stdout + done.stderr
    assert "digit" in run(kit, "classify.py", picture, python=made).stdout


def _python_3_8():
    found = list(pathlib.Path.home().glob(".pyenv/versions/3.8.*/bin/python")) or [shutil.which("python3.8")]
    return str(found[0] or sys.executable)


@pytest.mark.slow
def test_what_is_missing_is_said_with_what_to_install(kit, picture):
    bare = environments.python_with("numpy<2")
    done = run(kit, "selftest.py", python=bare)
    assert done.returncode == 1
    assert "No TFLite runtime is installed for Python 3." in done.stderr
    assert "-m pip install ai-edge-litert" in done.stderr
    none = run(kit, "classify.py", picture, python="/usr/bin/python3", env={"PYTHONNOUSERSITE": "1"})
    assert none.returncode == 1
    assert "is not installed" in none.stderr
    assert "Traceback" not in none.stderr
