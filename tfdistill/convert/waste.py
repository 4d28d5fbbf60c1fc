"""Takes out of a .tflite file what its result does not need: operations that change nothing, constants that stand there twice, what nothing reads.

Every edit is exact: the file computes the same integers.
"""

import numpy as np

from tfdistill.convert.packing import content_of
from tfdistill.convert.parsed_file import ParsedFile, listed, makers_of, readers_of
from tfdistill.convert.slicing import split_once

# Operations without effects of their own, which are left out once nothing reads what they compute.
_PURE = frozenset({"DEQUANTIZE", "FULLY_CONNECTED", "QUANTIZE", "RESHAPE", "TRANSPOSE", "UNPACK"})
# The version of FULLY_CONNECTED that keeps the axes of its input, and the first runtime that has it.
_KEEPS_AXES, _ITS_RUNTIME = 5, "2.0.0"


def is_whole(model):
    """Whether the weights of a parsed file stand in its tables, and not behind them, as those beyond 2 GiB do."""
    return not any(getattr(buffer, "offset", 0) > 1 for buffer in model.buffers)


def remove_waste(model, classes):
    """Edits a parsed file in place.

    - RESHAPE, TRANSPOSE and QUANTIZE that change nothing go; of two RESHAPEs or TRANSPOSEs in a row one stays; DEQUANTIZE followed by QUANTIZE to the same integers
      goes. A TRANSPOSE that moves only axes of one element becomes a RESHAPE, which copies nothing.
    - One FULLY_CONNECTED of a whole sequence takes the place of those of all its steps.
    - One SPLIT takes the place of the STRIDED_SLICEs that cut a tensor of integers to equal pieces.
    - Equal constants and equal buffers become one; tensors, buffers and operation codes that nothing uses go.

    Args:
        model: `ModelT` of the schema whose buffers hold their content themselves.
        classes: The module of the schema.
    """
    file = ParsedFile(model, classes)
    for graph in model.subgraphs:
        graph.tensors, graph.operators = graph.tensors or [], graph.operators or []
    file.share_buffers()
    for graph in model.subgraphs:
        file.share_constants(graph)
        while any(edit(file, graph) for edit in (_join_moves, _reshape_instead, _join_steps, split_once, _drop_unread, _bypass)):
            pass
        file.share_buffers()  # of constants that the edits made
        file.share_constants(graph)
        _drop_tensors(model, model.subgraphs.index(graph), graph)
    file.drop_codes()
    file.share_buffers()


def _is_fixed(tensor):
    """Whether the shape of a tensor is known beforehand."""
    return tensor.shape is not None and not any(size < 0 for size in listed(tensor.shapeSignature))


def _same_kind(one, other):
    """Whether two tensors of fixed shapes hold their elements in the same way."""
    return _is_fixed(one) and _is_fixed(other) and content_of((one.type, one.quantization)) == content_of((other.type, other.quantization))


def _same(one, other):
    return _same_kind(one, other) and listed(one.shape) == listed(other.shape)


def _join_moves(file, graph):
    """Makes one of two RESHAPEs, or TRANSPOSEs, in a row."""
    makers, changed = makers_of(graph), False
    for operator in graph.operators:
        name = file.name_of(operator)
        before = makers.get(int(operator.inputs[0])) if name in ("RESHAPE", "TRANSPOSE") else None
        if before is None or file.name_of(before) != name:
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
            operator.inputs = np.array([first, *listed(operator.inputs)[1:]], np.int32)
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
        shape = file.add_constant(graph, listed(target.shape), graph.tensors[int(operator.inputs[1])])
        operator.opcodeIndex, operator.inputs = file.code("RESHAPE", 1), np.array([int(operator.inputs[0]), shape], np.int32)
        operator.builtinOptions = file.classes.ReshapeOptionsT()
        operator.builtinOptions.newShape = np.array(listed(target.shape), np.int32)
        operator.builtinOptionsType = file.classes.BuiltinOptions.ReshapeOptions
        changed = True
    return changed


def _keeps_order(shape, order):
    """Whether a permutation leaves the elements where they are, as all axes that it moves have one element."""
    longer = [axis for axis in listed(order) if int(shape[axis]) != 1]
    return longer == sorted(longer)


