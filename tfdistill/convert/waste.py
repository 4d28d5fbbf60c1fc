"""Takes out of a .tflite file what its result does not need: operations that change nothing, constants that stand there twice, what nothing reads.

Every edit is exact: the file computes the same integers.
"""

import collections

import numpy as np

from tfdistill.convert.packing import content_of

# Operations without effects of their own, which are left out once nothing reads what they compute.
_PURE = frozenset({"DEQUANTIZE", "FULLY_CONNECTED", "QUANTIZE", "RESHAPE", "TRANSPOSE", "UNPACK"})
# The version of FULLY_CONNECTED that keeps the axes of its input, and the first runtime that has it.
_KEEPS_AXES, _ITS_RUNTIME = 5, "2.0.0"


def remove_waste(model, classes):
    """Edits a parsed file in place.

    - RESHAPE, TRANSPOSE and QUANTIZE that change nothing go; of two RESHAPEs or TRANSPOSEs in a row one stays; DEQUANTIZE followed by QUANTIZE to the same integers
      goes. A TRANSPOSE that moves only axes of one element becomes a RESHAPE, which copies nothing.
    - One FULLY_CONNECTED of a whole sequence takes the place of those of all its steps.
    - Equal constants and equal buffers become one; tensors, buffers and operation codes that nothing uses go.

    Args:
        model: `ModelT` of the schema whose buffers hold their content themselves.
        classes: The module of the schema.
    """
    file = _File(model, classes)
    file.share_buffers()
    for graph in model.subgraphs:
        file.share_constants(graph)
        while any(edit(file, graph) for edit in (_join_moves, _reshape_instead, _join_steps, _drop_unread, _bypass)):
            pass
        _drop_tensors(model, model.subgraphs.index(graph), graph)
    file.drop_codes()
    file.share_buffers()


class _File:
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
        outside = {*_listed(graph.inputs), *_listed(graph.outputs)}
        for index, tensor in enumerate(graph.tensors):
            if tensor.isVariable or index in outside or self.model.buffers[tensor.buffer].data is None:
                continue
            parts = (tensor.shape, tensor.type, tensor.buffer, tensor.quantization, tensor.sparsity, tensor.shapeSignature)
            same[index] = seen.setdefault(content_of(parts), index)
        for operator in graph.operators:
            operator.inputs = np.array([same.get(int(i), int(i)) for i in _listed(operator.inputs)], np.int32)

    def drop_codes(self):
        """Leaves out the codes that no operation has."""
        used = sorted({operator.opcodeIndex for graph in self.model.subgraphs for operator in graph.operators or []})
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
    return [int(part) for part in version.split(".")]


def _listed(values):
    return [] if values is None else [int(value) for value in values]


def _readers(graph):
    """Returns a dict of tensor -> the operations that read it."""
    found = collections.defaultdict(list)
    for operator in graph.operators:
        for index in set(_listed(operator.inputs)):
            found[index].append(operator)
    return found


def _makers(graph):
    return {index: operator for operator in graph.operators for index in _listed(operator.outputs)}


def _is_fixed(tensor):
    """Whether the shape of a tensor is known beforehand."""
    return tensor.shape is not None and not any(size < 0 for size in _listed(tensor.shapeSignature))


def _same_kind(one, other):
    """Whether two tensors of fixed shapes hold their elements in the same way."""
    return _is_fixed(one) and _is_fixed(other) and content_of((one.type, one.quantization)) == content_of((other.type, other.quantization))


def _same(one, other):
    return _same_kind(one, other) and _listed(one.shape) == _listed(other.shape)


def _join_moves(file, graph):
    """Makes one of two RESHAPEs, or TRANSPOSEs, in a row."""
    makers, changed = _makers(graph), False
    for operator in graph.operators:
        name, before = file.name_of(operator), makers.get(int(operator.inputs[0]))
        if name not in ("RESHAPE", "TRANSPOSE") or before is None or file.name_of(before) != name:
            continue
        first, target = int(before.inputs[0]), int(operator.outputs[0])
        if not _same_kind(graph.tensors[first], graph.tensors[target]):
            continue
        if name == "TRANSPOSE":
            orders = [file.constant(graph, int(each.inputs[1])) for each in (before, operator)]
            if any(order is None for order in orders):
                continue
            both = file.add_constant(graph, orders[0][orders[1]], graph.tensors[int(operator.inputs[1])])
            operator.inputs = np.array([first, both], np.int32)
        else:
            operator.inputs = np.array([first, *_listed(operator.inputs)[1:]], np.int32)
        changed = True
    return changed


def _reshape_instead(file, graph):
    """Makes a RESHAPE of a TRANSPOSE that only moves axes of one element."""
    changed = False
    for operator in graph.operators:
        if file.name_of(operator) != "TRANSPOSE" or (order := file.constant(graph, int(operator.inputs[1]))) is None:
            continue
        source, target = (graph.tensors[int(index)] for index in (operator.inputs[0], operator.outputs[0]))
        if not _is_fixed(source) or not _keeps_order(source.shape, order):
            continue
        shape = file.add_constant(graph, _listed(target.shape), graph.tensors[int(operator.inputs[1])])
        operator.opcodeIndex, operator.inputs = file.code("RESHAPE", 1), np.array([int(operator.inputs[0]), shape], np.int32)
        operator.builtinOptions = file.classes.ReshapeOptionsT()
        operator.builtinOptions.newShape = np.array(_listed(target.shape), np.int32)
        operator.builtinOptionsType = file.classes.BuiltinOptions.ReshapeOptions
        changed = True
    return changed


