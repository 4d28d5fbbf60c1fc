"""The variables of a tf_keras model as `keras.Variable`s, under names that a rebuilt model has too."""

import re
import warnings

import keras

from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.adopt.layers import input_quantizers, walk
from tfdistill.errors import ModelError
from tfdistill.graph.layers import all_layers

# The number that Keras appends to the name of the second layer of a kind, and of every later one.
_NUMBER = re.compile(r"_(\d+)(?=_|$)")
# Ends of the names of the three variables of a range.
_OF_A_RANGE = ("_min", "_max", "_batches")


def adopted_variables(legacy):
    """Wraps every weight of a tf_keras model, and the random state of every random layer, as a `keras.Variable` on the same memory.

    Args:
        legacy: A built `tf_keras.Model`.

    Returns:
        List of `keras.Variable`s: the weights in the model's order, then the random states. Their names are unique.
    """
    names, taken = _names(legacy), set()
    return [_wrapped(variable, names.get(id(variable), "random_state"), taken) for variable in [*legacy.weights, *_random_states(legacy)]]


def matched(legacy, model_name, variables, store):
    """Returns the values of a checkpoint for the variables of an adopted model.

    Ranges that the model does not have are left out with a warning: they are of a form of a layer that it computes in another one, with fewer ranges.

    Args:
        legacy: The tf_keras model.
        model_name: Its name in errors.
        variables: Dict of name to `keras.Variable`.
        store: Dict-like, name to array.

    Returns:
        Dict of name to array, with at least the names of the variables.

    Raises:
        ModelError: if a value is missing, of another shape, or of no variable.
    """
    saved = store.keys()  # a store of HDF5 lists its names so alone
    values = {name: store[name] for name in saved}
    if set(variables) != set(values):
        values = by_automatic_names(variables, values)
    missing, unknown = sorted(set(variables) - set(values)), sorted(set(values) - set(variables))
    surplus, lacking = _ranges_among(unknown, legacy), _ranges_among(missing, legacy)
    unknown = [name for name in unknown if name not in surplus]
    wrong = [
        f"{n} {tuple(values[n].shape)}, not {tuple(v.shape)}" for n, v in variables.items() if n in values and values[n].shape != v.shape
    ]
    if missing or unknown or wrong:
        forms = missing and set(missing) == set(lacking) and not unknown
        raise ModelError(
            f"The checkpoint does not fit the adopted model '{model_name}': missing {missing[:5]}, unknown {unknown[:5]}, of another shape {wrong[:5]}.",
            "a checkpoint of a model of this architecture after the same compression steps",
            "make the model with the target=, approximate= and integer_only= that the saved one had, or quantize the float model again with Quantize or "
            "QuantizeAware: the layers with these ranges were saved in other forms"
            if forms
            else None,
        )
    if surplus:
        warnings.warn(
            f"The checkpoint has ranges that the adopted model '{model_name}' does not use, as it computes these layers in other forms: {surplus[:6]}. "
            "They are left out; what these layers compute may differ by their rounding.",
            UserWarning,
            stacklevel=2,
        )
    return values


def _ranges_among(names, legacy):
    """Lists those of some names that are ranges of the quantized layers of a model, whatever their numbers."""
    starts = tuple(_NUMBER.sub("", path.replace("/", "_")) + "_" for path, layer in walk(legacy) if introspection.is_quantized(layer))
    stems = [name.removesuffix("_batches") for name in names if name.endswith("_batches")]
    ranges = {stem: [stem + end for end in _OF_A_RANGE] for stem in stems if _NUMBER.sub("", stem).startswith(starts)}
    return [name for parts in ranges.values() if set(parts) <= set(names) for name in parts]


def by_automatic_names(names, store):
    """Renames the values of a checkpoint whose layers were numbered otherwise, as Keras numbers layers through the process.

    `dense_3_kernel` and `dense_4_kernel` are what `dense_kernel` and `dense_1_kernel` are in another process: of names that differ in such
    numbers alone, the first by number in the checkpoint is the first of the model. Keras too matches layers by their order.

    Args:
        names: The names of the model's variables.
        store: Dict-like, name to array.

    Returns:
        Dict of name to array, under the model's names where both have equally many of a kind; others keep their names.
    """
    own, stored = _numbered(names), _numbered(store.keys())
    renamed = {}
    for kind, theirs in stored.items():
        ours = own.get(kind, [])
        renamed.update(zip(ours if len(ours) == len(theirs) else theirs, (store[name] for name in theirs), strict=True))
    return renamed


def _numbered(names):
    """Returns a dict of name without numbers to the names, sorted by their numbers."""
    kinds = {}
    for name in names:
        kinds.setdefault(_NUMBER.sub("", name), []).append(name)
    return {kind: sorted(members, key=lambda name: [int(n) for n in _NUMBER.findall(name)]) for kind, members in kinds.items()}


def _names(legacy):
    # tf_keras names a variable by the way in which its layer was first built; a checkpoint needs names that a rebuilt model has too.
    names = {}
    for i, layer in enumerate(input_quantizers(legacy)):
        # TFMOT numbers them through the process.
        names.update({id(weight): f"input_quantizer_{i}/{_last(weight).removeprefix(layer.name + '_')}" for weight in layer.weights})
    for path, layer in walk(legacy):
        names.update({id(weight): f"{path}/{_last(weight)}" for weight in layer.weights})
    return names


def _last(variable):
    return variable.name.partition(":")[0].rpartition("/")[2]


def _wrapped(variable, name, taken):
    name = unique = name.replace("/", "_")  # Keras allows no slash
    count = 1
    while unique in taken:
        unique, count = f"{name}_{count}", count + 1
    taken.add(unique)
    dtype = keras.backend.standardize_dtype(variable.dtype)
    return keras.Variable(variable, dtype=dtype, trainable=variable.trainable, autocast=False, name=unique)


def _random_states(legacy):
    states = []
    for layer in all_layers(legacy):
        generator = getattr(layer, "_random_generator", None)
        if generator is None or generator._rng_type == generator.RNG_STATELESS:
            continue
        if generator._rng_type == generator.RNG_LEGACY_STATEFUL:
            # The default keeps its state inside the graph's kernels, where no checkpoint can see it.
            generator._rng_type, generator._built = generator.RNG_STATEFUL, False
        generator._maybe_init()
        states.append(generator._generator._state_var)
    return states
