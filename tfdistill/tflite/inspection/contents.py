"""Reads what each operation of a .tflite file computes with, and what its constants weigh."""

import collections
import math

from tfdistill.convert.census import FLOAT_TYPES, TRANSLATORS, count_content, op_code
from tfdistill.convert.layer_operations import DENSE, DENSE_OF_FOUR_BITS, KERNELS, computing_type, form_of, four_bits_per_channel
from tfdistill.convert.parsed_file import listed
from tfdistill.convert.unaligned import unaligned_channels
from tfdistill.errors import ExportError
from tfdistill.runtime.schema import schema
from tfdistill.tflite.inspection.planned_memory import planned_memory
from tfdistill.tflite.metadata.archive import Appended
from tfdistill.tflite.metadata.read import described_in

_SMALL_INTEGERS = ("int8", "int16")


def read_contents(content, settings):
    """Reads a file; the part of `inspect` that runs in another process.

    Args:
        content: The file as bytes.
        settings: Not used.

    Returns:
        Dict of JSON values: those of `count_content`, and `operations`, `bytes_by_kind`, `float_islands`, `dynamic`, `unaligned`, `metadata`, and what
        `planned_memory` returns; `described` as `described_in` returns it, or else in `not_described` why it cannot be read.

    Raises:
        ExportError: if the file is damaged.
    """
    counted = count_content(content, None)
    classes = schema()
    try:
        model = classes.ModelT.InitFromObj(classes.Model.GetRootAs(content, 0))
        return {**counted, **_Contents(model, classes).read(content), **_description(content, model, counted)}
    except Exception as error:  # the options of operations, and what indices mean, were not checked
        raise ExportError(f"It is damaged: {type(error).__name__}: {error}.") from error


def warm_up(settings):
    """Imports what `read_contents` needs, before the helper forks."""
    schema()


def _description(content, model, counted):
    try:
        return {"described": described_in(content, model, counted), "not_described": ""}
    except ExportError as error:  # the operations can be shown all the same
        return {"described": None, "not_described": error.happened}


