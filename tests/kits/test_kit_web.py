"""The page for browsers: in headless Chromium as a person uses it, and its numbers in Node.js against Keras and NumPy."""

import functools
import json
import pathlib
import re
import shutil
import subprocess

import keras
import numpy as np
import pytest
from chromium import chromium
from hypothesis import given, settings
from hypothesis import strategies as st
from kit_models import ABOUT, LABELS, ROOT, file_of, kit_of, pixels
from PIL import Image

import tfdistill
from tfdistill.runtime.interpreter import open_file
from tfdistill.runtime.tensors import TensorInfo
from tfdistill.utils.serve import served

PAGE = ROOT / "export" / "web"
SELFTEST = "document.querySelector('#selftest').dataset.state"
SHOWN = "Array.from(document.querySelectorAll('#bars li'), (bar) => bar.querySelector('.name').textContent)"


def in_node(code, given):
    """Runs JavaScript with the functions of preprocess.js and the value `given`; returns what it logs as JSON."""
    script = f"import * as page from {json.dumps((PAGE / 'preprocess.js').as_uri())};\nimport {{ readFileSync }} from 'node:fs';\n"
    script += f"const given = JSON.parse(readFileSync(0, 'utf8'));\nconsole.log(JSON.stringify({code}));"
    # preprocess.js is a module without a package.json that says so.
    command = ["node", "--experimental-default-type=module", "--input-type=module", "-e", script]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(20, 30, 16, 16), (16, 16, 16, 16), (5, 7, 16, 12), (64, 48, 15, 9), (1, 1, 4, 4)])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_resized_as_keras_does_it(sizes, channels):
    height, width, to_height, to_width = sizes
    image = np.random.default_rng(0).integers(0, 256, (height, width, channels)).astype("uint8")
    found = in_node(f"Array.from(page.resize(given, {width}, {height}, {channels}, {to_width}, {to_height}))", image.ravel().tolist())
    layer = keras.layers.Resizing(to_height, to_width, interpolation="bilinear")
    expected = np.asarray(layer(image[None].astype("float32")))[0]
    np.testing.assert_allclose(np.reshape(found, expected.shape), expected, atol=1e-4)


@pytest.mark.slow
def test_gray_is_that_of_pillow():
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype("uint8")
    rgba = np.concatenate([image, np.full((40, 50, 1), 255, "uint8")], axis=-1)
    found = in_node("Array.from(page.channelsOf(given, 1))", rgba.ravel().tolist())
    assert np.abs(np.reshape(found, (40, 50)) - np.asarray(Image.fromarray(image).convert("L")).astype(int)).max() == 0
    assert in_node("Array.from(page.channelsOf(given, 3))", rgba.ravel().tolist()) == image.ravel().tolist()


@pytest.mark.slow
def test_integers_are_those_of_numpy():
    rows = []

    @given(st.sampled_from(["int8", "uint8", "int16"]), st.floats(1e-5, 1e3), st.data())
    @settings(max_examples=60, deadline=None, database=None)
    def draw(dtype, scale, data):
        limits = np.iinfo(dtype)
        zero = data.draw(st.integers(limits.min, limits.max))
        numbers = st.floats(-1e6, 1e6) | st.integers(-300, 300).map(lambda n: (n + 0.5) * scale)
        rows.append({"dtype": dtype, "scale": scale, "zero_point": zero, "values": data.draw(st.lists(numbers, min_size=1, max_size=10))})

    draw()
    found = in_node("given.map((row) => Array.from(page.quantize(row.values, row)))", rows)
    for row, integers in zip(rows, found, strict=True):
        info = TensorInfo("x", 0, (1,), row["dtype"], row["scale"], row["zero_point"])
        assert integers == info.quantize(np.array(row["values"], "float64")).tolist()


@pytest.mark.slow
def test_pixels_are_normalized_and_scores_are_shares():
    how = {"mean": [10, 20, 30], "std": [1, 2, 4]}
    assert in_node("page.normalize([11, 22, 34, 10, 20, 30], given, 3)", how) == [1, 1, 1, 0, 0, 0]
    logits = np.random.default_rng(0).normal(0, 5, 10)
    shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    np.testing.assert_allclose(in_node("Array.from(page.probabilities(given, 'none'))", logits.tolist()), shares, rtol=1e-5)
    assert in_node("page.largest(given, 2)", [1, 3, 3, 2]) == [{"index": 1, "value": 3}, {"index": 2, "value": 3}]
    assert in_node("page.centered(40, 20, 16, 16)", None) == {"x": 10, "y": 0, "width": 20, "height": 20}


