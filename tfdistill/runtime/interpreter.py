"""Opens .tflite files with ai-edge-litert, else tflite-runtime, else TensorFlow's interpreter.

TensorFlow is imported only if neither of the others is installed, so that measuring processes and small boards can use this module.
"""

import dataclasses
import functools
import hashlib
import importlib
import importlib.util
import pathlib
import time

from tfdistill.errors import ConfigurationError, ExportError, RuntimeUnavailableError, nearest
from tfdistill.runtime import tensorflow_lite
from tfdistill.runtime.capture import quiet_interpreter
from tfdistill.runtime.delegated import delegation
from tfdistill.runtime.model import TFLiteModel
from tfdistill.runtime.structure import check_structure
from tfdistill.runtime.tensors import TensorInfo, sample_inputs, tensor_names
from tfdistill.utils import validate

__all__ = ["ENGINES", "ModelFile", "TFLiteModel", "TensorInfo", "engine_name", "open_file", "read_file"]

# Import names of the packages with an interpreter, the preferred one first.
ENGINES = ("ai_edge_litert", "tflite_runtime", "tensorflow")
# What runs operations on the CPU -> name of the interpreter's `OpResolverType`: XNNPACK where it can, or the interpreter's own kernels, fast or plain ones.
KERNELS = {"xnnpack": "AUTO", "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "reference": "BUILTIN_REF"}

# A file whose first trial takes longer is not tried a second time.
_SLOW_SECONDS = 1.0


def engine_name():
    """Returns the import name of the interpreter that `open_file` uses by default.

    Raises:
        RuntimeUnavailableError: if none is installed.
    """
    for name in ENGINES:
        if importlib.util.find_spec(name) is not None:
            return name
    raise RuntimeUnavailableError("No TFLite interpreter is installed.", f"one of {', '.join(ENGINES)}", "pip install ai-edge-litert")


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """The bytes of a .tflite file, read once, so that all checks and interpreters see the same content.

    Attributes:
        path: The file.
        content: Its bytes.
    """

    path: pathlib.Path
    content: bytes = dataclasses.field(repr=False)

    @functools.cached_property
    def sha256(self):
        """SHA-256 of the content, in hexadecimal digits."""
        return hashlib.sha256(self.content).hexdigest()


def read_file(path):
    """Reads a .tflite file into a `ModelFile`; a `ModelFile` is returned unchanged.

    Raises:
        ConfigurationError: if there is no such file, or it cannot be read.
    """
    if isinstance(path, ModelFile):
        return path
    path = pathlib.Path(path)
    if not path.is_file():
        raise ConfigurationError(f"There is no file '{path}'.", "a .tflite file")
    try:
        return ModelFile(path, path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"The file '{path}' cannot be read: {error.strerror}.", "a .tflite file") from error


def open_file(
    path,
    threads=1,
    xnnpack=True,
    batch_size=None,
    engine=None,
    *,
    kernels=None,
    shapes=None,
    trusted=False,
    keep_tensors=False,
    delegates=(),
):
    """Opens a .tflite file and allocates its tensors.

    A damaged or hostile file can crash or hang the process that opens it. So another process first opens it with the same engine and
    settings and runs it on zeros, and on random numbers if that takes less than a second. If that process fails, this function raises;
    otherwise it opens the same bytes in this process. The trial takes some milliseconds, once for each content and settings. It does not
    detect a file that fails only on chosen inputs.

    Args:
        path: The file, or a `ModelFile`.
        threads: CPU threads, at least 1.
        xnnpack: Whether XNNPACK runs the operations that it supports; False runs the built-in kernels.
        batch_size: Batch size to resize every input to, at least 1; None keeps that of the file.
        engine: One of `ENGINES`; None takes the first that is installed.
        kernels: One of `KERNELS`; None is `"xnnpack"` or `"builtin"`, as `xnnpack` says.
        shapes: Dict of input name -> full shape, batch included, to resize these inputs to, for inputs without a fixed size. Other inputs
            keep their shapes. Not together with `batch_size`.
        trusted: Whether to skip the trial and map the file from the disk. Only for a file that the caller has just written, or in a process
            that may crash.
        keep_tensors: Whether every tensor keeps its memory, so that `TFLiteModel.read_tensors` finds what was computed there. What XNNPACK takes is not
            kept: with `xnnpack=False` all is.
        delegates: External delegates of that engine, in their order; they come before XNNPACK. Only for a trusted file.

    Returns:
        A `TFLiteModel`.

    Raises:
        ConfigurationError: for a missing file or an impossible argument.
        RuntimeUnavailableError: if the interpreter is not installed, rejects the file, crashes on it or exceeds the time limit; with its
            message.
    """
    if threads < 1:
        raise ConfigurationError(f"threads={threads} is impossible.", "at least 1 thread")
    if batch_size is not None and batch_size < 1:
        raise ConfigurationError(f"batch_size={batch_size} is impossible.", "at least 1, or None for the file's own")
    if batch_size is not None and shapes is not None:
        raise ConfigurationError(f"batch_size={batch_size} and shapes={shapes} contradict each other.", "one of them")
    shapes = None if shapes is None else {name: checked_shape(name, shape) for name, shape in shapes.items()}
    engine = engine or engine_name()
    if engine not in ENGINES:
        raise ConfigurationError(f"There is no engine '{engine}'.", f"one of {', '.join(ENGINES)}", nearest(engine, ENGINES))
    if kernels is not None and kernels not in KERNELS:
        raise ConfigurationError(f"There are no kernels '{kernels}'.", f"one of {', '.join(KERNELS)}", nearest(str(kernels), KERNELS))
    settings = {
        "threads": threads,
        "kernels": kernels or ("xnnpack" if xnnpack else "builtin"),
        "batch_size": batch_size,
        "engine": engine,
        "shapes": shapes,
        "keep_tensors": keep_tensors,
    }
    if trusted:
        path = path.path if isinstance(path, ModelFile) else pathlib.Path(path)
        if not path.is_file():
            raise ConfigurationError(f"There is no file '{path}'.", "a .tflite file")
        source, size = {"model_path": str(path)}, path.stat().st_size
    else:
        from tfdistill.runtime.probe import probe  # not needed in the process that tries files

        file = read_file(path)
        path, size, source = file.path, len(file.content), {"model_content": file.content}
        probe(file, "tfdistill.runtime.interpreter:try_content", settings, _open_error(engine, path, size))
    try:
        with quiet_interpreter(engine):
            return _open(path, source, settings, delegates)
    except Exception as error:  # the exception class depends on the native code
        raise _open_error(engine, path, size)(error) from error


def try_content(content, settings):
    """Opens and runs a file, in a process that may crash; the part of `open_file` that runs in the other process.

    Args:
        content: The file as bytes.
        settings: The arguments of `open_file`.
    """
    check_structure(content)
    opened = _open(pathlib.Path(), {"model_content": content}, settings)
    for seed in (None, 0):
        began = time.perf_counter()
        opened.reset()
        opened.set_inputs(sample_inputs(opened.inputs, seed))
        opened.interpreter.invoke()
        opened.read_outputs()
        if time.perf_counter() - began > _SLOW_SECONDS:
            break


def warm_up(settings):
    """Imports what `try_content` needs, before the helper forks."""
    importlib.import_module("numpy.random")  # NumPy imports it at the first use only
    interpreter_class(settings["engine"])


def checked_shape(name, shape):
    """Returns the shape of an input as a list of integers.

    Raises:
        ConfigurationError: if a size is not an integer of at least 1; the message names the input.
    """
    if not all(validate.is_whole_number(size, 1) for size in shape):
        raise ConfigurationError(f"shapes={{'{name}': {shape}}} is impossible.", "whole numbers, at least 1")
    return [int(size) for size in shape]


def _open_error(engine, path, size):
    """Returns a function that makes the error of a file that cannot be opened from its cause."""

    def make(cause, log="", fix=None):
        if isinstance(cause, ConfigurationError):  # shapes that do not fit the file
            return ConfigurationError(f"'{path}': {cause.happened}", cause.expected, cause.fix)
        cause = cause.happened if isinstance(cause, (ExportError, RuntimeUnavailableError)) else cause
        return RuntimeUnavailableError(
            f"{engine} cannot open '{path}' ({size} bytes): {cause}" + (f"\nIt said:\n{log}" if log else ""),
            "a whole .tflite file whose operations this interpreter has",
            fix,
        )

    return make


def _open(path, source, settings, delegates=()):
    options, make = {"num_threads": settings["threads"]}, interpreter_class(settings["engine"])
    if settings["keep_tensors"]:
        options["experimental_preserve_all_tensors"] = True
    if settings["kernels"] != "xnnpack":
        options["experimental_op_resolver_type"] = getattr(_resolver_types(settings["engine"]), KERNELS[settings["kernels"]])
    if delegates:
        options["experimental_delegates"] = list(delegates)
    began = time.perf_counter()
    interpreter = make(**source, **options)
    seconds = time.perf_counter() - began
    first = delegation(interpreter) if delegates else None  # XNNPACK comes when tensors are allocated
    began = time.perf_counter()
    for index, shape in _new_shapes(interpreter, settings["batch_size"], settings["shapes"]):
        interpreter.resize_tensor_input(index, shape)
    interpreter.allocate_tensors()
    return TFLiteModel(path, interpreter, settings["engine"], seconds + time.perf_counter() - began, first)


def _new_shapes(interpreter, batch_size, shapes):
    details = {int(d["index"]): d for d in interpreter.get_input_details()}
    if batch_size is not None:
        return [(index, [batch_size, *d["shape"][1:]]) for index, d in details.items()]
    if shapes is None:
        return []
    names, resized = tensor_names(interpreter, "input", details), []
    for name, shape in shapes.items():
        if name not in names:
            raise ConfigurationError(f"shapes has '{name}', which is no input of the file.", f"of {sorted(names)}", nearest(name, names))
        index = names[name]
        declared = details[index].get("shape_signature", details[index]["shape"])
        if len(declared) != len(shape) or any(d > 0 and d != s for d, s in zip(declared[1:], shape[1:], strict=True)):
            expected = tuple(None if d < 0 else int(d) for d in declared)
            raise ConfigurationError(f"shapes={{'{name}': {tuple(shape)}}} does not fit the file.", f"{expected}, None being any size")
        resized.append((index, shape))
    return resized


def interpreter_class(engine):
    """Imports one of `ENGINES` and returns its `Interpreter`."""
    return tensorflow_lite.interpreter_class() if engine == "tensorflow" else importlib.import_module(f"{engine}.interpreter").Interpreter


def _resolver_types(engine):
    return tensorflow_lite.resolver_types() if engine == "tensorflow" else importlib.import_module(f"{engine}.interpreter").OpResolverType