def _bypass(file, graph):
    """Leaves out operations whose output is their input, or the input of the operation before them."""
    makers, readers = makers_of(graph), readers_of(graph)
    inputs, outputs = set(listed(graph.inputs)), set(listed(graph.outputs))
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
            maker.outputs = np.array([target if index == source else index for index in listed(maker.outputs)], np.int32)
            _reads(readers[source], source, target)
        else:
            continue
        graph.operators.remove(operator)
        return True
    return False


def _reads(operators, old, new):
    for operator in operators:
        operator.inputs = np.array([new if index == old else index for index in listed(operator.inputs)], np.int32)


def _join_steps(file, graph):
    """Computes a FULLY_CONNECTED of all steps of a sequence at once, before the sequence is taken apart."""
    readers, made_here = readers_of(graph), set(makers_of(graph))
    for unpack in graph.operators:
        parts = listed(unpack.outputs)
        if file.name_of(unpack) != "UNPACK" or unpack.builtinOptions.axis != 0 or len(parts) < 2:
            continue
        whole = graph.tensors[int(unpack.inputs[0])]
        if not _is_fixed(whole) or len(listed(whole.shape)) != 3:
            continue
        # By what each reader does with its step: a layer that goes forwards and one that goes backwards read the same steps.
        found = [{_product_of(file, graph, p): p for p in readers[part] if p.inputs[0] == part} for part in parts]
        for kind in found[0]:
            products = [each[kind] for each in found if kind in each]
            if kind is None or len(products) < len(parts) or made_here & set(listed(products[0].inputs)[1:]):
                continue
            _join(file, graph, unpack, products)
            return True
    return False


def _product_of(file, graph, operator):
    """Returns what a FULLY_CONNECTED does with its first input, as a value that can be compared; None for any other operation."""
    if file.name_of(operator) != "FULLY_CONNECTED":
        return None
    kind = _kind(graph.tensors[int(operator.outputs[0])])
    return operator.opcodeIndex, content_of((operator.inputs[1:], operator.builtinOptions)), content_of(kind)


def _join(file, graph, unpack, products):
    """Puts one FULLY_CONNECTED of a whole sequence, and what takes its result apart, in the place of those of the steps."""
    like = graph.tensors[int(products[0].outputs[0])]
    joined = file.add_tensor(graph, like, [len(products), *listed(like.shape)])
    made = file.operation_like(products[0], [int(unpack.inputs[0]), *listed(products[0].inputs)[1:]], [joined])
    made.builtinOptions = file.classes.FullyConnectedOptionsT()
    vars(made.builtinOptions).update(vars(products[0].builtinOptions))
    made.builtinOptions.keepNumDims = True
    made.opcodeIndex = file.code("FULLY_CONNECTED", max(_KEEPS_AXES, file.model.operatorCodes[products[0].opcodeIndex].version))
    file.require_runtime(_ITS_RUNTIME)
    taken_apart = file.operation_like(unpack, [joined], [int(p.outputs[0]) for p in products])
    gone = {id(p) for p in products}
    place = graph.operators.index(unpack)
    kept = [*graph.operators[: place + 1], made, taken_apart, *graph.operators[place + 1 :]]
    graph.operators = [p for p in kept if id(p) not in gone]


def _kind(tensor):
    return tensor.shape, tensor.type, tensor.quantization, tensor.shapeSignature


def _drop_unread(file, graph):
    """Leaves out operations that nothing reads."""
    read = {*listed(graph.outputs), *(index for operator in graph.operators for index in listed(operator.inputs))}
    kept = [o for o in graph.operators if file.name_of(o) not in _PURE or read & set(listed(o.outputs))]
    changed = len(kept) < len(graph.operators)
    graph.operators = kept
    return changed


def _drop_tensors(model, number, graph):
    """Leaves out the tensors that nothing uses."""
    used = {*listed(graph.inputs), *listed(graph.outputs)}
    for operator in graph.operators:
        used |= {*listed(operator.inputs), *listed(operator.outputs), *listed(operator.intermediates)}
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
                setattr(owner, name, np.array([places[index] for index in listed(getattr(owner, name))], np.int32))
    for entry in entries:
        entry.tensorIndex = places[entry.tensorIndex]
