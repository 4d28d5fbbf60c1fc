"""Exports a Keras model as a verified .tflite file."""

import dataclasses
import typing
from collections.abc import Mapping

import keras

from tfdistill.bridge.adopt.adopt import AdoptedModel
from tfdistill.bridge.adopt.states import initial_states
from tfdistill.bridge.adopt.trained_ranges import float_layers, require_trained_ranges
from tfdistill.convert.census import census, require_integer, require_no_flex
from tfdistill.convert.converter import convert
from tfdistill.convert.finish import finish
from tfdistill.convert.image_folder import normalized_folder
from tfdistill.convert.order import in_order
from tfdistill.convert.quantizer import LEAVE_ROAD_OUT
from tfdistill.convert.samples import MAX_CALIBRATION_SAMPLES, MIN_CALIBRATION_SAMPLES, collect, require_variation
from tfdistill.convert.scales import require_bounded_scales
from tfdistill.convert.signature import describe, output_shapes
from tfdistill.convert.state_scales import with_equal_state_scales
from tfdistill.convert.variants import IoType, Tolerances, VariantName, resolve_io, variant_named
from tfdistill.convert.wide.found import split_by_width, told_narrow
from tfdistill.errors import ConfigurationError
from tfdistill.host import fingerprint
from tfdistill.runtime.versions import RuntimeName, require_runtime
from tfdistill.tflite.accuracy_control.control import controlled_export
from tfdistill.tflite.destination import destination
from tfdistill.tflite.export_record import ExportRecord
from tfdistill.tflite.four_bits import FLOATS, require_four_bits
from tfdistill.tflite.inspection.preserved import require_trained_bits
from tfdistill.tflite.metadata.exported import described_export, require_fit_to_model
from tfdistill.tflite.metadata.settings import FileMetadata
from tfdistill.tflite.roads import QUANTIZER, Road, require_road, take_road
from tfdistill.tflite.runtimes import ONE_SCALE_FOR_DENSE, require_runs_in
from tfdistill.tflite.signatures import export_signatures
from tfdistill.tflite.source import exportable, names_layers
from tfdistill.tflite.split import SPLIT, Outputs, mixed_heads, names_mixed_heads, split_outputs
from tfdistill.tflite.streaming import EXPLICIT, States, names_explicit_states, streaming
from tfdistill.tflite.verification.ranges import extreme_calibration, warn
from tfdistill.tflite.verification.verify import tolerances_or_default, verify_samples
from tfdistill.utils import validate
from tfdistill.utils.arguments import explains_arguments
from tfdistill.utils.files import write_whole
from tfdistill.utils.types import Data, PathLike


