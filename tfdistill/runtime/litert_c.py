"""LiteRT's C interface by ctypes, for what its Python package does not offer: the times of the operations inside a model.

The types are those of `litert/c/*.h`, whose layouts LiteRT declares stable. A wrong call ends the process, so this module is used in isolated processes only.
"""

import ctypes
import importlib.util
import pathlib

import numpy as np

from tfdistill.errors import RuntimeUnavailableError

_HANDLE, _SIZE = ctypes.c_void_p, ctypes.c_size_t
_CPU = 1  # kLiteRtHwAcceleratorCpu
_WRITE = 1  # kLiteRtTensorBufferLockModeWrite
# LiteRtElementType of a NumPy type.
_ELEMENTS = {"float32": 1, "int32": 2, "uint8": 3, "int64": 4, "bool": 6, "int16": 7, "int8": 9, "float16": 10, "float64": 11, "uint32": 16}
# LiteRtProfilerEventType: an operation that the interpreter runs, and one inside a delegate, of either kind that delegates report.
OPERATION, DELEGATED = 1 << 1, (1 << 2, 1 << 3)


class _Layout(ctypes.Structure):
    _fields_ = [("rank", ctypes.c_uint), ("dimensions", ctypes.c_int32 * 8), ("strides", ctypes.c_uint32 * 8)]


class _TensorType(ctypes.Structure):
    _fields_ = [("element", ctypes.c_int), ("layout", _Layout)]


class _Memory(ctypes.Structure):
    _fields_ = [("allocated", _SIZE), ("in_use", _SIZE), ("private", _SIZE)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("tag", ctypes.c_char_p),
        ("kind", ctypes.c_int),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("memory_before", _Memory),
        ("memory_after", _Memory),
        ("metadata1", ctypes.c_uint64),
        ("metadata2", ctypes.c_uint64),
        ("source", ctypes.c_int),
    ]


