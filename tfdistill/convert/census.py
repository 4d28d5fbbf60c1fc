"""Reads the contents of a .tflite file without running it: operations, types, and every float tensor with the operation that writes it."""

import collections
import dataclasses
import math
from collections.abc import Callable

from tfdistill.convert.file_kernels import FileKernel, kernels_in
from tfdistill.convert.file_tensors import FileTensor, listed
from tfdistill.convert.parsed_file import ParsedFile
from tfdistill.errors import ExportError
from tfdistill.records import Record
from tfdistill.runtime.interpreter import ModelFile, read_file
from tfdistill.runtime.probe import probe
from tfdistill.runtime.schema import schema
from tfdistill.runtime.structure import check_structure
from tfdistill.utils.types import PathLike

FLOAT_TYPES = frozenset({"float16", "bfloat16", "float32", "float64", "complex64", "complex128"})
# Operations that only convert between the type of the file's inputs or outputs and its integers.
TRANSLATORS = frozenset({"QUANTIZE", "DEQUANTIZE"})


@dataclasses.dataclass(frozen=True)
class OpCount(Record):
    """One kind of operation.

    Attributes:
        name: TFLite's name, for example `CONV_2D`; for a custom operation its own name.
        version: Version of the operation. An old runtime may lack it.
        count: Number of occurrences.
        custom: Whether it is not one of TFLite's built-in operations.
        flex: Whether it needs the TensorFlow runtime.
    """

    name: str
    version: int
    count: int
    custom: bool
    flex: bool


