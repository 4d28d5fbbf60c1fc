"""Shows what is in a .tflite file, from wherever it comes, without running it."""

import dataclasses

from tfdistill.convert.census import CensusRecord, read_error
from tfdistill.convert.unaligned import next_multiple
from tfdistill.records import Record
from tfdistill.runtime.interpreter import ModelFile, read_file
from tfdistill.runtime.operations import TARGETS, TYPES, operation_table
from tfdistill.runtime.probe import probe
from tfdistill.runtime.versions import RUNTIMES
from tfdistill.tflite.metadata.read import FileDescription
from tfdistill.tflite.runtimes import refused_by
from tfdistill.utils.types import PathLike


@dataclasses.dataclass(frozen=True)
class FileOperation(Record):
    """One operation of a .tflite file.

    Attributes:
        graph: Index of its graph; those after 0 are the bodies of loops and branches.
        index: Its position in the graph: the order in which operations run.
        name: TFLite's name, for example `CONV_2D`; for a custom operation its own name.
        version: Version of the operation. An old runtime may lack it.
        kind: Type that it computes with: `float32`, `int8`, `int16`, `dynamic` (floats, with 8-bit weights) or another type's name.
        output: Name of the first tensor that it writes.
        shape: Shape of that tensor.
        reads: Indices of the operations whose results it reads.
        macs: Multiply-accumulates; None where they are not counted, as in operations without a kernel.
        weights_bytes: Bytes of the constants that it reads. A constant that several read counts for the first.
        targets: Target -> whether it takes the operation (`tfdistill.runtime.operations`); None where it is not known.

    Example:
        >>> operation = tfdistill.inspect("student.tflite").operations[0]
        >>> operation.name, operation.kind, operation.targets["xnnpack"]
        ('CONV_2D', 'int8', True)
    """

    graph: int
    index: int
    name: str
    version: int
    kind: str
    output: str
    shape: tuple[int, ...]
    reads: tuple[int, ...]
    macs: int | None
    weights_bytes: int
    targets: dict[str, bool | None]


@dataclasses.dataclass(frozen=True)
class FloatIsland(Record):
    """Neighbouring operations that compute in floats in a file that computes in integers elsewhere.

    Attributes:
        graph: Index of the graph.
        operations: Indices of the operations.
        names: Their names.
        first: Name of the tensor that the first of them writes, which has the name of the layer.

    Example:
        >>> tfdistill.inspect("student.tflite").float_islands  # none in a file that `export_tflite` wrote as int8
        ()
    """

    graph: int
    operations: tuple[int, ...]
    names: tuple[str, ...]
    first: str


@dataclasses.dataclass(frozen=True)
class UnalignedChannels(Record):
    """An operation with a number of channels that is no multiple of 8, which leaves a part of the vector registers of a phone empty.

    Attributes:
        operation: Name of the tensor that it writes.
        name: TFLite's name of the operation.
        channels: Number of channels.
        next_multiple: The next multiple of 8, which costs about the same time.

    Example:
        >>> tfdistill.inspect("student.tflite").unaligned
        ()
    """

    operation: str
    name: str
    channels: int
    next_multiple: int