class ProfiledModel:
    """A compiled model on the CPU whose operations are timed.

    Args:
        path: A .tflite file.
        inputs: Dict of input name -> array of its type and shape.
        outputs: Dict of output name -> `(dtype, shape)`.
        threads: CPU threads.

    Raises:
        RuntimeUnavailableError: if LiteRT or a function of it is missing, or a call fails; the message names the call.
    """

    def __init__(self, path, inputs, outputs, threads):
        self._library = _load()
        environment, model, options = (_HANDLE() for _ in range(3))
        self._call("LiteRtCreateEnvironment", 0, None, ctypes.byref(environment))
        self._call("LiteRtCreateModelFromFile", environment, str(path).encode(), ctypes.byref(model))
        self._call("LiteRtCreateOptions", ctypes.byref(options))
        self._call("LiteRtSetOptionsHardwareAccelerators", options, _CPU)
        self._add_options(options, "runtime_options_string", "enable_profiling = true\n")
        self._add_options(options, "xnnpack", f"num_threads = {threads}\n")
        self._model, self._profiler = _HANDLE(), _HANDLE()
        self._call("LiteRtCreateCompiledModel", environment, model, options, ctypes.byref(self._model))
        self._call("LiteRtCompiledModelGetProfiler", self._model, ctypes.byref(self._profiler))
        names = self._names(model, "Input", len(inputs)), self._names(model, "Output", len(outputs))
        types = {name: (array.dtype, array.shape) for name, array in inputs.items()}
        self._input_buffers = [self._buffer(environment, "Input", i, *types[name]) for i, name in enumerate(names[0])]
        self._output_buffers = [self._buffer(environment, "Output", i, *outputs[name]) for i, name in enumerate(names[1])]
        for name, buffer in zip(names[0], self._input_buffers, strict=True):
            self._fill(buffer, inputs[name])

    def run(self):
        """Runs the model once on the inputs."""
        sides = [(_SIZE(len(side)), (_HANDLE * len(side))(*side)) for side in (self._input_buffers, self._output_buffers)]
        self._call("LiteRtRunCompiledModel", self._model, _SIZE(0), *sides[0], *sides[1])

    def timed_run(self):
        """Runs the model once.

        Returns:
            List of `(name, is_delegated, microseconds)` of its operations, in the order in which they ran.
        """
        count = ctypes.c_int()
        self._call("LiteRtResetProfiler", self._profiler)
        self._call("LiteRtStartProfiler", self._profiler)
        self.run()
        self._call("LiteRtStopProfiler", self._profiler)
        self._call("LiteRtGetNumProfilerEvents", self._profiler, ctypes.byref(count))
        events = (_Event * max(count.value, 1))()
        self._call("LiteRtGetProfilerEvents", self._profiler, len(events), events)
        kinds = (OPERATION, *DELEGATED)
        return [(e.tag.decode(), e.kind in DELEGATED, e.elapsed_us) for e in events[: count.value] if e.kind in kinds]

    def _call(self, name, *arguments):
        try:
            function = getattr(self._library, name)
        except AttributeError as error:
            raise RuntimeUnavailableError(f"This LiteRT has no {name}.", "ai-edge-litert 2.1 or newer") from error
        function.restype = ctypes.c_int
        status = function(*arguments)
        if status:
            raise RuntimeUnavailableError(f"LiteRT's {name} failed with status {status}.")

    def _add_options(self, options, identifier, text):
        # LiteRT frees the text with the function that it is given.
        libc, made = ctypes.CDLL(None), _HANDLE()
        libc.strdup.restype, libc.strdup.argtypes = _HANDLE, [ctypes.c_char_p]
        copy = _HANDLE(libc.strdup(text.encode()))
        self._call("LiteRtCreateOpaqueOptions", identifier.encode(), copy, ctypes.cast(libc.free, _HANDLE), ctypes.byref(made))
        self._call("LiteRtAddOpaqueOptions", options, made)

    def _names(self, model, side, count):
        """Lists the names of the inputs or outputs of the first signature, in LiteRT's order."""
        signature, name, found = _HANDLE(), ctypes.c_char_p(), []
        self._call("LiteRtGetModelSignature", model, _SIZE(0), ctypes.byref(signature))
        for index in range(count):
            self._call(f"LiteRtGetSignature{side}Name", signature, _SIZE(index), ctypes.byref(name))
            found.append(name.value.decode())
        return found

    def _buffer(self, environment, side, index, dtype, shape):
        requirements, buffer, kind = _HANDLE(), _HANDLE(), _TensorType()
        kind.element, kind.layout.rank = _ELEMENTS[np.dtype(dtype).name], len(shape)
        kind.layout.dimensions[: len(shape)] = [int(size) for size in shape]
        get = f"LiteRtGetCompiledModel{side}BufferRequirements"
        self._call(get, self._model, _SIZE(0), _SIZE(index), ctypes.byref(requirements))
        make = "LiteRtCreateManagedTensorBufferFromRequirements"
        self._call(make, environment, ctypes.byref(kind), requirements, ctypes.byref(buffer))
        return buffer

    def _fill(self, buffer, array):
        address, array = _HANDLE(), np.ascontiguousarray(array)
        self._call("LiteRtLockTensorBuffer", buffer, ctypes.byref(address), _WRITE)
        ctypes.memmove(address, array.ctypes.data, array.nbytes)
        self._call("LiteRtUnlockTensorBuffer", buffer)


def _load():
    spec = importlib.util.find_spec("ai_edge_litert")
    path = spec and pathlib.Path(next(iter(spec.submodule_search_locations))) / "libLiteRt.so"
    if not path or not path.is_file():
        raise RuntimeUnavailableError(
            "LiteRT's library, which times operations, is not installed.", "ai-edge-litert", "pip install ai-edge-litert"
        )
    return ctypes.CDLL(str(path))
