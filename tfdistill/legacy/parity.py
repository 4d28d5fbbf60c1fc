"""Proves that a Keras 3 model and a tf_keras model compute the same."""

import dataclasses

import keras
import numpy as np

from tfdistill.errors import BridgeError
from tfdistill.legacy.door import tf_keras
from tfdistill.legacy.graph import as_functional, calls, index_bounds, is_functional, is_sequential
from tfdistill.records import Record

# Both run the same TensorFlow kernels; what may remain is the rounding of float32 in another order of operations.
TOLERANCE = 1e-6


@dataclasses.dataclass(frozen=True)
class ParityRecord(Record):
    """How far two models' outputs are apart on random input.

    `max_abs_error` is the largest difference of any output element, `output_scale` the largest absolute value of the outputs,
    `tolerance` the largest share of the scale that was allowed.
    """

    model: str
    max_abs_error: float
    output_scale: float
    tolerance: float
    training: bool
    seed: int


def check_parity(keras_model, tf_keras_model, *, inputs=None, seed=0, tolerance=TOLERANCE, training=False, batch_size=2):
    """Compares the outputs of a Keras 3 model and its tf_keras counterpart, and raises if they differ.

    Neither model is changed: in training mode, moving statistics are put back.

    Args:
        keras_model: Functional or Sequential `keras.Model`.
        tf_keras_model: `tf_keras.Model` of the same inputs and outputs.
        inputs: Arrays in the structure of the model's inputs. By default random: normal floats, valid indices, booleans.
        seed: Seed of the random input.
        tolerance: Largest difference allowed, as a share of the largest absolute value of that output (and of 0.1 where that is smaller).
        training: Whether both run in training mode. Only meaningful for models without dropout and other randomness.
        batch_size: Batch of the random input, where the model leaves it free.

    Returns:
        `ParityRecord`.

    Raises:
        BridgeError: if an output differs; the message names the first layer that does.
    """
    opened = as_functional(keras_model)
    if inputs is None:
        inputs = random_inputs(opened, seed, batch_size)
    ours = _run_keras(opened, inputs, training)
    theirs = _run_tf_keras(tf_keras_model, inputs, training)
    errors = [_difference(a, b) for a, b in zip(ours, theirs, strict=True)]
    if not all(within(e, s, tolerance) for e, s in errors):
        raise _first_difference(opened, tf_keras_model, inputs, tolerance, training, errors, keras_model.name)
    worst = max(errors, key=lambda pair: pair[0])
    return ParityRecord(keras_model.name, worst[0], max(s for _, s in errors), tolerance, training, seed)


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


def _random(rng, tensor, bound, batch_size):
    free = 64 if len(tensor.shape) >= 4 else 8
    shape = [batch_size if n is None and i == 0 else free if n is None else n for i, n in enumerate(tensor.shape)]
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


def _run_keras(model, inputs, training):
    if not training:
        return _arrays(model(inputs, training=False))
    outputs, _ = model.stateless_call(
        [v.value for v in model.trainable_variables], [v.value for v in model.non_trainable_variables], inputs, training=True
    )
    return _arrays(outputs)


def _run_tf_keras(model, inputs, training):
    if not training:
        return _arrays(model(inputs, training=False))
    before = [variable.numpy() for variable in model.non_trainable_weights]
    try:
        return _arrays(model(inputs, training=True))
    finally:
        for variable, value in zip(model.non_trainable_weights, before, strict=True):
            variable.assign(value)


def _arrays(outputs):
    return [keras.ops.convert_to_numpy(x) for x in keras.tree.flatten(outputs)]


def _difference(ours, theirs):
    """Returns the largest difference and the largest absolute value of two arrays; infinite where shapes or NaNs differ."""
    if ours.shape != theirs.shape:
        return float("inf"), 0.0
    if not ours.size:
        return 0.0, 0.0
    a, b = (np.asarray(x, dtype="float64") for x in (ours, theirs))
    odd = ~np.isfinite(a) | ~np.isfinite(b)
    if not np.array_equal(a[odd], b[odd], equal_nan=True):
        return float("inf"), 0.0
    a, b = a[~odd], b[~odd]
    return (float(np.abs(a - b).max()), float(np.abs(a).max())) if a.size else (0.0, 0.0)


def _first_difference(model, tf_keras_model, inputs, tolerance, training, errors, path):
    """Returns the error that names the first layer whose output differs."""
    found = _search(model, tf_keras_model, inputs, tolerance, training, path)
    if found is None:
        error, scale = max(errors)
        happened = f"The tf_keras copy of '{path}' differs by {error:.3g} at outputs of up to {scale:.3g}; no single layer accounts for it."
    else:
        operation, where, error, scale = found
        happened = (
            f"The tf_keras copy of '{path}' computes something else. The first layer that differs is '{where}' "
            f"({type(operation).__module__}.{type(operation).__name__}): by {error:.3g} at outputs of up to {scale:.3g}."
        )
    return BridgeError(
        happened,
        f"differences of at most {tolerance:g} of the outputs' scale",
        "tfdistill.legacy.register_bridge(the layer's class, builder) says how to build that layer; tfdistill.legacy.host runs it as it is",
    )


def _search(model, tf_keras_model, inputs, tolerance, training, path):
    seen, ours, theirs, steps = {}, [], [], []
    for call in calls(model):
        name = call.operation.name
        seen[name] = seen.get(name, -1) + 1
        made = _output(tf_keras_model, name, seen[name])
        if made is not None and len(made) == len(call.outputs):
            ours.extend(call.outputs)
            theirs.extend(made)
            steps.append(call)
    if not steps:
        return None
    left = iter(_run_keras(keras.Model(model.input, ours), inputs, training))
    right = iter(_run_tf_keras(tf_keras().Model(tf_keras_model.input, theirs), inputs, training))
    values = {id(t): x for t, x in zip(model.inputs, keras.tree.flatten(inputs), strict=True)}
    for call in steps:
        for output in call.outputs:
            values[id(output)] = a = next(left)
            error, scale = _difference(a, next(right))
            if within(error, scale, tolerance):
                continue
            where = f"{path}/{call.operation.name}"
            return _inside(call, tf_keras_model, values, tolerance, training, where) or (call.operation, where, error, scale)
    return None


def _inside(call, tf_keras_model, values, tolerance, training, where):
    """Looks for the difference inside a nested model, on the input that it has in the outer one."""
    nested = call.operation
    tensors = call.tensors()
    if not (is_functional(nested) or is_sequential(nested)) or any(id(t) not in values for t in tensors):
        return None
    opened = as_functional(nested)
    inputs = keras.tree.pack_sequence_as(opened.input, [values[id(t)] for t in tensors])
    return _search(opened, tf_keras_model.get_layer(nested.name), inputs, tolerance, training, where)


def _output(tf_keras_model, name, count):
    """Returns the outputs of a layer's call number `count` in the tf_keras model, None where it is not part of the graph."""
    layer = next((x for x in tf_keras_model.layers if x.name == name), None)
    if layer is None:
        return None
    # A layer may have been called outside this model too; a nested model's first call is its own making.
    inside = {id(node) for nodes in tf_keras_model._nodes_by_depth.values() for node in nodes}
    nodes = [node for node in layer.inbound_nodes if id(node) in inside]
    return keras.tree.flatten(nodes[count].outputs) if count < len(nodes) else None
