"""The core of the Android kit, compiled and run on the JVM: images, integers, scores and self-tests are those of Keras, NumPy and LiteRT."""

import functools
import json
import shutil

import keras
import kit_folders
import kotlin_kit
import numpy as np
import pytest
from PIL import Image

import tfdistill
from tfdistill.runtime.tensors import TensorInfo

pytestmark = pytest.mark.slow
L = keras.layers
RNG = np.random.default_rng(0)
# Of float32 values of pixels, 0 to 255: additions and multiplications may be done in another order.
PIXEL = 255 * 4 * np.finfo("float32").eps
LABELS = ["Äpfel", "b", "c", "d"]


def description(**changes):
    """The values of a model.json of an image classifier, with changes of its members: a path with dots to a value, None removes it."""
    values = {
        "format": 1,
        "file": "model.tflite",
        "sha256": "0" * 64,
        "size_bytes": 9,
        "variant": "int8",
        "signatures": {"serving_default": {"inputs": {"image": "x"}, "outputs": {"scores": "y"}}},
        "inputs": [tensor("image", (1, 8, 6, 3), "uint8", 0.5, 10, kind="image", normalization=None)],
        "outputs": [tensor("scores", (1, 4), "int8", 0.25, -3, kind="scores", activation="none")],
        "labels": LABELS,
        "states": [],
        "vectors": [{"inputs": {"image": "vectors/0_image.bin"}, "outputs": {"scores": "vectors/0_scores.bin"}, "steps": 1}],
        "tolerance": {"scores": {"steps": 0}},
        "metadata": {"name": "net"},
    }
    for path, value in changes.items():
        *parents, last = (int(part) if part.isdigit() else part for part in path.split("."))
        holder = functools.reduce(lambda part, key: part[key], parents, values)
        holder[last] = value
    return values


def tensor(name, shape, dtype, scale=None, zero_point=0, **more):
    return {"name": name, "tensor": name, "shape": list(shape), "dtype": dtype, "scale": scale, "zero_point": zero_point, **more}


def written(path, values):
    path.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
    return path


# Size of the image, input of the model, crop, normalization: smaller, larger, odd and equal sizes, one channel and three, one pixel.
IMAGES = [
    ((48, 64), (24, 24, 3), False, None),
    ((48, 64), (24, 24, 3), True, ([127.5], [127.5])),
    ((64, 48), (32, 20, 3), True, None),
    ((13, 7), (29, 31, 3), False, ([123.7, 116.3, 103.5], [58.4, 57.1, 57.4])),
    ((13, 7), (5, 19, 3), True, ([0.0], [255.0])),
    ((28, 28), (28, 28, 1), False, ([0.0], [255.0])),
    ((120, 33), (28, 28, 1), True, None),
    ((1, 1), (4, 4, 3), True, None),
    ((480, 640), (96, 96, 3), False, ([127.5], [127.5])),
]
TYPES = [("float32", None, 0), ("uint8", 0.9, 7), ("int8", 1.7, -120), ("int8", 2 / 255, -1)]


def keras_pixels(image, shape, crop):
    """What `load_img` and a `Resizing` layer make of an image."""
    pixels = np.asarray(Image.fromarray(image).convert("L"))[..., None] if shape[-1] == 1 else image
    return np.asarray(L.Resizing(*shape[:2], crop_to_aspect_ratio=crop)(pixels.astype("float32")))


