"""Compares two models layer by layer, to tell a wrong translation from rounding that the net itself multiplies.

The two Keras compute BatchNormalization of images in different orders, `x * s + (b - m * s)` and, fused, `(x - m) * s + b`, and LayerNormalization likewise;
all else that the tests measure is the same to the bit. One such layer differs by about 1e-7. Where a channel's variance is tiny, the layer multiplies by
hundreds what came before it, so a right translation of a deep net may end with any difference at all, and no tolerance on the outputs tells it from a
wrong one. Nor would both nets in double precision: the fused kernel does not exist there, so another computation would be compared.

So the tf_keras graph is walked in its own order, every call is fed tensors of the Keras 3 model, and what it makes of them is compared with the Keras 3
tensor of that name. Rounding is never multiplied by more than one layer so. What a call is fed is decided by the connections of the tf_keras graph: each of
its tensors stands for the Keras 3 tensor that it was found to agree with. A wrong connection feeds something else, and shows as a wrong layer does. By
induction, a walk without a disagreement whose outputs stand for the outputs means that the two models compute the same, but for rounding in each layer.

Masks are not taken over: those that the tf_keras layers make themselves travel on, so that a wrong mask shows at the layer that uses it.
"""

import collections
import dataclasses
import typing

import keras
import numpy as np
import tensorflow as tf

from tfdistill.errors import BridgeError
from tfdistill.legacy.graph import calls, input_operation
from tfdistill.legacy.parity_runs import arrays, difference, run_keras, statistics_kept
from tfdistill.legacy.tracing import open_model

# Distance from 1 to the next number. All other kinds of numbers have to be equal.
_EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
# How many such steps two right layers may be apart. Layers of the tests and of keras.applications need 2 on a CPU; other kernels may need more.
_STEPS = 8
# A channel of few values may by chance hardly answer to one change of its inputs.
_CHANGES = 4
# What a layer answers is believed up to this share of its outputs' scale: where a step function jumps, the answer is no measure of rounding.
_MOST = 1e-2


@dataclasses.dataclass(frozen=True)
class LayerDifference:
    """How far apart the outputs of a layer and its counterpart are when both get the same inputs.

    Attributes:
        path: Where the layer is.
        layer: The Keras 3 layer or operation; None where all layers of a model agree and its outputs do not.
        error: Largest difference.
        scale: Largest absolute value.
        excess: Largest share, over all channels, of what rounding explains; the two agree where it is at most 1.
        reads: Names of layers whose outputs the counterpart reads and the layer does not.
    """

    path: str
    layer: typing.Any
    error: float
    scale: float
    excess: float
    reads: tuple = ()

    @property
    def share(self):
        """The difference as a share of the scale."""
        return self.error / self.scale if self.scale else self.error


def compare_layers(model, tf_keras_model, inputs, expected, training=False):
    """Compares every call in the graph of a tf_keras model with that of the same name in a Keras 3 model, on the tensors of the latter.

    Args:
        model: Functional Keras 3 model.
        tf_keras_model: tf_keras model with a graph, of the same layer names. Layers of other names are compared together with the next one that has a
            counterpart.
        inputs: Arrays in the structure of the model's inputs.
        expected: The Keras 3 model's outputs on them, flat.
        training: Whether both run in training mode.

    Returns:
        Pair of `LayerDifference`s: the largest one among layers that agree, and the first that does not; None where there is none.
    """
    walk = _Walk(training)
    with statistics_kept(tf_keras_model, training):
        wrong = walk.first_wrong(model, inputs, tf_keras_model, inputs, expected, model.name)
    return walk.largest, wrong


def has_graph(tf_keras_model):
    """Whether a tf_keras model is functional, or a Sequential one that is built."""
    return getattr(tf_keras_model, "_nodes_by_depth", None) is not None


