"""A headless Chromium for the tests of pages: the package's own, and what a person does with a page."""

import base64
import contextlib
import json
import pathlib

from tfdistill.benchmarking.browser.devtools import Page
from tfdistill.benchmarking.browser.program import started

FLAGS = ("--hide-scrollbars", "--force-color-profile=srgb", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


class PersonsPage(Page):
    """A page, with the hands and eyes of a person."""

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
    """Starts a browser with a profile of its own; yields a `PersonsPage`."""
    with started(flags=FLAGS) as browser:
        yield browser.page(PersonsPage, domains=("Page", "Runtime", "Network", "Log"))