def test_the_page_loads_nothing_from_elsewhere():
    for path in (path for path in PAGE.glob("*.*") if path.suffix != ".md"):
        text = path.read_text(encoding="utf-8")
        assert re.findall('https?://[^"]*', text) in ([], ["http://www.w3.org/2000/svg"]), path.name
    files = kit_of("uint8", "web").files
    assert {f"litert/wasm/litert_wasm_{kind}internal.{end}" for kind in ("", "compat_") for end in ("js", "wasm")} <= set(files)
    assert {"litert/LICENSE", "litert/NOTICE.txt"} <= set(files)


@functools.cache
def photos():
    """A hundred images as bytes (height, width, 3), of two sizes."""
    rng, found = np.random.default_rng(5), []
    for number in range(100):
        height, width = (16, 16) if number % 2 else (24, 37)
        coarse = rng.uniform(0, 255, 3) + rng.normal(0, 30, (4, 4, 3))
        rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
        found.append(np.clip(coarse[rows][:, columns] + rng.normal(0, 20, (height, width, 3)), 0, 255).astype("uint8"))
    return found


def put_photos(folder):
    for number, image in enumerate(photos()):
        keras.utils.save_img(folder / f"{number}.png", image, scale=False)


@functools.cache
def scores_on_the_desk(name):
    """Scores of the photos in LiteRT here, resized by Keras: (100, 10)."""
    layer = keras.layers.Resizing(16, 16, interpolation="bilinear")
    images = [np.asarray(Image.fromarray(image).convert("L"))[..., None] if name == "gray" else image for image in photos()]
    x = np.concatenate([np.asarray(layer(image[None].astype("float32"))) for image in images])
    (scores,) = open_file(file_of(name)).run(x).values()
    return scores


@pytest.fixture(scope="module")
def page():
    with chromium() as opened:
        yield opened


def opened(page, address):
    page.events.clear()
    page.open(address)
    page.evaluate("window.kit.ready")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["uint8", "softmax", "int8 with float inputs", "float32", "gray"])
def test_a_browser_gives_the_classes_of_the_desk(name, page, tmp_path):
    folder = pathlib.Path(shutil.copytree(kit_of(name, "web").path, tmp_path / "kit"))
    (folder / "photos").mkdir()
    put_photos(folder / "photos")
    with served(folder) as address:
        opened(page, address)
        assert page.evaluate(SELFTEST) == "passed"
        code = """(async () => {
          const found = [];
          for (let i = 0; i < 100; i++) found.push(await window.kit.open(await (await fetch(`photos/${i}.png`)).blob()));
          return found.map(({ index, label, scores }) => ({ index, label, scores: Array.from(scores) }));
        })()"""
        found = page.evaluate(code)
        assert page.complaints() == []
        assert {url.split("/")[2] for url in page.requested() if url.startswith("http")} == {address.split("/")[2]}
    indices = [row["index"] for row in found]
    assert indices == scores_on_the_desk(name).argmax(1).tolist()
    assert len(set(indices)) > 1
    assert [row["label"] for row in found] == [LABELS[index] for index in indices]