class _Walk:
    """One comparison; remembers the largest difference among layers that agree."""

    def __init__(self, training):
        self.training = training
        self.largest = None

    def first_wrong(self, model, inputs, counterpart, fed, expected, path):
        """Returns the first `LayerDifference` that rounding does not explain, None where there is none.

        Args:
            model: Functional Keras 3 model.
            inputs: What it is called with, masks included.
            counterpart: tf_keras model.
            fed: What that is called with, masks included.
            expected: Arrays that the counterpart's outputs have to be.
            path: Where the model is.
        """
        named, seen = self._calls(model, inputs)
        values = _conformed(counterpart, fed)
        for node in _nodes(counterpart):
            made = self._run(node, values)
            same_name = [call for call in named.get(node.layer.name, ()) if len(call.outputs) == len(made)]
            if same_name:
                # A shared layer is called several times; in which order, the two graphs need not agree on.
                call = min(same_name, key=lambda call: (len(_reads(node, call)), _largest_excess(_kept(call, seen), made)))
                found = self._compared(node, values, made, call, _kept(call, seen), path)
                wrong = self._inside(node, values, call, seen, found) if found.excess > 1 else None
                if wrong is not None:
                    return wrong
                if found.excess <= 1 and (self.largest is None or found.share > self.largest.share):
                    self.largest = found
                made = [_tensor(value, mask_of=tensor) for value, tensor in zip(_kept(call, seen), made, strict=True)]
            values.update((id(symbolic), tensor) for symbolic, tensor in zip(_flat(node.outputs), made, strict=True))
        outputs = arrays([values[id(symbolic)] for symbolic in counterpart.outputs])
        for ours, theirs in zip(expected, outputs, strict=True):
            if (excess := _excess(ours, theirs)) > 1:
                return LayerDifference(path, None, *difference(ours, theirs), excess)
        return None

    def _calls(self, model, inputs):
        """Returns a dict of name to the calls of a Keras 3 model, and a dict of symbolic tensor (its id) to its value."""
        every = list(calls(model))
        symbolic = [tensor for call in every for tensor in call.outputs]
        values = run_keras(keras.Model(model.input, symbolic), inputs, self.training) if symbolic else []
        named = collections.defaultdict(list)
        for call in every:
            named[call.operation.name].append(call)
        symbolic, values = [*model.inputs, *symbolic], [*keras.tree.flatten(inputs), *values]
        return named, {id(tensor): value for tensor, value in zip(symbolic, values, strict=True)}

    def _run(self, node, values):
        """Calls a tf_keras layer as its node says; returns its outputs, flat."""
        args, kwargs = _filled(node, values)
        given = node.layer._call_spec.arg_was_passed("training", args, kwargs, inputs_in_args=True)
        if not given or kwargs.get("training", False) is None:
            kwargs = {**kwargs, "training": self.training}
        return _flat(node.layer(*args, **kwargs))

    def _compared(self, node, values, made, call, kept, path):
        excess = _largest_excess(kept, made)
        if excess > 1 and not has_graph(node.layer):  # a model is opened instead: its layers' own answers are smaller
            answers = self._answers(node, values, made)
            excess = max(_excess(ours, theirs, answer) for ours, theirs, answer in zip(kept, arrays(made), answers, strict=True))
        error, scale = max(difference(ours, theirs) for ours, theirs in zip(kept, arrays(made), strict=True))
        return LayerDifference(f"{path}/{call.operation.name}", call.operation, error, scale, excess, _reads(node, call))

    def _answers(self, node, values, made):
        """Returns, for each output, how far each channel moves when the last bits of the layer's inputs change."""
        rng = np.random.default_rng(0)
        answers = [np.zeros(_channels(x).shape[1]) for x in arrays(made)]
        again = arrays(self._run(node, values))
        if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(arrays(made), again, strict=True)):
            return answers  # a random layer moves by itself
        for _ in range(_CHANGES):
            changed = {id(t): _changed(values[id(t)], rng) for t in node.keras_inputs}
            for answer, before, after in zip(answers, arrays(made), arrays(self._run(node, {**values, **changed})), strict=True):
                moved = np.abs(_channels(before) - _channels(after))
                np.maximum(answer, np.where(np.isfinite(moved), moved, 0.0).max(axis=0, initial=0.0), out=answer)
        return answers

    def _inside(self, node, values, call, seen, found):
        """Returns what is wrong inside a nested model; the whole of it where it cannot be opened, None where all its layers agree."""
        args, kwargs = _filled(node, values)
        if not (has_graph(node.layer) and isinstance(call.operation, keras.Model)) or len(args) != 1 or kwargs.get("mask") is not None:
            return found
        try:
            opened = open_model(call.operation)
        except BridgeError:
            return found
        inputs = keras.tree.map_structure(lambda x: seen[id(x)] if isinstance(x, keras.KerasTensor) else x, call.args[0])
        wrong = self.first_wrong(opened, inputs, node.layer, args[0], _kept(call, seen), found.path)
        # Where the model itself is fed something else, what its first layer makes of that is no fault of the layer.
        return found if wrong is not None and found.reads else wrong


