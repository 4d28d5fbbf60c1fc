"""A .tflite file that LiteRT.js has opened in a page of a browser."""

import base64
import contextlib
import itertools
import json
import math
import pathlib
import secrets
import time

import numpy as np

from tfdistill.benchmarking.browser.devtools import PageError
from tfdistill.benchmarking.browser.program import found_program, started
from tfdistill.errors import BenchmarkError, ConfigurationError
from tfdistill.runtime import litert_js
from tfdistill.runtime.interpreter import open_file
from tfdistill.runtime.model import RunsSamples
from tfdistill.utils.files import temporary_folder
from tfdistill.utils.serve import served

_CODE = pathlib.Path(__file__).parent
_PAGE = ("page.html", "page.js")
_MODEL = "model.tflite"
# So many bytes of inputs or outputs go to the page and back at once.
_CHUNK_BYTES = 8 << 20


class BrowserFile(RunsSamples):
    """A file in a page. Made by `opened`.

    Attributes:
        path: The file.
        inputs: Dict of name -> `TensorInfo`, in the order of the file's signature.
        outputs: The same for outputs.
        product: Name and version of the browser.
        init_seconds: Time that LiteRT.js took to open the file, without the load of LiteRT.js itself.
        clock_step_seconds: Smallest step of the page's clock.
    """

    def __init__(self, path, page, folder, here):
        self.path, self.inputs, self.outputs = path, here.inputs, here.outputs
        self._page, self._folder, self._numbers = page, folder, itertools.count()
        self.product = page.connection.product
        said = self._called("open", _MODEL, what="does not open")
        self.init_seconds, self.clock_step_seconds = said["milliseconds"] / 1e3, said["step"] / 1e3
        self._inputs = self._in_the_order_of(said["inputs"], self.inputs)
        self._outputs = self._in_the_order_of(said["outputs"], self.outputs)

    def run(self, inputs, advance=None):
        """Runs the file on any number of samples, many batches in one call; see `RunsSamples.run`."""
        arrays, batch = self._checked(inputs, self.inputs), self.batch_size
        count = math.ceil(len(next(iter(arrays.values()))) / batch)
        largest = max(self._bytes(self._inputs), self._bytes(self._outputs), 1)
        step = max(_CHUNK_BYTES // largest, 1)
        collected = {name: [] for name in self.outputs}
        for start in range(0, count, step):
            part = {name: array[start * batch : (start + step) * batch] for name, array in arrays.items()}
            size = len(next(iter(part.values())))
            for name, batches in self._run_batches(_filled(part, batch)).items():
                for number, values in enumerate(batches):
                    real = min(batch, size - number * batch)
                    collected[name].append(values[:real] if values.shape[:1] == (batch,) else values[None])
            if advance:
                advance(size)
        return {name: info.dequantize(self._joined(name, collected[name])) for name, info in self.outputs.items()}

    def prepare(self, arrays):
        """Gives the page the inputs of the timed runs; `arrays` is a dict of name -> array of the tensor's type and shape."""
        with self._given(arrays) as files:
            self._called("prepare", files)

    def time(self, count, group=1):
        """Runs the file on these inputs.

        Args:
            count: Number of times to take.
            group: Number of runs in each.

        Returns:
            List of seconds, each the mean of a group: inputs copied in, the file run, outputs copied out.
        """
        return [milliseconds / 1e3 / group for milliseconds in self._called("time", count, group)]

    def results(self):
        """Returns the outputs of the first and the last timed run: dict of `first` and `last`, each a dict of name -> array of the tensor's type."""
        return {part: {name: values[0] for name, values in self._arrays(sent).items()} for part, sent in self._called("results").items()}

    def _run_batches(self, arrays):
        with self._given(arrays) as files:
            return self._arrays(self._called("run", files))

    @contextlib.contextmanager
    def _given(self, arrays):
        """Writes arrays to where the page reads them from, during the block."""
        files = []
        for info in self._inputs:
            name = f"input_{next(self._numbers)}.bin"  # of its own, as browsers keep what they have read under a name
            array = np.ascontiguousarray(arrays[info.name])
            (self._folder / name).write_bytes(array.astype(array.dtype.newbyteorder("<")).tobytes())
            files.append({"path": name, "dtype": info.dtype, "shape": list(info.shape)})
        try:
            yield files
        finally:
            for file in files:
                (self._folder / file["path"]).unlink()

    def _arrays(self, sent):
        """Returns the outputs that the page sends: dict of name -> array of each batch."""
        found = {}
        for info, one in zip(self._outputs, sent, strict=True):
            values = np.frombuffer(base64.b64decode(one["data"]), np.dtype(one["dtype"]).newbyteorder("<")).astype(one["dtype"])
            ends = np.cumsum([math.prod(shape) for shape in one["shapes"]])
            found[info.name] = [part.reshape(shape) for part, shape in zip(np.split(values, ends[:-1]), one["shapes"], strict=True)]
        return {name: found[name] for name in self.outputs}

    def _called(self, function, *arguments, what="failed while it ran"):
        try:
            return self._page.evaluate(f"window.file.{function}({', '.join(map(json.dumps, arguments))})")
        except PageError as error:
            raise BenchmarkError(f"LiteRT.js {litert_js.CORE.version} in {self.product} {what} '{self.path}': {error}") from error

    def _in_the_order_of(self, details, infos):
        """Returns the `TensorInfo` of each tensor of the page: by name, or by place where a file without a signature has other names there."""
        same_names = {detail["name"] for detail in details} == set(infos)
        ordered = [infos[detail["name"]] for detail in details] if same_names else list(infos.values())
        there = [(detail["dtype"], tuple(detail["shape"])) for detail in details]
        if len(there) != len(ordered) or not all(_same(one, info) for one, info in zip(there, ordered, strict=True)):
            raise BenchmarkError(
                f"LiteRT.js says that '{self.path}' has {there}; here LiteRT says { {info.name: (info.dtype, info.shape) for info in ordered} }.",
                "one type and shape of each input and output",
            )
        return ordered

    def _bytes(self, infos):
        return max((math.prod(info.shape) * np.dtype(info.dtype).itemsize for info in infos), default=0)


@contextlib.contextmanager
def opened(program, path, shapes, timeout_seconds, on_wait=None):
    """Opens a file in a browser.

    Args:
        program: Name or path of the browser; None for the first that is installed.
        path: The file.
        shapes: Dict of input name -> shape, or None; only those that the file has anyway.
        timeout_seconds: What is done in the block is ended after this time.
        on_wait: Function that is called regularly with the elapsed seconds.

    Yields:
        A `BrowserFile`.

    Raises:
        ConfigurationError: for inputs, outputs or shapes that LiteRT.js does not take.
        RuntimeUnavailableError: if there is no browser, or it does not start; if LiteRT.js is not here and cannot be fetched; or if the file is damaged.
        BenchmarkError: if LiteRT.js does not open the file, or at the time limit.
        CrashError: if the page or the browser crashes.
    """
    here = _opened_here(path, shapes)
    found_program(program)  # before anything is fetched for it
    files = litert_js.files()
    began = time.monotonic()
    with temporary_folder() as served_folder, served(served_folder) as address:
        # Other users of this machine can reach the address, and do not know this name.
        folder = served_folder / secrets.token_urlsafe()
        content = {name: (_CODE / name).read_bytes() for name in _PAGE}
        for name, data in {**files, **content, _MODEL: pathlib.Path(path).read_bytes()}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        try:
            waiting = {
                "seconds": lambda: timeout_seconds - (time.monotonic() - began),
                "on_wait": on_wait and (lambda: on_wait(time.monotonic() - began)),
            }
            with started(program, **waiting) as browser:
                page = browser.page()
                page.open(f"{address}{folder.name}/{_PAGE[0]}")
                yield BrowserFile(path, page, folder, here)
        except TimeoutError as error:
            raise BenchmarkError(
                f"The browser was still busy after {timeout_seconds:g} s and was ended.",
                fix="raise timeout_seconds, or lower max_seconds of the timing",
            ) from error


def _opened_here(path, shapes):
    """Opens the file in LiteRT here, which knows the scales of its integers; checks that LiteRT.js takes it."""
    here = open_file(path)
    tensors = [*here.inputs.values(), *here.outputs.values()]
    if happened := litert_js.not_taken((info.name, info.dtype) for info in tensors):
        quantized = all(info.scale is not None for info in tensors if info.dtype not in litert_js.TYPES)
        raise ConfigurationError(
            f"'{path}' does not run in a browser: {happened}.",
            "types that LiteRT.js takes",
            fix="export it with io='uint8' or io='float32'; the file computes in the same integers" if quantized else None,
        )
    if unknown := set(shapes or ()) - set(here.inputs):
        raise ConfigurationError(f"shapes has {sorted(unknown)}, which are no inputs of '{path}'.", f"of {sorted(here.inputs)}")
    for name, info in here.inputs.items():
        declared = info.signature or info.shape
        if declared != tuple((shapes or {}).get(name, info.shape)):
            asked = f", and shapes has {tuple(shapes[name])}" if name in (shapes or {}) else ""
            raise ConfigurationError(
                f"Input '{name}' of '{path}' has the shape {declared}{asked}: LiteRT.js runs a file at fixed sizes alone, that of the batch too.",
                "a file that has these sizes",
                "export the model with these sizes in keras.Input; batch_size= of export_tflite is that of the batch",
            )
    return here


def _same(there, info):
    """Whether LiteRT.js says the same of a tensor as LiteRT; an axis of an output that only a run knows is -1 there."""
    dtype, shape = there
    sizes = zip(shape, info.shape, strict=False)
    return dtype == info.dtype and len(shape) == len(info.shape) and all(size in (-1, known) for size, known in sizes)


def _filled(arrays, batch):
    """Repeats the last sample of arrays until the last batch is full."""
    size = len(next(iter(arrays.values())))
    missing = -size % batch
    return {name: np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) for name, array in arrays.items()} if missing else arrays