@pytest.mark.slow
def test_a_person_drops_an_image_chooses_one_and_uses_the_camera(page, tmp_path):
    put_photos(tmp_path)
    with served(kit_of("uint8", "web").path) as address:
        page.size(1280, 860)
        opened(page, address)
        assert page.evaluate("document.title") == ABOUT.name
        assert (
            page.evaluate("document.querySelector('#subtitle').textContent")
            == f"int8 · {file_of('uint8').stat().st_size / 1024:.1f} KiB · 10 classes"
        )
        box = page.evaluate(
            "(({x, y, width, height}) => [x + width / 2, y + height / 2])(document.querySelector('#drop').getBoundingClientRect())"
        )
        page.drop(tmp_path / "0.png", *box)
        page.until("document.querySelectorAll('#bars li').length === 5")
        expected = [LABELS[index] for index in scores_on_the_desk("uint8").argmax(1)]
        assert page.evaluate(SHOWN)[0] == expected[0]
        assert page.evaluate("Number(document.querySelector('#latency').textContent) > 0")
        other = next(number for number in range(100) if expected[number] != expected[0])
        page.choose("#file", tmp_path / f"{other}.png")
        page.until(f"{SHOWN}[0] === {json.dumps(expected[other])}")
        (tmp_path / "notes.png").write_text("no image")
        page.choose("#file", tmp_path / "notes.png")
        assert "notes.png is no image" in page.until(
            "!document.querySelector('#error').hidden && document.querySelector('#error').textContent"
        )
        page.evaluate("document.querySelector('#camera').click()")
        page.until("!document.querySelector('#video').hidden && document.querySelector('#video').videoWidth > 0")
        assert page.evaluate("document.querySelector('#camera').getAttribute('aria-pressed')") == "true"
        page.evaluate("document.querySelector('#latency').textContent = 'waiting'")
        page.until("document.querySelector('#latency').textContent !== 'waiting'")
        page.evaluate("document.querySelector('#camera').click()")
        assert page.evaluate("document.querySelector('#video').srcObject === null && document.querySelector('#video').hidden")
        page.size(390, 844, mobile=True)
        assert page.evaluate("document.documentElement.scrollWidth <= 390"), "the page is wider than a phone"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["features", "tokens", "streaming"])
def test_a_model_without_images_shows_its_test_vectors(name, page):
    with served(kit_of(name, "web").path) as address:
        opened(page, address)
        assert page.evaluate(SELFTEST) == "passed"
        page.evaluate("document.querySelector('#vector-controls button').click()")
        page.until("document.querySelectorAll('#bars li').length > 0")
        assert page.evaluate("document.querySelector('#error').hidden")


DAMAGES = {
    "another model": (
        lambda folder: shutil.copy(file_of("softmax"), folder / "model.tflite"),
        "model.tflite is another model than the one that model.json and the test vectors were made with",
    ),
    "no model": (lambda folder: (folder / "model.tflite").unlink(), "model.tflite is missing (404): copy the whole folder"),
    "no vector": (lambda folder: (folder / "vectors" / "0_image.bin").unlink(), "vectors/0_image.bin is missing"),
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_kit_says_what_is_wrong(damage, page, tmp_path):
    harm, said = DAMAGES[damage]
    folder = pathlib.Path(shutil.copytree(kit_of("uint8", "web").path, tmp_path / "kit"))
    harm(folder)
    with served(folder) as address:
        opened(page, address)
        assert said in page.evaluate("document.querySelector('#error').textContent")
        assert page.evaluate(SELFTEST) != "passed"


@pytest.mark.slow
def test_a_selftest_that_differs_is_shown(page, tmp_path):
    """Fails on purpose: one output of a vector is changed by a step, and the file is of integers."""
    folder = pathlib.Path(shutil.copytree(kit_of("uint8", "web").path, tmp_path / "kit"))
    path = folder / "vectors" / "1_scores.bin"
    content = bytearray(path.read_bytes())
    content[3] = content[3] + 1 if content[3] < 255 else 254
    path.write_bytes(content)
    with served(folder) as address:
        opened(page, address)
        assert page.evaluate(SELFTEST) == "failed"
        assert page.evaluate("window.kit.check().then(({ lines }) => lines.map(({ apart }) => apart))") == [0, 1, 0]


@pytest.mark.slow
def test_the_page_works_without_a_network():
    with chromium() as page:
        with served(kit_of("uint8", "web").path) as address:
            opened(page, address)
            page.evaluate("navigator.serviceWorker.ready.then(() => true)")
        page.events.clear()
        page.open(address)  # the server has ended
        page.evaluate("window.kit.ready")
        assert page.evaluate(SELFTEST) == "passed"


def test_what_is_served_is_the_kit_alone():
    import urllib.error
    import urllib.request

    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with served(kit_of("uint8", "web").path) as address:
        assert address.startswith("http://127.0.0.1:")
        kinds = {"app.js": "text/javascript", "litert/wasm/litert_wasm_internal.wasm": "application/wasm", "": "text/html"}
        for path, kind in kinds.items():
            with opener.open(address + path) as answer:
                assert answer.headers.get_content_type() == kind
                assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        for path in ("litert/", "%2e%2e/%2e%2e/etc/passwd", "/etc/passwd"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                opener.open(address + path)


def test_the_samples_of_these_tests_are_images():
    assert pixels().shape == (32, 16, 16, 3)
    assert tfdistill.read_metadata(file_of("uint8")).inputs["image"].image == "rgb"
