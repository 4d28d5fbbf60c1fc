"""The only door to a TFLite interpreter: ai-edge-litert, else tflite-runtime, else TensorFlow's own.

Nothing here imports TensorFlow unless it is the only one there, so this file also serves a process that measures, and a small board.
"""

import dataclasses
import importlib
import importlib.util
import pathlib
import time

import numpy as np

from tfdistill.errors import ConfigurationError, DataError, RuntimeUnavailable, nearest
from tfdistill.runtime.quiet import captured_output

# Best first: import name -> where its Interpreter and OpResolverType are.
ENGINES = {
    "ai_edge_litert": ("ai_edge_litert.interpreter", "ai_edge_litert.interpreter"),
    "tflite_runtime": ("tflite_runtime.interpreter", "tflite_runtime.interpreter"),
    "tensorflow": ("tensorflow.lite", "tensorflow.lite.experimental"),
}


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """One input or output of a file.

    Attributes:
        name: Its name in the file's signature, or the tensor's own name where the file has none.
        index: Its index in the interpreter.
        shape: Shape it has now, batch first.
        dtype: NumPy name of its type, for example `"int8"`.
        scale: Size of one quantization step, or None for a tensor that is not quantized.
        zero_point: The integer that stands for 0.0.
    """

    name: str
    index: int
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int = 0

    def quantize(self, values):
        """Turns real values into the tensor's type: round(value / scale) + zero point, clipped to the type's range.

        Args:
            values: Array of real numbers, or of the tensor's own type already, which is passed through.

        Returns:
            Array of type `dtype`.
        """
        values = np.asarray(values)
        if self.scale is None or values.dtype == self.dtype:
            return np.ascontiguousarray(values, dtype=self.dtype)
        limits = np.iinfo(self.dtype)
        steps = np.round(values.astype(np.float64) / self.scale) + self.zero_point
        return np.clip(steps, limits.min, limits.max).astype(self.dtype)

    def dequantize(self, values):
        """Turns the tensor's integers into real values, (q - zero point) * scale in float32; other types are passed through."""
        if self.scale is None:
            return np.asarray(values)
        return ((np.asarray(values).astype(np.float64) - self.zero_point) * self.scale).astype(np.float32)


def engine_name():
    """Returns the import name of the interpreter that `open_file` takes.

    Raises:
        RuntimeUnavailable: if none is installed.
    """
    for name in ENGINES:
        if importlib.util.find_spec(name) is not None:
            return name
    raise RuntimeUnavailable("No TFLite interpreter is installed.", f"one of {', '.join(ENGINES)}", "pip install ai-edge-litert")


