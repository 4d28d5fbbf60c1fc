"""A board that is reached by ssh as a benchmark target."""

import base64
import contextlib
import dataclasses
import inspect
import io
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from tfdistill.benchmarking.measuring import measure
from tfdistill.errors import BenchmarkError, ConfigurationError, nearest
from tfdistill.runtime.interpreter import checked_shape
from tfdistill.utils import validate
from tfdistill.utils.types import PathLike
from tfdistill.version import __version__

KERNELS = ("xnnpack", "builtin", "reference")
# A user, and a host's name, address or alias of ~/.ssh/config. Neither can be taken for an option.
_HOST = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*\$?@)?(?:[A-Za-z0-9_][A-Za-z0-9_.-]*|[0-9A-Fa-f]*:[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?)")
_PROGRAM = re.compile(r"[A-Za-z0-9_./~+@][A-Za-z0-9_./~+@-]*")
_VALUE = re.compile(r"[A-Za-z0-9_./~+@:,=%*\[\]-]+")
# Options of ssh that choose how to connect. Those that run programs, open other ways or switch checks off are not among them.
OPTIONS = (
    *("AddressFamily", "BindAddress", "BindInterface", "CertificateFile", "Ciphers", "Compression", "ConnectTimeout", "ConnectionAttempts"),
    *("GlobalKnownHostsFile", "HostKeyAlgorithms", "HostKeyAlias", "Hostname", "IdentitiesOnly", "IdentityAgent", "IPQoS", "KexAlgorithms"),
    *("LogLevel", "MACs", "PreferredAuthentications", "ProxyJump", "PubkeyAcceptedAlgorithms", "ServerAliveCountMax"),
    *("ServerAliveInterval", "TCPKeepAlive", "UserKnownHostsFile"),
)
# A board that does not answer for this long, in seconds, has gone.
_DEFAULTS = {"ConnectTimeout": "10", "ServerAliveInterval": "5", "ServerAliveCountMax": "3"}
_MOST_BYTES = 1 << 31  # of one output that a board sends


@dataclasses.dataclass(frozen=True)
class Ssh:
    """A board that is reached by the system's ssh, such as a Raspberry Pi.

    The file and a small program of the standard library and NumPy go through one connection into a fresh folder on the board, are run there and removed again, also
    after Ctrl-C or when the connection ends. The board needs Python 3.8 or later with NumPy and a TFLite runtime: `ai-edge-litert`, or `tflite-runtime` on old boards.
    Nothing is asked for: the user's key must be known there (`ssh-copy-id`), and the host's key here. Host keys are verified as ssh does.

    Attributes:
        host: `host` or `user@host`: a name, an address, or an alias of `~/.ssh/config`. With `:port` at its end it sets the port.
        python: Python on the board; a path that is not absolute begins in the home folder, as `venv/bin/python` does.
        port: Port, 1 to 65535; None is the one of ssh's configuration, usually 22.
        identity: File of the private key; None leaves the choice to ssh.
        options: Options of ssh by name, such as `{"ProxyJump": "gate"}`: those that choose how to connect. Others stand in `~/.ssh/config`, under a Host whose name
            is given here as `host`.
        threads: CPU threads on the board, at least 1.
        kernels: `xnnpack`, `builtin` or `reference`.

    Example:
        >>> target = tfdistill.benchmarking.Ssh("pi@192.168.1.20", python="venv/bin/python", threads=4)
        >>> target.describe()
        'pi@192.168.1.20: CPU, 4 threads, XNNPACK'
        >>> tfdistill.benchmarking.Ssh("pi@board", options={"ProxyCommand": "anything"})
        Traceback (most recent call last):
        tfdistill.errors.ConfigurationError: options={'ProxyCommand': ...} is not an option that is passed on to ssh...
    """

    kind: ClassVar[str] = "ssh"
    remote: ClassVar[bool] = True
    accelerator: ClassVar[bool] = False
    is_timed: ClassVar[bool] = True

    host: str
    python: str = "python3"
    port: int | None = None
    identity: str | None = None
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    threads: int = 1
    kernels: str = "xnnpack"

    def __post_init__(self) -> None:
        self._split_host()
        if not isinstance(self.host, str) or not _HOST.fullmatch(self.host):
            raise ConfigurationError(f"host={self.host!r} is not a host.", "host or user@host, of letters, digits, dots and dashes")
        if not isinstance(self.python, str) or not _PROGRAM.fullmatch(self.python):
            raise ConfigurationError(f"python={self.python!r} is not a program.", "a name or path of letters, digits and _ . / ~ + @ -")
        if self.python.startswith("~/"):  # commands begin in the home folder
            object.__setattr__(self, "python", self.python[2:])
        if self.port is not None:
            validate.whole_number("port", self.port, 1, 65535)
        validate.whole_number("threads", self.threads)
        if self.kernels not in KERNELS:
            raise ConfigurationError(
                f"There are no kernels '{self.kernels}'.", f"one of {', '.join(KERNELS)}", nearest(self.kernels, KERNELS)
            )
        if self.identity is not None:
            self._check_identity(self.identity)
        object.__setattr__(self, "options", {str(name): str(value) for name, value in self.options.items()})
        for name, value in self.options.items():
            self._check_option(name, value)

    def _split_host(self):
        """Takes a port that is written behind the host; addresses of IPv6 stand in brackets then."""
        found = re.fullmatch(r"((?:[^@]*@)?)(?:\[([^\[\]]*)\]|([^:\[\]]*))(?::([0-9]{1,5}))?", str(self.host))
        if not found or found[4] is None:
            return
        if self.port is not None and self.port != int(found[4]):
            raise ConfigurationError(f"host={self.host!r} and port={self.port} contradict each other.", "one port")
        object.__setattr__(self, "host", found[1] + (found[2] or found[3]))
        object.__setattr__(self, "port", int(found[4]))

    def _check_identity(self, identity):
        path = pathlib.Path(os.path.expanduser(identity))
        if not path.is_file():
            raise ConfigurationError(f"There is no file '{identity}' of a key.", "the file of a private key, such as ~/.ssh/id_ed25519")
        object.__setattr__(self, "identity", str(path.absolute()))

    def _check_option(self, name, value):
        known = {option.lower(): option for option in OPTIONS}
        if name.lower() not in known:
            raise ConfigurationError(
                f"options={{'{name}': ...}} is not an option that is passed on to ssh.",
                f"of {', '.join(OPTIONS)}",
            )
        if not _VALUE.fullmatch(value):
            raise ConfigurationError(f"options={{'{name}': {value!r}}} is not passed on to ssh.", "a value without spaces and quotes")

    def describe(self) -> str:
        """Returns a description for people, such as `"pi@board: CPU, 1 thread, XNNPACK"`."""
        kernels = {"xnnpack": "XNNPACK", "builtin": "built-in kernels", "reference": "reference kernels"}[self.kernels]
        return f"{self.host}: CPU, {self.threads} {'thread' if self.threads == 1 else 'threads'}, {kernels}"

    def command(self, batch: bool = True) -> list[str]:
        """Returns the ssh command as a list of arguments, up to the host.

        Args:
            batch: Whether ssh asks no questions.

        Returns:
            The program and its arguments.
        """
        given = {name.lower() for name in self.options}
        defaults = {name: value for name, value in _DEFAULTS.items() if name.lower() not in given}
        settings = {**({"BatchMode": "yes", **defaults} if batch else {}), **self.options}
        parts = ["ssh", *(["-T"] if batch else []), *(["-x", "-a"] if batch else [])]
        if self.port is not None:
            parts += ["-p", str(self.port)]
        if self.identity is not None:
            parts += ["-i", self.identity, "-o", "IdentitiesOnly=yes"]
        for name, value in settings.items():
            parts += ["-o", f"{name}={value}"]
        return [*parts, "--", self.host] if batch else [*parts, self.host]

    def measure(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Measures a file on the board; `tfdistill.benchmark` calls it.

        Args:
            request: Dict of `path`, `timing`, `shapes` and `timeout_seconds`, as `tfdistill.benchmark` makes it.

        Returns:
            Dict of the fields of the record that the board knows, and `arrays`: dict of `given`, the inputs of its runs, and `first` and `last`, the outputs of
            these runs, each a dict of name -> array of the tensor's type.

        Raises:
            BenchmarkError: if the board cannot be reached or does not run the file.
        """
        asked = {
            "task": "measure",
            "file": "model.tflite",
            "threads": self.threads,
            "kernels": self.kernels,
            "timing": {name: value for name, value in request["timing"].items() if name in inspect.signature(measure).parameters},
            "shapes": request["shapes"],
        }
        expected = request["timing"]["max_seconds"] + request["timing"]["warmup_seconds"]
        record: Any = None
        arrays: dict[str, dict[str, np.ndarray]] = {"given": {}, "first": {}, "last": {}}
        content = pathlib.Path(request["path"]).read_bytes()
        with contextlib.closing(
            self._asked(asked, {"model.tflite": content}, request["timeout_seconds"], "benchmarking", expected)
        ) as answers:
            for message in answers:
                record = message.get("record", record)
                if "array" in message and message.get("part") in arrays:
                    arrays[message["part"]][str(message["array"])] = self._array(message)
        if not isinstance(record, dict) or not isinstance(record.get("host"), dict):
            raise BenchmarkError(f"{self.host} sent no record.", "a record of the measurement")
        return {**record, "arrays": arrays, "host": {**record["host"], "library_version": __version__}}

    def outputs(
        self, path: PathLike, inputs: Any, *, shapes: Mapping[str, Sequence[int]] | None = None, timeout_seconds: float = 600.0
    ) -> dict[str, np.ndarray]:
        """Runs a file on the board on given inputs and returns its outputs.

        Args:
            path: The .tflite file.
            inputs: Dict of input name -> array (samples, ...) of real values, which the board quantizes, or of the tensor's type. A single array for a file with one
                input.
            shapes: Dict of input name -> full shape, batch included, to resize these inputs to.
            timeout_seconds: The run is ended after this time, above 0.

        Returns:
            Dict of output name -> array (samples, ...), dequantized to float32 if the tensor is quantized.

        Raises:
            ConfigurationError: if there is no such file.
            BenchmarkError: if the board cannot be reached, or does not run the file on these inputs.
        """
        path = pathlib.Path(path)
        if not path.is_file():
            raise ConfigurationError(f"There is no file '{path}'.", "a .tflite file")
        if not isinstance(inputs, Mapping):
            inputs = {"": inputs}  # the board knows the name of the only input
        files = {"model.tflite": path.read_bytes()}
        named: dict[str, str] = {}
        for number, (name, array) in enumerate(inputs.items()):
            named[name] = f"input_{number}.npy"
            files[named[name]] = _as_npy(array)
        asked = {
            "task": "outputs",
            "file": "model.tflite",
            "threads": self.threads,
            "kernels": self.kernels,
            "shapes": None if shapes is None else {name: checked_shape(name, shape) for name, shape in shapes.items()},
            "inputs": named,
        }
        parts: dict[str, list[np.ndarray]] = {}
        with contextlib.closing(self._asked(asked, files, timeout_seconds, "running")) as answers:
            for message in answers:
                if "array" in message:
                    parts.setdefault(str(message["array"]), []).append(self._array(message))
        try:
            return {name: np.concatenate(arrays) for name, arrays in parts.items()}
        except ValueError as error:
            raise BenchmarkError(f"{self.host} sent parts of an output that do not fit together: {error}.") from error

    def _asked(self, request, files, timeout_seconds, description, expected=None):
        """Yields the board's answers; raises for an error among them."""
        # Not imported by measuring processes, which import all targets.
        from tfdistill.benchmarking.remote import session
        from tfdistill.utils.progress import seconds_progress

        with (
            seconds_progress(f"{description} on {self.host}", expected) as show,
            contextlib.closing(session.run(self, request, files, timeout_seconds, show)) as messages,
        ):
            for message in messages:
                if "error" in message:
                    fix = message.get("fix")
                    raise BenchmarkError(f"{self.host} reports: {message['error']}", fix=fix if isinstance(fix, str) else None)
                yield message

    def _array(self, message):
        """Reads an array of a message, which may hold anything."""
        try:
            dtype, shape = np.dtype(str(message["dtype"])).newbyteorder("<"), [int(size) for size in message["shape"]]
            data = base64.b64decode(message["data"], validate=True)
            if dtype.hasobject or len(data) > _MOST_BYTES:
                raise ValueError("it is no array of numbers")
            return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise BenchmarkError(f"{self.host} sent an output that cannot be read: {error}.") from error


def _as_npy(array):
    array = np.ascontiguousarray(array)
    if array.dtype.hasobject:
        raise ConfigurationError(f"An input has the type {array.dtype}.", "an array of numbers")
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
