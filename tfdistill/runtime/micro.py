"""Runs .tflite files in tflite-micro, the runtime of microcontrollers, on this machine: what its arena holds, which operations it lacks."""

import pathlib
import re
import time

import numpy as np

from tfdistill.errors import ConfigurationError, RuntimeUnavailableError
from tfdistill.runtime.delegated import Delegation
from tfdistill.runtime.file_inputs import declared_shape, names_of
from tfdistill.runtime.interpreter import read_file
from tfdistill.runtime.model import RunsSamples
from tfdistill.runtime.said import listening
from tfdistill.runtime.schema import schema
from tfdistill.runtime.structure import check_structure
from tfdistill.runtime.tensors import TensorInfo
from tfdistill.utils.optional import require

ENGINE = "tflite_micro"
# Where the size of the arena is not given: the first try, and what no microcontroller has.
_FIRST_ARENA_BYTES, _MOST_ARENA_BYTES = 1 << 20, 1 << 30
_SECTION = re.compile(r"'(.+?)' used (\d+) bytes")
_PART = re.compile(r"Arena allocation (head|tail|total) (\d+) bytes")
_NO_MEMORY = re.compile(r"Failed to (allocate|resize)|[Nn]ot enough memory|arena size is too small|Too many buffers", re.IGNORECASE)
_NO_OPERATION = re.compile(r"Didn't find op for builtin opcode '(\w+)'|Unsupported custom op '?(\w+)")


def runtime_module():
    """Imports tflite-micro.

    Raises:
        MissingPackageError: if it is not installed.
    """
    return require("tflite_micro", "run .tflite files as microcontrollers do").runtime


