"""Converts a Keras model to the bytes of a .tflite file."""

import contextlib
import functools
import itertools
import pathlib
import re

from tfdistill.bridge.adopt.precision import in_float32
from tfdistill.bridge.grouped_kernels import grouped_in_the_graph
from tfdistill.bridge.recurrent_kernels import marked_for_the_converter
from tfdistill.bridge.wrappers.quantization import as_in_the_file
from tfdistill.convert.census import census
from tfdistill.convert.finite import require_finite
from tfdistill.convert.graph_files import SIGNATURE, save
from tfdistill.convert.variants import VARIANTS
from tfdistill.convert.wide.edit import with_wide_activations
from tfdistill.errors import ConfigurationError, DataError, ExportError, ModelError, TfdistillError
from tfdistill.runtime import tensorflow_lite
from tfdistill.runtime.capture import captured_output
from tfdistill.runtime.tensors import pad_batch
from tfdistill.utils.files import temporary_folder
from tfdistill.utils.progress import progress

# Bits of the activations -> the set of operations.
_INTEGER_OPERATIONS = {8: "TFLITE_BUILTINS_INT8", 16: "EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8"}
# Variants of which the converter makes a file of floats: `tfdistill.convert.quantizer` makes the integers of it.
AS_FLOAT32 = ("float32", "int4_weights")


def convert(model, signature, variant, io, samples=None, batch_size=1, allow_flex=False, per_channel_dense=True):
    """Converts a model.

    The model is traced with a fixed batch and saved as a SavedModel with the weights of the trace, which is converted. With a free batch
    the converter would write shape arithmetic that accelerators do not support; the conversion of a bare function can lose the weights.
    Layers of half or mixed precision compute in float32, as they do in the file.

    Args:
        model: A built Keras model.
        signature: Its `ModelSignature`.
        variant: A `Variant`.
        io: Type of float inputs and outputs, one of `variant.io`.
        samples: Calibration `Samples`, or None.
        batch_size: Batch size of the file; None leaves it free.
        allow_flex: Whether operations that need the TensorFlow runtime are allowed.
        per_channel_dense: Whether the converter may give the weights of a dense layer a scale for each output.

    Returns:
        The bytes of the file.

    Raises:
        ConfigurationError: if the model was built for another batch, or trained for another variant.
        DataError: if calibration data is needed and missing.
        ModelError: if the model's shapes cannot be fixed, or if it has a layer that cannot be calibrated.
        ExportError: if the converter fails, with its output, or a layer cannot have the activations of 16 bits that it should have.
    """
    content = convert_traced(
        lambda: _trace(model, signature, batch_size), model.name, variant, io, samples, batch_size, allow_flex, per_channel_dense
    )
    return with_wide_activations(content, model.name)


def convert_traced(trace, name, variant, io, samples=None, batch_size=1, allow_flex=False, per_channel_dense=True):
    """Converts what a function traces.

    Args:
        trace: Function that returns the concrete function to convert, with named inputs and a dict of outputs.
        name: Name of the model, for errors.
        variant: As in `convert`, like all that follow.
        io: Likewise.
        samples: Likewise.
        batch_size: Likewise.
        allow_flex: Likewise.
        per_channel_dense: Likewise.

    Returns:
        The bytes of the file.

    Raises:
        DataError: as `convert`, like the others.
        ConfigurationError: if it was trained for another variant.
        ModelError: if it has a layer that cannot be calibrated.
        InvariantError: if it computes NaN or infinite numbers on the samples, which would crash the converter.
        ExportError: if the converter fails, with its output.
    """
    captured = None
    try:
        with captured_output() as captured:
            with marked_for_the_converter(), grouped_in_the_graph(), as_in_the_file() if variant.integer_only else contextlib.nullcontext():
                concrete = trace()
            definition = concrete.graph.as_graph_def()
            trained = _holds(definition, "FakeQuantWithMinMax")
            _check_fits(name, variant, samples, definition, trained)
            with temporary_folder() as folder, _calibration_bar(samples, batch_size) as feed:
                save(concrete, folder)
                convert_with = functools.partial(
                    _convert, str(folder), variant, io, allow_flex=allow_flex, per_channel_dense=per_channel_dense
                )
                if trained and feed is not None and (content := _without_calibration(convert_with, folder, io)):
                    return content
                if variant.integer_only and feed is not None:
                    require_finite(concrete, samples, batch_size or 1, name)
                return convert_with(feed)
    except TfdistillError:
        raise
    except Exception as error:  # the exception class depends on the converter's native code
        raise _failure(name, variant, error, captured.last() if captured else "") from error


def _convert(folder, variant, io, feed, allow_flex, per_channel_dense):
    import tensorflow as tf

    converter = tensorflow_lite.saved_model_converter(folder, SIGNATURE)
    converter.experimental_enable_resource_variables = True
    converter.target_spec.supported_ops = [tensorflow_lite.operation_set("TFLITE_BUILTINS")]
    if variant.name not in AS_FLOAT32:
        converter.optimizations = [tensorflow_lite.default_optimization()]
    if variant.name == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if variant.integer_only:
        converter.inference_input_type = converter.inference_output_type = tf.dtypes.as_dtype(io)
        if feed is not None:
            # Without calibration the converter rejects the integer-only set even if all ranges are trained. The census checks afterwards
            # that the file is integer.
            converter.representative_dataset = feed
            converter.target_spec.supported_ops = [tensorflow_lite.operation_set(_INTEGER_OPERATIONS[variant.activation_bits])]
    if not per_channel_dense:
        tensorflow_lite.one_scale_for_dense(converter)
    if allow_flex:
        converter.target_spec.supported_ops = [*converter.target_spec.supported_ops, tensorflow_lite.operation_set("SELECT_TF_OPS")]
    return converter.convert()