@explains_arguments(
    representative_dataset="give it as calibration=",
    quantize="give variant='int8' and calibration=",
    optimizations="give variant='int8', 'float16' or 'dynamic_range'",
    inference_input_type="give io='int8', 'uint8' or 'float32'",
    y="give the labels along with the inputs: verify_on=(x, y)",
    max_accuracy_drop="give it in points, as max_accuracy_drop_points=0.5, which keeps layers wider until it is met",
)
@names_layers
def export_tflite(
    model: keras.Model | PathLike | Mapping[str, keras.Model | PathLike],
    path: PathLike,
    variant: VariantName = "float32",
    calibration: Data | None = None,
    verify_on: Data | None = None,
    batch_size: int | None = 1,
    io: IoType = "auto",
    tolerances: Tolerances | None = None,
    allow_flex: bool = False,
    max_calibration_samples: int = MAX_CALIBRATION_SAMPLES,
    task: str | Mapping[str, str] | None = None,
    road: Road = "auto",
    runtime: RuntimeName | None = None,
    metadata: FileMetadata | None = None,
    states: States = "inside",
    outputs: Outputs = "joined",
    max_accuracy_drop_points: float | None = None,
) -> ExportRecord:
    """Exports a Keras model as a .tflite file, checks its contents, and compares its outputs with those of the model.

    The file is written only if every check passes.

    Args:
        model: A built Keras 3 model (functional, Sequential or subclassed), or an adopted tf_keras model. The ranges that
            quantization-aware training learned are used. Of a Distiller the student is exported; a path is loaded by `tfdistill.load_model`.
            A dict of names to models, `{"serving_default": model, "features": other}`, becomes a file of several signatures, which share equal weights. Each model is
            converted and verified by itself; `calibration` and `verify_on` are for all, or dicts by the same names. The first signature is the main graph.
        path: The file to write, ending in `.tflite`. Its folder is created if missing.
        variant: `"float32"`, `"float16"`, `"dynamic_range"`, `"int8"`, `"int16x8"`, `"int4_weights"` or `"int8_int4_mixed"`; see
            `tfdistill.tflite.VARIANTS`. `"int4_weights"` needs the extra `tfdistill[quantizer]`.
        calibration: Samples that show the ranges of the activations to an integer variant; at least 16. An array (samples, ...), a list or
            dict of arrays for several inputs, a tuple (inputs, labels), a `tf.data.Dataset`, a `keras.utils.PyDataset` or an iterator of
            batches; or a function that returns one of these, such as TensorFlow's `representative_dataset`; or a folder of images, as a path or an
            `tfdistill.tflite.ImageFolder` with the model's preprocessing. A path gets the normalization of `metadata`, if that has one. Not needed if all ranges were trained; then it is used for tensors without a trained range.
        verify_on: Samples to compare the outputs on, in the same forms; with labels for the accuracy. Defaults to the calibration data.
            Without either, the file is not verified and `record.verification` is None.
        batch_size: Batch size of the file, at least 1; None leaves it free.
        io: Type of float inputs and outputs. `"auto"` is the variant's default: int8 for `"int8"` and `"int8_int4_mixed"`, int16 for `"int16x8"`, else float32. A
            file of 8-bit activations can also have `"uint8"` or `"float32"`, an `"int16x8"` file `"float32"`.
        tolerances: `tfdistill.tflite.Tolerances`; None takes the variant's.
        allow_flex: Whether operations that need the TensorFlow runtime are allowed. A file with such operations does not run in LiteRT
            alone and is not verified.
        max_calibration_samples: Largest number of calibration samples, at least 16: evenly spaced samples of an array, of each class its share where there are labels;
            the first samples of a dataset.
        task: Task of the outputs, one of `tfdistill.tasks.TASKS`, or a dict of output name -> task. None infers it from the labels, the
            compiled loss and the last activation.
        road: Who makes integers of a model from calibration data. `"bridge"`: `tfdistill.compress.Quantize`, which computes every layer in
            operations that TFLite has in integers and measures the range of each tensor. `"converter"`: TensorFlow's converter with its own
            calibrator. `"quantizer"`: litert-quantizer with its own, for weights of 4 bits, from the extra `tfdistill[quantizer]`. `"auto"`: the bridge for `"int8"`
            and `"int8_int4_mixed"`, or the converter or the quantizer if the bridge refuses the model; record and a warning then say why. A model with trained or
            measured ranges needs none; the weights of `"int4_weights"` are always the quantizer's.
        runtime: What is to run the file, if it is not today's LiteRT: `"tflite-runtime-2.14"`, the last one for boards of 32 bits and Python 3.8 to 3.11, or
            `"tflite-micro"`. The file then gets operations that it has, where there is a choice, and one that it would not run is refused, with what it lacks.
        metadata: `tfdistill.tflite.FileMetadata` to write into the file: labels, normalization, author, license. With it goes how the file was made: settings, versions,
            checksums and the results of the verification. None writes nothing.
        states: Where a model with stateful layers keeps its states. `"inside"`: in variables of the file, which begin anew with each interpreter; not in integer files. `"explicit"`: each
            state is an input and an output, so that a device streams: it begins with `record.states[i].first`, and copies each output to its input before the next
            call. Calibration and verification then take the samples for one sequence of calls. See docs/verification.md.
        outputs: `"split"` gives each branch of an output that ends in a Concatenate, such as a detector's boxes and scores, an output, a scale and a name of its own:
            that of the layer that computes it. Labels are then by these names.
        max_accuracy_drop_points: Most points of accuracy that the file may lose on `verify_on`, against the Keras model: 0.5 is from 90 % to 89.5 %. If it loses more,
            layers are kept wider: 8-bit weights where the variant has 4, then activations of 16 bits, or in `"int4_weights"` weights in float; those first that win most
            for each byte, as few as suffice. `record.kept_wider` lists them. For `"int8"`, `"int8_int4_mixed"` and `"int4_weights"`; `verify_on` is held-out data with labels. None keeps the variant's bits;
            `Tolerances(max_accuracy_drop=0.005)` is a limit alone, as a share, which refuses the file.

    Returns:
        An `ExportRecord`.

    Raises:
        ConfigurationError: if arguments contradict each other, the metadata does not fit the model, or the folder cannot be written.
        ModelError: if the model is not built, or its shapes cannot be fixed.
        DataError: if the calibration data is missing, too small, not finite or of the wrong shape; raised before the conversion.
        ExportError: if the conversion fails, if an integer file has a float tensor or scales that LiteRT would not open, or if a file has a Flex operation that is
            not allowed, or if `runtime` does not have its operations.
        InvariantError: if the model is quantization-aware and some of its ranges were never trained, or if it computes NaN or infinite numbers on the
            calibration data.
        VerificationError: if the outputs of the file are beyond the tolerances, or no bits hold `max_accuracy_drop_points`.

    Warns:
        UserWarning: if a few calibration samples stretch the integer range of an input (the message gives their indices), if the
            quantization steps of an input are too coarse for some of its features, if a mean absolute error grows by half, or if an input of uint8 reads
            pixels otherwise than the metadata says.

    Example:
        >>> record = tfdistill.export_tflite(student, "small.tflite", variant="int8", calibration=x, verify_on=(x, y))
        >>> record.io, record.calibration_samples, record.verification.samples
        ('int8', 64, 64)
        >>> record.accuracy is not None, record.size_bytes < 4000
        (True, True)
    """
    path = destination(path)
    if batch_size is not None and batch_size < 1:
        raise ConfigurationError(f"batch_size={batch_size} is impossible.", "at least 1, or None for a free batch")
    if max_calibration_samples < MIN_CALIBRATION_SAMPLES:
        raise ConfigurationError(f"max_calibration_samples={max_calibration_samples} is too few.", f"at least {MIN_CALIBRATION_SAMPLES}")
    data = {"calibration": calibration, "verify_on": verify_on}
    settings: dict[str, typing.Any] = {
        "variant": variant,
        "batch_size": batch_size,
        "io": io,
        "tolerances": tolerances,
        "allow_flex": allow_flex,
        "road": road,
        "max_calibration_samples": max_calibration_samples,
        "task": task,
        "runtime": runtime,
        "metadata": metadata,
        "states": states,
        "outputs": outputs,
    }
    if isinstance(model, Mapping):
        return export_signatures(model, path, export_tflite, data, settings | {"max_accuracy_drop_points": max_accuracy_drop_points})
    if max_accuracy_drop_points is not None:
        return controlled_export(export_tflite, model, path, max_accuracy_drop_points, data | settings)
    kind = variant_named(variant)
    io = resolve_io(kind, io)
    limits = tolerances_or_default(kind, tolerances)
    require_road(road, kind)
    if runtime is not None:
        require_runtime(runtime)
    validate.one_of("states", states, typing.get_args(States))
    model = exportable(model)
    split = None
    if validate.one_of("outputs", outputs, typing.get_args(Outputs)) == SPLIT:
        split = split_outputs(model)
        model = split.model
    signature = describe(model) if split is None else dataclasses.replace(describe(model), output_keys=split.names)
    stream = streaming(model, batch_size, kind.integer_only) if states == EXPLICIT else None
    if metadata is not None:
        require_fit_to_model(metadata, model, signature)
    require_trained_ranges(model)
    normalization = None if metadata is None else metadata.normalization
    calibration, verify_on = (normalized_folder(data, normalization) for data in (calibration, verify_on))
    for_calibration, for_verification = _samples(calibration, verify_on, signature, max_calibration_samples)
    floats = tuple(float_layers(model.legacy)) if isinstance(model, AdoptedModel) and kind.activation_bits == 8 else ()
    # The calibrator would make integers of what is to stay in float.
    representative = for_calibration if kind.integer_only and not floats else None
    if representative:
        require_variation(representative)
    extreme = extreme_calibration(representative, signature) if representative else {}
    warn(extreme.values())
    mixed = mixed_heads(model, signature, representative) if representative and kind.activation_bits == 8 and split is None else []
    source, written, adjust = model, signature, None
    if stream:
        source, written, adjust = stream.explicit.model, stream.signature, stream.share_ranges
        representative = stream.with_states(representative) if representative else None
    with write_whole(path) as temporary:

        def write(source, quantize=None):
            # Of a file of floats, in which the converter does as for the variant of float arithmetic.
            as_made = (kind, io, representative) if quantize is None else (FLOATS, "float32", None)
            with initial_states(source):
                temporary.write_bytes(convert(source, written, *as_made, batch_size, allow_flex, runtime not in ONE_SCALE_FOR_DENSE))
            if quantize is not None:
                temporary.write_bytes(quantize(temporary.read_bytes()))
            if stream:
                temporary.write_bytes(with_equal_state_scales(temporary.read_bytes(), stream.names))
            names = output_shapes(stream.explicit.model if stream else model, written)
            temporary.write_bytes(in_order(temporary.read_bytes(), [i.name for i in written.inputs], list(names) if names else None))
            contents = dataclasses.replace(census(temporary, True), path=str(path))
            if not allow_flex:
                require_no_flex(contents)
            if kind.integer_only:
                by_intention = (lambda name: any(f"quant_{n}/" in name for n in floats)) if floats else None
                require_integer(
                    contents, io == "float32", by_intention, LEAVE_ROAD_OUT if quantize is not None and road == QUANTIZER else None
                )
                require_trained_bits(temporary, source)
                require_bounded_scales(temporary.read_bytes(), str(path))
            # Last, as what is refused is told by the whole names, which begin with the scopes of the layers.
            temporary.write_bytes(finish(temporary.read_bytes()))
            if kind.weight_bits == 4:
                require_four_bits(temporary, path, kind, opens=quantize is not None and not contents.flex_ops)
            if runtime is not None:
                require_runs_in(runtime, temporary.read_bytes(), path)
            return dataclasses.replace(census(temporary, True), path=str(path))

        with names_explicit_states(model, stream):
            taken = take_road(road, source, written, kind, representative, write, runtime, adjust, io, batch_size)
        wide, narrow = split_by_width(temporary.read_bytes(), taken.wide)
        warn((*taken.warnings, *told_narrow(narrow)))
        contents = taken.result
        verification, warned = None, ()
        if for_verification is not None and not contents.flex_ops:
            with names_mixed_heads(mixed):
                verification, warned = verify_samples(
                    temporary,
                    model,
                    signature,
                    for_verification,
                    limits,
                    name=str(path),
                    task=task,
                    extreme=extreme,
                    trusted=True,
                    variant=variant,
                    streaming=stream,
                )
        record = ExportRecord(
            variant=variant,
            path=str(path),
            size_bytes=contents.size_bytes,
            sha256=contents.sha256,
            io=io,
            batch_size=batch_size,
            dtypes=contents.dtypes,
            min_runtime_version=contents.min_runtime_version,
            calibration_samples=representative.count if representative else 0,
            verified_on=None if verification is None else "calibration" if verify_on is None else "verify_on",
            verification=verification,
            census=contents,
            host=fingerprint(),
            road=taken.road,
            road_reason=taken.reason,
            float_layers=floats,
            wide_layers=wide,
            runtime=runtime,
            states=stream.record(contents) if stream else (),
            split=split.branches if split else {},
        )
        if metadata is not None:
            content, notes = described_export(temporary.read_bytes(), metadata, record, model)
            temporary.write_bytes(content)
            contents = dataclasses.replace(census(temporary, True), path=str(path))
            record = dataclasses.replace(record, size_bytes=contents.size_bytes, sha256=contents.sha256, census=contents)
            warned = (*warned, *notes)
    warn((*warned, *mixed))
    return record


def _samples(calibration, verify_on, signature, limit):
    """Returns the checked `Samples` for calibration and for verification; either may be None."""
    for_calibration = for_verification = None
    if calibration is not None:
        for_calibration = for_verification = collect(calibration, signature, "calibration", MIN_CALIBRATION_SAMPLES, limit)
    if verify_on is not None:
        for_verification = collect(verify_on, signature, "verification")
    return for_calibration, for_verification