@dataclasses.dataclass(frozen=True)
class TargetShare(Record):
    """How many operations of a file a target takes.

    Attributes:
        runtime: What was measured or described.
        taken: Number of operations that it takes.
        left: Number of operations that it does not take.
        unknown: Number of operations that its table does not have.
        left_names: Names of the operations that it does not take.

    Example:
        >>> share = tfdistill.inspect("student.tflite").targets["xnnpack"]
        >>> share.taken, share.left
        (3, 0)
    """

    runtime: str
    taken: int
    left: int
    unknown: int
    left_names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class FileInspection(Record):
    """What is in a .tflite file, as `inspect` finds it.

    Attributes:
        census: The file's `CensusRecord`: kinds of operations and versions, types, float tensors, inputs and outputs, the oldest runtime.
        operations: Every `FileOperation`.
        float_islands: Groups of operations that compute in floats where others compute in integers; empty in a file of floats.
        dynamic: Names of the tensors of which a size is not known before the file runs.
        unaligned: Operations whose channels are no multiple of 8; those whose channels are the file's outputs are left out.
        bytes_by_kind: What the bytes of the file are -> their number: `weights int8`, `biases int32`, `other constants int32`, `metadata`, `associated files`,
            `structure`.
        metadata: Name of each metadata entry -> its size in bytes.
        planned_arena_bytes: Size of the memory of all activations of the main graph, planned as TensorFlow Lite's interpreter does without delegates, and
            without the scratch memory of kernels. Sizes that are not fixed count as they stand in the file, mostly 1.
        peak_bytes: The most bytes of activations that are needed at one time.
        peak_operation: Index of the operation at which they are; None for a file without operations.
        targets: Name of each target -> its `TargetShare`.
        runtimes: Name of each runtime of `tfdistill.runtime.versions.RUNTIMES` -> the operations of the file that it does not have; empty where it opens the file.
        described: What the file says of itself: labels, normalization, author, license; None if nothing.
        not_described: Why that cannot be read; empty if it can.

    Example:
        >>> found = tfdistill.inspect("student.tflite")
        >>> [operation.name for operation in found.operations], found.targets["xnnpack"].left
        (['CONV_2D', 'MEAN', 'FULLY_CONNECTED'], 0)
    """

    census: CensusRecord
    operations: tuple[FileOperation, ...]
    float_islands: tuple[FloatIsland, ...]
    dynamic: tuple[str, ...]
    unaligned: tuple[UnalignedChannels, ...]
    bytes_by_kind: dict[str, int]
    metadata: dict[str, int]
    planned_arena_bytes: int
    peak_bytes: int
    peak_operation: int | None
    targets: dict[str, TargetShare]
    runtimes: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    described: FileDescription | None = None
    not_described: str = ""

    def summary(self) -> dict:
        """Returns the fields of the first table: those of the file, then what was found in it."""
        file = {name: value for name, value in self.census.summary().items() if name != "dtypes"}
        own = {name: value for name, value in super().summary().items() if name not in ("census", "operations")}
        at_peak = [operation.name for operation in self.operations if (operation.graph, operation.index) == (0, self.peak_operation)]
        peak = f"{at_peak[0]} (operation {self.peak_operation})" if at_peak else None
        return {**file, "operations": len(self.operations), "tensors": self.census.dtypes, **own, "peak_operation": peak}

    def parts(self) -> dict:
        """Returns what is shown in tables of its own: all but the single operations, which `tfdistill inspect --html` draws."""
        own = {name: part for name, part in super().parts().items() if name != "operations"}
        return {"kinds": self.census.ops, "inputs": self.census.inputs, "outputs": self.census.outputs, **own}


def inspect(path: PathLike | ModelFile) -> FileInspection:
    """Shows what is in a .tflite file: operations and their types, floats among integers, dynamic sizes, bytes, memory, and which target takes what.

    The file is not run, and it is parsed in another process, because a damaged file can make its parser loop or use up the memory. It may come from any converter.

    Args:
        path: The file, or a `tfdistill.runtime.interpreter.ModelFile`.

    Returns:
        A `FileInspection`; `print` shows it as tables.

    Raises:
        ConfigurationError: if there is no such file.
        ExportError: if it is not a complete .tflite file.

    Example:
        >>> found = tfdistill.inspect("student.tflite")
        >>> sum(found.bytes_by_kind.values()) == found.census.size_bytes
        True
    """
    file = read_file(path)
    found = probe(file, "tfdistill.tflite.inspection.contents:read_contents", None, read_error(file))
    tables = {target: operation_table(target) for target in TARGETS}
    operations, shares = [], {}
    for row in found["operations"]:
        targets = {target: _taken(table, row["form"], row["kind"]) for target, table in tables.items()}
        operations.append({**{name: value for name, value in row.items() if name != "form"}, "targets": targets})
    for target, table in tables.items():
        verdicts = [(row["name"], row["targets"][target]) for row in operations]
        left = [name for name, taken in verdicts if taken is False]
        shares[target] = {
            "runtime": table.runtime,
            "taken": sum(taken is True for _, taken in verdicts),
            "left": len(left),
            "unknown": sum(taken is None for _, taken in verdicts),
            "left_names": sorted(set(left)),
        }
    counted = {name: found[name] for name in {f.name for f in dataclasses.fields(CensusRecord)} & set(found)}
    return FileInspection.from_dict(
        {
            "census": {"path": str(file.path), "size_bytes": len(file.content), "sha256": file.sha256, **counted},
            "operations": operations,
            "unaligned": [{**row, "next_multiple": next_multiple(row["channels"])} for row in found["unaligned"]],
            **{
                name: found[name]
                for name in (
                    *("float_islands", "dynamic", "bytes_by_kind", "metadata", "planned_arena_bytes", "peak_bytes", "peak_operation"),
                    *("described", "not_described"),
                )
            },
            "targets": shares,
            "runtimes": {name: refused_by(name, found["operations"]) for name in RUNTIMES},
        }
    )


def _taken(table, form, kind):
    """Whether a target takes an operation; None where its table does not say."""
    if kind not in TYPES:
        return None
    return False if table.leaves(form, kind) else table.takes(form, kind) if table.is_measured else True
