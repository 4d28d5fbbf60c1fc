"""Compares two models layer by layer, to tell a wrong translation from rounding that the model itself amplifies.

The two Keras compute BatchNormalization of images in different orders, `x * s + (b - m * s)` and, fused, `(x - m) * s + b`, and LayerNormalization likewise.
All else that the tests measure is equal to the bit. One such layer differs by about 1e-7. Where a channel's variance is tiny, the layer multiplies what came
before it by hundreds: a right translation of a deep net may end with any difference at all, and no tolerance on the outputs separates it from a wrong one.
Double precision does not help, as the fused kernel does not exist there: another computation would be compared.

So the tf_keras graph is walked in its own order. Every call gets tensors of the Keras 3 model, and its outputs are compared with the Keras 3 tensors of the
same name: rounding passes through one layer only. The connections of the tf_keras graph decide what a call gets: each of its tensors stands for the Keras 3
tensor that it was found to agree with. A wrong connection brings other values, and shows as a wrong layer does. By induction, a walk without a difference
whose last tensors stand for the outputs means that the two models compute the same, up to rounding in each layer.

Masks are not taken over from Keras 3: those of the tf_keras layers travel on, so that a wrong mask shows at the layer that uses it.
"""

import dataclasses
import typing

import keras
import numpy as np
import tensorflow as tf

from tfdistill.bridge.convert.weights import holds_weights, pair_weights
from tfdistill.bridge.parity.graphs import (
    conformed,
    constant,
    filled,
    flat,
    foreign_reads,
    has_graph,
    nodes,
    run_every_call,
    same_order,
    unmasked,
    values_of,
)
from tfdistill.bridge.parity.hidden import Hidden, has_mask
from tfdistill.bridge.parity.rounding import REPEATS, channels, excess_of, largest_excess, noises, stepped
from tfdistill.bridge.parity.run import arrays, difference, statistics_kept
from tfdistill.errors import BridgeError
from tfdistill.graph.inlining import inlined_as
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


def compare_layers(model, tf_keras_model, inputs, seen, training=False):
    """Compares every call in the graph of a tf_keras model with that of the same name in a Keras 3 model, on the tensors of the latter.

    Args:
        model: Functional Keras 3 model.
        tf_keras_model: tf_keras model with a graph, of the same layer names. Layers of other names are compared together with the next one that has a
            counterpart.
        inputs: Arrays in the structure of the model's inputs.
        seen: What the Keras 3 model computes on them: the `SeenCalls` of `run_every_call`.
        training: Whether both run in training mode.

    Returns:
        Pair of `LayerDifference`s: the largest one among layers that agree, and the first that does not; None where there is none.
    """
    walk = _Walk(training)
    with statistics_kept(tf_keras_model, training):
        wrong = walk.first_wrong(model, seen, tf_keras_model, inputs, arrays(seen.outputs), model.name)
    return walk.largest, wrong


