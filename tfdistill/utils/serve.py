"""Serves a folder on this machine, to a browser on this machine."""

import contextlib
import functools
import http.server
import threading

from tfdistill.errors import ConfigurationError

TYPES = {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".wasm": "application/wasm",
    ".json": "application/json",
    ".html": "text/html",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".tflite": "application/octet-stream",
    ".bin": "application/octet-stream",
    ".txt": "text/plain; charset=utf-8",
    "": "application/octet-stream",
}


class _Handler(http.server.SimpleHTTPRequestHandler):
    # The system's table of types, which Python reads, may have others or none (on Windows it is the registry).
    extensions_map = TYPES

    def end_headers(self):
        # A page that is isolated from others gets finer clocks: latencies of less than a tenth of a millisecond are shown.
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def list_directory(self, path):
        self.send_error(404)

    def log_message(self, format, *arguments):
        return


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        return  # a browser that closes a connection early


@contextlib.contextmanager
def served(folder, port=0):
    """Serves a folder on the loopback address during the block, as cross-origin isolated pages, whose clocks are finer.

    Args:
        folder: The folder.
        port: Port; 0 for any that is free.

    Yields:
        The address of the folder, such as `http://127.0.0.1:8000/`.

    Raises:
        ConfigurationError: if the port is taken.
    """
    try:
        server = _Server(("127.0.0.1", port), functools.partial(_Handler, directory=str(folder)))
    except OSError as error:
        raise ConfigurationError(
            f"Port {port} cannot be used: {error.strerror}.", "a free port", "write port 0 (--port 0) for any free one"
        ) from error
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
