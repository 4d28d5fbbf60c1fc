"""Gives some tensors of an int8 file 16 bits: the operations that write and read them compute with int16 activations, and QUANTIZE stands where types meet."""

import copy

import numpy as np

from tfdistill.bridge.wrappers.quantization import WIDE_SCOPE
from tfdistill.convert.parsed_file import ParsedFile, listed
from tfdistill.convert.wide.operations import CLIPPING, MOVING, VERSIONS, WEIGHTS, WITH_FOUR_BITS, is_widened, wide_scale
from tfdistill.errors import ExportError
from tfdistill.runtime.schema import schema

_SCOPE = f"{WIDE_SCOPE}/".encode()


def with_wide_activations(content, name="model"):
    """Returns a file in which the tensors of the layers that were traced under `WIDE_SCOPE` have 16 bits.

    The scale of a wide tensor is that of its int8 form over 256 or so, around 0. Kernels keep their 8 bits; the biases of operations with wide inputs become int64.

    Args:
        content: An int8 file as bytes, as the converter wrote it.
        name: Name of the model, for errors.

    Returns:
        The file as bytes, the same where no layer is wide.

    Raises:
        ExportError: if what writes such a tensor has no kernel for activations of 16 bits.
    """
    if _SCOPE not in content:
        return content
    from tfdistill.convert.packing import pack

    classes = schema()
    parsed = ParsedFile(classes.ModelT.InitFromObj(classes.Model.GetRootAs(content, 0)), classes)
    for graph in parsed.model.subgraphs:
        _Widening(parsed, graph, name).edit()
        for tensor in graph.tensors:
            tensor.name = tensor.name.replace(_SCOPE, b"")
    parsed.drop_codes()
    return pack(parsed.model, classes)


