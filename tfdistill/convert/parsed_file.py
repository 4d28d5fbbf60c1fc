"""A parsed .tflite file that is edited: its operations by name, its constants, and what equal parts become one."""

import collections

import numpy as np

from tfdistill.convert.packing import content_of


def listed(values):
    """Returns a vector of a parsed file as a list of numbers; an empty one for a vector that is not there."""
    return [] if values is None else [int(value) for value in values]


def readers_of(graph):
    """Returns a dict of tensor -> the operations that read it."""
    found = collections.defaultdict(list)
    for operator in graph.operators:
        for index in set(listed(operator.inputs)):
            found[index].append(operator)
    return found


def makers_of(graph):
    """Returns a dict of tensor -> the operation that writes it."""
    return {index: operator for operator in graph.operators for index in listed(operator.outputs)}


class ParsedFile:
    """A parsed file with its constants and codes at hand."""

    def __init__(self, model, classes):
        self.model, self.classes = model, classes
        self._names = {value: name for name, value in vars(classes.BuiltinOperator).items() if isinstance(value, int)}

    def name_of(self, operator):
        """Returns the name of an operation as in the schema."""
        code = self.model.operatorCodes[operator.opcodeIndex]
        return self._names.get(max(code.builtinCode or 0, code.deprecatedBuiltinCode or 0), "")

    def code(self, name, version):
        """Returns the index of an operation's code, which is added if it is missing."""
        number = getattr(self.classes.BuiltinOperator, name)
        for index, code in enumerate(self.model.operatorCodes):
            if max(code.builtinCode or 0, code.deprecatedBuiltinCode or 0) == number and code.version == version:
                return index
        code = self.classes.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), version
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1

    def constant(self, graph, index):
        """Returns the elements of a constant tensor of int32 as an array; None if it is none."""
        tensor = graph.tensors[index]
        data = self.model.buffers[tensor.buffer].data
        if data is None or not len(data) or tensor.type != self.classes.TensorType.INT32:
            return None
        return np.asarray(data, np.uint8).view(np.int32).reshape(-1)

    def operation_like(self, operator, inputs, outputs):
        """Returns an operation with the code and options of another."""
        made = self.classes.OperatorT()
        vars(made).update(vars(operator))
        made.inputs, made.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        return made

    def is_constant(self, tensor):
        """Whether a tensor has elements in the file."""
        data = self.model.buffers[tensor.buffer].data
        return data is not None and len(data) > 0

    def add_tensor(self, graph, like, shape, buffer=0):
        """Returns the index of a new tensor of the type, name and quantization of another."""
        made = self.classes.TensorT()
        vars(made).update(vars(like))
        made.shape, made.shapeSignature, made.buffer = np.asarray(shape, np.int32), None, buffer
        graph.tensors.append(made)
        return len(graph.tensors) - 1

    def add_constant(self, graph, values, like):
        """Returns the index of a new constant of int32."""
        values = np.asarray(values, np.int32)
        buffer = self.classes.BufferT()
        buffer.data = values.reshape(-1).view(np.uint8)
        self.model.buffers.append(buffer)
        index = self.add_tensor(graph, like, values.shape, len(self.model.buffers) - 1)
        made = graph.tensors[index]
        made.type, made.quantization, made.isVariable = self.classes.TensorType.INT32, None, False
        return index

    def share_buffers(self):
        """Lets equal buffers be one, in the order in which they are first used; what is no constant has the first, which is empty."""
        model, kept, places = self.model, [], {}

        def place(index):
            buffer = model.buffers[index]
            data = None if buffer.data is None else np.asarray(buffer.data, np.uint8).tobytes()
            if data not in places:
                places[data] = len(kept)
                kept.append(buffer)
            return places[data]

        place(0)
        for graph in model.subgraphs:
            for tensor in graph.tensors or []:
                tensor.buffer = place(tensor.buffer)
        for entry in model.metadata or []:
            entry.buffer = place(entry.buffer)
        if model.metadataBuffer is not None:
            model.metadataBuffer = np.array([place(index) for index in model.metadataBuffer], np.int32)
        model.buffers = kept

    def share_constants(self, graph):
        """Lets equal constant tensors be one."""
        seen, same = {}, {}
        outside = {*listed(graph.inputs), *listed(graph.outputs)}
        for index, tensor in enumerate(graph.tensors):
            if tensor.isVariable or index in outside or self.model.buffers[tensor.buffer].data is None:
                continue
            parts = (tensor.shape, tensor.type, tensor.buffer, tensor.quantization, tensor.sparsity, tensor.shapeSignature)
            same[index] = seen.setdefault(content_of(parts), index)
        for operator in graph.operators:
            operator.inputs = np.array([same.get(int(i), int(i)) for i in listed(operator.inputs)], np.int32)

    def drop_codes(self):
        """Leaves out the codes that no operation has; the one that most have is the first, whose number takes no space in them."""
        counts = collections.Counter(operator.opcodeIndex for graph in self.model.subgraphs for operator in graph.operators or [])
        used = sorted(counts, key=lambda index: (-counts[index], index))
        places = {index: place for place, index in enumerate(used)}
        for graph in self.model.subgraphs:
            for operator in graph.operators or []:
                operator.opcodeIndex = places[operator.opcodeIndex]
        self.model.operatorCodes = [self.model.operatorCodes[index] for index in used]

    def require_runtime(self, version):
        """Raises the oldest runtime that the file says it needs."""
        for entry in self.model.metadata or []:
            if entry.name == b"min_runtime_version":
                buffer = self.model.buffers[entry.buffer]
                said = bytes(bytearray(buffer.data)).rstrip(b"\0").decode("ascii")
                if _numbers(said) < _numbers(version):
                    made = self.classes.BufferT()
                    made.data = np.frombuffer(version.encode().ljust(16, b"\0"), np.uint8)
                    self.model.buffers.append(made)
                    entry.buffer = len(self.model.buffers) - 1


def _numbers(version):
    return [int(part) for part in version.split(".") if part]
