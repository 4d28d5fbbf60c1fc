"""Opens a .tflite file with the runtime that is installed, and runs it on NumPy arrays."""

import hashlib
import pathlib
import platform
import sys
import time

import numpy as np
from errors import KitError

# Import names of the runtimes, the preferred one first.
ENGINES = ("ai_edge_litert", "tflite_runtime")
# Kernels -> name of the resolver of operations; None for XNNPACK, where it helps.
KERNELS = {"xnnpack": None, "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "reference": "BUILTIN_REF"}


def load_engine():
    """Imports the runtime.

    Returns:
        (import name, its module `interpreter`).

    Raises:
        KitError: if none works; with what each says and what to install.
    """
    said = []
    for name in ENGINES:
        if name == "tflite_runtime" and int(np.__version__.split(".")[0]) >= 2 and _is_there(name):
            raise KitError(f"tflite-runtime does not work with NumPy {np.__version__}.", f'{sys.executable} -m pip install "numpy<2"')
        try:
            return name, __import__(f"{name}.interpreter", fromlist=["interpreter"])
        except Exception as error:  # a package built for another system fails in many ways
            said.append(f"{name}: {error}")
    raise KitError(
        f"No TFLite runtime is installed for Python {platform.python_version()} on {platform.machine()} ({'; '.join(said)}).", advice()
    )


def advice(version=sys.version_info[:2], machine=None, wide=sys.maxsize > 2**32):
    """Says which runtime can be installed for a Python and a machine.

    Args:
        version: (major, minor) of Python.
        machine: Instruction set; None is this machine's.
        wide: Whether Python has 64 bits.
    """
    machine = machine or platform.machine()
    if wide and machine in ("aarch64", "x86_64", "arm64") and (3, 10) <= version <= (3, 14):
        return f"{sys.executable} -m pip install ai-edge-litert"
    if machine != "armv6l" and (3, 8) <= version <= (3, 11):
        return f'{sys.executable} -m pip install "tflite-runtime==2.14.0" "numpy<2"'
    return (
        "use a Python that has a runtime: 3.10 to 3.14 with 64 bits (ai-edge-litert), or 3.8 to 3.11 with 32 or 64 bits (tflite-runtime 2.14); "
        "none is built for armv6, as in the first Raspberry Pi and the Zero"
    )


def _is_there(name):
    import importlib.util

    return importlib.util.find_spec(name) is not None


class Tensor:
    """One input or output of a file.

    Attributes:
        name: Name in the file's signature, or the tensor's own.
        index: Index in the interpreter.
        shape: Current shape, batch first.
        dtype: NumPy name of the type.
        scale: Size of one quantization step; None for a tensor that is not quantized.
        zero_point: The integer that represents 0.0.
        signature: Shape that the file declares, with None for an axis of any size.
    """

    def __init__(self, name, detail):
        scales, zeros = detail["quantization_parameters"]["scales"], detail["quantization_parameters"]["zero_points"]
        quantized = len(scales) == 1 and np.issubdtype(detail["dtype"], np.integer)
        self.name, self.index = name, int(detail["index"])
        self.shape = tuple(int(size) for size in detail["shape"])
        self.dtype = np.dtype(detail["dtype"]).name
        self.scale = float(scales[0]) if quantized else None
        self.zero_point = int(zeros[0]) if quantized and len(zeros) else 0
        self.signature = tuple(None if size < 0 else int(size) for size in detail.get("shape_signature", detail["shape"]))

    def quantize(self, values):
        """Converts real values to the tensor's type; an array of that type is returned unchanged."""
        values = np.asarray(values)
        if values.dtype == self.dtype:
            return np.ascontiguousarray(values)
        if np.dtype(self.dtype).kind in "iu" and values.dtype.kind == "f" and not np.isfinite(values).all():
            raise KitError(f"Input '{self.name}' holds NaN or infinity, for which {self.dtype} has no integer.")
        if self.scale is None:
            return np.ascontiguousarray(values, dtype=self.dtype)
        limits = np.iinfo(self.dtype)
        with np.errstate(over="ignore"):  # what overflows float64 is clipped as well
            steps = np.round(values.astype(np.float64) / self.scale) + self.zero_point
        return np.clip(steps, limits.min, limits.max).astype(self.dtype)

    def dequantize(self, values):
        """Converts the tensor's integers to real values; other types are returned unchanged."""
        if self.scale is None:
            return np.asarray(values)
        with np.errstate(over="ignore"):
            return ((np.asarray(values).astype(np.float64) - self.zero_point) * self.scale).astype(np.float32)


class Model:
    """An opened .tflite file.

    Args:
        path: The file.
        threads: CPU threads.
        kernels: One of `KERNELS`.
        shapes: Dict of input name -> full shape to resize these inputs to.

    Attributes:
        inputs: Dict of name -> `Tensor`, in the order of the signature.
        outputs: The same for outputs.
        input_order: The names of the inputs in the order of the graph.
        output_order: The same for outputs.
        engine: Import name of the runtime.
        init_seconds: Time to open the file and allocate its tensors.

    Raises:
        KitError: if there is no such file or runtime, or it does not open the file.
    """

    def __init__(self, path, threads=1, kernels="xnnpack", shapes=None):
        self.path = pathlib.Path(path)
        require_file(self.path)
        self.engine, module = load_engine()
        options = {"num_threads": threads}
        if KERNELS[kernels] is not None:
            options["experimental_op_resolver_type"] = module.OpResolverType[KERNELS[kernels]]
        began = time.perf_counter()
        try:
            self.interpreter = module.Interpreter(model_path=str(self.path), **options)
            self._resize(shapes or {})
            self.interpreter.allocate_tensors()
        except (ValueError, RuntimeError, SystemError, MemoryError) as error:
            raise KitError(f"{self.engine} cannot open '{path}' ({self.path.stat().st_size} bytes): {error}") from error
        self.init_seconds = time.perf_counter() - began
        self.inputs, self.outputs = self._named("input"), self._named("output")
        self.input_order, self.output_order = self._order("input"), self._order("output")

    def _resize(self, shapes):
        names = {tensor.name: tensor for tensor in self._named("input").values()} if shapes else {}
        for name, shape in shapes.items():
            if name not in names:
                raise KitError(f"'{name}' is no input of the file. It has {sorted(names)}.")
            declared = names[name].signature
            if len(declared) != len(shape) or any(d is not None and d != s for d, s in list(zip(declared, shape))[1:]):
                raise KitError(f"The shape {tuple(shape)} of '{name}' does not fit the file, which declares {declared}.")
            self.interpreter.resize_tensor_input(names[name].index, shape)

    def _named(self, side):
        details = {int(detail["index"]): detail for detail in getattr(self.interpreter, f"get_{side}_details")()}
        for key in self.interpreter.get_signature_list():
            runner = self.interpreter.get_signature_runner(key)
            named = {name: int(detail["index"]) for name, detail in getattr(runner, f"get_{side}_details")().items()}
            del runner  # while it refers to the interpreter, that refuses to allocate tensors
            if set(named.values()) == set(details):
                return {name: Tensor(name, details[index]) for name, index in named.items()}
        return {detail["name"]: Tensor(detail["name"], detail) for detail in details.values()}

    def _order(self, side):
        """Returns the names in the order of the graph, which is that of the metadata inside the file."""
        names = {tensor.index: name for name, tensor in (self.inputs if side == "input" else self.outputs).items()}
        return [names[int(detail["index"])] for detail in getattr(self.interpreter, f"get_{side}_details")()]

    def reset(self):
        """Resets the states that operations keep between runs."""
        self.interpreter.reset_all_variables()

    def set_inputs(self, arrays):
        """Copies one batch in: a dict of name -> array of the tensor's type and shape."""
        for name, tensor in self.inputs.items():
            try:
                self.interpreter.set_tensor(tensor.index, arrays[name])
            except ValueError as error:
                raise KitError(f"Input '{name}': {error}") from error

    def invoke(self):
        """Runs the file on the inputs that were set."""
        try:
            self.interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise KitError(f"{self.engine} failed while it ran '{self.path}': {error}") from error

    def read_outputs(self):
        """Returns a dict of name -> array of the tensor's type."""
        return {name: self.interpreter.get_tensor(tensor.index) for name, tensor in self.outputs.items()}

    def run(self, arrays):
        """Runs one batch: a dict of name -> array of real values or of the tensor's type; returns a dict of name -> real values."""
        self.reset()
        self.set_inputs({name: tensor.quantize(arrays[name]) for name, tensor in self.inputs.items()})
        self.invoke()
        return {name: self.outputs[name].dequantize(values) for name, values in self.read_outputs().items()}


def require_file(path):
    """Checks that there is a file.

    Raises:
        KitError: if not.
    """
    if not pathlib.Path(path).is_file():
        raise KitError(f"There is no file '{path}'.", "give the path of a .tflite file")


def sha256(path):
    """Returns the SHA-256 of a file, in hexadecimal digits."""
    require_file(path)
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
