"""A quantized model in which each layer computes in float, as it is, or with other bits, one run after the other."""

import functools

import numpy as np

from tfdistill.bridge.adopt.layers import input_quantizers
from tfdistill.bridge.adopt.rewire import replay
from tfdistill.bridge.adopt.states import initial_states
from tfdistill.bridge.wrappers.all_in_float import left_in_float
from tfdistill.bridge.wrappers.other_settings import other_settings
from tfdistill.bridge.wrappers.quantization import is_quantized_layer, numbered
from tfdistill.compress import rebuild
from tfdistill.runtime.tensors import pad_batch

# Positions of a switch; from `OTHER` on they are the other settings of the layer.
FLOAT, ROUNDED, OTHER = 0, 1, 2
_BATCH = 32


class Switches:
    """A quantized model in which the rounding of each layer is switched.

    Args:
        model: `AdoptedModel` with quantizers.
        signature: Its `ModelSignature`.
        others: Dict of path of layer to a list of the `Quantization`s that it may have instead of its own; None for none.

    Attributes:
        names: Names of the inputs and paths of the layers that round.
    """

    def __init__(self, model, signature, others=None):
        import tensorflow as tf

        self._model, self._signature, others = model, signature, others or {}
        legacy = model.legacy
        inputs = {id(layer): layer.name.removeprefix("quantize_") for layer in input_quantizers(legacy)}
        layers = {id(layer): path for path, layer in rebuild.open_model(model).layers.items() if is_quantized_layer(layer)}
        named = {**inputs, **layers}
        self.names = list(named.values())
        places = {key: place for place, key in enumerate(named)}

        def run(tensors, switches):
            def call(layer, args, kwargs, number):
                kwargs = numbered(layer, kwargs, number)
                if id(layer) not in places:
                    return layer(*args, **kwargs)

                def rounded():
                    return layer(*args, **kwargs)

                def in_float():
                    if id(layer) in inputs:
                        return tf.identity(args[0])
                    with left_in_float():
                        return layer(*args, **kwargs)

                def instead(settings):
                    with other_settings(layer, settings):
                        return layer(*args, **kwargs)

                branches = [in_float, rounded, *(functools.partial(instead, one) for one in others.get(named[id(layer)], ()))]
                return tf.switch_case(switches[places[id(layer)]], branches)

            return replay(legacy, call, tensors)

        self._run = tf.function(run, autograph=False, reduce_retracing=True)

    def positions(self, changed=None):
        """Returns the positions of all switches: `ROUNDED`.

        Args:
            changed: Dict of the name of an input or the path of a layer to its position instead; None for none.
        """
        changed = changed or {}
        return np.array([changed.get(name, ROUNDED) for name in self.names], np.int32)

    def run(self, samples, positions):
        """Returns a dict of output name -> array (samples, ...).

        Args:
            samples: `Samples`.
            positions: One for each of `names`: `FLOAT`, `ROUNDED`, or the place of other settings among those of the layer plus `OTHER`.
        """
        import tensorflow as tf

        size, parts = self._signature.inputs[0].batch or min(_BATCH, samples.count), {}
        for batch in samples.batches(size):
            count = len(next(iter(batch.values())))
            tensors = tf.nest.flatten(self._signature.pack(pad_batch(batch, size)))
            with initial_states(self._model):
                outputs = self._run([tf.constant(x) for x in tensors], tf.constant(np.asarray(positions, np.int32)))
            for name, tensor in self._signature.name_outputs(outputs).items():
                parts.setdefault(name, []).append(np.asarray(tensor)[:count])
        return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def share_of_spread(expected, actual):
    """Returns the root mean square of the difference of two arrays, as a share of the standard deviation of the first."""
    expected, actual = np.asarray(expected, np.float64), np.asarray(actual, np.float64)
    error, spread = float(np.sqrt(np.square(actual - expected).mean())), float(expected.std())
    return error / spread if spread > 0 else error


def worst_share(expected, actual):
    """Returns the largest `share_of_spread` of two dicts of output name to array."""
    return max(share_of_spread(array, actual[name]) for name, array in expected.items())
