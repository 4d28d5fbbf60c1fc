"""Looks for NaN and infinity in what a graph computes: the converter's calibrator crashes on an infinite range, and takes the whole process with it."""

import numpy as np

from tfdistill.errors import InvariantError
from tfdistill.graph.operations import needed_operations
from tfdistill.runtime.tensors import pad_batch

# What computes nothing. Where an infinite constant is harmless, nothing that reads it shows it.
_GIVEN = ("Const", "Placeholder", "ReadVariableOp")
_HANDING_ON = ("Cast", "ExpandDims", "Identity", "Reshape", "Squeeze", "Transpose")


def not_finite(name, where):
    """Returns the `InvariantError` about a model that computes NaN or infinite numbers on calibration data.

    Args:
        name: Name of the model.
        where: The first place that does, and on what.
    """
    return InvariantError(
        f"The model '{name}' computes NaN or infinite numbers on the calibration data, first of all in {where}.",
        "finite numbers in every layer, as an integer tensor has a range with two ends",
        "replace infinite constants by finite ones, such as -1e4 in a mask; else look there for divisions by 0, and for logarithms and exponentials of numbers "
        "that they are not for",
    )


def _is_clipped(tensor, needed):
    """Whether a tensor goes into nothing but a trained range, which clips infinity: the inverse root of what rounds to 0, for example."""
    readers = [op for op in tensor.consumers() if op in needed]
    return bool(readers) and all(
        op.type.startswith("FakeQuant") or (op.type in _HANDING_ON and _is_clipped(op.outputs[0], needed)) for op in readers
    )


def require_finite(concrete, samples, size, name):
    """Runs a traced model on calibration samples and refuses one that computes NaN or infinite numbers on the way, even where its outputs hide them.

    Args:
        concrete: The concrete function. Its inputs have the names of the samples' arrays.
        samples: Calibration `Samples`.
        size: Batch size of the function, or of the batches if it takes any.
        name: Name of the model, for the error.

    Raises:
        InvariantError: naming the first operation that computes such numbers, and the sample.
    """
    import tensorflow as tf

    operations = needed_operations(concrete.graph, concrete.outputs)
    needed = set(operations)
    watched = [x for op in operations if op.type not in _GIVEN for x in op.outputs if x.dtype.is_floating and not _is_clipped(x, needed)]
    if not watched:
        return
    captured = concrete.captured_inputs
    arguments = concrete.inputs[: len(concrete.inputs) - len(captured)]
    definition = concrete.graph.as_graph_def()

    def are_finite(*tensors):
        held = map(tf.compat.v1.get_default_graph().capture, captured)  # the weights
        given = dict(zip((x.name for x in concrete.inputs), [*tensors, *held], strict=True))
        found = tf.graph_util.import_graph_def(definition, input_map=given, return_elements=[x.name for x in watched], name="")
        return tf.stack([tf.reduce_all(tf.math.is_finite(x)) for x in found])

    specs = [tf.TensorSpec(x.shape, x.dtype, name=x.op.name) for x in arguments]
    step = tf.function(are_finite, input_signature=specs, autograph=False)
    for start, batch in zip(range(0, samples.count, size), samples.batches(size), strict=True):
        if len(next(iter(batch.values()))) < size:
            batch = pad_batch(batch, size)
        finite = np.asarray(step(*(batch[x.op.name] for x in arguments)))
        if not finite.all():
            operation = watched[int(np.argmin(finite))].op
            raise not_finite(name, f"'{operation.name}' ({operation.type}), sample {samples.positions[start]}")
