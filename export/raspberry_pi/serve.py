"""Answers over HTTP: a picture is posted, and its classes come back as JSON. The page at / shows the live picture of the browser's camera with its classes.

python3 serve.py                                    for this machine only
KIT_TOKEN=secret python3 serve.py --host 0.0.0.0    for the network, for those who know the token
curl --data-binary @picture.png -H "Content-Type: image/png" http://localhost:8000/classify
"""

import argparse
import contextlib
import hmac
import http.server
import json
import os
import pathlib
import signal
import socket
import sys
import threading
import time
import traceback
import urllib.parse

import errors
from errors import KitError

HERE = pathlib.Path(__file__).resolve().parent
# Seconds that a connection may be silent, and that a picture may take; connections, and pictures in memory, at a time.
_SILENCE, _SECONDS_OF_A_PICTURE, _CONNECTIONS, _WAITING = 10, 60, 32, 4
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_PAGES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
}


class Refused(Exception):
    """A request that gets no answer but its status and a sentence."""

    def __init__(self, status, said):
        super().__init__(said)
        self.status = status


class Server(http.server.ThreadingHTTPServer):
    """Serves one classifier.

    Args:
        classifier: The `Classifier`.
        host: Address to listen on.
        port: Port; 0 for any.
        token: What those who ask must know, or None.
        most_bytes: Largest picture that is taken.
        names: Further names by which browsers may call this server.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, classifier, host="127.0.0.1", port=8000, token=None, most_bytes=10_000_000, names=()):
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.classifier, self.token, self.most_bytes, self.host = classifier, token, most_bytes, host
        self.names = {*names, host, *(_LOOPBACK if host in _LOOPBACK else ())}
        self.one_at_a_time, self.places = threading.Lock(), threading.BoundedSemaphore(_WAITING)
        self.connections = threading.BoundedSemaphore(_CONNECTIONS)
        super().__init__((host, port), Handler)

    def server_bind(self):
        """Binds without asking for the name of the host, which may take long where there is no name server."""
        http.server.socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.host, self.server_address[1]

    def process_request(self, request, client_address):
        """Starts a thread for a connection, unless there are too many."""
        if self.connections.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request, client_address):
        """Serves a connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.connections.release()

    def handle_error(self, request, client_address):
        """Says nothing of connections that broke."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError, socket.timeout)):
            super().handle_error(request, client_address)

    @contextlib.contextmanager
    def place(self):
        """Holds a place for a picture during the block: so many pictures are in memory at most.

        Raises:
            Refused: if all are taken.
        """
        if not self.places.acquire(blocking=False):
            raise Refused(503, "Too many pictures wait to be classified.")
        try:
            yield
        finally:
            self.places.release()

    def classify(self, content, top):
        """Classifies one picture at a time."""
        import pictures

        picture = pictures.read(content)
        with self.one_at_a_time:
            return self.classifier.classify(picture, top)


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version, server_version, sys_version = "HTTP/1.1", "tfdistill-kit", ""
    timeout = _SILENCE

    def do_GET(self):
        """Sends the page, or what is known of the model."""
        self._answered(self._get)

    def do_POST(self):
        """Classifies a picture."""
        self._answered(self._post)

    def _get(self):
        path = urllib.parse.urlsplit(self.path).path
        self._require_name()
        if path in _PAGES:
            name, kind = _PAGES[path]
            self._send(200, (HERE / name).read_bytes(), kind)
        elif path == "/model":
            self._require_token()
            self._send_json(200, self._about())
        else:
            raise Refused(404, "There is /, /model, and /classify for POST.")

    def _post(self):
        import pictures

        address = urllib.parse.urlsplit(self.path)
        if address.path != "/classify":
            raise Refused(404, "Pictures are posted to /classify.")
        self._require_name()
        self._require_own_page()
        self._require_token()
        kind = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind not in pictures.media_types():
            raise Refused(415, f"Content-Type is '{kind}'; {', '.join(pictures.media_types())} can be read here.")
        size = self._size()
        try:
            top = min(max(int(urllib.parse.parse_qs(address.query).get("top", ["5"])[0]), 1), 1000)
        except ValueError:
            raise Refused(400, "top= is no whole number.") from None
        with self.server.place():
            content = self._content(size)
            try:
                found = self.server.classify(content, top)
            except KitError as error:
                raise Refused(400, error.happened + (f" {error.fix}." if error.fix else "")) from error
        self._send_json(200, found)

    def _size(self):
        """Returns the size of the picture, as the headers say it."""
        if self.headers.get("Transfer-Encoding"):
            raise Refused(411, "Send the picture with a Content-Length.")
        try:
            size = int(self.headers.get("Content-Length", ""))
        except ValueError:
            raise Refused(411, "Send the picture with a Content-Length.") from None
        if not 0 < size <= self.server.most_bytes:
            raise Refused(413 if size > 0 else 400, f"The picture has {size} bytes; 1 to {self.server.most_bytes} are taken.")
        return size

    def handle_expect_100(self):
        """Does nothing yet: a picture is asked for when its headers have been accepted."""
        return True

    def _content(self, size):
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        parts, left, end = [], size, time.monotonic() + _SECONDS_OF_A_PICTURE
        while left:
            part = self.rfile.read1(min(left, 1 << 16))
            if not part:
                raise Refused(400, "The picture ended early.")
            if time.monotonic() > end:
                raise Refused(408, "The picture came too slowly.")
            parts.append(part)
            left -= len(part)
        self.taken = True
        return b"".join(parts)

    def _require_token(self):
        if self.server.token is not None:
            given = self.headers.get("Authorization", "")
            if not hmac.compare_digest(given.encode("utf-8", "replace"), f"Bearer {self.server.token}".encode()):
                raise Refused(401, "Send the token as the header Authorization: Bearer TOKEN.")

    def _require_name(self):
        """Refuses names that are not this server's: a page elsewhere could give its own name this machine's address (DNS rebinding)."""
        name = urllib.parse.urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
        if self.server.host in _LOOPBACK and name not in self.server.names:
            raise Refused(403, f"This server is not called '{name}'.")

    def _require_own_page(self):
        """Refuses what a page of another site sends."""
        origin = self.headers.get("Origin")
        if origin is not None and urllib.parse.urlsplit(origin).netloc != self.headers.get("Host"):
            raise Refused(403, "Pictures are taken from this server's own page and from programs.")

    def _about(self):
        import pictures

        classifier = self.server.classifier
        return {
            "name": (classifier.description.known.get("metadata") or {}).get("name") or classifier.description.path.name,
            "input": {"shape": list(classifier.input.shape), "dtype": classifier.input.dtype},
            "classes": len(classifier.labels),
            "engine": classifier.model.engine,
            "media_types": list(pictures.media_types()),
            "most_bytes": self.server.most_bytes,
        }

    def _answered(self, act):
        self.taken = False
        try:
            act()
        except Refused as refused:
            # What is left of the request would be taken for the next one.
            self.close_connection = self.close_connection or (self.command == "POST" and not self.taken)
            self._send_json(refused.status, {"error": str(refused)})
        except (ConnectionError, TimeoutError, socket.timeout):
            self.close_connection = True
        except Exception as error:
            self.close_connection = True
            if isinstance(error, MemoryError):
                said = "The memory of the board does not suffice for this picture."
            else:
                said = error.happened if isinstance(error, KitError) else "The server failed; what it says of it is in its log."
                traceback.print_exc()
            self._send_json(500, {"error": said})

    def _send_json(self, status, value):
        self._send(status, json.dumps(value).encode(), "application/json")

    def _send(self, status, content, kind):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Security-Policy", "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'")
        if status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, form, *values):
        """Logs nothing: the addresses of those who ask are nobody's business."""


