"""Runs .tflite files on a GPU or an NPU by LiteRT's compiled models, and asks LiteRT what really runs there."""

import collections
import contextlib
import ctypes
import dataclasses
import pathlib
import re
import time

from tfdistill.errors import ConfigurationError, RuntimeUnavailableError
from tfdistill.runtime.delegated import Delegation
from tfdistill.runtime.litert_library import (
    COMPILER_FOLDER,
    CPU,
    DISPATCH_FOLDER,
    GPU,
    HANDLE,
    NPU,
    REGISTERED_ACCELERATORS,
    RUNTIME_FOLDER,
    SIZE,
    Layout,
    LiteRtCalls,
    TensorType,
    element_name,
    package_folder,
)
from tfdistill.runtime.model import RunsSamples
from tfdistill.runtime.said import listening
from tfdistill.runtime.schema import schema
from tfdistill.runtime.tensors import TensorInfo

ENGINE = "ai_edge_litert"
ACCELERATORS = {"gpu": GPU, "npu": NPU}
# Vendor -> its folder in the package, which holds the compiler of its NPUs, and for some what loads the compiled parts.
VENDORS = {
    "openvino": "intel_openvino",
    "qualcomm": "qualcomm",
    "mediatek": "mediatek",
    "samsung": "samsung",
    "google_tensor": "google_tensor",
}
_CUSTOM = 32  # kLiteRtOpCodeTflCustom; a part that the NPU runs has no custom code until it is written
_PER_TENSOR = 1  # kLiteRtQuantizationPerTensor
_RANK = 0x7F
# How the delegate of a GPU lists what it leaves: a line for each operation, and their number.
_LEFT_BY_GPU = re.compile(
    r"operations are not supported by GPU delegate:\n(.*?)\n(\d+) operations will run on the GPU, and the remaining (\d+) operations",
    re.DOTALL,
)
_REFUSED = re.compile(r"^(\w+): ", re.MULTILINE)
# What LiteRT says once the compiler of an NPU has made its parts. Where that fails it runs the whole file on the CPU, but its model stays cut into parts.
_COMPILED_FOR_NPU = re.compile(r"[1-9]\d* compiler plugins were applied successfully")


class _Quantization(ctypes.Structure):
    _fields_ = [("scale", ctypes.c_float), ("zero_point", ctypes.c_int64)]


@dataclasses.dataclass(frozen=True)
class _Operation:
    """An operation of the file as LiteRT holds it: its name, the type of its first output, and whether it stands for a part that the NPU runs."""

    name: str
    dtype: str
    dispatched: bool