def test_images_become_what_keras_makes_of_them(tmp_path):
    jobs, expected = [], []
    for number, ((height, width), shape, crop, normal) in enumerate(IMAGES):
        image = RNG.integers(0, 256, (height, width, 3)).astype("uint8")
        (tmp_path / f"{number}.rgb").write_bytes(image.tobytes())
        pixels = keras_pixels(image, shape, crop)
        mean, std = normal or ([0.0], [1.0])
        values = (pixels - np.array(mean, "float32")) / np.array(std, "float32")
        for kind, (dtype, scale, zero) in enumerate(TYPES):
            how = normal and {"mean": mean, "std": std}
            entry = tensor("image", (1, *shape), dtype, scale, zero, kind="image", normalization=how)
            name = f"{number}_{kind}"
            file = written(tmp_path / f"{name}.json", description(**{"inputs.0": entry}))
            jobs.append(
                ["preprocess", file, tmp_path / f"{number}.rgb", width, height, crop, tmp_path / f"{name}.f", tmp_path / f"{name}.q"]
            )
            expected.append((name, values, np.min(std), TensorInfo("image", 0, (1, *shape), dtype, scale, zero)))
    answers = kotlin_kit.run_jobs(jobs)
    assert [text for good, text in answers if not good] == []
    for name, values, std, info in expected:
        ours = np.frombuffer((tmp_path / f"{name}.f").read_bytes(), "<f4").reshape(values.shape)
        np.testing.assert_allclose(ours, values, rtol=0, atol=PIXEL / std, err_msg=name)
        sent = np.frombuffer((tmp_path / f"{name}.q").read_bytes(), info.dtype).reshape(values.shape)
        # To the bit of the values that were quantized, and of Keras's but where the quantization cuts between the two.
        np.testing.assert_array_equal(sent, info.quantize(ours), err_msg=name)
        assert np.abs(sent.astype(float) - info.quantize(values)).max() <= (0 if info.scale is None else 1)


