"""Proves that a Keras 3 model and a tf_keras model compute the same."""

import contextlib
import dataclasses
import typing

import keras
import numpy as np
import tensorflow as tf

from tfdistill.bridge.parity.graphs import has_graph, run_every_call
from tfdistill.bridge.parity.layers import compare_layers
from tfdistill.bridge.parity.run import arrays, difference, each_call_alone, statistics_kept
from tfdistill.errors import BridgeError, TfdistillError
from tfdistill.graph.batches import rows_of
from tfdistill.graph.functional import as_functional, index_bounds
from tfdistill.graph.inlining import inlined_as
from tfdistill.graph.tracing import reason_of
from tfdistill.records import Record

if typing.TYPE_CHECKING:
    import tf_keras

# Both run the same TensorFlow kernels; what may remain is the rounding of float32 in another order of operations, which most nets do not multiply.
TOLERANCE = 1e-6


@dataclasses.dataclass(frozen=True)
class ParityRecord(Record):
    """How far two models' outputs are apart. Made by `check_parity`, which raises unless every layer agrees with its counterpart on equal inputs.

    Attributes:
        model: Name of the Keras 3 model.
        max_abs_error: Largest difference of any output element.
        output_scale: Largest absolute value of the outputs.
        tolerance: Share of the scale up to which outputs count as equal.
        training: Whether the models ran in training mode.
        seed: Seed of the random input.
        layer: Path of the layer with the largest difference, where the outputs' error is beyond the tolerance although all layers agree: the model
            then amplifies rounding. None where the outputs are within the tolerance.
        layer_error: That layer's difference as a share of its largest output, or None.

    Example:
        >>> record = tfdistill.bridge.check_parity(student, tfdistill.to_tf_keras(student, check=False))
        >>> record.max_abs_error <= record.tolerance * record.output_scale, record.layer
        (True, None)
    """

    model: str
    max_abs_error: float
    output_scale: float
    tolerance: float
    training: bool
    seed: int
    layer: str | None = None
    layer_error: float | None = None


def check_parity(
    keras_model: keras.Model,
    tf_keras_model: "tf_keras.Model",
    *,
    inputs: typing.Any = None,
    seed: int = 0,
    tolerance: float = TOLERANCE,
    training: bool = False,
    batch_size: int = 2,
) -> ParityRecord:
    """Compares a Keras 3 model with its tf_keras counterpart, layer by layer, and raises if one computes something else.

    Each layer is compared with its counterpart on equal inputs, as the models' outputs alone show too little. Outputs that differ may come from a
    model that amplifies rounding; outputs that agree may come from a softmax that is 1 whatever is wrong before it. Two layers may differ by what
    rounding explains; `tfdistill.bridge.parity.layers` describes how that is measured. Neither model is changed: after a comparison in training
    mode, moving statistics get their values back. Layers that carry a state from call to call begin each of the check's calls without one, and keep theirs.

    Args:
        keras_model: Functional or Sequential `keras.Model`.
        tf_keras_model: `tf_keras.Model` of the same inputs and outputs.
        inputs: Arrays in the structure of the model's inputs. By default random: normal floats, valid indices, booleans.
        seed: Seed of the random input.
        tolerance: Largest difference of an output that is not attributed to a layer, as a share of the output's largest absolute value (of 0.1 where
            that is smaller).
        training: Whether the models run in training mode. Only meaningful for models without dropout and other randomness.
        batch_size: Batch size of the random input, where the model leaves it free.

    Returns:
        `ParityRecord`.

    Raises:
        BridgeError: if a layer differs, or reads other layers' outputs; the message names the first one.

    Example:
        >>> copy = tfdistill.to_tf_keras(student)
        >>> tfdistill.bridge.check_parity(student, copy).model
        'student'
        >>> copy.get_layer("norm").epsilon = 0.5
        >>> tfdistill.bridge.check_parity(student, copy)
        Traceback (most recent call last):
        tfdistill.errors.BridgeError: ...The first layer that differs is 'student/norm'...
    """
    opened = inlined_as(as_functional(keras_model), {layer.name for layer in tf_keras_model.layers})
    with each_call_alone(opened, tf_keras_model):
        if inputs is None:
            inputs = random_inputs(opened, seed, batch_size)
            with needed_sizes(f"The model '{keras_model.name}'", inputs):
                seen = run_every_call(opened, inputs, training)
        else:
            seen = run_every_call(opened, inputs, training)
        ours = arrays(seen.outputs)
        with statistics_kept(tf_keras_model, training):
            theirs = arrays(tf_keras_model(inputs, training=training))
        errors = [difference(a, b) for a, b in zip(ours, theirs, strict=True)]
        (worst, scale_of_worst), scale = max(errors), max(s for _, s in errors)
        agree = all(within(e, s, tolerance) for e, s in errors)
        largest, wrong = compare_layers(opened, tf_keras_model, inputs, seen, training) if has_graph(tf_keras_model) else (None, None)
    if wrong is not None or not (agree or (largest is not None and np.isfinite(worst))):
        raise _refusal(keras_model.name, wrong, worst, scale_of_worst, tolerance)
    path, share = (None, None) if agree or largest is None else (largest.path, largest.share)
    return ParityRecord(keras_model.name, worst, scale, tolerance, training, seed, path, share)