class _Walk:
    """One comparison of two models; remembers the largest difference among layers that agree."""

    def __init__(self, training):
        self.training = training
        self.largest = None

    def first_wrong(self, model, seen_calls, counterpart, fed, expected, path):
        """Returns the first `LayerDifference` that rounding does not explain, None where there is none.

        Args:
            model: Functional Keras 3 model.
            seen_calls: What it computes: `SeenCalls`.
            counterpart: tf_keras model.
            fed: What the counterpart is called with, masks included.
            expected: Arrays that its outputs have to be.
            path: Where the model is.
        """
        seen = seen_calls.values
        values = conformed(counterpart, fed)
        hidden = Hidden(self)
        # tf_keras tensor -> the Keras 3 tensor that it stands for, both by id.
        stands_for = dict(zip(map(id, counterpart.inputs), map(id, model.inputs), strict=False)) if same_order(model, counterpart) else {}
        for node in nodes(counterpart):
            outputs = self._run(node, values)
            candidates = [call for call in seen_calls.named.get(node.layer.name, ()) if len(call.outputs) == len(outputs)]
            if candidates:
                call = _nearest(node, candidates, outputs, seen)
                ours = values_of(call, seen)
                stands_for.update(zip(map(id, flat(node.outputs)), map(id, call.outputs), strict=True))
                found = self._compared(node, values, outputs, call, ours, path)
                if found.excess > 1 and has_mask(outputs):
                    visible = self._compared(node, values, outputs, call, ours, path, masked=True)
                    if visible.excess <= 1:
                        hidden.begin(node, found, ours, outputs)
                        found = visible
                if found.excess <= 1:
                    found = self._compared_weights(node, call, found)
                if found.excess <= 1:
                    found = self._compared_on_noise(node, values, call, seen, stands_for, found)
                wrong = self._inside(node, values, call, seen_calls, found) if found.excess > 1 or has_graph(node.layer) else None
                if wrong is not None and wrong.excess > 1:
                    return wrong
                if found.excess <= 1 and (self.largest is None or found.share > self.largest.share):
                    self.largest = found
                outputs = [constant(value, mask_of=tensor) for value, tensor in zip(ours, outputs, strict=True)]
            if (misread := hidden.follow(node, values, path, candidates and call, candidates and ours)) is not None:
                return misread
            values.update((id(symbolic), tensor) for symbolic, tensor in zip(flat(node.outputs), outputs, strict=True))
        if (misread := hidden.reaching(counterpart.outputs)) is not None:
            return misread
        for ours, theirs in zip(expected, arrays([values[id(symbolic)] for symbolic in counterpart.outputs]), strict=True):
            if (excess := excess_of(ours, theirs)) > 1:
                return LayerDifference(path, None, *difference(ours, theirs), excess)
        return None

    def _run(self, node, values):
        """Calls a tf_keras layer as its node says; returns its outputs, flat."""
        args, kwargs = filled(node, values)
        given = node.layer._call_spec.arg_was_passed("training", args, kwargs, inputs_in_args=True)
        if not given or kwargs.get("training", False) is None:
            kwargs = {**kwargs, "training": self.training}
        return flat(node.layer(*args, **kwargs))

    def _compared(self, node, values, outputs, call, ours, path, masked=False):
        """Compares the outputs of a tf_keras call with the arrays of a Keras 3 call, without what masks hide if `masked`; returns a `LayerDifference`."""

        def settled(tensors):
            return arrays(unmasked(ours, tensors) if masked else tensors)

        theirs = settled(outputs)
        excess = largest_excess(ours, theirs)
        if excess > 1 and not has_graph(node.layer):  # a nested model is compared inside instead: its layers' own responses are smaller
            responses = self._responses(node, values, theirs, settled)
            excess = max(excess_of(*pair, response) for *pair, response in zip(ours, theirs, responses, strict=True))
        error, scale = max(difference(*pair) for pair in zip(ours, theirs, strict=True))
        return LayerDifference(f"{path}/{call.operation.name}", call.operation, error, scale, excess, foreign_reads(node, call))

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

    def _compared_on_noise(self, node, values, call, seen, stands_for, found):
        """Compares a call on other tensors too, as its own may hide a dead channel, an activation's limit or a small epsilon.

        Both calls get the same noise. Returns `found` where they agree on it, or where the call cannot be repeated.
        """
        repeatable = not self.training and not has_graph(node.layer) and not isinstance(call.operation, keras.Model)
        if not repeatable or not all(id(tensor) in seen for tensor in call.tensors()):
            return found
        for noise in noises({id(tensor): seen[id(tensor)] for tensor in call.tensors()}):
            fed = {id(t): noise.get(stands_for.get(id(t))) for t in node.keras_inputs}
            if not noise or any(value is None for value in fed.values()):
                return found
            fed = {**values, **{key: constant(value, mask_of=values[key]) for key, value in fed.items()}}
            # Both get the masks of the tf_keras graph, as Keras 3's attention removes those of its own inputs once it has read them.
            masks = {stands_for.get(id(t)): values[id(t)] for t in node.keras_inputs}
            try:
                ours = _run_keras_call(call, {**seen, **{key: constant(value, mask_of=masks.get(key)) for key, value in noise.items()}})
                again = self._compared(node, fed, self._run(node, fed), call, ours, found.path.rpartition("/")[0], masked=True)
            except (TypeError, ValueError, tf.errors.InvalidArgumentError):  # floats that are indices; a call that only its graph can make
                return found
            if again.excess > 1:
                return again
        return found

    def _responses(self, node, values, before, settled):
        """Measures how far each channel of each output moves from `before` when the last bits of the layer's inputs and weights change, summed over these.

        `settled` makes arrays of the layer's outputs.

        All of them are needed. Of `(x - m) * s + b` and `x * s + (b - m * s)`, the one rounds at the size of `(x - m) * s`, the other at those of `x * s` and
        `m * s`; where `x` is zero, as in a dead channel, only `m` shows that size. They change one after the other: at the same time, the changes of `m * s`
        and of `b` cancel in every second channel.
        """
        rng = np.random.default_rng(0)
        responses = [np.zeros(channels(x).shape[1]) for x in before]
        if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(before, settled(self._run(node, values)), strict=True)):
            return responses  # a random layer moves by itself

        def with_other_inputs():
            return settled(self._run(node, {**values, **{id(t): _stepped_tensor(values[id(t)], rng) for t in node.keras_inputs}}))

        _add_largest_movement(responses, before, with_other_inputs)
        for variable in node.layer.weights:
            value = variable.numpy()

            def with_another_weight(variable=variable, value=value):
                variable.assign(stepped(value, rng))
                return settled(self._run(node, values))

            try:
                _add_largest_movement(responses, before, with_another_weight)
            finally:
                variable.assign(value)
        return responses

    def _inside(self, node, values, call, seen_calls, found):
        """Returns what is wrong inside a nested model; `found`, the whole of it, where it cannot be opened; None where all its layers agree."""
        args, kwargs = filled(node, values)
        if not (has_graph(node.layer) and isinstance(call.operation, keras.Model)) or len(args) != 1 or kwargs.get("mask") is not None:
            return found
        try:
            alone = call if len(seen_calls.named[call.operation.name]) == 1 else None
            opened = inlined_as(open_model(call.operation), {layer.name for layer in node.layer.layers}, alone)
        except BridgeError:
            return found
        inputs = keras.tree.map_structure(lambda x: seen_calls.values[id(x)] if isinstance(x, keras.KerasTensor) else x, call.args[0])
        inner = run_every_call(opened, inputs, self.training)
        wrong = self.first_wrong(opened, inner, node.layer, args[0], values_of(call, seen_calls.values), found.path)
        # Where the model itself gets other inputs, its first layer's difference is no fault of that layer.
        return found if wrong is not None and found.reads else wrong