def _keeps_order(shape, order):
    """Whether a permutation leaves the elements where they are, as all axes that it moves have one element."""
    longer = [axis for axis in _listed(order) if int(shape[axis]) != 1]
    return longer == sorted(longer)


def _bypass(file, graph):
    """Leaves out operations whose output is their input, or the input of the operation before them."""
    makers, readers = _makers(graph), _readers(graph)
    inputs, outputs = set(_listed(graph.inputs)), set(_listed(graph.outputs))
    for operator in graph.operators:
        name = file.name_of(operator)
        if name not in ("RESHAPE", "TRANSPOSE", "QUANTIZE"):
            continue
        source, target = int(operator.inputs[0]), int(operator.outputs[0])
        order = file.constant(graph, int(operator.inputs[1])) if name == "TRANSPOSE" else ()
        nothing = _same(graph.tensors[source], graph.tensors[target]) and order is not None and list(order) == sorted(order)
        before = makers.get(source)
        if not nothing and name == "QUANTIZE" and before is not None and file.name_of(before) == "DEQUANTIZE":
            source = int(before.inputs[0])
            nothing = _same(graph.tensors[source], graph.tensors[target])
        if not nothing:
            continue
        if target not in outputs:
            _reads(readers[target], target, source)
        elif source in makers and source not in inputs and source not in outputs:
            maker = makers[source]
            maker.outputs = np.array([target if index == source else index for index in _listed(maker.outputs)], np.int32)
            _reads(readers[source], source, target)
        else:
            continue
        graph.operators.remove(operator)
        return True
    return False


def _reads(operators, old, new):
    for operator in operators:
        operator.inputs = np.array([new if index == old else index for index in _listed(operator.inputs)], np.int32)


def _join_steps(file, graph):
    """Computes a FULLY_CONNECTED of all steps of a sequence at once, before the sequence is taken apart."""
    readers, outside = _readers(graph), set(_listed(graph.outputs))
    for unpack in graph.operators:
        parts = _listed(unpack.outputs)
        whole = graph.tensors[int(unpack.inputs[0])]
        if file.name_of(unpack) != "UNPACK" or unpack.builtinOptions.axis != 0 or len(parts) < 2 or outside & set(parts):
            continue
        products = [readers[part][0] for part in parts if len(readers[part]) == 1]
        if len(products) < len(parts) or not _is_fixed(whole) or len(_listed(whole.shape)) != 3:
            continue
        kinds = {
            (
                file.name_of(p),
                p.opcodeIndex,
                content_of((p.inputs[1:], p.builtinOptions)),
                content_of(_kind(graph.tensors[int(p.outputs[0])])),
            )
            for p in products
        }
        if len(kinds) != 1 or file.name_of(products[0]) != "FULLY_CONNECTED":
            continue
        like = graph.tensors[int(products[0].outputs[0])]
        joined = file.add_tensor(graph, like, [len(parts), *_listed(like.shape)])
        made = file.classes.OperatorT()
        vars(made).update(vars(products[0]))
        made.inputs = np.array([int(unpack.inputs[0]), *_listed(products[0].inputs)[1:]], np.int32)
        made.outputs = np.array([joined], np.int32)
        made.builtinOptions = file.classes.FullyConnectedOptionsT()
        vars(made.builtinOptions).update(vars(products[0].builtinOptions))
        made.builtinOptions.keepNumDims = True
        made.opcodeIndex = file.code("FULLY_CONNECTED", max(_KEEPS_AXES, file.model.operatorCodes[products[0].opcodeIndex].version))
        file.require_runtime(_ITS_RUNTIME)
        unpack.inputs = np.array([joined], np.int32)
        unpack.outputs = np.array([int(p.outputs[0]) for p in products], np.int32)
        gone = {id(p) for p in products}
        place = graph.operators.index(unpack)
        graph.operators = [p for p in [*graph.operators[:place], made, *graph.operators[place:]] if id(p) not in gone]
        return True
    return False


def _kind(tensor):
    return tensor.shape, tensor.type, tensor.quantization, tensor.shapeSignature


def _drop_unread(file, graph):
    """Leaves out operations that nothing reads."""
    read = {*_listed(graph.outputs), *(index for operator in graph.operators for index in _listed(operator.inputs))}
    kept = [o for o in graph.operators if file.name_of(o) not in _PURE or read & set(_listed(o.outputs))]
    changed = len(kept) < len(graph.operators)
    graph.operators = kept
    return changed


def _drop_tensors(model, number, graph):
    """Leaves out the tensors that nothing uses."""
    used = {*_listed(graph.inputs), *_listed(graph.outputs)}
    for operator in graph.operators:
        used |= {*_listed(operator.inputs), *_listed(operator.outputs), *_listed(operator.intermediates)}
    entries = [
        entry
        for signature in model.signatureDefs or []
        if (signature.subgraphIndex or 0) == number
        for entry in (*(signature.inputs or []), *(signature.outputs or []))
    ]
    used |= {entry.tensorIndex for entry in entries}
    kept = [index for index in range(len(graph.tensors)) if index in used]
    places = {index: place for place, index in enumerate(kept)} | {-1: -1}
    graph.tensors = [graph.tensors[index] for index in kept]
    for owner, names in [(graph, ("inputs", "outputs")), *((o, ("inputs", "outputs", "intermediates")) for o in graph.operators)]:
        for name in names:
            if getattr(owner, name) is not None:
                setattr(owner, name, np.array([places[index] for index in _listed(getattr(owner, name))], np.int32))
    for entry in entries:
        entry.tensorIndex = places[entry.tensorIndex]
