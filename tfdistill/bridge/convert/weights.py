"""Copies weights between layers of Keras 3 and tf_keras."""

import collections

import keras

from tfdistill.errors import BridgeError


def copy_weights(sources, targets, path):
    """Assigns the values of one layer's weights to its counterpart's.

    Layers that hold other layers list them in different orders in the two Keras; so weights are paired by name and shape first, in order where
    these repeat, and by order alone where names differ.

    Args:
        sources: List of variables of either Keras.
        targets: List of variables of the other, as many.
        path: Where the layer is, for the error.

    Raises:
        BridgeError: if they cannot be paired.
    """
    for source, target in pair_weights(sources, targets, path):
        value = _value(source)
        # BatchNormalization keeps its statistics in float32 in tf_keras, even where the policy of Keras 3 made them half as wide.
        target.assign(value if value.dtype == target.dtype else keras.ops.cast(value, keras.backend.standardize_dtype(target.dtype)))


def holds_weights(layer):
    """Whether a Keras 3 layer's counterpart has weights to copy.

    A wrapper around a model has none of its own, and what a Normalization layer learned is among its counterpart's settings.
    """
    wraps_model = isinstance(layer, keras.layers.Wrapper) and isinstance(layer.layer, keras.Model)
    return bool(layer.weights) and not wraps_model and not isinstance(layer, keras.layers.Normalization)


def pair_weights(sources, targets, path):
    """Returns pairs (source, target) of two layers' weights; see `copy_weights`."""
    groups = collections.defaultdict(list)
    for source in sources:
        groups[_key(source)].append(source)
    pairs = []
    for target in targets:
        queue = groups[_key(target)]
        if not queue:
            break
        pairs.append((queue.pop(0), target))
    if len(pairs) == len(targets) == len(sources):
        return pairs
    if [tuple(s.shape) for s in sources] == [tuple(t.shape) for t in targets]:
        return list(zip(sources, targets, strict=True))
    raise BridgeError(
        f"The weights of the layer '{path}' do not match those of its counterpart.",
        f"{_list(sources)}",
        f"build the counterpart so that it has the same weights; it has {_list(targets)}",
    )


def _key(variable):
    return variable.name.split("/")[-1].split(":")[0], tuple(variable.shape)


def _value(variable):
    # The tensor itself: TensorFlow shares its memory until one of the two variables changes.
    return (variable.value if isinstance(variable, keras.Variable) else variable).read_value()


def _list(variables):
    return ", ".join(f"{name}{shape}" for name, shape in map(_key, variables)) or "no weights"