def main():
    """Serves until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine only; 0.0.0.0 for the network)"
    )
    parser.add_argument("--port", type=int, default=8000, help="port (default: 8000; 0 for any)")
    parser.add_argument("--model", help="the .tflite file (default: model.tflite beside this program)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument(
        "--crop", action="store_true", default=None, help="cut pictures to the shape of the input in place of stretching them"
    )
    parser.add_argument("--most-bytes", type=int, default=10_000_000, help="largest picture that is taken (default: 10000000)")
    parser.add_argument("--name", action="append", default=[], help="a further name by which browsers may call this server")
    given = parser.parse_args()
    errors.require_numpy()
    from classifier import Classifier

    token = os.environ.get("KIT_TOKEN") or None
    classifier = Classifier(given.model, given.threads, crop=given.crop)
    try:
        server = Server(classifier, given.host, given.port, token, given.most_bytes, given.name)
    except (OSError, OverflowError) as error:
        raise KitError(
            f"{given.host}:{given.port} cannot be listened on: {getattr(error, 'strerror', None) or error}.",
            "choose another --port or --host",
        ) from error
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1})
    thread.start()
    shown = f"[{given.host}]" if ":" in given.host else given.host
    print(f"Serving {classifier.description.path.name} at http://{shown}:{server.server_port}/ (Ctrl-C ends it)", flush=True)
    if given.host not in _LOOPBACK and token is None:
        print("Anyone in the network can ask: set KIT_TOKEN to a secret to change that.", file=sys.stderr, flush=True)
    stopped.wait()
    server.shutdown()
    thread.join()
    with server.one_at_a_time:  # the last picture is answered
        server.server_close()
    return 0


if __name__ == "__main__":
    errors.run(main)