def open_file(path, threads=1, xnnpack=True, batch_size=None, engine=None, *, shapes=None, trusted=False):
    """Opens a .tflite file and allocates its tensors.

    Args:
        path: The file.
        threads: CPU threads, at least 1.
        xnnpack: Whether XNNPACK may take the nodes it can; False runs the plain built-in kernels.
        batch_size: Resize every input to this batch first; None keeps the file's own.
        engine: One of `ENGINES`; None takes the first that is installed.
        shapes: Dict of input name -> full shape, batch included, to resize these inputs to: for inputs without a fixed size. The others keep their
            shapes. Not together with `batch_size`.
        trusted: Whether the caller itself wrote the file just now.

    Returns:
        A `TFLiteModel`.

    Raises:
        ConfigurationError: for a missing file or an impossible argument.
        RuntimeUnavailable: if the interpreter is missing or refuses the file; the message holds what it said.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ConfigurationError(f"There is no file '{path}'.", "a .tflite file")
    if threads < 1:
        raise ConfigurationError(f"threads={threads} is impossible.", "at least 1 thread")
    if batch_size is not None and batch_size < 1:
        raise ConfigurationError(f"batch_size={batch_size} is impossible.", "at least 1, or None for the file's own")
    engine = engine or engine_name()
    if engine not in ENGINES:
        raise ConfigurationError(f"There is no engine '{engine}'.", f"one of {', '.join(ENGINES)}", nearest(engine, ENGINES))
    where, resolvers = ENGINES[engine]
    captured = None
    try:
        with captured_output() as captured:
            options, make = {"num_threads": threads}, _attribute(where, "Interpreter")
            if not xnnpack:
                kind = _attribute(resolvers, "OpResolverType")
                options["experimental_op_resolver_type"] = kind.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            began = time.perf_counter()
            interpreter = make(model_path=str(path), **options)
            if batch_size is not None:
                for detail in interpreter.get_input_details():
                    interpreter.resize_tensor_input(detail["index"], [batch_size, *detail["shape"][1:]])
            for name, info in _named(interpreter, "input").items() if shapes else ():
                if name in shapes:
                    interpreter.resize_tensor_input(info.index, list(shapes[name]))
            interpreter.allocate_tensors()
            init_seconds = time.perf_counter() - began
    except (ValueError, RuntimeError, ImportError) as error:
        said = captured.last() if captured else ""
        raise RuntimeUnavailable(
            f"{engine} cannot open '{path}' ({path.stat().st_size} bytes): {error}" + (f"\nIt said:\n{said}" if said else ""),
            "a whole .tflite file whose operations this interpreter has",
        ) from error
    return TFLiteModel(path, interpreter, engine, init_seconds)


def _attribute(dotted, name):
    # TensorFlow makes its submodules attributes, not importable modules.
    package, _, rest = dotted.partition(".")
    found = importlib.import_module(package if package == "tensorflow" else dotted)
    for part in rest.split(".") if package == "tensorflow" else ():
        found = getattr(found, part)
    return getattr(found, name)


class TFLiteModel:
    """An opened file: named inputs and outputs, and NumPy arrays in and out. Made by `open_file`.

    Attributes:
        path: The file.
        engine: Import name of the interpreter in use.
        inputs: Dict of name -> `TensorInfo`, in the order of the file's signature.
        outputs: The same for outputs.
        interpreter: The interpreter itself.
        init_seconds: Time it took to open the file and allocate its tensors.
    """

    def __init__(self, path, interpreter, engine, init_seconds):
        self.path, self.interpreter, self.engine, self.init_seconds = path, interpreter, engine, init_seconds
        self.inputs = _named(interpreter, "input")
        self.outputs = _named(interpreter, "output")

    @property
    def batch_size(self):
        """The batch that one `invoke` takes: first dimension of the first input (1 for a scalar)."""
        shape = next(iter(self.inputs.values())).shape
        return shape[0] if shape else 1

    def set_inputs(self, arrays):
        """Copies one batch in; `arrays` is a dict of name -> array of the tensor's own type and shape."""
        for name, info in self.inputs.items():
            self.interpreter.set_tensor(info.index, arrays[name])

    def invoke(self):
        """Runs the model on what was set.

        Raises:
            RuntimeUnavailable: if the interpreter fails, with what it said.
        """
        try:
            self.interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise RuntimeUnavailable(f"{self.engine} failed while it ran '{self.path}': {error}") from error

    def read_outputs(self):
        """Returns a dict of name -> array in host memory, of the tensor's own type."""
        return {name: self.interpreter.get_tensor(info.index) for name, info in self.outputs.items()}

    def run(self, inputs, advance=None):
        """Runs the model on any number of samples, as many at a time as its batch takes.

        Args:
            inputs: Dict of input name -> array (samples, ...) of real values (they are quantized with the tensor's own scale and zero
                point) or of the tensor's own type. An array alone where there is one input.
            advance: Called with the number of samples done after each batch.

        Returns:
            Dict of output name -> array (samples, ...), dequantized to float32 where the tensor is quantized. An output whose first axis is
            not the batch comes whole from every run: (runs, *its shape).

        Raises:
            DataError: for missing or unknown names, or shapes that do not fit.
            RuntimeUnavailable: if the interpreter fails.
        """
        arrays = self._checked(inputs)
        count, batch = len(next(iter(arrays.values()))), self.batch_size
        collected = {name: [] for name in self.outputs}
        for start in range(0, count, batch):
            part = {name: array[start : start + batch] for name, array in arrays.items()}
            size = len(next(iter(part.values())))
            if size < batch:  # a fixed batch is filled with copies of the last sample, which are dropped again
                part = {name: np.concatenate([a, np.repeat(a[-1:], batch - size, axis=0)]) for name, a in part.items()}
            # A fused LSTM keeps its state from one invoke to the next; these samples have nothing to do with each other.
            self.interpreter.reset_all_variables()
            self.set_inputs(part)
            self.invoke()
            for name, values in self.read_outputs().items():
                collected[name].append(values[:size] if values.shape[:1] == (batch,) else values[None])
            if advance:
                advance(size)
        return {name: info.dequantize(np.concatenate(collected[name])) for name, info in self.outputs.items()}

    def _checked(self, inputs):
        if not isinstance(inputs, dict):
            if len(self.inputs) != 1:
                raise DataError(f"One array was given, but '{self.path}' has the inputs {list(self.inputs)}.", "a dict of name -> array")
            inputs = {next(iter(self.inputs)): inputs}
        if set(inputs) != set(self.inputs):
            raise DataError(f"The inputs {sorted(inputs)} do not fit '{self.path}'.", f"exactly {sorted(self.inputs)}")
        arrays = {}
        for name, info in self.inputs.items():
            array = np.asarray(inputs[name])
            if array.shape[1:] != info.shape[1:] or array.ndim == 0 or len(array) == 0:
                raise DataError(f"Input '{name}' of '{self.path}' was given the shape {array.shape}.", f"(samples, {_axes(info.shape)})")
            arrays[name] = info.quantize(array)
        if len({len(a) for a in arrays.values()}) > 1:
            raise DataError(f"The inputs have different lengths: { {n: len(a) for n, a in arrays.items()} }.", "one length")
        return arrays


def _axes(shape):
    return ", ".join(str(s) for s in shape[1:]) or "no further axes"


def _named(interpreter, side):
    details = {d["index"]: d for d in getattr(interpreter, f"get_{side}_details")()}
    named = {}
    for key in interpreter.get_signature_list():
        runner = interpreter.get_signature_runner(key)
        named = {name: d["index"] for name, d in getattr(runner, f"get_{side}_details")().items()}
        if set(named.values()) == set(details):
            break
    else:
        # No signature, or none of the main graph: the tensors' own names.
        named = {d["name"]: i for i, d in details.items()}
    return {name: _info(name, details[index]) for name, index in named.items()}


def _info(name, detail):
    scales, zeros = detail["quantization_parameters"]["scales"], detail["quantization_parameters"]["zero_points"]
    quantized = len(scales) == 1 and np.issubdtype(detail["dtype"], np.integer)
    return TensorInfo(
        name=name,
        index=int(detail["index"]),
        shape=tuple(int(s) for s in detail["shape"]),
        dtype=np.dtype(detail["dtype"]).name,
        scale=float(scales[0]) if quantized else None,
        zero_point=int(zeros[0]) if quantized else 0,
    )
