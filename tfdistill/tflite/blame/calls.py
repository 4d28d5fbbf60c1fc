"""Runs a model layer by layer, on the values that it computes itself or on those of a file."""

import collections
import dataclasses

import numpy as np

from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.adopt.precision import in_float32
from tfdistill.bridge.adopt.rewire import replay
from tfdistill.bridge.adopt.states import initial_states
from tfdistill.bridge.wrappers.quantization import numbered
from tfdistill.graph.layers import IDLE


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a layer in a model.

    Attributes:
        path: Path of the layer.
        number: How many other calls of that layer go before it.
        size: Number of elements of its first output, for one sample.
    """

    path: str
    number: int
    size: int

    @property
    def name(self):
        """The path, with the number of the call where there are several: `"conv@1"`."""
        return f"{self.path}@{self.number}" if self.number else self.path


class LayerCalls:
    """The calls of a model's layers, in the order of its graph.

    Args:
        opened: `rebuild.Opened` of the model.
        batch: Number of samples that it is run on.
        shapes: List of the shapes of the inputs' samples, in the order of `opened.legacy.inputs`.

    Attributes:
        calls: List of `Call`.
        makers: For each output of the model, in flattened order, the name of the `Call` that computes it; None where none does.
        outputs: The outputs in the model's structure, as symbolic tensors.
    """

    def __init__(self, opened, batch, shapes):
        self._opened, self._paths = opened, {id(layer): path for path, layer in opened.layers.items()}
        self._shapes = [(batch, *shape) for shape in shapes]
        self.outputs = opened.legacy.output
        self._float = self._traced(None)
        self.calls, self.makers = self._calls, self._makers

    def floats(self, inputs):
        """Returns what every layer computes.

        Args:
            inputs: List of arrays, one for each input of the model.

        Returns:
            Dict of the name of a `Call` -> array.
        """
        return self._run(self._float, inputs, {})

    def of_file(self, matched):
        """Returns a function that runs each layer on what a file computed before it.

        Args:
            matched: Set of the names of the calls whose output is in the file.

        Returns:
            Function of the list of the inputs and a dict of the name of each matched call -> the file's array. It returns what these calls compute in float of
            what the file computed before them, and of the inputs where nothing is: the same dict of arrays.
        """
        traced = self._traced(matched)
        return lambda inputs, values: self._run(traced, inputs, values)

    def behind(self, matched):
        """Returns which calls each matched call stands for: those since the matched ones before it, itself last.

        Args:
            matched: As in `of_file`.

        Returns:
            Dict of name of a matched call -> tuple of paths of layers, in the order of the graph.
        """
        order, found = {call.name: place for place, call in enumerate(self.calls)}, {}
        pending = {}
        for name, reads in self._reads.items():
            between = {name}.union(*(pending[other] for other in reads if other not in matched))
            pending[name] = between
            if name in matched:
                found[name] = tuple(dict.fromkeys(n.rpartition("@")[0] or n for n in sorted(between, key=order.get)))
        return found

    def _run(self, traced, inputs, values):
        import tensorflow as tf

        with initial_states(self._opened.adopted):
            found = traced([tf.constant(x) for x in inputs], {name: tf.constant(value) for name, value in values.items()})
        return {name: np.asarray(value) for name, value in found.items()}

    def _traced(self, matched):
        """Returns a function of tensors and values that runs the graph; the values take the place of what the matched calls compute."""
        import tensorflow as tf

        legacy = self._opened.legacy

        def run(tensors, values):
            found, made, counts, self._reads, self._calls = {}, {}, collections.Counter(), {}, []

            def call(layer, args, kwargs, number):
                outputs = layer(*args, **numbered(layer, kwargs, number))
                path = self._paths.get(id(layer))
                first = tf.nest.flatten(outputs)[0] if path else None
                idle = introspection.kind_of(layer) in IDLE
                if first is None or idle or not tf.is_tensor(first) or not first.dtype.is_floating:
                    self._pass_on(made, args, kwargs, outputs, idle)
                    return outputs
                # Not the number of the call's ranges: the layers of a model that is called twice have the same ranges in both.
                known = Call(path, counts[path], int(np.prod(first.shape[1:], dtype=np.int64)))
                counts[path] += 1
                self._calls.append(known)
                self._reads[known.name] = self._sources(made, args, kwargs)
                found[known.name] = first
                if matched is not None and known.name in values:
                    replaced = tf.reshape(tf.cast(values[known.name], first.dtype), tf.shape(first))
                    flat = [replaced, *tf.nest.flatten(outputs)[1:]]
                    outputs = tf.nest.pack_sequence_as(outputs, flat)
                else:
                    # A layer that gives back what it got would be taken for the one before it.
                    flat = [tf.identity(first), *tf.nest.flatten(outputs)[1:]]
                    outputs = tf.nest.pack_sequence_as(outputs, flat)
                for tensor in flat:
                    made[id(tensor)] = {known.name}, known.name, tensor  # which keeps the tensor, and with it its id
                return outputs

            outputs = tf.nest.flatten(replay(legacy, call, list(tensors)))
            self._makers = [made[id(x)][1] if id(x) in made else None for x in outputs]
            return found if matched is None else {name: value for name, value in found.items() if name in matched}

        function = tf.function(run, autograph=False, reduce_retracing=True)
        if matched is None:
            specs = [tf.TensorSpec(shape, tensor.dtype) for shape, tensor in zip(self._shapes, legacy.inputs, strict=True)]
            with in_float32(self._opened.adopted):
                function.get_concrete_function(specs, {})

        def in_floats(tensors, values):
            cast = [tf.cast(x, tensor.dtype) for x, tensor in zip(tensors, legacy.inputs, strict=True)]
            with in_float32(self._opened.adopted):
                return function(cast, values)

        return in_floats

    @staticmethod
    def _sources(made, args, kwargs):
        import tensorflow as tf

        given = [x for x in tf.nest.flatten((args, kwargs)) if tf.is_tensor(x) and id(x) in made]
        return set().union(*(made[id(x)][0] for x in given))

    def _pass_on(self, made, args, kwargs, outputs, idle):
        """Notes that what a layer gives that is no row comes from what it got: an idle one, such as a dropout, one of integers, or a quantizer of the input."""
        import tensorflow as tf

        sources = self._sources(made, args, kwargs)
        owner = made[id(args[0])][1] if idle and args and id(args[0]) in made else None
        for tensor in tf.nest.flatten(outputs):
            if tf.is_tensor(tensor) and id(tensor) not in made:
                made[id(tensor)] = sources, owner, tensor