@dataclasses.dataclass(frozen=True)
class FloatTensor(Record):
    """A tensor of a floating-point type.

    Attributes:
        name: Name in the file.
        dtype: Type, for example `float32`.
        shape: Shape.
        made_by: `input`, `constant`, `nothing`, or the operation that writes it.
        used_by: The operations that read it, and `output` if it is one.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    made_by: str
    used_by: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class CensusRecord(Record):
    """The contents of a .tflite file, as `census` counts them.

    Attributes:
        path: The file.
        size_bytes: Size of the file.
        sha256: SHA-256 of the file, in hexadecimal digits.
        ops: Kinds of operations, most frequent first.
        dtypes: Type -> number of tensors.
        weights: Number of constant elements (weights, biases, shapes).
        weights_bytes: Size of the constants.
        subgraphs: Number of graphs; more than one means loops or branches.
        float_tensors: Every tensor of a floating-point type.
        min_runtime_version: Oldest TFLite runtime that has all operations, as the converter wrote it; empty if it did not.
        inputs: The inputs in the order of the file, with scale and zero point.
        outputs: The outputs likewise.
        kernels: The weights of the operations, with the bits of each.

    Example:
        >>> record = tfdistill.census("student.tflite")
        >>> [op.name for op in record.ops]
        ['CONV_2D', 'MEAN', 'FULLY_CONNECTED']
        >>> record.dtypes
        {'int32': 3, 'int8': 6}
    """

    path: str
    size_bytes: int
    sha256: str
    ops: tuple[OpCount, ...]
    dtypes: dict[str, int]
    weights: int
    weights_bytes: int
    subgraphs: int
    float_tensors: tuple[FloatTensor, ...]
    min_runtime_version: str
    inputs: tuple[FileTensor, ...] = ()
    outputs: tuple[FileTensor, ...] = ()
    kernels: tuple[FileKernel, ...] = ()

    @property
    def flex_ops(self) -> tuple[str, ...]:
        """Names of the operations that need the TensorFlow runtime."""
        return tuple(op.name for op in self.ops if op.flex)

    def stray_floats(self, float_io: bool = False, by_intention: Callable[[str], bool] | None = None) -> tuple[FloatTensor, ...]:
        """Lists the float tensors that an integer file must not hold.

        Empty tensors that no operation reads or writes (a fused LSTM has four) are not listed, because they never hold data.

        Args:
            float_io: Whether the inputs and outputs of the file may be float, next to the QUANTIZE or DEQUANTIZE that converts them.
            by_intention: Function of a tensor's name: whether it belongs to a layer that computes in float by the user's choice. Constants and results of DEQUANTIZE
                are then judged by the operations that read them. None if there is no such layer.

        Returns:
            Tuple of `FloatTensor`.
        """

        def allowed(tensor):
            if by_intention and (tensor.made_by in ("constant", "DEQUANTIZE") or by_intention(tensor.name)):
                return True
            return _is_placeholder(tensor) or (float_io and _translated(tensor))

        return tuple(t for t in self.float_tensors if not allowed(t))


def _is_placeholder(tensor):
    return tensor.made_by == "nothing" and not tensor.used_by and math.prod(tensor.shape) == 0


def _translated(tensor):
    as_input = tensor.made_by == "input" and set(tensor.used_by) <= TRANSLATORS
    as_output = tensor.made_by in TRANSLATORS and tensor.used_by == ("output",)
    return as_input or as_output


def census(path: PathLike | ModelFile, trusted: bool = False) -> CensusRecord:
    """Counts the operations, tensors and types of a .tflite file.

    The file is parsed in another process, because a damaged file can make its parser loop or use up the memory.

    Args:
        path: The file, or a `tfdistill.runtime.interpreter.ModelFile`.
        trusted: Whether to parse the file in this process. Only for a file that the caller has just written.

    Returns:
        A `CensusRecord`.

    Raises:
        ConfigurationError: if there is no such file.
        ExportError: if it is not a complete .tflite file.

    Example:
        >>> record = tfdistill.census("student.tflite")
        >>> record.ops[0].name, record.flex_ops
        ('CONV_2D', ())
    """
    file = read_file(path)
    if trusted:
        try:
            found = count_content(file.content, None)
        except Exception as error:  # flatbuffers does not validate: a truncated file fails anywhere in the parser
            raise read_error(file)(error) from error
    else:
        found = probe(file, "tfdistill.convert.census:count_content", None, read_error(file))
    return CensusRecord.from_dict({"path": str(file.path), "size_bytes": len(file.content), "sha256": file.sha256, **found})


def read_error(file):
    """Returns a function that makes the error of an unreadable file, a `ModelFile`, from its cause, as `probe` takes it."""

    def make(cause, log="", fix=None):
        name = f"'{file.path}' ({len(file.content)} bytes)"
        if isinstance(cause, ExportError):
            what = f"{name} {cause.happened.removeprefix('It ')}"
        else:
            what = f"{name} cannot be read: {cause}" + (f"\nIt said:\n{log}" if log else "")
        return ExportError(what, "a whole .tflite file", fix or "write it again")

    return make


def count_content(content, settings):
    """Counts the contents of a file; the part of `census` that may run in another process.

    Args:
        content: The file as bytes.
        settings: Not used.

    Returns:
        Dict of the fields of `CensusRecord` as JSON values, without `path`, `size_bytes` and `sha256`.
    """
    check_structure(content)
    classes = schema()
    try:
        return _count(classes.ModelT.InitFromObj(classes.Model.GetRootAs(content, 0)), classes)
    except Exception as error:  # check_structure does not check the options of operations
        raise ExportError(f"It is damaged: {type(error).__name__}: {error}.") from error


def warm_up(settings):
    """Imports what `count_content` needs, before the helper forks."""
    schema()


def _count(model, classes):
    type_names = {value: name.lower() for name, value in vars(classes.TensorType).items() if isinstance(value, int)}
    codes = [op_code(code, classes) for code in model.operatorCodes or []]
    operations, dtypes, floats = collections.Counter(), collections.Counter(), []
    constant, constant_bytes = 0, {}
    for graph in model.subgraphs:
        readers, makers = collections.defaultdict(list), {}
        for operator in graph.operators or []:
            operations[codes[operator.opcodeIndex]] += 1
            name = codes[operator.opcodeIndex][0]
            for index in _listed(operator.inputs):
                readers[index].append(name)
            for index in _listed(operator.outputs):
                makers[index] = name
        for index in _listed(graph.inputs):
            makers[index] = "input"
        for index in _listed(graph.outputs):
            readers[index].append("output")
        for index, tensor in enumerate(graph.tensors or []):
            dtype, shape = type_names[tensor.type], tuple(int(size) for size in _listed(tensor.shape))
            dtypes[dtype] += 1
            content = model.buffers[tensor.buffer].data
            if content is not None and len(content):
                constant += math.prod(shape)
                constant_bytes[tensor.buffer] = len(content)  # tensors may share a buffer
                makers.setdefault(index, "constant")
            if dtype in FLOAT_TYPES:
                name = (tensor.name or b"").decode("utf-8", errors="replace")
                floats.append(FloatTensor(name, dtype, shape, makers.get(index, "nothing"), tuple(readers[index])))
    return {
        "ops": [OpCount(name, version, count, custom, flex).to_dict() for (name, version, custom, flex), count in operations.most_common()],
        "dtypes": dict(sorted(dtypes.items())),
        "weights": constant,
        "weights_bytes": sum(constant_bytes.values()),
        "subgraphs": len(model.subgraphs),
        "float_tensors": [tensor.to_dict() for tensor in floats],
        "min_runtime_version": _min_runtime_version(model),
        "inputs": [tensor.to_dict() for tensor in listed(model, type_names, "inputs")],
        "outputs": [tensor.to_dict() for tensor in listed(model, type_names, "outputs")],
        "kernels": [kernel.to_dict() for kernel in kernels_in(ParsedFile(model, classes))],
    }


def _listed(values):
    return [] if values is None else list(values)


def op_code(code, classes):
    """Returns name, version, and whether it is custom and of full TensorFlow, of an `OperatorCodeT`."""
    # Codes below 127 stand in the old field too; newer ones in the new field only.
    number = max(code.builtinCode or 0, code.deprecatedBuiltinCode or 0)
    if number == classes.BuiltinOperator.CUSTOM:
        name = (code.customCode or b"CUSTOM").decode("utf-8", errors="replace")
        return name, code.version, True, name.startswith("Flex")
    names = {value: name for name, value in vars(classes.BuiltinOperator).items() if isinstance(value, int)}
    return names.get(number, f"BUILTIN_{number}"), code.version, False, False


def _min_runtime_version(model):
    for entry in model.metadata or []:
        if entry.name == b"min_runtime_version":
            content = model.buffers[entry.buffer].data
            return bytes(bytearray(content)).split(b"\0")[0].decode("ascii", errors="replace") if content is not None else ""
    return ""


def require_integer(record, float_io=False, by_intention=None, fix=None):
    """Checks that a file computes in integers only.

    Args:
        record: The file's `CensusRecord`.
        float_io: Whether its inputs and outputs may be float.
        by_intention: As in `CensusRecord.stray_floats`.
        fix: What to do about it, where more is known of how the file was made.

    Raises:
        ExportError: if there is a float tensor; the message lists each with the operation that writes it.
    """
    stray = record.stray_floats(float_io, by_intention)
    if stray:
        raise ExportError(
            f"'{record.path}' should hold integers only, but has {len(stray)} float tensors:\n" + _listing(stray),
            "integer tensors only" + (", but for float inputs and outputs" if float_io else ""),
            fix or "leave these layers out or replace them, or export as dynamic_range or float16",
        )


def require_no_flex(record):
    """Checks that a file runs without the TensorFlow runtime.

    Raises:
        ExportError: if it holds Flex operations; the message lists them.
    """
    if record.flex_ops:
        raise ExportError(
            f"'{record.path}' holds operations that only full TensorFlow has: {', '.join(record.flex_ops)}.",
            "TFLite's own operations only",
            "replace the layers that they come from, set batch_size to a number, or export with allow_flex=True",
        )


def _listing(tensors, most=20):
    lines = [f"  {t.made_by} -> '{t.name}' {t.dtype}{list(t.shape)} -> {', '.join(t.used_by) or 'nothing'}" for t in tensors[:most]]
    if len(tensors) > most:
        lines.append(f"  and {len(tensors) - most} more")
    return "\n".join(lines)