class _Widening:
    """The edit of one graph."""

    def __init__(self, parsed, graph, name):
        self._parsed, self._graph, self._name = parsed, graph, name
        self._types = parsed.classes.TensorType
        self._makers = {index: operator for operator in graph.operators for index in listed(operator.outputs)}
        self._narrow, self._widened = {}, {}  # wide tensor -> its int8 form; int8 tensor -> its int16 form

    def edit(self):
        """Edits the graph in place."""
        wide = self._wide_tensors()
        self._require_kernels(wide)
        # Which operations compute with int16, and what all tensors were, before the first of them changes.
        chosen = {id(operator) for operator in self._graph.operators if self._computes_wide(operator, wide)}
        before = {
            index: (float(q.scale[0]), int(q.zeroPoint[0])) for index in self._int8() for q in [self._graph.tensors[index].quantization]
        }
        for index in wide:
            self._make_wide(self._graph.tensors[index], *before[index])
        outputs, operators = listed(self._graph.outputs), []
        for operator in self._graph.operators:
            if id(operator) in chosen:
                operators += self._computed_wide(operator, wide, before)
                continue
            for place, index in enumerate(listed(operator.inputs)):
                if index in wide:
                    made, change = self._narrowed(index, before[index])
                    operator.inputs = _with(operator.inputs, place, made)
                    operators += change
            operators.append(operator)
        for place, index in enumerate(outputs):
            if index in wide:
                made, change = self._narrowed(index, before[index])
                outputs[place] = made
                operators += change
        self._graph.operators = operators
        self._give_outputs(outputs)

    def _int8(self):
        """Lists the tensors of int8 with one scale that no constant is."""
        found = []
        for index, tensor in enumerate(self._graph.tensors):
            quantization = tensor.quantization
            scaled = quantization is not None and quantization.scale is not None and len(quantization.scale) == 1
            if tensor.type == self._types.INT8 and scaled and not tensor.isVariable:
                found.append(index)
        return found

    def _is_constant(self, index):
        data = self._parsed.model.buffers[self._graph.tensors[index].buffer].data
        return data is not None and len(data) > 0

    def _wide_tensors(self):
        """Returns the set of the tensors that get 16 bits: those of the wide layers, and what is only moved from there."""
        int8 = {index for index in self._int8() if index in self._makers}
        wide = {index for index in int8 if _is_marked(self._graph.tensors[index].name.decode(errors="replace"))}
        moving = [
            operator for operator in self._graph.operators if self._name_of(operator) in MOVING and is_widened(self._name_of(operator))
        ]
        # What only moves has no steps of its own: a Concatenate is as fine as what it joins.
        for operator in reversed(moving):
            if wide & set(listed(operator.outputs)):
                wide |= {i for i in int8 & set(listed(operator.inputs)) if self._has_kernel(self._makers[i])}
        for operator in moving:
            if wide & set(listed(operator.inputs)):
                wide |= int8 & set(listed(operator.outputs))
        return wide

    def _name_of(self, operator):
        return self._parsed.name_of(operator)

    def _has_kernel(self, operator):
        """Whether an operation can compute with int16: LiteRT reads 4-bit weights as such beside it in some of them only, and computes wrongly in the others."""
        name = self._name_of(operator)
        kernel = WEIGHTS[name][0] if name in WEIGHTS else None
        four_bits = kernel is not None and self._graph.tensors[operator.inputs[kernel]].type == self._types.INT4
        return is_widened(name) and (not four_bits or name in WITH_FOUR_BITS)

    def _require_kernels(self, wide):
        lacking = {self._name_of(self._makers[index]): index for index in sorted(wide) if not self._has_kernel(self._makers[index])}
        if lacking:
            names = ", ".join(
                f"{kind} ('{self._graph.tensors[index].name.replace(_SCOPE, b'').decode(errors='replace').partition(';')[0]}')"
                for kind, index in lacking.items()
            )
            raise ExportError(
                f"Layers of '{self._name}' that should have activations of 16 bits are computed by operations without a kernel for these: {names}.",
                "layers whose operations TFLite has in int16",
                "give these layers activation_bits=8, or weight_bits=8 if they have 4",
            )

    def _computes_wide(self, operator, wide):
        """Whether an operation computes with int16: it writes a wide tensor, or reads one and can."""
        name = self._name_of(operator)
        if wide & set(listed(operator.outputs)):
            return True
        weights = WEIGHTS.get(name, ())
        reads = any(index in wide for place, index in enumerate(listed(operator.inputs)) if place not in weights)
        types = {self._graph.tensors[index].type for index in listed(operator.outputs)}
        # QUANTIZE has no way from int16 to uint8.
        return reads and self._has_kernel(operator) and not (name == "QUANTIZE" and self._types.UINT8 in types)

    def _computed_wide(self, operator, wide, before):
        """Returns the operations in place of one that computes with int16 from here on."""
        name, first, after = self._name_of(operator), [], []
        kernel, bias = WEIGHTS.get(name, (None, None))
        inputs, ends = listed(operator.inputs), listed(operator.outputs)
        if name in ("QUANTIZE", "DEQUANTIZE"):  # which change types themselves
            self._raise_version(operator, name)
            return [operator]
        factor_before = None
        for place, index in enumerate(inputs):
            if index < 0 or place == bias:
                continue
            if place == kernel:
                if index in wide:
                    made, change = self._narrowed(index, before[index])
                    first += change
                    operator.inputs = _with(operator.inputs, place, made)
                continue
            if index not in before:
                continue
            factor_before = before[index][0] if factor_before is None else factor_before
            if index not in wide:
                made, change = self._widen_input(index, before[index])
                first += change
                operator.inputs = _with(operator.inputs, place, made)
        if bias is not None and bias < len(inputs) and inputs[bias] >= 0:
            source = 2 if name == "TRANSPOSE_CONV" else 0
            operator.inputs = _with(operator.inputs, bias, self._wide_bias(inputs[bias], before[inputs[source]]))
        for place, index in enumerate(ends):
            if index in wide:
                self._clip(operator, name, before[index])
            elif index in before:
                made, change = self._write_narrow(index, before[index])
                operator.outputs = _with(operator.outputs, place, made)
                after += change
        if hasattr(operator.builtinOptions, "potScaleInt16"):
            operator.builtinOptions.potScaleInt16 = False
        self._raise_version(operator, name)
        return [*first, operator, *after]

    def _make_wide(self, tensor, scale, zero_point):
        tensor.type, tensor.quantization = self._types.INT16, copy.deepcopy(tensor.quantization)
        self._set_scale(tensor, wide_scale(scale, zero_point), 0)

    def _set_scale(self, tensor, scale, zero_point):
        tensor.quantization.scale = np.array([scale], np.float32)
        tensor.quantization.zeroPoint = np.array([zero_point], np.int64)
        tensor.quantization.min = tensor.quantization.max = None

    def _clone(self, index, kind, scale, zero_point):
        like = self._graph.tensors[index]
        made = self._parsed.add_tensor(self._graph, like, listed(like.shape))
        tensor = self._graph.tensors[made]
        tensor.shapeSignature, tensor.type, tensor.quantization = like.shapeSignature, kind, copy.deepcopy(like.quantization)
        self._set_scale(tensor, scale, zero_point)
        return made

    def _quantize(self, source, target):
        classes, operator = self._parsed.classes, self._parsed.classes.OperatorT()
        operator.opcodeIndex = self._parsed.code("QUANTIZE", VERSIONS["QUANTIZE"])
        operator.inputs, operator.outputs = np.array([source], np.int32), np.array([target], np.int32)
        operator.builtinOptionsType, operator.builtinOptions = classes.BuiltinOptions.QuantizeOptions, classes.QuantizeOptionsT()
        return operator

    def _narrowed(self, index, steps):
        """Returns the int8 form of a wide tensor, and the operations that make it, once."""
        if index in self._narrow:
            return self._narrow[index], []
        made = self._narrow[index] = self._clone(index, self._types.INT8, *steps)
        return made, [self._quantize(index, made)]

    def _widen_input(self, index, steps):
        """Returns the int16 form of a tensor of int8, and the operations that make it, once."""
        if index in self._widened:
            return self._widened[index], []
        scale = wide_scale(*steps)
        made = self._widened[index] = self._clone(index, self._types.INT16, scale, 0)
        if not self._is_constant(index):
            return made, [self._quantize(index, made)]
        model, tensor = self._parsed.model, self._graph.tensors[index]
        values = np.asarray(model.buffers[tensor.buffer].data, np.uint8).view(np.int8).astype(np.float64)
        wide = np.clip(np.round((values - steps[1]) * (steps[0] / scale)), -32768, 32767).astype(np.int16)
        self._graph.tensors[made].buffer = self._add_buffer(wide)
        return made, []

    def _write_narrow(self, index, steps):
        """Returns the int16 tensor that is written in place of one of int8, and the operation that makes that of it."""
        made = self._clone(index, self._types.INT16, wide_scale(*steps), 0)
        self._graph.tensors[made].name += b"_wide"
        return made, [self._quantize(made, index)]

    def _wide_bias(self, index, steps):
        """Returns the int64 form of a bias of int32, whose scale follows that of the input."""
        tensor = self._graph.tensors[index]
        made = self._parsed.add_tensor(self._graph, tensor, listed(tensor.shape))
        wide, factor = self._graph.tensors[made], steps[0] / wide_scale(*steps)
        values = np.asarray(self._parsed.model.buffers[tensor.buffer].data, np.uint8).view(np.int32).astype(np.float64)
        wide.type, wide.buffer, wide.quantization = self._types.INT64, self._add_buffer(np.round(values * factor).astype(np.int64)), None
        wide.quantization = copy.deepcopy(tensor.quantization)
        wide.quantization.scale = (np.asarray(tensor.quantization.scale, np.float64) / factor).astype(np.float32)
        return made

    def _add_buffer(self, values):
        buffer = self._parsed.classes.BufferT()
        buffer.data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        self._parsed.model.buffers.append(buffer)
        return len(self._parsed.model.buffers) - 1

    def _clip(self, operator, name, steps):
        """Lets an operation clip at 0 what the int8 tensor clipped by ending there; an int16 tensor goes as far below 0 as above."""
        functions, options = self._parsed.classes.ActivationFunctionType, operator.builtinOptions
        if name in CLIPPING and steps[1] == -128 and options is not None and options.fusedActivationFunction == functions.NONE:
            options.fusedActivationFunction = functions.RELU

    def _raise_version(self, operator, name):
        code = self._parsed.model.operatorCodes[operator.opcodeIndex]
        if name in VERSIONS and code.version < VERSIONS[name]:
            operator.opcodeIndex = self._parsed.code(name, VERSIONS[name])

    def _give_outputs(self, outputs):
        for signature in self._parsed.model.signatureDefs or []:
            if self._parsed.model.subgraphs[signature.subgraphIndex or 0] is self._graph:
                for entry in signature.outputs or []:
                    entry.tensorIndex = self._narrow.get(int(entry.tensorIndex), int(entry.tensorIndex))
        self._graph.outputs = np.array(outputs, np.int32)


def _is_marked(name):
    """Whether a tensor is what a wide layer computes. What only reads it has its name behind the word for rounding, if at all."""
    parts = name.split(";")
    computing = [part for part in parts if "FakeQuant" not in part] or parts
    return any(f"{WIDE_SCOPE}/" in part for part in computing)


def _with(values, place, index):
    changed = np.array(listed(values), np.int32)
    changed[place] = index
    return changed
