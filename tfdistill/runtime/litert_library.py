"""LiteRT's C interface by ctypes: how its functions are called, and what models of all kinds share.

The types are those of `litert/c/*.h`, whose layouts LiteRT declares stable. A wrong call ends the process, so this module is used in isolated processes only.
"""

import ctypes
import importlib.util
import pathlib

import numpy as np

from tfdistill.errors import RuntimeUnavailableError

HANDLE, SIZE = ctypes.c_void_p, ctypes.c_size_t
# LiteRtHwAccelerators, and what a `LiteRtEnvOption` of each tag says.
CPU, GPU, NPU = 1, 2, 4
COMPILER_FOLDER, DISPATCH_FOLDER, RUNTIME_FOLDER, REGISTERED_ACCELERATORS = 0, 1, 22, 24
_READ, _WRITE = 0, 1  # LiteRtTensorBufferLockMode
_NUMBER, _TEXT = 2, 8  # LiteRtAnyType
# LiteRtElementType of a NumPy type.
_ELEMENTS = {"float32": 1, "int32": 2, "uint8": 3, "int64": 4, "bool": 6, "int16": 7, "int8": 9, "float16": 10, "float64": 11, "uint32": 16}


class Layout(ctypes.Structure):
    """LiteRtLayout. The highest bit of the rank says whether there are strides."""

    _fields_ = [("rank", ctypes.c_uint), ("dimensions", ctypes.c_int32 * 8), ("strides", ctypes.c_uint32 * 8)]


class TensorType(ctypes.Structure):
    """LiteRtRankedTensorType."""

    _fields_ = [("element", ctypes.c_int), ("layout", Layout)]


class _Setting(ctypes.Structure):
    """A LiteRtEnvOption: the tag, and the LiteRtAny of the value, whose union is as wide as a pointer."""

    _fields_ = [("tag", ctypes.c_int), ("kind", ctypes.c_int64), ("value", HANDLE)]


class LiteRtCalls:
    """Calls LiteRT's functions. A base class of models.

    Raises:
        RuntimeUnavailableError: if LiteRT or a function of it is missing, or a call fails; the message names the call.
    """

    def __init__(self):
        self._library = load_library()

    def _call(self, name, *arguments):
        try:
            function = getattr(self._library, name)
        except AttributeError as error:
            raise RuntimeUnavailableError(f"This LiteRT has no {name}.", "a newer ai-edge-litert") from error
        function.restype = ctypes.c_int
        status = function(*arguments)
        if status:
            raise RuntimeUnavailableError(f"LiteRT's {name} failed with status {status}.")

    def _environment(self, values):
        """Makes an environment; `values` is a dict of tag to folder or number."""
        made, settings, texts = HANDLE(), (_Setting * max(len(values), 1))(), []
        for setting, (tag, value) in zip(settings, values.items(), strict=False):
            setting.tag, setting.kind = tag, _NUMBER if isinstance(value, int) else _TEXT
            if isinstance(value, int):
                setting.value = value
            else:
                texts.append(ctypes.create_string_buffer(str(value).encode()))
                setting.value = ctypes.addressof(texts[-1])
        self._call("LiteRtCreateEnvironment", len(values), settings, ctypes.byref(made))
        return made

    def _model_file(self, environment, path):
        made = HANDLE()
        self._call("LiteRtCreateModelFromFile", environment, str(path).encode(), ctypes.byref(made))
        return made

    def _options(self, accelerators):
        made = HANDLE()
        self._call("LiteRtCreateOptions", ctypes.byref(made))
        self._call("LiteRtSetOptionsHardwareAccelerators", made, accelerators)
        return made

    def _add_options(self, options, identifier, text):
        # LiteRT frees the text with the function that it is given.
        libc, made = ctypes.CDLL(None), HANDLE()
        libc.strdup.restype, libc.strdup.argtypes = HANDLE, [ctypes.c_char_p]
        copy = HANDLE(libc.strdup(text.encode()))
        self._call("LiteRtCreateOpaqueOptions", identifier.encode(), copy, ctypes.cast(libc.free, HANDLE), ctypes.byref(made))
        self._call("LiteRtAddOpaqueOptions", options, made)

    def _compiled(self, environment, model, options):
        made = HANDLE()
        self._call("LiteRtCreateCompiledModel", environment, model, options, ctypes.byref(made))
        return made

    def _names(self, model, side, count):
        """Lists the names of the inputs or outputs of the first signature, in LiteRT's order."""
        signature, name, found = HANDLE(), ctypes.c_char_p(), []
        self._call("LiteRtGetModelSignature", model, SIZE(0), ctypes.byref(signature))
        for index in range(count):
            self._call(f"LiteRtGetSignature{side}Name", signature, SIZE(index), ctypes.byref(name))
            found.append(name.value.decode())
        return found

    def _buffer(self, environment, side, index, dtype, shape):
        requirements, buffer, kind = HANDLE(), HANDLE(), TensorType()
        if np.dtype(dtype).name not in _ELEMENTS or len(shape) > len(kind.layout.dimensions):
            raise RuntimeUnavailableError(f"{side} {index} is {dtype} of shape {tuple(shape)}, which LiteRT's buffers do not hold.")
        kind.element, kind.layout.rank = _ELEMENTS[np.dtype(dtype).name], len(shape)
        kind.layout.dimensions[: len(shape)] = [int(size) for size in shape]
        get = f"LiteRtGetCompiledModel{side}BufferRequirements"
        self._call(get, self._model, SIZE(0), SIZE(index), ctypes.byref(requirements))
        make = "LiteRtCreateManagedTensorBufferFromRequirements"
        self._call(make, environment, ctypes.byref(kind), requirements, ctypes.byref(buffer))
        return buffer

    def _fill(self, buffer, array):
        address, array = HANDLE(), np.ascontiguousarray(array)
        self._call("LiteRtLockTensorBuffer", buffer, ctypes.byref(address), _WRITE)
        ctypes.memmove(address, array.ctypes.data, array.nbytes)
        self._call("LiteRtUnlockTensorBuffer", buffer)

    def _read(self, buffer, dtype, shape):
        """Copies a buffer into an array; waits until what writes it has finished."""
        address, array = HANDLE(), np.empty(shape, dtype)
        self._call("LiteRtLockTensorBuffer", buffer, ctypes.byref(address), _READ)
        ctypes.memmove(array.ctypes.data, address, array.nbytes)
        self._call("LiteRtUnlockTensorBuffer", buffer)
        return array

    def _run(self, inputs, outputs):
        sides = [(SIZE(len(side)), (HANDLE * len(side))(*side)) for side in (inputs, outputs)]
        self._call("LiteRtRunCompiledModel", self._model, SIZE(0), *sides[0], *sides[1])


def element_name(number):
    """Returns the NumPy name of a LiteRtElementType; what NumPy does not have is named by its number."""
    return next((name for name, element in _ELEMENTS.items() if element == number), f"type {number}")


def package_folder():
    """Returns the folder of the installed ai-edge-litert.

    Raises:
        RuntimeUnavailableError: if it is not installed.
    """
    spec = importlib.util.find_spec("ai_edge_litert")
    folder = spec and pathlib.Path(next(iter(spec.submodule_search_locations)))
    if not folder or not (folder / "libLiteRt.so").is_file():
        raise RuntimeUnavailableError("LiteRT's library is not installed.", "ai-edge-litert", "pip install ai-edge-litert")
    return folder


def load_library():
    """Loads LiteRT's library.

    Raises:
        RuntimeUnavailableError: if it is not installed.
    """
    return ctypes.CDLL(str(package_folder() / "libLiteRt.so"))
