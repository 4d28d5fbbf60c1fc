"""The DevTools protocol over a pair of pipes: JSON messages with a NUL after each."""

import itertools
import json
import os
import select
import time

from tfdistill.benchmarking.isolation import CrashError
from tfdistill.errors import BenchmarkError, RuntimeUnavailableError
from tfdistill.runtime.isolated import describe_exit, last_lines

_POLL_SECONDS = 0.1
_LINES = 20  # of what a page printed, in an error


class PageError(BenchmarkError):
    """A page threw an error."""


class Connection:
    """A browser that runs.

    Args:
        commands: Descriptor that commands are written to.
        messages: Descriptor that messages are read from.
        child: Its `subprocess.Popen`.
        log: File that it prints to.
        seconds: Number, or function that returns one: the longest wait for an answer.
        on_wait: Function that is called regularly while one is waited for.

    Attributes:
        product: Name and version, such as `Chrome/156.0.8078.108`; None before the first page.
    """

    def __init__(self, commands, messages, child, log, seconds=120.0, on_wait=None):
        self._commands, self._messages, self._child, self._log = commands, messages, child, log
        self._seconds, self._on_wait = seconds, on_wait
        self._numbers, self._rest, self._waiting = itertools.count(1), [], []
        self.product = None

    def deadline(self):
        """Returns when to stop waiting for an answer that is asked for now, as `time.monotonic` counts."""
        return time.monotonic() + (self._seconds() if callable(self._seconds) else self._seconds)

    def page(self, kind=None, **settings):
        """Returns the page that is open at the start, as a `Page` or a class derived from it."""
        self.product = self.call("Browser.getVersion")["product"]
        self.call("Target.setDiscoverTargets", discover=True)  # which says when a page crashes
        found = next(one for one in self.call("Target.getTargets")["targetInfos"] if one["type"] == "page")
        session = self.call("Target.attachToTarget", targetId=found["targetId"], flatten=True)["sessionId"]
        return (kind or Page)(self, session, found["targetId"], **settings)

    def call(self, method, session=None, on_event=None, **parameters):
        """Calls a method of the protocol and returns its result.

        Args:
            method: Its name.
            session: Session of a page; None for the browser.
            on_event: Function of the messages that come meanwhile and are no answer.
            **parameters: Its parameters.

        Raises:
            TimeoutError: if no answer comes in time.
            CrashError: if the browser ends, after its first answer.
            RuntimeUnavailableError: if it ends before.
            BenchmarkError: if it refuses the call.
        """
        number, end = next(self._numbers), self.deadline()
        message = {"id": number, "method": method, "params": parameters, **({"sessionId": session} if session else {})}
        self._send(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive(end)
            if answer.get("id") == number:
                if "error" in answer:
                    raise BenchmarkError(f"The browser refuses {method}: {answer['error'].get('message')}")
                return answer["result"]
            if on_event:
                on_event(answer)

    def _send(self, data):
        try:
            while data:
                data = data[os.write(self._commands, data) :]
        except BrokenPipeError as error:
            raise self._ended() from error

    def _receive(self, end):
        while not self._waiting:
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError
            if self._on_wait:
                self._on_wait()
            if not select.select([self._messages], [], [], min(left, _POLL_SECONDS))[0]:
                continue
            block = os.read(self._messages, 1 << 20)
            if not block:
                raise self._ended()
            *whole, rest = block.split(b"\0")
            if whole:
                whole[0] = b"".join([*self._rest, whole[0]])
                self._rest = []
            self._rest.append(rest)
            self._waiting = [json.loads(message) for message in whole]
        return self._waiting.pop(0)

    def _ended(self):
        """Makes the error of a browser that has ended."""
        how = describe_exit(self._child.wait())
        said = f"\nIt said:\n{text}" if (text := last_lines(self._log)) else ""
        if self.product is None:
            return RuntimeUnavailableError(f"The browser does not start: its process {how}.{said}", "a Chromium or Chrome that starts")
        return CrashError(f"The browser ended in the middle: its process {how}.{said}", "a browser that runs until it is ended")


class Page:
    """A page of a browser.

    Args:
        connection: The `Connection`.
        session: Its session.
        target: Its id among the browser's targets.
        domains: Domains of the protocol whose events are kept.

    Attributes:
        events: Events so far.
    """

    def __init__(self, connection, session, target, domains=("Page", "Runtime")):
        self.connection, self.events = connection, []
        self._session, self._target = session, target
        for domain in domains:
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """Calls a method of the protocol on this page and returns its result.

        Raises:
            TimeoutError: if no answer comes in time.
            CrashError: if the page or the browser crashes.
            BenchmarkError: if the browser refuses the call.
        """
        return self.connection.call(method, self._session, self._take, **parameters)

    def evaluate(self, code):
        """Returns the value of an expression, awaited where it is a promise.

        Raises:
            PageError: if it throws, with what the page printed.
        """
        before = len(self.events)
        done = self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True, userGesture=True)
        if "exceptionDetails" in done:
            raise PageError(f"{_thrown(done['exceptionDetails'])}{self._printed(before)}")
        return done["result"].get("value")

    def open(self, address):
        """Opens an address and waits until its files and modules have been loaded."""
        answer = self.call("Page.navigate", url=address)
        if answer.get("errorText"):
            raise PageError(f"The page does not open: {answer['errorText']}")
        self.until("document.readyState === 'complete'")

    def until(self, condition):
        """Waits until an expression is true; returns its value."""
        end = self.connection.deadline()
        while time.monotonic() < end:
            if value := self.evaluate(condition):
                return value
            time.sleep(0.02)
        raise TimeoutError(f"never: {condition}")

    def _take(self, event):
        if event.get("method") == "Target.targetCrashed" and event["params"]["targetId"] == self._target:
            how = event["params"]
            raise CrashError(
                f"The page crashed: its process {_how(how['status'], how['errorCode'])}.{self._printed()}", "a page that ends by itself"
            )
        if event.get("sessionId") == self._session:
            self.events.append(event)

    def _printed(self, since=0):
        """Returns what the page printed since an event, as the end of a message."""
        calls = [event["params"]["args"] for event in self.events[since:] if event.get("method") == "Runtime.consoleAPICalled"]
        lines = [_without_places(" ".join(str(one.get("value", one.get("description", ""))) for one in call)) for call in calls]
        return "\nThe page printed:\n" + "\n".join(lines[-_LINES:]) if lines else ""


def _how(status, code):
    """Describes how the process of a page ended: it gives the signal as a number where a signal ended it."""
    return f"was ended ({status}, code {code})" if status != "crashed" else describe_exit(-code)


def _thrown(details):
    error = details.get("exception", {})
    return _without_places(str(error.get("description") or error.get("value") or details.get("text")))


def _without_places(text):
    """Leaves out the places in the code of an error."""
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("at "))