def _without_calibration(convert_with, folder, io):
    """Converts a model with its trained ranges only; returns None if the file then has float tensors.

    The calibrator also measures tensors that have a trained range. Where its range differs, it keeps both and puts a float tensor between
    them.
    """
    try:
        content = convert_with(None)
    except Exception:  # a layer has no ranges; the conversion with calibration succeeds or reports the error
        return None
    path = pathlib.Path(folder) / "trained.tflite"
    path.write_bytes(content)
    return None if census(path, trusted=True).stray_floats(float_io=io == "float32") else content


def _failure(name, variant, error, log):
    """Makes the error of a failed conversion. It begins with the operations that TFLite lacks, which the converter lists last."""
    text = str(error).strip() or type(error).__name__
    lacking = {kind: names.strip() for kind, names in re.findall(r"^(TF Select|Custom) ops: (.+)$", text, flags=re.MULTILINE)}
    reason = f"TFLite lacks {', '.join(lacking.values())}." if lacking else text.splitlines()[0][:500]
    fix = "replace the layers that these come from"
    if "TF Select" in lacking:
        fix += ", or export with allow_flex=True, for an interpreter that has TensorFlow's operations"
    if not lacking and "TensorList" in text:  # the converter lowers a loop's list only where its elements have a fixed shape
        fix = "set batch_size to a number, as TFLite has no lists of tensors of any size, or export with allow_flex=True"
    log = f"\nThe converter said:\n{log}" if log else ""
    return ExportError(
        f"The model '{name}' could not be converted to {variant.name}: {reason}{log}",
        "a model of operations that TFLite has",
        fix if lacking or "TensorList" in text else None,
    )


def _trace(model, signature, batch_size):
    import tensorflow as tf

    specs = []
    for i in signature.inputs:
        if batch_size is not None and i.batch is not None and i.batch != batch_size:
            raise ConfigurationError(
                f"batch_size={batch_size}, but the model '{model.name}' was built for a batch of {i.batch}.", f"batch_size={i.batch}"
            )
        if batch_size is not None and None in i.shape:
            raise free_axes(i, model.name)
        batch = i.batch if batch_size is None else batch_size
        specs.append(tf.TensorSpec((batch, *i.shape), i.dtype, name=i.name))

    def serve(*tensors):
        arrays = {i.name: tensor for i, tensor in zip(signature.inputs, tensors, strict=True)}
        return signature.name_outputs(model(signature.pack(arrays), training=False))

    with in_float32(model):
        return tf.function(serve, input_signature=specs, autograph=False).get_concrete_function()


def free_axes(given, name):
    """Returns the error for an input with axes of any length in a file of fixed batch.

    Args:
        given: `ModelInput`.
        name: Name of the model.
    """
    return ModelError(
        f"Input '{given.key}' of the model '{name}' has axes of any length: {given.shape}.",
        "fixed lengths, as a .tflite file plans its memory ahead",
        "build the model on a keras.Input of fixed shape, or export with batch_size=None",
    )


def _holds(definition, *operations):
    """Whether a graph has an operation, in itself or in its functions, whose name begins with one of these."""
    nodes = itertools.chain(definition.node, *(function.node_def for function in definition.library.function))
    return any(node.op.startswith(operations) for node in nodes)


def _check_fits(name, variant, samples, definition, trained):
    """Raises for models that would crash the converter, or whose file would not be of the requested variant."""
    if trained and not variant.takes_trained_ranges:
        takers = ", ".join(other.name for other in VARIANTS.values() if other.takes_trained_ranges)
        raise ConfigurationError(
            f"The model '{name}' was trained quantization-aware for int8; as {variant.name} it would be neither.",
            f"one of {takers} (float32 keeps the trained rounding, simulated)",
            "export it as int8, train it with QuantizeAware(activation_bits=16) for int16x8, or export the model as it was before "
            "quantization-aware training",
        )
    if not variant.integer_only:
        return
    if samples is None and not trained:
        raise needs_calibration(variant, name)
    functions = definition.library.function
    # tf_keras marks its recurrent layers, and the converter fuses a marked LSTM into one operation. Any other loop crashes the calibrator.
    marks = {function.attr["api_implements"].s.partition(b"_")[0] for function in functions if "api_implements" in function.attr}
    fused = marks == {b"lstm"}
    if samples is not None and not fused and _holds(definition, "While", "StatelessWhile"):
        raise ModelError(
            f"The model '{name}' holds a loop (a recurrent layer), and the converter cannot calibrate one.",
            "a graph without loops for an integer variant",
            "train it with tfdistill.compress.QuantizeAware, which computes recurrent layers in integers, or export as dynamic_range or float16",
        )


def needs_calibration(variant, name):
    """Returns the error of an integer variant without data that shows the ranges.

    Args:
        variant: A `Variant`.
        name: Name of the model.
    """
    return DataError(
        f"The variant '{variant.name}' of the model '{name}' needs calibration data: the model has no trained ranges.",
        "a few hundred samples of real data",
        "export_tflite(..., calibration=samples); on the command line, --calibration DATA",
    )


@contextlib.contextmanager
def _calibration_bar(samples, batch_size):
    """Yields the function that the converter calls for its representative dataset, under a progress bar; None without samples."""
    if samples is None:
        yield None
        return
    size = batch_size or 1
    with progress("calibrating", samples.count) as advance:

        def feed():
            for batch in samples.batches(size):
                count = len(next(iter(batch.values())))
                yield pad_batch(batch, size) if count < size else batch
                advance(count)

        yield feed
