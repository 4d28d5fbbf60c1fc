"""Weights of 4 bits by litert-quantizer, formerly ai-edge-quantizer: edits of a file of floats that the converter made. The one module that imports it."""

import dataclasses
import math
import re
import typing

import numpy as np

from tfdistill.convert.file_kernels import placed_kernels
from tfdistill.convert.finish import finish
from tfdistill.convert.packing import pack
from tfdistill.convert.parsed_file import ParsedFile, listed
from tfdistill.errors import ExportError, InvariantError
from tfdistill.runtime.capture import captured_output
from tfdistill.runtime.capture_streams import WithoutBars
from tfdistill.runtime.schema import schema
from tfdistill.runtime.tensors import pad_batch
from tfdistill.utils.optional import require_one
from tfdistill.utils.progress import progress

LEAVE_ROAD_OUT = "leave road= out: the bridge computes what TFLite has no integers of in operations that it has them of"
PACKAGES = ("litert_quantizer", "ai_edge_quantizer")
# Operations of the schema whose weights it makes 4-bit for float arithmetic, and those that it makes 8-bit; by the names that it has for them.
_FOUR_BITS = {"CONV_2D": "CONV_2D", "FULLY_CONNECTED": "FULLY_CONNECTED", "EMBEDDING_LOOKUP": "EMBEDDING_LOOKUP"}
_EIGHT_BITS = {"DEPTHWISE_CONV_2D": "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV": "CONV_2D_TRANSPOSE"}
# Operation -> bits of its weights in float arithmetic.
BITS = {**dict.fromkeys(_FOUR_BITS, 4), **dict.fromkeys(_EIGHT_BITS, 8)}
# In integer arithmetic its kernels of these alone have 4 bits.
_FOUR_BITS_OF_INTEGERS = {"CONV_2D": "CONV_2D", "FULLY_CONNECTED": "FULLY_CONNECTED"}
# Operation that reads 4-bit integers -> its version that does, as TensorFlow's converter writes it. litert-quantizer leaves the version of the floats, with which an
# older runtime would open the file and refuse it later, or compute something else.
_VERSIONS = {"CONV_2D": 7, "DEPTHWISE_CONV_2D": 7, "FULLY_CONNECTED": 10, "DEQUANTIZE": 6}
# The first runtimes with these: what the converter writes; and the first after tflite-runtime 2.14, which was measured not to have the last.
_RUNTIME, _RUNTIME_OF_DEQUANTIZE = "2.11.0", "2.15.0"


@dataclasses.dataclass(frozen=True)
class Quantization:
    """What litert-quantizer is to make of a file of floats.

    Attributes:
        name: Name of the model, for messages.
        variant: The `Variant` of the file.
        io: Type of float inputs and outputs.
        samples: Calibration `Samples`; None for the variant int4_weights, which needs none.
        batch_size: Batch size of the file; None if it is free.
        per_channel_dense: Whether the 4-bit weights of dense layers have a scale for each output in integer arithmetic, too; older runtimes and tflite-micro compute
            with one for all.
        kept: Dict of (operation, name of the tensor that it writes) to the bits of its weights, 8 or 32, where they are to have more; in float arithmetic alone.
        asked_for: Whether the user asked for this road, and does not take it because the bridge refused the model.
    """

    name: str
    variant: typing.Any
    io: str
    samples: typing.Any = None
    batch_size: int | None = 1
    per_channel_dense: bool = True
    asked_for: bool = True
    kept: typing.Any = dataclasses.field(default_factory=dict)

    def __call__(self, content):
        """Returns the quantized file.

        Args:
            content: The file of floats as bytes, as the converter wrote it.

        Raises:
            MissingPackageError: if litert-quantizer is not installed.
            ExportError: if it fails, with what it said.
            InvariantError: if the model computes NaN or infinite numbers on the samples.
        """
        packages = _Packages()
        content = finish(content)  # after which no two tensors of a graph have one name: it tells them apart by these
        try:
            with progress(f"quantizing '{self.name}'"), captured_output(), WithoutBars():
                quantizer = packages.quantizer.Quantizer(bytearray(content))
                if self.variant.integer_only:
                    found = self._calibrated(quantizer, content, packages)
                else:
                    found = self._in_floats(quantizer, packages)
                made = quantizer.quantize(found, enable_progress_bar=False, enable_progress_report=False).quantized_model
        except InvariantError:
            raise
        except Exception as error:  # it raises plain errors of all kinds for graphs that it does not take
            raise ExportError(
                f"litert-quantizer could not quantize '{self.name}' as {self.variant.name}: {type(error).__name__}: {str(error)[:500]}",
                "a model of operations that it takes",
                (LEAVE_ROAD_OUT if self.asked_for else None)
                if self.variant.integer_only
                else "export it as dynamic_range, whose weights have 8 bits",
            ) from error
        return with_versions(with_inner_buffers(bytes(made)))

    def _in_floats(self, quantizer, packages):
        """Sets the recipe of 4-bit weights and float arithmetic, which needs no calibration: in each channel, the largest weight ends the range. The package's
        searches for an end that clips (OCTAV, MSE) made the errors of the outputs of trained nets larger."""
        for operation in _FOUR_BITS.values():
            quantizer.add_weight_only_config(".*", packages.operations[operation], 4)
        for operation in _EIGHT_BITS.values():
            quantizer.add_weight_only_config(".*", packages.operations[operation], 8)
        for (operation, output), bits in self.kept.items():
            scope, kind = f"^{re.escape(output)};", packages.operations[{**_FOUR_BITS, **_EIGHT_BITS}[operation]]
            if bits == 8:
                quantizer.add_weight_only_config(scope, kind, 8)
            else:
                quantizer.update_quantization_recipe(scope, kind, algorithm_key=packages.nothing)

    def _calibrated(self, quantizer, content, packages):
        """Sets the recipe of integer arithmetic, and returns the ranges."""
        quantizer.add_static_config(".*", packages.operations.ALL_SUPPORTED, 8, 8)
        for operation, output in inner_kernels(content, _FOUR_BITS_OF_INTEGERS):
            kind, granularity = packages.operations[_FOUR_BITS_OF_INTEGERS[operation]], packages.types.QuantGranularity
            per_channel = operation != "FULLY_CONNECTED" or self.per_channel_dense
            scales = granularity.CHANNELWISE if per_channel else granularity.TENSORWISE
            quantizer.add_static_config(f"^{re.escape(output)};", kind, 8, 4, weight_granularity=scales)
        for side in (packages.operations.INPUT, packages.operations.OUTPUT):
            if self.io == "float32":
                quantizer.update_quantization_recipe(".*", side, algorithm_key=packages.nothing)
            elif self.io == "uint8":
                quantizer.update_quantization_recipe(".*", side, packages.unsigned())
        size = self.batch_size or 1
        batches = [pad_batch(b, size) if len(next(iter(b.values()))) < size else b for b in self.samples.batches(size)]
        found = quantizer.calibrate({signature_of(content): batches}, num_threads=1)
        for name, ranges in found.items():
            if not all(math.isfinite(float(value)) for side in ("min", "max") if side in ranges for value in ranges[side].reshape(-1)):
                raise InvariantError(
                    f"'{self.name}' computes NaN or infinite numbers on the calibration data, first in '{name}'.",
                    "finite numbers",
                    "check the weights, and that calibration data is scaled as in training",
                )
        return found


