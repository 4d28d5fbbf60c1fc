"""LiteRT's C interface by ctypes, for what its Python package does not offer: the times of the operations inside a model."""

import ctypes

from tfdistill.runtime.litert_library import CPU, HANDLE, LiteRtCalls

# LiteRtProfilerEventType: an operation that the interpreter runs, and one inside a delegate, of either kind that delegates report.
OPERATION, DELEGATED = 1 << 1, (1 << 2, 1 << 3)


class _Memory(ctypes.Structure):
    _fields_ = [("allocated", ctypes.c_size_t), ("in_use", ctypes.c_size_t), ("private", ctypes.c_size_t)]


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


class ProfiledModel(LiteRtCalls):
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
        super().__init__()
        environment = self._environment({})
        model, options = self._model_file(environment, path), self._options(CPU)
        self._add_options(options, "runtime_options_string", "enable_profiling = true\n")
        self._add_options(options, "xnnpack", f"num_threads = {threads}\n")
        self._model, self._profiler = self._compiled(environment, model, options), HANDLE()
        self._call("LiteRtCompiledModelGetProfiler", self._model, ctypes.byref(self._profiler))
        names = self._names(model, "Input", len(inputs)), self._names(model, "Output", len(outputs))
        types = {name: (array.dtype, array.shape) for name, array in inputs.items()}
        self._input_buffers = [self._buffer(environment, "Input", i, *types[name]) for i, name in enumerate(names[0])]
        self._output_buffers = [self._buffer(environment, "Output", i, *outputs[name]) for i, name in enumerate(names[1])]
        for name, buffer in zip(names[0], self._input_buffers, strict=True):
            self._fill(buffer, inputs[name])

    def run(self):
        """Runs the model once on the inputs."""
        self._run(self._input_buffers, self._output_buffers)

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
