"""The only door to a TFLite interpreter: ai-edge-litert, else tflite-runtime, else TensorFlow's own.

Nothing here imports TensorFlow unless it is the only one there, so this file also serves a process that measures, and a small board.
"""

import dataclasses
import functools
import hashlib
import importlib
import importlib.util
import pathlib
import time

import numpy as np

from tfdistill.errors import ConfigurationError, ExportError, RuntimeUnavailableError, nearest
from tfdistill.runtime.capture import quiet_interpreter
from tfdistill.runtime.model import TFLiteModel
from tfdistill.runtime.structure import check_structure
from tfdistill.runtime.tensors import TensorInfo, sample_inputs, tensor_names

__all__ = ["ENGINES", "ModelFile", "TFLiteModel", "TensorInfo", "engine_name", "open_file", "read_file"]

# Best first: import name -> where its Interpreter and OpResolverType are.
ENGINES = {
    "ai_edge_litert": ("ai_edge_litert.interpreter", "ai_edge_litert.interpreter"),
    "tflite_runtime": ("tflite_runtime.interpreter", "tflite_runtime.interpreter"),
    "tensorflow": ("tensorflow.lite", "tensorflow.lite.experimental"),
}

# A file whose first trial took longer is not tried a second time.
_SLOW_SECONDS = 1.0


def engine_name():
    """Returns the import name of the interpreter that `open_file` takes.

    Raises:
        RuntimeUnavailableError: if none is installed.
    """
    for name in ENGINES:
        if importlib.util.find_spec(name) is not None:
            return name
    raise RuntimeUnavailableError("No TFLite interpreter is installed.", f"one of {', '.join(ENGINES)}", "pip install ai-edge-litert")


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """The bytes of a .tflite file, read once. What is checked, opened, and opened again for another batch is one and the same.

    Attributes:
        path: Where it was read from.
        content: Its bytes.
    """

    path: pathlib.Path
    content: bytes = dataclasses.field(repr=False)

    @functools.cached_property
    def sha256(self):
        """Its digest."""
        return hashlib.sha256(self.content).hexdigest()


def read_file(path):
    """Reads a .tflite file into a `ModelFile`; one that is read already is passed through.

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


def open_file(path, threads=1, xnnpack=True, batch_size=None, engine=None, *, shapes=None, trusted=False):
    """Opens a .tflite file and allocates its tensors.

    A damaged or hostile file can crash the process that opens it, or never come back. So another process opens it first, on the same engine and
    settings, and runs it on zeros, and on random numbers if that took less than a second; what becomes of that process is the error here. This process then opens the very
    bytes that were tried. It costs some milliseconds, once for each content and settings. A file made to fail on chosen inputs alone is not found out.

    Args:
        path: The file, or a `ModelFile`.
        threads: CPU threads, at least 1.
        xnnpack: Whether XNNPACK may take the nodes it can; False runs the plain built-in kernels.
        batch_size: Resize every input to this batch first; None keeps the file's own.
        engine: One of `ENGINES`; None takes the first that is installed.
        shapes: Dict of input name -> full shape, batch included, to resize these inputs to: for inputs without a fixed size. The others keep their
            shapes. Not together with `batch_size`.
        trusted: Whether the file is opened at once, mapped from the disk: only for a file that the caller itself wrote just now, or in a process that
            may crash.

    Returns:
        A `TFLiteModel`.

    Raises:
        ConfigurationError: for a missing file or an impossible argument.
        RuntimeUnavailableError: if the interpreter is missing, refuses the file, crashes on it or does not end; the message holds what it said.
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
    settings = {"threads": threads, "xnnpack": xnnpack, "batch_size": batch_size, "engine": engine, "shapes": shapes}
    if trusted:
        path = path.path if isinstance(path, ModelFile) else pathlib.Path(path)
        if not path.is_file():
            raise ConfigurationError(f"There is no file '{path}'.", "a .tflite file")
        source, size = {"model_path": str(path)}, path.stat().st_size
    else:
        from tfdistill.runtime.probe import probe  # of no use in the process that tries files

        file = read_file(path)
        path, size, source = file.path, len(file.content), {"model_content": file.content}
        probe(file, "tfdistill.runtime.interpreter:try_content", settings, _refused(engine, path, size))
    try:
        with quiet_interpreter(engine):
            return _open(path, source, settings)
    except Exception as error:  # native wrappers raise whatever fits their C++; all of it is the same failure to the caller
        raise _refused(engine, path, size)(error) from error


def try_content(content, settings):
    """Opens and runs a file, in a process that may crash: the other end of `open_file`.

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
    """Imports what `try_content` needs, once for many files."""
    importlib.import_module("numpy.random")  # which NumPy itself imports at the first use
    _attribute(ENGINES[settings["engine"]][0], "Interpreter")


def checked_shape(name, shape):
    """Returns a shape of an input as a list of whole numbers.

    Raises:
        ConfigurationError: naming the input, if a size is none.
    """
    if not all(isinstance(size, (int, np.integer)) and not isinstance(size, bool) and size > 0 for size in shape):
        raise ConfigurationError(f"shapes={{'{name}': {shape}}} is impossible.", "whole numbers, at least 1")
    return [int(size) for size in shape]


def _refused(engine, path, size):
    """Returns a function that makes the error of a file that cannot be opened from its cause."""

    def make(cause, said="", fix=None):
        if isinstance(cause, ConfigurationError):  # shapes that are none of the file's
            return ConfigurationError(f"'{path}': {cause.happened}", cause.expected, cause.fix)
        cause = cause.happened if isinstance(cause, (ExportError, RuntimeUnavailableError)) else cause
        return RuntimeUnavailableError(
            f"{engine} cannot open '{path}' ({size} bytes): {cause}" + (f"\nIt said:\n{said}" if said else ""),
            "a whole .tflite file whose operations this interpreter has",
            fix,
        )

    return make


def _open(path, source, settings):
    where, resolvers = ENGINES[settings["engine"]]
    options, make = {"num_threads": settings["threads"]}, _attribute(where, "Interpreter")
    if not settings["xnnpack"]:
        kind = _attribute(resolvers, "OpResolverType")
        options["experimental_op_resolver_type"] = kind.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    began = time.perf_counter()
    interpreter = make(**source, **options)
    for index, shape in _new_shapes(interpreter, settings["batch_size"], settings["shapes"]):
        interpreter.resize_tensor_input(index, shape)
    interpreter.allocate_tensors()
    return TFLiteModel(path, interpreter, settings["engine"], time.perf_counter() - began)


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
            wanted = tuple(None if d < 0 else int(d) for d in declared)
            raise ConfigurationError(f"shapes={{'{name}': {tuple(shape)}}} does not fit the file.", f"{wanted}, None being any size")
        resized.append((index, shape))
    return resized


def _attribute(dotted, name):
    # TensorFlow makes its submodules attributes, not importable modules.
    package, _, rest = dotted.partition(".")
    found = importlib.import_module(package if package == "tensorflow" else dotted)
    for part in rest.split(".") if package == "tensorflow" else ():
        found = getattr(found, part)
    return getattr(found, name)
