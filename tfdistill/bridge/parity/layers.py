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

from tfdistill.bridge.convert.weights import holds_weights, pair_weights
from tfdistill.bridge.parity.rounding import CHANGES, channels, excess_of, largest_excess, noises, stepped
from tfdistill.bridge.parity.run import arrays, difference, run_keras, statistics_kept
from tfdistill.errors import BridgeError
from tfdistill.graph.functional import calls, input_operation
from tfdistill.graph.tracing import open_model


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
        weight: Name of the weight that has other values; error and scale are its then.
    """

    path: str
    layer: typing.Any
    error: float
    scale: float
    excess: float
    reads: tuple = ()
    weight: str | None = None

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
        # What each tf_keras tensor stands for: the Keras 3 tensor, by its id.
        stands = dict(zip(map(id, counterpart.inputs), map(id, model.inputs), strict=False)) if _same_order(model, counterpart) else {}
        for node in _nodes(counterpart):
            made = self._run(node, values)
            same_name = [call for call in named.get(node.layer.name, ()) if len(call.outputs) == len(made)]
            if same_name:
                # A shared layer is called several times; in which order, the two graphs need not agree on.
                call = min(same_name, key=lambda call: (len(_reads(node, call)), largest_excess(_kept(call, seen), made)))
                found = self._compared(node, values, made, call, _kept(call, seen), path)
                stands.update(zip(map(id, _flat(node.outputs)), map(id, call.outputs), strict=True))
                if found.excess <= 1:
                    found = self._compared_weights(node, call, found)
                if found.excess <= 1:
                    found = self._compared_on_noise(node, values, call, seen, stands, found)
                wrong = self._inside(node, values, call, seen, found) if found.excess > 1 or has_graph(node.layer) else None
                if wrong is not None and wrong.excess > 1:
                    return wrong
                if found.excess <= 1 and (self.largest is None or found.share > self.largest.share):
                    self.largest = found
                made = [_tensor(value, mask_of=tensor) for value, tensor in zip(_kept(call, seen), made, strict=True)]
            values.update((id(symbolic), tensor) for symbolic, tensor in zip(_flat(node.outputs), made, strict=True))
        outputs = arrays([values[id(symbolic)] for symbolic in counterpart.outputs])
        for ours, theirs in zip(expected, outputs, strict=True):
            if (excess := excess_of(ours, theirs)) > 1:
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
        excess = largest_excess(kept, made)
        if excess > 1 and not has_graph(node.layer):  # a model is opened instead: its layers' own answers are smaller
            answers = self._answers(node, values, made)
            excess = max(excess_of(ours, theirs, answer) for ours, theirs, answer in zip(kept, arrays(made), answers, strict=True))
        error, scale = max(difference(ours, theirs) for ours, theirs in zip(kept, arrays(made), strict=True))
        return LayerDifference(f"{path}/{call.operation.name}", call.operation, error, scale, excess, _reads(node, call))

    def _compared_weights(self, node, call, found):
        """Compares the weights of a call, which its outputs may hide: behind a softmax that is 1, or where they meet zeros. Returns `found` where all agree."""
        layer = call.operation
        comparable = (
            not self.training and isinstance(layer, keras.layers.Layer) and not isinstance(layer, keras.Model) and holds_weights(layer)
        )
        if not comparable or len(layer.weights) != len(node.layer.weights):
            return found
        for ours, theirs in pair_weights(layer.weights, node.layer.weights, found.path):
            a, b = ours.value.numpy(), theirs.numpy()
            error, scale = difference(a, b.astype(a.dtype))
            if error > 0.0:
                return dataclasses.replace(found, error=error, scale=scale, excess=np.inf, weight=ours.path)
        return found

    def _compared_on_noise(self, node, values, call, seen, stands, found):
        """Compares a call on other tensors too, where its own may show too little: of a dead channel, an activation's limit, a small epsilon.

        Both are fed the same noise. Returns `found` where they agree on it, or where the call cannot be repeated.
        """
        repeatable = not self.training and not has_graph(node.layer) and not isinstance(call.operation, keras.Model)
        if not repeatable or not all(id(tensor) in seen for tensor in call.tensors()):
            return found
        for noisy in noises({id(tensor): seen[id(tensor)] for tensor in call.tensors()}):
            fed = {id(t): noisy.get(stands.get(id(t))) for t in node.keras_inputs}
            if not noisy or any(value is None for value in fed.values()):
                return found
            fed = {**values, **{key: _tensor(value, mask_of=values[key]) for key, value in fed.items()}}
            # Both get the masks of the tf_keras graph: Keras 3's attention takes those of its own inputs away when it has read them.
            masks = {stands.get(id(t)): values[id(t)] for t in node.keras_inputs}
            try:
                kept = self._run_ours(call, {**seen, **{key: _tensor(value, mask_of=masks.get(key)) for key, value in noisy.items()}})
                made = _where_seen(kept, self._run(node, fed))
                again = self._compared(node, fed, made, call, kept, found.path.rpartition("/")[0])
            except (TypeError, ValueError, tf.errors.InvalidArgumentError):  # floats that are indices; a call that only its graph can make
                return found
            if again.excess > 1:
                return again
        return found

    def _run_ours(self, call, seen):
        """Calls a Keras 3 layer or operation as its graph says, at inference; returns its outputs as arrays."""
        args, kwargs = keras.tree.map_structure(
            lambda x: seen[id(x)] if isinstance(x, keras.KerasTensor) else x, (call.args, dict(call.kwargs))
        )
        if "training" in kwargs or isinstance(call.operation, keras.layers.Layer):
            kwargs["training"] = False
        return arrays(call.operation(*args, **kwargs))

    def _answers(self, node, values, made):
        """Returns, for each output, how far each channel moves when the last bits of the layer's inputs and weights change: the sum over them.

        All are needed: of `(x - m) * s + b` and `x * s + (b - m * s)` the one rounds at the size of `(x - m) * s`, the other at those of `x * s` and
        `m * s`; where `x` is zero, as in a dead channel, only `m` tells that size. They change one after the other: at the same time, the changes of `m * s`
        and of `b` cancel in every second channel.
        """
        rng = np.random.default_rng(0)
        answers = [np.zeros(channels(x).shape[1]) for x in arrays(made)]
        if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(arrays(made), arrays(self._run(node, values)), strict=True)):
            return answers  # a random layer moves by itself
        self._add_answer(
            answers, made, lambda: self._run(node, {**values, **{id(t): _changed(values[id(t)], rng) for t in node.keras_inputs}})
        )
        for variable in node.layer.weights:
            value = variable.numpy()

            def changed(variable=variable, value=value):
                variable.assign(stepped(value, rng))
                return self._run(node, values)

            try:
                self._add_answer(answers, made, changed)
            finally:
                variable.assign(value)
        return answers

    @staticmethod
    def _add_answer(answers, made, run):
        """Adds to each answer the largest movement that some runs with other last bits show."""
        largest = [np.zeros_like(answer) for answer in answers]
        for _ in range(CHANGES):
            for most, before, after in zip(largest, arrays(made), arrays(run()), strict=True):
                moved = np.abs(channels(before) - channels(after))
                np.maximum(most, np.where(np.isfinite(moved), moved, 0.0).max(axis=0, initial=0.0), out=most)
        for answer, most in zip(answers, largest, strict=True):
            answer += most

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


def _same_order(model, counterpart):
    names = [[tensor._keras_history[0].name for tensor in one.inputs] for one in (model, counterpart)]
    return names[0] == names[1]


def _kept(call, seen):
    return arrays([seen[id(tensor)] for tensor in call.outputs])


def _tensor(value, mask_of):
    tensor = tf.constant(value)
    tensor._keras_mask = getattr(mask_of, "_keras_mask", None)
    return tensor


def _where_seen(kept, made):
    """Returns what a tf_keras layer made, with Keras 3's values where its mask hides it: of scores that are all masked, the two make different things."""
    found = []
    for ours, tensor in zip(kept, made, strict=True):
        mask, (theirs,) = getattr(tensor, "_keras_mask", None), arrays([tensor])
        if mask is not None and ours.shape == theirs.shape and tuple(mask.shape) == theirs.shape[: len(mask.shape)]:
            theirs = np.where(np.asarray(mask).reshape(*mask.shape, *[1] * (theirs.ndim - len(mask.shape))), theirs, ours)
        found.append(_tensor(theirs, mask_of=tensor))
    return found


def _changed(tensor, rng):
    (value,) = arrays([tensor])
    return _tensor(stepped(value, rng), mask_of=tensor)
