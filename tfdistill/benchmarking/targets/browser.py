"""A browser on this machine as a benchmark target."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from tfdistill.errors import ConfigurationError
from tfdistill.utils.types import PathLike


@dataclasses.dataclass(frozen=True)
class Browser:
    """Chromium or Chrome on this machine, headless, where LiteRT.js runs files on the CPU by WebAssembly, in one thread.

    LiteRT.js is fetched by npm the first time, in one version whose checksum is known, and kept. The browser has a profile of its own, which is removed at the end, reaches
    nothing but the page that this process serves it on the loopback address, and is driven through a pipe. Its sandbox is on unless this user is root, for whom Chromium
    does not start with it.

    A run is timed by the page's clock until the outputs are in the memory of its JavaScript. That clock has steps of 5 microseconds: of a file that takes less than 100 of
    them, several runs are timed together (`runs_per_time` in the record).

    Attributes:
        program: Name or path of the browser; None for the first on the search path of `chromium`, `chromium-browser`, `google-chrome`, `google-chrome-stable`, `chrome`.

    Example:
        >>> tfdistill.benchmarking.Browser().describe()
        'browser, LiteRT.js (wasm)'
        >>> tfdistill.benchmarking.Browser("/opt/google/chrome/chrome").describe()
        'browser /opt/google/chrome/chrome, LiteRT.js (wasm)'
    """

    kind: ClassVar[str] = "browser"
    remote: ClassVar[bool] = True
    accelerator: ClassVar[bool] = False
    is_timed: ClassVar[bool] = True

    program: str | None = None

    def __post_init__(self) -> None:
        if self.program is None:
            return
        if not isinstance(self.program, (str, pathlib.PurePath)) or not str(self.program) or "\0" in str(self.program):
            raise ConfigurationError(f"program={self.program!r} is not a program.", "the name or path of Chromium or Chrome")
        object.__setattr__(self, "program", str(self.program))

    def describe(self) -> str:
        """Returns a description for people, such as `"browser, LiteRT.js (wasm)"`."""
        return f"browser{f' {self.program}' if self.program else ''}, LiteRT.js (wasm)"

    def measure(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Measures a file in the browser; `tfdistill.benchmark` calls it.

        Args:
            request: Dict of `path`, `timing`, `shapes` and `timeout_seconds`, as `tfdistill.benchmark` makes it.

        Returns:
            Dict of the fields of the record, and `arrays`: dict of `given`, the inputs of the runs, and `first` and `last`, the outputs of these runs, each a dict of
            name -> array of the tensor's type.

        Raises:
            ConfigurationError: for inputs, outputs or shapes that LiteRT.js does not take.
            RuntimeUnavailableError: if there is no browser, it does not start, or LiteRT.js cannot be fetched.
            BenchmarkError: if LiteRT.js does not run the file, at the time limit, or if the page or the browser crashes.
        """
        # Not imported by measuring processes, which import all targets.
        from tfdistill.benchmarking.browser.measured import measured

        return measured(self.program, request)

    def outputs(
        self, path: PathLike, inputs: Any, *, shapes: Mapping[str, Sequence[int]] | None = None, timeout_seconds: float = 600.0
    ) -> dict[str, np.ndarray]:
        """Runs a file in the browser on given inputs and returns its outputs.

        Args:
            path: The .tflite file. Its inputs and outputs are float32, int32 or uint8.
            inputs: Dict of input name -> array (samples, ...) of real values, which are quantized here, or of the tensor's type. A single array for a file with one
                input.
            shapes: Dict of input name -> full shape, batch included; only the shapes that the file has, as LiteRT.js resizes nothing.
            timeout_seconds: The browser is ended after this time, above 0.

        Returns:
            Dict of output name -> array (samples, ...), dequantized to float32 if the tensor is quantized.

        Raises:
            ConfigurationError: if there is no such file, or for inputs, outputs or shapes that LiteRT.js does not take.
            DataError: if the inputs do not fit the file.
            RuntimeUnavailableError: if there is no browser, it does not start, or LiteRT.js cannot be fetched.
            BenchmarkError: if LiteRT.js does not run the file, at the time limit, or if the page or the browser crashes.
        """
        from tfdistill.benchmarking.browser.file import opened
        from tfdistill.utils.progress import progress

        path = pathlib.Path(path)
        if not path.is_file():
            raise ConfigurationError(f"There is no file '{path}'.", "a .tflite file")
        # A copy, as the file checks that it is given a dict.
        inputs = dict(inputs) if isinstance(inputs, Mapping) else inputs
        with progress("running in the browser") as advance, opened(self.program, path, shapes, timeout_seconds) as file:
            return file.run(inputs, advance)
