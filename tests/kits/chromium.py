"""Drives a headless Chromium by the DevTools protocol, with the standard library alone."""

import base64
import contextlib
import itertools
import json
import os
import pathlib
import secrets
import shutil
import socket
import struct
import subprocess
import tempfile
import time
import urllib.request

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars", "--force-color-profile=srgb"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", "--remote-debugging-port=0", "--remote-allow-origins=*"),
)
SECONDS = 120.0


class WebSocket:
    """A client of text messages (RFC 6455)."""

    def __init__(self, address):
        host, _, path = address.removeprefix("ws://").partition("/")
        name, _, port = host.partition(":")
        self.socket = socket.create_connection((name, int(port)), SECONDS)
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        lines = [f"GET /{path} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", ""]
        self.socket.sendall("\r\n".join(lines).encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self._read(1)
        assert b" 101 " in head.split(b"\r\n")[0], head

    def send(self, text):
        data, mask = text.encode(), secrets.token_bytes(4)
        size = len(data)
        length = (
            bytes([0x80 | size])
            if size < 126
            else b"\xfe" + struct.pack(">H", size)
            if size < 1 << 16
            else b"\xff" + struct.pack(">Q", size)
        )
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
        self.socket.sendall(b"\x81" + length + mask + masked)

    def receive(self):
        parts = []
        while True:
            first, second = self._read(2)
            size = second & 0x7F
            size = struct.unpack(">H", self._read(2))[0] if size == 126 else struct.unpack(">Q", self._read(8))[0] if size == 127 else size
            data = self._read(size)
            assert first & 0x0F != 8, "Chromium closed the connection"
            if first & 0x0F in (0, 1):
                parts.append(data)
                if first & 0x80:
                    return b"".join(parts).decode()

    def close(self):
        self.socket.close()

    def _read(self, count):
        parts = []
        while count:
            part = self.socket.recv(min(count, 1 << 20))
            if not part:
                raise EOFError("Chromium closed the connection")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


class Page:
    """A page of the browser."""

    def __init__(self, address):
        self.socket, self.numbers, self.events = WebSocket(address), itertools.count(1), []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **arguments):
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": arguments}))
        while True:
            answer = json.loads(self.socket.receive())
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self.events.append(answer)

    def evaluate(self, code):
        """Returns the value of an expression, awaited where it is a promise."""
        done = self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True, userGesture=True)
        assert "exceptionDetails" not in done, json.dumps(done["exceptionDetails"], indent=1)
        return done["result"].get("value")

    def open(self, address):
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete'")

    def until(self, condition, seconds=SECONDS):
        """Waits until an expression is true; returns its value."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := self.evaluate(condition):
                return value
            time.sleep(0.05)
        raise AssertionError(f"never: {condition}; {self.evaluate('document.body.innerText')}")

    def size(self, width, height, mobile=False, scale=1, dark=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def screenshot(self, path):
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        pathlib.Path(path).write_bytes(base64.b64decode(shot["data"]))

    def drop(self, path, x, y):
        """Drops a file onto a place of the page, as a person does with the mouse."""
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def choose(self, selector, path):
        """Chooses a file in an input of files."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", files=[str(path)], nodeId=node)

    def requested(self):
        """The addresses that the page asked for, so far."""
        return [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]

    def complaints(self):
        """What the page printed as an error or a warning."""
        logged = [
            e["params"]["entry"]["text"]
            for e in self.events
            if e.get("method") == "Log.entryAdded" and e["params"]["entry"]["level"] == "error"
        ]
        thrown = [json.dumps(e["params"]) for e in self.events if e.get("method") == "Runtime.exceptionThrown"]
        return logged + thrown


@contextlib.contextmanager
def chromium():
    """Starts a browser with a profile of its own; yields a `Page`."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    assert program, "apt-get install chromium"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        environment = {**os.environ, "HOME": profile}
        process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"], stderr=subprocess.DEVNULL, env=environment
        )
        page = None
        try:
            page = Page(_page_of(pathlib.Path(profile, "DevToolsActivePort"), process))
            yield page
        finally:
            if page is not None:
                page.socket.close()
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _page_of(port_file, process):
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and process.poll() is None:
        if port_file.is_file() and (lines := port_file.read_text().split()):
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with contextlib.suppress(OSError):
                with opener.open(f"http://127.0.0.1:{lines[0]}/json/list", timeout=10) as answer:
                    found = [page for page in json.load(answer) if page["type"] == "page"]
                if found:
                    return found[0]["webSocketDebuggerUrl"]
        time.sleep(0.05)
    raise AssertionError(f"Chromium did not start: {process.poll()}")