class MicroFile(RunsSamples):
    """A .tflite file in tflite-micro. It is used as a `TFLiteModel` is: `set_inputs`, `invoke`, `read_outputs`.

    Args:
        path: The file.
        arena_bytes: Size of the memory that everything has to fit in; None takes as much as it needs.
        shapes: Dict of input name -> full shape, which must be the file's own, as tflite-micro resizes nothing; or None.

    Attributes:
        path: The file.
        engine: Import name of the runtime.
        inputs: Dict of name -> `TensorInfo`.
        outputs: The same for outputs.
        operators: Names of the operations that the firmware has to register, in alphabetical order.
        init_seconds: Time to open the file and allocate its tensors.

    Raises:
        ConfigurationError: for a missing file.
        ExportError: if the file is damaged.
        MissingPackageError: if tflite-micro is not installed.
        RuntimeUnavailableError: if it lacks an operation, the arena is too small, or it refuses the file otherwise; with its words.
    """

    engine = ENGINE

    def __init__(self, path, arena_bytes=None, shapes=None):
        file, runtime = read_file(path), runtime_module()
        self.path = pathlib.Path(file.path)
        check_structure(file.content)
        model = schema().Model.GetRootAs(file.content)
        graph = model.Subgraphs(0)
        self.operators = tuple(sorted({_operation(model, graph.Operators(i)) for i in range(graph.OperatorsLength())}))
        self._operations = graph.OperatorsLength()
        began = time.perf_counter()
        self._interpreter = self._open(runtime, file.content, arena_bytes)
        self.init_seconds = time.perf_counter() - began
        self.inputs = self._tensors(model, graph, "Input")
        self.outputs = self._tensors(model, graph, "Output")
        for name, shape in (shapes or {}).items():
            if name not in self.inputs or self.inputs[name].shape != tuple(shape):
                own = {name: info.shape for name, info in self.inputs.items()}
                raise ConfigurationError(f"shapes={{'{name}': {tuple(shape)}}} does not fit '{self.path}' in tflite-micro.", f"{own}")

    def set_inputs(self, arrays):
        """Copies one batch in; `arrays` is a dict of name -> array of the tensor's type and shape."""
        for name, info in self.inputs.items():
            self._native(self._interpreter.set_input, np.ascontiguousarray(arrays[name]), info.index)

    def invoke(self):
        """Runs the file on the inputs that were set."""
        self._native(self._interpreter.invoke)

    def read_outputs(self):
        """Returns a dict of name -> array, of the tensor's type."""
        return {
            name: np.array(self._native(self._interpreter.get_output, info.index)).reshape(info.shape)
            for name, info in self.outputs.items()
        }

    def reset(self):
        """Resets the states that operations keep between runs."""
        self._native(self._interpreter.reset)

    def delegation(self):
        """Returns the `Delegation`: everything runs in tflite-micro."""
        return Delegation(self._operations, self._operations, 1, {})

    def arena(self):
        """Returns a dict of the arena's sections -> bytes, after a run.

        `"total"` is the sum of `"head"`, the activations and what operations need meanwhile, and `"tail"`, what stays from the start on. The other entries are
        parts of the tail.
        """
        with listening() as said:
            self._interpreter.print_allocations()
        return {name: int(size) for pattern in (_PART, _SECTION) for name, size in pattern.findall(said.text)}

    def _open(self, runtime, content, arena_bytes):
        size = arena_bytes or max(_FIRST_ARENA_BYTES, 2 * len(content))
        while True:
            try:
                with listening() as said:
                    return runtime.Interpreter.from_bytes(content, arena_size=size)
            except Exception as error:  # the exception class depends on the native code
                too_small = _NO_MEMORY.search(said.text) is not None
                if arena_bytes is None and too_small and size < _MOST_ARENA_BYTES:
                    size *= 4
                    continue
                raise self._refused(error, said.reasons(), arena_bytes if too_small else None) from error

    def _refused(self, error, said, arena_bytes):
        lacking = {name for pair in _NO_OPERATION.findall(said) for name in pair if name}
        if "op code CUSTOM" in said:  # it does not say which
            lacking |= {name for name in self.operators if not hasattr(schema().BuiltinOperator, name)}
        words = f"\nIt said:\n{said}" if said else ""
        if lacking:
            return RuntimeUnavailableError(f"tflite-micro does not have {', '.join(sorted(lacking))}, which '{self.path}' needs.{words}")
        if arena_bytes:
            return RuntimeUnavailableError(
                f"'{self.path}' does not fit into an arena of {arena_bytes} bytes.{words}",
                "an arena of the size that Micro() measures",
                "take Micro(), which measures what the file needs",
            )
        return RuntimeUnavailableError(f"tflite-micro does not run '{self.path}': {error}.{words}")

    def _native(self, function, *arguments):
        try:
            with listening() as said:
                return function(*arguments)
        except Exception as error:
            raise self._refused(error, said.reasons(), None) from error

    def _tensors(self, model, graph, side):
        names, found = names_of(model, graph, side), {}
        for index in range(getattr(graph, f"{side}sLength")()):
            detail = self._native(getattr(self._interpreter, f"get_{side.lower()}_details"), index)
            scales, zeros = (detail["quantization_parameters"][key] for key in ("scales", "zero_points"))
            tensor = getattr(graph, f"{side}s")(index)
            shape = tuple(int(size) for size in detail["shape"])
            found[names[tensor]] = TensorInfo(
                name=names[tensor],
                index=index,
                shape=shape,
                dtype=np.dtype(detail["dtype"]).name,
                scale=float(scales[0]) if len(scales) == 1 else None,
                zero_point=int(zeros[0]) if len(scales) == 1 and len(zeros) else 0,
                signature=declared_shape(graph.Tensors(tensor)),
            )
        return found


def _operation(model, operator):
    code = model.OperatorCodes(operator.OpcodeIndex())
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    if number == schema().BuiltinOperator.CUSTOM and code.CustomCode():
        return code.CustomCode().decode("utf-8", errors="replace")
    return next((name for name, value in vars(schema().BuiltinOperator).items() if value == number), str(number))