@contextlib.contextmanager
def needed_sizes(what, inputs):
    """Raises a `BridgeError` in place of what Keras and TensorFlow raise when a model does not run on random input, whose free sizes are made up."""
    try:
        yield
    except (TypeError, ValueError, tf.errors.InvalidArgumentError) as error:
        if isinstance(error, TfdistillError):
            raise
        shapes = ", ".join(str(x.shape) for x in keras.tree.flatten(inputs))
        raise BridgeError(
            f"{what} does not run on random input of the shapes {shapes}: {reason_of(error)}",
            "a model that runs with 8 in place of every free size",
            "give the sizes that the model needs in keras.Input(shape), and make the model of that",
        ) from error


def within(error, scale, tolerance):
    """Whether a largest difference is within `tolerance` of the outputs' scale (0.1 where that is smaller)."""
    return error <= tolerance * max(scale, 0.1)


def random_inputs(model, seed=0, batch_size=2):
    """Makes random input for a functional model, in the structure of its inputs.

    Args:
        model: Functional Keras 3 model.
        seed: Seed.
        batch_size: Batch where the model leaves it free. Other free dimensions are 8, or 64 for images.

    Returns:
        Arrays: normal floats; integers below the size of the embedding that they end in (with zeros among them, which may be masked); booleans.

    Raises:
        BridgeError: for inputs that are not numbers.
    """
    rng = np.random.default_rng(seed)
    bounds = index_bounds(model)
    arrays = [_random(rng, tensor, bounds.get(i), batch_size) for i, tensor in enumerate(model.inputs)]
    return keras.tree.pack_sequence_as(model.input, arrays)


def made_up_length(rank):
    """Returns what takes the place of a free size, but for the batch, of an input with so many axes: what a model is compared at."""
    return 64 if rank >= 4 else 8


def _random(rng, tensor, bound, batch_size):
    free = made_up_length(len(tensor.shape))
    shape = [batch_size * rows_of(tensor) if n is None and i == 0 else free if n is None else n for i, n in enumerate(tensor.shape)]
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    if dtype == "string":
        raise BridgeError(f"The input '{tensor.name}' is text.", "numbers", "turn text into indices in the data pipeline, before the model")
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if bound is not None or "int" in dtype:
        values = rng.integers(0, bound or 2, shape)
        if len(shape) > 1:
            values[..., -1] = 0  # the padding that mask_zero looks for
        return values.astype(dtype)
    values = rng.standard_normal(shape).astype("float32")
    return keras.ops.cast(values, dtype) if dtype == "bfloat16" else values.astype(dtype)


def _refusal(name, wrong, error, scale, tolerance):
    """Returns the error for a model that differs, given the first layer that does (None where no layer was found)."""
    expected = f"differences of at most {tolerance:g} of the outputs' scale, or of a rounding in each layer"
    fix = (
        "tfdistill.bridge.register_bridge(the layer's class, builder) sets how that layer is built; tfdistill.bridge.host runs it as it is"
    )
    if wrong is None:
        happened = f"The tf_keras copy of '{name}' differs by {error:.3g} at outputs of up to {scale:.3g}; no single layer accounts for it."
        return BridgeError(happened, expected, fix)
    happened = f"The tf_keras copy of '{name}' computes something else: its outputs differ by {error:.3g}."
    amount = f"by {wrong.error:.3g} at outputs of up to {wrong.scale:.3g}"
    wires = "connect it as the Keras 3 model is"
    if wrong.layer is None:
        return BridgeError(
            f"{happened} All layers of '{wrong.path}' agree, but its outputs are others: they differ {amount}.", expected, wires
        )
    happened = (
        f"{happened} The first layer that differs is '{wrong.path}' ({type(wrong.layer).__module__}.{type(wrong.layer).__name__}): {amount}"
    )
    if wrong.weight:
        happened = happened.replace(amount, f"its weight '{wrong.weight}' by {wrong.error:.3g} at values of up to {wrong.scale:.3g}")
        return BridgeError(f"{happened}.", expected, "copy the weights of the Keras 3 model, all of them")
    if not wrong.reads:
        return BridgeError(f"{happened}, on the inputs that it has in the Keras 3 model.", expected, fix)
    reads = ", ".join(f"'{layer}'" for layer in wrong.reads)
    return BridgeError(f"{happened}. It reads the outputs of {reads}, which it does not in the Keras 3 model.", expected, wires)