def _nearest(node, candidates, outputs, seen):
    """Returns the Keras 3 call of a shared layer that a tf_keras call stands for; the two graphs need not have them in the same order."""
    if len(candidates) == 1:
        return candidates[0]
    return min(candidates, key=lambda call: (len(foreign_reads(node, call)), largest_excess(values_of(call, seen), arrays(outputs))))


def _run_keras_call(call, seen):
    """Calls a Keras 3 layer or operation as its graph says, at inference; returns its outputs as arrays."""
    args, kwargs = keras.tree.map_structure(
        lambda x: seen[id(x)] if isinstance(x, keras.KerasTensor) else x, (call.args, dict(call.kwargs))
    )
    if "training" in kwargs or isinstance(call.operation, keras.layers.Layer):
        kwargs["training"] = False
    with keras.StatelessScope():
        return arrays(call.operation(*args, **kwargs))


def _add_largest_movement(responses, before, run):
    """Adds to each response the largest movement of its channels in some runs with other last bits."""
    largest = [np.zeros_like(response) for response in responses]
    for _ in range(REPEATS):
        for most, old, new in zip(largest, before, run(), strict=True):
            moved = np.abs(channels(old) - channels(new))
            np.maximum(most, np.where(np.isfinite(moved), moved, 0.0).max(axis=0, initial=0.0), out=most)
    for response, most in zip(responses, largest, strict=True):
        response += most


def _stepped_tensor(tensor, rng):
    (value,) = arrays([tensor])
    return constant(stepped(value, rng), mask_of=tensor)