class _Contents:
    def __init__(self, model, classes):
        self.model = model
        self.types = {value: name.lower() for name, value in vars(classes.TensorType).items() if isinstance(value, int)}
        self.codes = [op_code(code, classes)[:2] for code in model.operatorCodes or []]

    def read(self, content):
        operations, islands, dynamic, unaligned = [], [], [], []
        for number, graph in enumerate(self.model.subgraphs):
            rows = self._operations(number, graph)
            operations += rows
            islands += _islands(rows)
            dynamic += [
                self._name(t) for t in graph.tensors or [] if t.shapeSignature is not None and any(int(n) < 0 for n in t.shapeSignature)
            ]
            unaligned += [
                {"operation": rows[index]["output"], "name": rows[index]["name"], "channels": channels}
                for index, channels in unaligned_channels(graph, [row["name"] for row in rows]).items()
            ]
        by_kind, tables = self._bytes_by_kind(), Appended(content).start
        if tables < len(content):
            by_kind["associated files"] = len(content) - tables
        by_kind["structure"] = len(content) - sum(by_kind.values())
        integers = any(row["kind"] in _SMALL_INTEGERS for row in operations)
        return {
            "operations": operations,
            "float_islands": islands if integers else [],
            "dynamic": dynamic,
            "unaligned": unaligned,
            "bytes_by_kind": by_kind,
            "metadata": {(m.name or b"").decode("utf-8", errors="replace"): self._bytes(m.buffer) for m in self.model.metadata or []},
            **planned_memory(self.model.subgraphs[0], self.model.buffers, self.types),
        }

    def _operations(self, number, graph):
        makers, rows, weighed = {}, [], set()
        for place, operator in enumerate(graph.operators or []):
            name, version = self.codes[operator.opcodeIndex]
            inputs, outputs = _indices(operator.inputs), _indices(operator.outputs)
            constants = [i for i in inputs if self._is_constant(graph.tensors[i])]
            own = [i for i in constants if graph.tensors[i].buffer not in weighed]
            weighed.update(graph.tensors[i].buffer for i in own)
            first = graph.tensors[outputs[0]] if outputs else None
            rows.append(
                {
                    "graph": number,
                    "index": place,
                    "name": name,
                    "version": version,
                    "kind": self._kind(graph, name, operator),
                    "output": "" if first is None else self._name(first),
                    "shape": [] if first is None else _sizes(first),
                    "reads": sorted({makers[i] for i in inputs if i in makers}),
                    "macs": self._macs(graph, name, operator),
                    "weights_bytes": sum(len(self.model.buffers[b].data) for b in {graph.tensors[i].buffer for i in own}),
                    "form": self._form(graph, operator, name, inputs),
                }
            )
            makers.update((i, place) for i in outputs)
        return rows

    def _form(self, graph, operator, name, inputs):
        if name == DENSE and len(inputs) > 1 and four_bits_per_channel(name, graph.tensors[inputs[1]]):
            return DENSE_OF_FOUR_BITS
        return form_of(self.model, graph, operator, name)

    def _kind(self, graph, name, operator):
        inputs, outputs = ([self.types[graph.tensors[i].type] for i in _indices(places)] for places in (operator.inputs, operator.outputs))
        return computing_type(name, inputs, outputs)

    def _macs(self, graph, name, operator):
        """Multiply-accumulates of an operation with a kernel; None for one without."""
        inputs, outputs = _indices(operator.inputs), _indices(operator.outputs)
        if name not in KERNELS or name == "GATHER":
            return None
        made, kernel = _sizes(graph.tensors[outputs[0]]), _sizes(graph.tensors[inputs[KERNELS[name]]])
        if name == "TRANSPOSE_CONV":
            return math.prod(_sizes(graph.tensors[inputs[2]])) * math.prod(kernel[:3])
        if name == "BATCH_MATMUL":
            read = _sizes(graph.tensors[inputs[0]])
            return math.prod(made) * (read[-2] if getattr(operator.builtinOptions, "adjX", False) else read[-1])
        if name == "DEPTHWISE_CONV_2D":
            return math.prod(made) * math.prod(kernel[1:3])
        if name == "CONV_3D":
            return math.prod(made) * math.prod(kernel[:4])
        return math.prod(made) * math.prod(kernel[1:])

    def _bytes_by_kind(self):
        """Dict of what constants are (weights, biases, others) and their type -> bytes; each buffer counts once."""
        roles = {}
        for graph in self.model.subgraphs:
            # Weights that DEQUANTIZE makes floats of are weights all the same.
            stored = {
                int(operator.outputs[0]): int(operator.inputs[0])
                for operator in graph.operators or []
                if self.codes[operator.opcodeIndex][0] == "DEQUANTIZE"
            }
            # Others than DEQUANTIZE first: it says nothing of what its constant is.
            for operator in sorted(graph.operators or [], key=lambda one: self.codes[one.opcodeIndex][0] == "DEQUANTIZE"):
                kernel = KERNELS.get(self.codes[operator.opcodeIndex][0])
                for place, given in enumerate(listed(operator.inputs)):
                    i = stored.get(given, given)
                    if i >= 0 and self._is_constant(tensor := graph.tensors[i]):
                        role = "weights" if place == kernel else "biases" if kernel == 1 and place == 2 else "other constants"
                        roles.setdefault(tensor.buffer, f"{role} {self.types[tensor.type]}")
        found = collections.Counter()
        for buffer, role in roles.items():
            found[role] += self._bytes(buffer)
        for entry in self.model.metadata or []:
            if entry.buffer not in roles:
                found["metadata"] += self._bytes(entry.buffer)
                roles[entry.buffer] = "metadata"
        return dict(found.most_common())

    def _is_constant(self, tensor):
        return self._bytes(tensor.buffer) > 0

    def _bytes(self, buffer):
        data = self.model.buffers[buffer].data
        return 0 if data is None else len(data)

    def _name(self, tensor):
        return (tensor.name or b"").decode("utf-8", errors="replace")


def _islands(rows):
    """Lists the groups of neighbouring operations that compute in floats, each as indices and names of its operations."""
    floats = {
        row["index"]: row for row in rows if (row["kind"] in FLOAT_TYPES or row["kind"] == "dynamic") and row["name"] not in TRANSLATORS
    }
    group = {index: index for index in floats}

    def root(index):
        while group[index] != index:
            index = group[index]
        return index

    for index, row in floats.items():
        for read in row["reads"]:
            if read in floats:
                group[root(index)] = root(read)
    members = collections.defaultdict(list)
    for index in floats:
        members[root(index)].append(index)
    return [
        {"graph": rows[0]["graph"], "operations": found, "names": [floats[i]["name"] for i in found], "first": floats[found[0]]["output"]}
        for found in members.values()
    ]


def _indices(values):
    return [i for i in listed(values) if i >= 0]


def _sizes(tensor):
    return listed(tensor.shape)
