"""The page of the kit's server in a real browser: the camera, a dropped picture, a token, and what it looks like without any of them."""

import json

import board_kit
import numpy as np
import pytest
from chromium import chromium
from PIL import Image
from small_files import int8_file
from test_board_server import serving

from tfdistill.runtime.interpreter import open_file

CLASSES = "[...document.querySelectorAll('#classes .label')].map((each) => each.textContent)"


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    return board_kit.make_kit(tmp_path_factory.mktemp("kit") / "kit", metadata={"name": "Handwritten digits"})


@pytest.fixture(scope="module")
def page():
    with chromium() as page:
        yield page


@pytest.mark.slow
def test_the_camera_and_a_dropped_picture(kit, page, tmp_path):
    with serving(kit) as (port, _):
        page.size(1100, 720)
        page.open(f"http://localhost:{port}/")
        page.until("document.querySelector('#about').textContent.includes('10 classes')")
        page.evaluate("document.querySelector('#camera').click()")
        page.until("document.querySelectorAll('#classes li').length === 5")
        first = page.until("document.querySelector('#latency').textContent")
        page.until(f"document.querySelector('#latency').textContent !== {json.dumps(first)}")  # the next pictures follow
        assert page.evaluate("document.querySelector('#camera').textContent") == "Stop camera"
        page.screenshot(tmp_path / "camera.png")
        with Image.open(tmp_path / "camera.png") as shot:
            assert shot.size[0] == 1100
        page.size(390, 844, mobile=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.screenshot(tmp_path / "phone.png")
        page.size(1100, 720)
        pixels = np.random.default_rng(8).integers(0, 256, (8, 8), dtype=np.uint8)
        for name, options in (("grey.png", {}), ("grey.webp", {"lossless": True})):
            Image.fromarray(pixels).save(tmp_path / name, **options)
            page.drop(tmp_path / name, 300, 300)
            page.until("!document.querySelector('#picture').hidden && document.querySelector('#camera').textContent === 'Start camera'")
            expected = open_file(int8_file()).run(pixels[None, ..., None].astype("float32"))["logits"][0]
            best = [f"digit {i}" for i in np.argsort(-expected, kind="stable")[:5]]
            page.until(f"JSON.stringify({CLASSES}) === {json.dumps(json.dumps(best, separators=(',', ':')))}")
        (tmp_path / "notes.txt").write_text("no picture")
        page.choose("#file", tmp_path / "notes.txt")
        page.until("document.querySelector('#message').textContent.includes('notes.txt')")
        assert page.complaints() == []


@pytest.mark.slow
def test_a_page_asks_for_a_token_and_takes_it_from_its_address(kit, page):
    with serving(kit, KIT_TOKEN="secret") as (port, _):
        page.open(f"http://localhost:{port}/")
        page.until("document.querySelector('#message').textContent.includes('#token=')")
        page.open("about:blank")
        page.open(f"http://localhost:{port}/#token=secret")
        page.until("document.querySelector('#about').textContent.includes('10 classes')")
        assert page.evaluate("document.querySelector('#message').hidden")
        assert not any("secret" in address for address in page.requested() if "#" not in address)