def test_frames_of_a_camera_are_turned_upright(tmp_path):
    height, width, row_stride, pixel_stride = 3, 5, 5 * 4 + 12, 4
    frame = RNG.integers(0, 256, (height, width, 4)).astype("uint8")
    rows = np.zeros((height, row_stride), "uint8")
    rows[:, : 4 * width] = frame.reshape(height, -1)
    (tmp_path / "frame").write_bytes(rows.tobytes())
    turns = [0, 90, 180, 270]
    jobs = [["rgba", tmp_path / "frame", width, height, row_stride, pixel_stride, turn, tmp_path / f"{turn}"] for turn in [*turns, 45]]
    *answers, odd = kotlin_kit.run_jobs(jobs)
    for turn, (_, size) in zip(turns, answers, strict=True):
        upright = np.rot90(frame[..., :3], -turn // 90)
        assert size == f"{upright.shape[1]} {upright.shape[0]}"
        np.testing.assert_array_equal(np.frombuffer((tmp_path / f"{turn}").read_bytes(), "uint8").reshape(upright.shape), upright)
    assert odd == (False, "a frame cannot be turned by 45 degrees")


def test_integers_are_those_of_tfdistill(tmp_path):
    # Halves between two steps, ends of the range, beyond them, and beyond float64's integers.
    values = np.array([0.25, 0.75, -0.25, 1.25, -1.75, 63.9, 64.2, -70, 1e30, -1e30, 0.1, -0.0, *RNG.normal(0, 30, 20)], "float32")
    jobs, infos = [], []
    (tmp_path / "values").write_bytes(values.tobytes())
    for dtype, scale, zero in [("int8", 0.5, 0), ("int8", 0.5, -128), ("uint8", 0.3, 128), ("uint8", None, 0), ("float32", None, 0)]:
        name = f"{len(infos)}"
        entry = tensor("image", values.shape, dtype, scale, zero, kind="tensor", normalization=None)
        file = written(tmp_path / f"{name}.json", description(**{"inputs.0": entry}))
        jobs += [["quantize", file, tmp_path / "values", tmp_path / f"{name}.q"]]
        jobs += [["dequantize", file, tmp_path / f"{name}.q", tmp_path / f"{name}.f"]]
        infos.append(TensorInfo("image", 0, values.shape, dtype, scale, zero))
    assert all(good for good, _ in kotlin_kit.run_jobs(jobs))
    for number, info in enumerate(infos):
        steps = np.frombuffer((tmp_path / f"{number}.q").read_bytes(), info.dtype)
        wanted = info.quantize(values) if info.scale or info.dtype == "float32" else np.clip(values, 0, 255).astype("uint8")
        np.testing.assert_array_equal(steps, wanted)
        back = np.frombuffer((tmp_path / f"{number}.f").read_bytes(), "<f4")
        np.testing.assert_array_equal(back, info.dequantize(steps).astype("float32"))


def test_classes_are_ordered_by_their_scores(tmp_path):
    raw = np.array([5, -128, 127, 5], "int8")
    (tmp_path / "raw").write_bytes(raw.tobytes())
    floats = np.array([1, np.nan, 3, np.inf], "<f4")
    (tmp_path / "floats").write_bytes(floats.tobytes())
    logits = written(tmp_path / "logits.json", description())
    softmax = written(tmp_path / "softmax.json", description(**{"outputs.0.activation": "softmax", "labels": None}))
    of_floats = {"dtype": "float32", "scale": None, "activation": "softmax"}
    changes = {f"outputs.0.{name}": value for name, value in of_floats.items()}
    tolerant = written(tmp_path / "floats.json", description(**changes, **{"tolerance.scores": {"abs": 0.1}}))
    jobs = [["top", logits, tmp_path / "raw", 4], ["top", softmax, tmp_path / "raw", 2], ["top", tolerant, tmp_path / "floats", 4]]
    (_, found), (_, plain), (_, not_finite) = kotlin_kit.run_jobs(jobs)
    real = (raw.astype(float) + 3) * 0.25
    powers = np.exp(real - real.max())
    order, names, scores = zip(*(part.split() for part in found.split("; ")), strict=True)
    assert [*map(int, order)] == [2, 0, 3, 1] == [*np.argsort(-real, kind="stable")]
    assert list(names) == [LABELS[int(index)] for index in order]
    np.testing.assert_allclose([*map(float, scores)], (powers / powers.sum())[[2, 0, 3, 1]], rtol=1e-6)
    assert plain == "2 class 2 32.5; 0 class 0 2.0"
    assert [part.split()[0] for part in not_finite.split("; ")] == ["3", "2", "0", "1"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Exported files: an image classifier in integers and in floats, and a net with a state."""
    folder = tmp_path_factory.mktemp("files")
    keras.utils.set_random_seed(0)
    x = RNG.integers(0, 256, (64, 12, 12, 3)).astype("float32")
    pixels = keras.Input((12, 12, 3), name="image")
    h = L.GlobalAveragePooling2D()(L.Conv2D(8, 3, activation="relu")(L.Rescaling(1 / 127.5, -1)(pixels)))
    net = keras.Model(pixels, L.Dense(4, name="scores")(h))
    entry, state = keras.Input((5,), name="entry"), keras.Input((6,), name="state")
    following = L.Dense(6, activation="tanh", name="following")(L.Concatenate()([entry, state]))
    stream = keras.Model({"entry": entry, "state": state}, {"out": L.Dense(3, name="out")(following), "following": following})
    paths = {name: folder / f"{name}.tflite" for name in ("int8", "float32", "stream")}
    tfdistill.export_tflite(net, paths["int8"], "int8", calibration=x, io="uint8")
    tfdistill.export_tflite(net, paths["float32"], "float32", verify_on=x)
    tfdistill.export_tflite(stream, paths["stream"], "float32")
    return paths


IMAGE = {"kind": "image", "normalization": {"mean": [0.0], "std": [1.0]}}
KITS = {
    "int8": dict(
        kinds={"image": IMAGE, "scores": {"kind": "scores", "activation": "none"}}, tolerance={"scores": {"steps": 0}}, labels=LABELS
    ),
    "float32": dict(kinds={"image": IMAGE, "scores": {"kind": "scores", "activation": "none"}}, tolerance={"scores": {"abs": 1e-6}}),
    "stream": dict(
        kinds={"state": {"kind": "state"}, "following": {"kind": "state"}},
        tolerance={"out": {"abs": 1e-6}, "following": {"abs": 1e-6}},
        states=[("state", "following")],
        steps=4,
    ),
}


def self_test(folder, model=None):
    return ["selftest", folder, *kotlin_kit.runner(model or folder / "model.tflite")]


def changed(folder, path, index, change):
    """Changes one element of a test vector."""
    values = np.frombuffer((folder / path).read_bytes(), "int8" if "scores" in path and change < 1000 else "<f4").copy()
    values[index] += change % 1000
    (folder / path).write_bytes(values.tobytes())


def test_self_tests_run_the_file_and_find_what_differs(files, tmp_path):
    for name, settings in KITS.items():
        kit_folders.made(tmp_path / name, files[name], **settings)
    # The same kit: with another output for a vector, another model, a shortened vector, without a vector.
    for name in ("off", "other", "longer", "short", "without", "empty"):
        shutil.copytree(tmp_path / "int8", tmp_path / name)
    changed(tmp_path / "off", "vectors/1_scores.bin", 2, 3)
    content = bytearray((tmp_path / "other/model.tflite").read_bytes())
    content[-1] ^= 1
    (tmp_path / "other/model.tflite").write_bytes(content)
    (tmp_path / "longer/model.tflite").write_bytes(content + b"more")
    (tmp_path / "short/vectors/0_image.bin").write_bytes(b"12")
    (tmp_path / "without/vectors/0_image.bin").unlink()
    values = json.loads((tmp_path / "empty/model.json").read_text(encoding="utf-8"))
    written(tmp_path / "empty/model.json", {**values, "vectors": []})
    shutil.copytree(tmp_path / "stream", tmp_path / "late")
    changed(tmp_path / "late", "vectors/0_out.bin", -1, 1000.5)
    good = [self_test(tmp_path / name) for name in KITS]
    found = kotlin_kit.run_jobs(
        [*good, *(self_test(tmp_path / name) for name in ("off", "late", "other", "longer", "short", "without", "empty"))]
    )
    equal = "true true All outputs of 2 test vectors are equal to those of the desk."
    assert found[:3] == [(True, equal)] * 3
    assert found[3][1].startswith("false ")
    assert found[3][1].endswith("Vector 1, scores: 3.0 steps off (at most 0.0): failed")
    assert found[4][1].startswith("false true Vector 0, out: 0.5")
    size, sha256 = len(content), values["sha256"][:12]
    for answer, bytes_found in ((found[5], size), (found[6], size + 4)):
        assert not answer[0]
        assert answer[1].startswith(f"model.tflite has {bytes_found} bytes, SHA-256 ")
        assert f"are those of a file of {size} bytes, SHA-256 {sha256}." in answer[1]
    assert found[7][1].startswith("vectors/0_image.bin has 2 bytes, and 'image' takes 432 in each of 1 runs.")
    assert found[8][1].startswith("vectors/0_image.bin cannot be read: ")
    assert found[9][1].startswith("The kit has no test vectors.")
    assert all("tfdistill kit MODEL.tflite --for android --out FOLDER" in text for good, text in found if not good)


def test_another_model_of_the_same_form_fails(files, tmp_path):
    """Not the bytes of the file but what was computed is compared: a runner of other weights is found."""
    kit_folders.made(tmp_path / "kit", files["int8"], **KITS["int8"])
    other = keras.Sequential([keras.Input((12, 12, 3), name="image"), L.Flatten(), L.Dense(4, name="scores")])
    tfdistill.export_tflite(other, tmp_path / "other.tflite", "int8", calibration=RNG.uniform(0, 255, (64, 12, 12, 3)), io="uint8")
    ((good, text),) = kotlin_kit.run_jobs([self_test(tmp_path / "kit", tmp_path / "other.tflite")])
    assert good
    assert text.startswith("false ")
    assert "failed" in text