class _Packages:
    """The names of litert-quantizer that are used here, under either name of the package."""

    def __init__(self):
        why = "make weights of 4 bits"
        self.quantizer = require_one([f"{name}.quantizer" for name in PACKAGES], why)
        self.types = require_one([f"{name}.qtyping" for name in PACKAGES], why)
        self.operations = self.types.TFLOperationName
        self.nothing = self.quantizer.AlgorithmName.NO_QUANTIZE

    def unsigned(self):
        """Returns the settings of inputs and outputs of uint8, which older versions do not have."""
        return self.types.OpQuantizationConfig(
            self.types.TensorQuantizationConfig(8, symmetric=False, dtype=self.types.TensorDataType.UINT),
            self.types.TensorQuantizationConfig(8),
            self.types.ComputePrecision.INTEGER,
        )


def signature_of(content):
    """Returns the key of the first signature of a file."""
    model = schema().Model.GetRootAs(content, 0)
    return model.SignatureDefs(0).SignatureKey().decode()


def inner_kernels(content, operations):
    """Lists the operations with weights that others with weights come both before and behind: all but the first and the last ones.

    Args:
        content: The file as bytes.
        operations: Names of the operations that are meant.

    Returns:
        List of pairs of the name of the operation and that of the tensor that it writes.
    """
    file = parsed(content)
    graph = file.model.subgraphs[0]
    having = {id(placed.operator) for placed in placed_kernels(file) if placed.graph is graph}
    makers = {index: operator for operator in graph.operators for index in listed(operator.outputs)}
    # In a file, operations stand behind those that they read.
    before, behind = {}, {}
    for operator in graph.operators:
        read = [makers[index] for index in listed(operator.inputs) if index in makers]
        before[id(operator)] = any(id(one) in having or before[id(one)] for one in read)
    for operator in reversed(graph.operators):
        behind.setdefault(id(operator), False)
        for one in (makers[index] for index in listed(operator.inputs) if index in makers):
            behind[id(one)] = behind.get(id(one), False) or behind[id(operator)] or id(operator) in having
    return [
        (file.name_of(operator), graph.tensors[int(operator.outputs[0])].name.decode())
        for operator in graph.operators
        if id(operator) in having and file.name_of(operator) in operations and before[id(operator)] and behind[id(operator)]
    ]


def with_inner_buffers(content):
    """Returns a file whose constants stand inside of its tables; of large models, the quantizer puts them behind these.

    Args:
        content: The file as bytes.
    """
    file = parsed(content)
    outside = [buffer for buffer in file.model.buffers if getattr(buffer, "offset", 0) > 1]
    if not outside:
        return content
    for buffer in outside:
        buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
        buffer.offset = buffer.size = 0
    return pack(file.model, file.classes)


def with_versions(content):
    """Returns a file whose operations that read 4-bit integers say so by their versions, and whose oldest runtime is one that has these.

    Args:
        content: The file as bytes.
    """
    file = parsed(content)
    four = file.classes.TensorType.INT4
    for graph in file.model.subgraphs:
        for operator in graph.operators or []:
            name = file.name_of(operator)
            if name in _VERSIONS and any(graph.tensors[index].type == four for index in listed(operator.inputs) if index >= 0):
                operator.opcodeIndex = file.code(name, _VERSIONS[name])
                file.require_runtime(_RUNTIME_OF_DEQUANTIZE if name == "DEQUANTIZE" else _RUNTIME)
    return pack(file.model, file.classes)


def parsed(content):
    """Returns the `ParsedFile` of a file as bytes."""
    classes = schema()
    return ParsedFile(classes.ModelT.InitFromObj(classes.Model.GetRootAs(content, 0)), classes)