class CompiledFile(RunsSamples, LiteRtCalls):
    """A .tflite file that is compiled for an accelerator, with the CPU for what that does not take.

    It is used as a `TFLiteModel` is: `set_inputs`, `invoke`, `read_outputs`.

    Args:
        path: The file.
        accelerator: `"gpu"` or `"npu"`.
        options: Dict of the name of a group of LiteRT's options -> its TOML text.
        vendor: One of `VENDORS`, for an NPU.
        shapes: Dict of input name -> full shape, to resize these inputs to.

    Attributes:
        path: As given.
        engine: Import name of the runtime.
        inputs: Dict of name -> `TensorInfo`.
        outputs: The same for outputs.
        init_seconds: Time to open, compile and allocate.
        said: What LiteRT printed meanwhile.

    Raises:
        ConfigurationError: for an input that the file does not have.
        RuntimeUnavailableError: if LiteRT is missing, or neither the accelerator nor the CPU take the file; with what LiteRT said.
    """

    engine = ENGINE

    def __init__(self, path, accelerator, options, vendor=None, shapes=None):
        super().__init__()
        self.path, self.accelerator = pathlib.Path(path), accelerator
        began = time.perf_counter()
        with self._explained() as self.said:
            self._open(options, vendor, shapes or {})
        self.init_seconds = time.perf_counter() - began

    def _open(self, options, vendor, shapes):
        package = package_folder()
        folders = {RUNTIME_FOLDER: package, REGISTERED_ACCELERATORS: CPU | ACCELERATORS[self.accelerator]}
        if vendor:
            vendors = package / "vendors" / VENDORS[vendor]
            folders |= {COMPILER_FOLDER: vendors / "compiler", DISPATCH_FOLDER: vendors / "dispatch"}
        self._env = self._environment(folders)
        self._file = self._model_file(self._env, self.path)
        self._original = self._operations()
        made = self._options(CPU | ACCELERATORS[self.accelerator])
        for name, text in options.items():
            self._add_options(made, name, text)
        self._model = self._compiled(self._env, self._file, made)
        self.inputs, self.outputs = self._tensors("Input"), self._tensors("Output")
        self._resize(shapes)
        self._input_buffers, self._output_buffers = (
            {name: self._buffer(self._env, side, i, info.dtype, info.shape) for i, (name, info) in enumerate(tensors.items())}
            for side, tensors in (("Input", self.inputs), ("Output", self.outputs))
        )

    @contextlib.contextmanager
    def _explained(self):
        """Puts what LiteRT prints into the error."""
        with contextlib.ExitStack() as stack:
            said = stack.enter_context(listening())
            try:
                yield said
            except RuntimeUnavailableError as error:
                stack.close()  # what was printed is complete then
                reasons = said.reasons()
                raise RuntimeUnavailableError(
                    f"{self.accelerator.upper()} does not run '{self.path}': {error.happened}"
                    + (f"\nIt said:\n{reasons}" if reasons else ""),
                    error.expected,
                    error.fix,
                ) from error

    def set_inputs(self, arrays):
        """Copies one batch in; `arrays` is a dict of name -> array of the tensor's type and shape."""
        for name, buffer in self._input_buffers.items():
            self._fill(buffer, arrays[name])

    def invoke(self):
        """Starts a run on the inputs that were set. An accelerator may still be busy when this returns; `read_outputs` waits for it."""
        with self._explained():
            self._run(list(self._input_buffers.values()), list(self._output_buffers.values()))

    def read_outputs(self):
        """Returns a dict of name -> array in host memory, of the tensor's type."""
        return {
            name: self._read(buffer, self.outputs[name].dtype, self.outputs[name].shape) for name, buffer in self._output_buffers.items()
        }

    def reset(self):
        """Does nothing: a compiled model has no call that resets states."""

    def is_proven(self):
        """Whether LiteRT says that no operation runs on the CPU. Its `is_fully_accelerated` counts the CPU as an accelerator, this does not."""
        found = ctypes.c_bool()
        self._call("LiteRtCompiledModelIsNonCpuFullyAccelerated", self._model, ctypes.byref(found))
        return found.value

    def delegation(self):
        """Returns the `Delegation`: what the accelerator runs, and what the CPU. What LiteRT does not say of the accelerator is counted for the CPU."""
        if self.is_proven():
            parts = sum(operation.dispatched for operation in self._operations()) if self.accelerator == "npu" else 1
            return Delegation(len(self._original), len(self._original), parts, {})
        if self.accelerator == "npu" and _COMPILED_FOR_NPU.search(self.said.text):
            return self._left_by_npu()
        if found := _LEFT_BY_GPU.search(self.said.text):
            return self._left_by_gpu(found[1], int(found[3]))
        left = collections.Counter((operation.name, operation.dtype) for operation in self._original)
        return Delegation(len(self._original), 0, 0, dict(left))

    def _left_by_npu(self):
        # The compiler replaces each part that it takes by one operation.
        now = self._operations()
        left = collections.Counter((operation.name, operation.dtype) for operation in now if not operation.dispatched)
        return Delegation(len(self._original), len(self._original) - left.total(), len(now) - left.total(), dict(left))

    def _left_by_gpu(self, lines, count):
        refused = collections.Counter(_REFUSED.findall(lines))
        left = {(name, self._dtype(name)): number for name, number in refused.items()}
        if count > refused.total():  # the GPU could run these, but what it cannot run lies between them
            left["other operations", ""] = count - refused.total()
        return Delegation(len(self._original), len(self._original) - count, None, left)

    def _dtype(self, name):
        kinds = {operation.dtype for operation in self._original if operation.name == name}
        return kinds.pop() if len(kinds) == 1 else ""

    def _operations(self):
        """Lists the operations of all graphs of the file, as it is now."""
        found, graphs = [], SIZE()
        names = {number: name for name, number in vars(schema().BuiltinOperator).items() if isinstance(number, int)}
        self._call("LiteRtGetNumModelSubgraphs", self._file, ctypes.byref(graphs))
        for g in range(graphs.value):
            graph, count = HANDLE(), SIZE()
            self._call("LiteRtGetModelSubgraph", self._file, SIZE(g), ctypes.byref(graph))
            self._call("LiteRtGetNumSubgraphOps", graph, ctypes.byref(count))
            for i in range(count.value):
                operation, code = HANDLE(), ctypes.c_int()
                self._call("LiteRtGetSubgraphOp", graph, SIZE(i), ctypes.byref(operation))
                self._call("LiteRtGetOpCode", operation, ctypes.byref(code))
                custom = self._custom_code(operation) if code.value == _CUSTOM else None
                name = custom or names.get(code.value, str(code.value))
                found.append(_Operation(name, self._result_type(operation), custom == ""))
        return found

    def _custom_code(self, operation):
        text = ctypes.c_char_p()
        self._call("LiteRtGetCustomCode", operation, ctypes.byref(text))
        return (text.value or b"").decode("utf-8", errors="replace")

    def _result_type(self, operation):
        count, tensor = SIZE(), HANDLE()
        self._call("LiteRtGetNumOpOutputs", operation, ctypes.byref(count))
        if not count.value:
            return "none"
        self._call("LiteRtGetOpOutput", operation, SIZE(0), ctypes.byref(tensor))
        kind = self._type_of(tensor)
        return element_name(kind.element) if kind else "unknown"

    def _type_of(self, tensor):
        kind, found = ctypes.c_int(), TensorType()
        self._call("LiteRtGetTensorTypeId", tensor, ctypes.byref(kind))
        if kind.value != 0:  # kLiteRtRankedTensorType
            return None
        self._call("LiteRtGetRankedTensorType", tensor, ctypes.byref(found))
        return found

    def _tensors(self, side):
        signature, count = HANDLE(), SIZE()
        self._call("LiteRtGetModelSignature", self._file, SIZE(0), ctypes.byref(signature))
        self._call(f"LiteRtGetNumSignature{side}s", signature, ctypes.byref(count))
        found = {}
        for index, name in enumerate(self._names(self._file, side, count.value)):
            tensor, kind, quantization = HANDLE(), ctypes.c_int(), _Quantization()
            self._call(f"LiteRtGetSignature{side}TensorByIndex", signature, SIZE(index), ctypes.byref(tensor))
            shape = self._type_of(tensor)
            if shape is None:
                raise RuntimeUnavailableError(f"{side} '{name}' has no fixed number of axes.", "a file whose inputs and outputs have one")
            sizes = tuple(shape.layout.dimensions[: shape.layout.rank & _RANK])
            self._call("LiteRtGetQuantizationTypeId", tensor, ctypes.byref(kind))
            if kind.value == _PER_TENSOR:
                self._call("LiteRtGetPerTensorQuantization", tensor, ctypes.byref(quantization))
            found[name] = TensorInfo(
                name=name,
                index=index,
                shape=tuple(max(size, 1) for size in sizes),
                dtype=element_name(shape.element),
                scale=quantization.scale or None,
                zero_point=quantization.zero_point,
                signature=tuple(None if size < 0 else size for size in sizes),
            )
        return found

    def _resize(self, shapes):
        for name, shape in shapes.items():
            if name not in self.inputs:
                raise ConfigurationError(f"shapes has '{name}', which is no input of the file.", f"of {sorted(self.inputs)}")
            info = self.inputs[name]
            if tuple(shape) != info.shape:
                sizes = (ctypes.c_int * len(shape))(*shape)
                self._call("LiteRtCompiledModelResizeInputTensorNonStrict", self._model, SIZE(0), SIZE(info.index), sizes, SIZE(len(shape)))
                self.inputs[name] = dataclasses.replace(info, shape=tuple(shape))
        if shapes:
            layouts = (Layout * len(self.outputs))()
            get = "LiteRtGetCompiledModelOutputTensorLayouts"
            self._call(get, self._model, SIZE(0), SIZE(len(layouts)), layouts, ctypes.c_bool(True))
            for layout, (name, info) in zip(layouts, list(self.outputs.items()), strict=True):
                self.outputs[name] = dataclasses.replace(info, shape=tuple(layout.dimensions[: layout.rank & _RANK]))