def _nodes(model):
    for depth in sorted(model._nodes_by_depth, reverse=True):
        yield from (node for node in model._nodes_by_depth[depth] if not node.is_input)


def _filled(node, values):
    return tf.nest.map_structure(lambda x: values.get(id(x), x), (tuple(node.call_args), dict(node.call_kwargs)))


def _reads(node, call):
    """Returns names of the layers that a tf_keras call reads and a Keras 3 call does not."""
    sources = {input_operation(tensor).name for tensor in call.tensors()}
    names = [tensor._keras_history.layer.name for tensor in node.keras_inputs]
    return tuple(dict.fromkeys(name for name in names if name not in sources))


def _conformed(model, fed):
    # As tf_keras itself assigns what a model is called with to its inputs: by order, or by name from a dict.
    flat = model._flatten_to_reference_inputs(tf.nest.map_structure(tf.convert_to_tensor, fed))
    return {id(symbolic): model._conform_to_reference_input(x, ref_input=symbolic) for symbolic, x in zip(model.inputs, flat, strict=True)}


def _flat(structure):
    return tf.nest.flatten(structure)


def _kept(call, seen):
    return arrays([seen[id(tensor)] for tensor in call.outputs])


def _tensor(value, mask_of):
    tensor = tf.constant(value)
    tensor._keras_mask = getattr(mask_of, "_keras_mask", None)
    return tensor


def _changed(tensor, rng):
    """Returns a tensor moved by one step of its precision, up or down at random; whole numbers stay."""
    (value,) = arrays([tensor])
    step = _EPSILON.get(value.dtype.name, 0.0)
    return _tensor((value * (1.0 + step * rng.choice([-1.0, 1.0], value.shape))).astype(value.dtype) if step else value, mask_of=tensor)


def _channels(array):
    """Returns an array as rows of channels (the last axis), in double precision."""
    array = np.asarray(array, "float64")
    return array.reshape(-1, array.shape[-1] if array.ndim > 1 else 1) if array.size else np.zeros((0, 1))


def _largest_excess(kept, made):
    return max(_excess(ours, theirs) for ours, theirs in zip(kept, arrays(made), strict=True))


def _excess(ours, theirs, answer=0.0):
    """Returns the largest share, over the channels, of what rounding explains.

    Each channel has its own scale, or the loudest would hide what is wrong in a quiet one that the next normalization makes loud. Where large numbers
    cancel, rounding is large beside what is left of them: there `answer`, how far a channel moves when the inputs' last bits change, says how large.
    """
    if not np.isfinite(difference(ours, theirs)[0]):
        return np.inf
    a, b = (np.where(np.isfinite(x), x, 0.0) for x in (_channels(ours), _channels(theirs)))
    error, scale = (x.max(axis=0, initial=0.0) for x in (np.abs(a - b), np.abs(a)))
    explained = _STEPS * _EPSILON.get(ours.dtype.name, 0.0) * scale + np.minimum(_STEPS * answer, _MOST * scale.max(initial=0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.where(error > 0.0, error / explained, 0.0).max(initial=0.0))
