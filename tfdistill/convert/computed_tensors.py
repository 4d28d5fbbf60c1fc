"""The tensors that the operations of a .tflite file compute, with the names that say which layers they come from."""

import dataclasses

from tfdistill.convert.layer_operations import KERNELS
from tfdistill.errors import ExportError
from tfdistill.runtime.probe import probe
from tfdistill.runtime.schema import schema

_MOVED = ("QUANTIZE", "DEQUANTIZE")


@dataclasses.dataclass(frozen=True)
class ComputedTensor:
    """What one operation of a file's main graph computes first.

    Attributes:
        index: Index of the tensor.
        operation: Name of the operation in the .tflite schema.
        shape: Shape as the file declares it.
        names: Its name, then the names of the kernel and bias that the operation reads. The converter calls a fused operation after any of its parts.
        reads: Index of the first tensor that the operation reads; -1 where it reads none.
    """

    index: int
    operation: str
    shape: tuple[int, ...]
    names: tuple[str, ...]
    reads: int

    @property
    def is_conversion(self):
        """Whether it is its input in another type."""
        return self.operation in _MOVED


def computed_tensors(file):
    """Lists what a file computes, in the order in which its operations run; the file is parsed in another process.

    Args:
        file: `ModelFile`.

    Returns:
        List of `ComputedTensor`.

    Raises:
        ExportError: if the file is damaged.
    """

    def damaged(cause, log="", fix=None):
        return ExportError(f"The operations of '{file.path}' cannot be read: {cause}", "a whole .tflite file", fix)

    rows = probe(file, "tfdistill.convert.computed_tensors:read_computed", None, damaged)
    return [ComputedTensor(index, operation, tuple(shape), tuple(names), reads) for index, operation, shape, names, reads in rows]


def read_computed(content, settings):
    """Does the work of `computed_tensors`, in another process.

    Args:
        content: The file as bytes.
        settings: Not used.

    Returns:
        List of the fields of `ComputedTensor`, as lists.
    """
    classes = schema()
    model = classes.ModelT.InitFromObj(classes.Model.GetRootAs(content, 0))
    graph = model.subgraphs[0]
    operations = {value: name for name, value in vars(classes.BuiltinOperator).items() if isinstance(value, int)}
    rows = []
    for operator in graph.operators or []:
        code = model.operatorCodes[operator.opcodeIndex]
        name = operations.get(max(code.builtinCode or 0, code.deprecatedBuiltinCode or 0), "")
        if operator.outputs is None or not len(operator.outputs):
            continue  # what assigns to a state
        inputs, index = [int(i) for i in ([] if operator.inputs is None else operator.inputs)], int(operator.outputs[0])
        tensor = graph.tensors[index]
        weights = inputs[KERNELS[name] :] if name in KERNELS and name not in ("GATHER", "BATCH_MATMUL") else []
        names = [_text(graph.tensors[i].name) for i in (index, *(i for i in weights if i >= 0))]
        rows.append([index, name, [int(n) for n in ([] if tensor.shape is None else tensor.shape)], names, inputs[0] if inputs else -1])
    return rows


def warm_up(settings):
    """Imports what `read_computed` needs, before the helper forks."""
    schema()


def _text(name):
    return (name or b"").decode("utf-8", errors="replace")
