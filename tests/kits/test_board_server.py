"""The kit's server over HTTP: what it answers, what it refuses, and how it ends."""

import concurrent.futures
import contextlib
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import board_kit
import environments
import numpy as np
import pytest
from board_kit import make_kit
from PIL import Image
from small_files import int8_file

from tfdistill.runtime.interpreter import open_file

PIXELS = np.random.default_rng(5).integers(0, 256, (8, 8), dtype=np.uint8)
PPM = b"P5\n8 8\n255\n" + PIXELS.tobytes()


def encoded(kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, kind, **options)
    return buffer.getvalue()


@contextlib.contextmanager
def serving(kit, *arguments, python=sys.executable, seconds=60, **environment):
    """Yields (port, process) of a running serve.py."""
    command = [python, "-u", str(kit / "serve.py"), "--port", "0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})
    try:
        line = process.stdout.readline()
        found = re.search(r":(\d+)/ \(Ctrl-C", line)
        assert found, line + process.stderr.read()
        yield int(found[1]), process
    finally:
        process.terminate()
        process.communicate(timeout=seconds)


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    return make_kit(tmp_path_factory.mktemp("kit") / "kit", metadata={"name": "Digits"})


@pytest.fixture(scope="module")
def port(kit):
    with serving(kit, "--most-bytes", "5000") as (port, _):
        yield port


def ask(port, path="/classify", body=PPM, method="POST", **headers):
    """Returns (status, headers, content) of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Content-Type": "image/x-portable-pixmap", **{name.replace("_", "-"): value for name, value in headers.items()}}
    connection.request(method, path, body, {name: value for name, value in headers.items() if value is not None})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, answer.headers, json.loads(content) if answer.headers["Content-Type"] == "application/json" else content


def expected():
    logits = open_file(int8_file()).run(PIXELS[None, ..., None].astype("float32"))["logits"][0]
    return [int(i) for i in np.argsort(-logits, kind="stable")]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (PPM, "image/x-portable-pixmap"),
        (encoded("PNG"), "image/png"),
        (encoded("BMP"), "image/bmp"),
        (encoded("WEBP", lossless=True), "image/webp"),
    ],
)
def test_a_posted_picture_is_classified(body, kind, port):
    status, _, found = ask(port, "/classify?top=10", body, Content_Type=kind)
    assert status == 200
    assert [each["index"] for each in found["classes"]] == expected()
    assert found["inference_ms"] > 0


def test_the_page_and_what_is_known_of_the_model(port):
    for path, kind in (("/", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css")):
        status, headers, content = ask(port, path, None, "GET")
        assert (status, headers["Content-Type"].partition(";")[0]) == (200, kind)
        assert headers["Content-Security-Policy"].startswith("default-src 'self'")
        assert content == (board_kit.FOLDER / (path[1:] or "page.html")).read_bytes()
    _, _, about = ask(port, "/model", None, "GET")
    assert (about["name"], about["classes"], about["input"]["shape"]) == ("Digits", 10, [1, 8, 8, 1])


REFUSED = {
    "another path": ({"path": "/other"}, 404, "posted to /classify"),
    "a file of the kit": ({"path": "/model.json", "method": "GET", "body": None}, 404, "There is /"),
    "out of the folder": ({"path": "/../../etc/passwd", "method": "GET", "body": None}, 404, "There is /"),
    "another type": ({"Content_Type": "text/plain"}, 415, "image/png"),
    "no type": ({"Content_Type": None}, 415, "image/png"),
    "too large": ({"body": bytes(5001)}, 413, "1 to 5000"),
    "nothing": ({"body": b""}, 400, "0 bytes"),
    "no picture": ({"body": b"nothing"}, 400, "no picture"),
    "half a picture": ({"body": PPM[:40]}, 400, "damaged"),
    "no number": ({"path": "/classify?top=x"}, 400, "top= is no whole number"),
    "a length that is none": ({"Content_Length": "many"}, 411, "Content-Length"),
    "a page elsewhere": ({"Origin": "https://evil.example"}, 403, "own page"),
    "another name": ({"Host": "evil.example"}, 403, "not called 'evil.example'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, port):
    settings, status, said = REFUSED[name]
    found, _, content = ask(port, **settings)
    assert (found, said in content["error"]) == (status, True), content


def test_methods_that_there_are_not(port):
    assert ask(port, "/", None, "DELETE")[0] == 501
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.putrequest("POST", "/classify")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.putheader("Content-Type", "image/png")
    connection.endheaders()
    assert connection.getresponse().status == 411


def test_a_picture_is_asked_for_when_its_headers_are_accepted(port):
    """Programs such as curl wait for it with large pictures."""
    for size, first in ((len(PPM), b"HTTP/1.1 100 Continue"), (5001, b"HTTP/1.1 413")):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            head = f"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/x-portable-pixmap\r\nContent-Length: {size}\r\n"
            connection.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
            assert connection.recv(1000).startswith(first)
            if size == len(PPM):
                connection.sendall(PPM)
                assert connection.recv(1000).startswith(b"HTTP/1.1 200")


def test_own_page_by_several_names(port):
    for name in ("localhost", "127.0.0.1"):
        assert ask(port, Host=f"{name}:{port}", Origin=f"http://{name}:{port}")[0] == 200


def test_many_at_a_time_are_all_answered_or_told_to_wait(port):
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda _: ask(port), range(40)))
    assert {status for status, _, _ in found} <= {200, 503}
    answers = [content["classes"] for status, _, content in found if status == 200]
    assert len(answers) >= 4
    assert all(answer == answers[0] for answer in answers)


def test_a_connection_that_sends_nothing_or_breaks_keeps_nobody_out(port):
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
    silent[0].sendall(b"POST /classify HTTP/1.1\r\nContent-Length: 100\r\n")
    silent[1].sendall(b"\x16\x03\x01" + bytes(50))
    silent[2].close()
    assert ask(port)[0] == 200
    for connection in silent:
        connection.close()


def test_a_token(kit):
    with serving(kit, KIT_TOKEN="secret") as (port, _):
        assert ask(port)[0] == 401
        assert ask(port, "/model", None, "GET")[0] == 401
        assert ask(port, Authorization="Bearer wrong")[0] == 401
        assert ask(port, Authorization="Bearer secret")[0] == 200
        assert ask(port, "/", None, "GET")[0] == 200  # the page, which asks with its own token


def test_open_to_the_network_without_a_token_is_said(kit):
    with serving(kit, "--host", "0.0.0.0") as (port, process):
        assert ask(port, Host="board.local")[0] == 200
        process.terminate()
        assert "Anyone in the network can ask: set KIT_TOKEN" in process.communicate(timeout=60)[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_in_order(number, kit):
    with serving(kit) as (port, process):
        assert ask(port)[0] == 200
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 0
        assert "Traceback" not in said
        with pytest.raises(ConnectionRefusedError):
            ask(port)


def test_a_port_in_use_is_said(kit):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = board_kit.run(kit, "serve.py", "--port", taken.getsockname()[1])
    assert done.returncode == 1
    assert "cannot be listened on: Address already in use" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pi4", "pi5"])
def test_an_emulated_board_serves(name, kit):
    python = str(environments.emulated_boards("ai-edge-litert==2.3.0", "numpy==2.4.6") / name)
    with serving(kit, python=python) as (port, _):
        for body, kind in ((PPM, "image/x-portable-pixmap"), (encoded("PNG"), "image/png")):
            began = time.monotonic()
            status, _, found = ask(port, "/classify?top=10", body, Content_Type=kind)
            assert status == 200, (found, time.monotonic() - began)
            assert [each["index"] for each in found["classes"]] == expected()
        # Without Pillow there is no reader of JPEG.
        assert ask(port, Content_Type="image/jpeg")[0] == 415
