"""Masks of every kind of kernel and pattern against an independent NumPy computation, and the targets that they meet."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdistill.bridge import imports
from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.wrappers import pruning
from tfdistill.compress import kernels
from tfdistill.compress.prune.patterns import SparsityTarget, pattern

layers = keras.layers

# Name -> (tf_keras layer class, arguments, input shape). What sums and what is a channel is said once more, by hand, in `columns_of`.
LAYERS = {
    "dense": ("Dense", (7,), (10,)),
    "conv1d": ("Conv1D", (5, 3), (8, 6)),
    "conv2d": ("Conv2D", (4, 3), (6, 6, 5)),
    "pointwise": ("Conv2D", (6, 1), (6, 6, 8)),
    "conv3d": ("Conv3D", (3, 2), (4, 4, 4, 5)),
    "transposed": ("Conv2DTranspose", (3, 2), (6, 6, 8)),
    "depthwise": ("DepthwiseConv2D", (3,), (6, 6, 4)),
    "einsum in": ("EinsumDense", ("abc,cde->abde", (None, 2, 4)), (5, 6)),
    "einsum out": ("EinsumDense", ("abde,dec->abc", (None, 6)), (5, 2, 4)),
    "embedding": ("Embedding", (9, 4), (5,)),
}
PATTERNS = {
    "single weights": {},
    "block 4x1": {"block": (4, 1)},
    "block 2x3 max": {"block": (2, 3), "block_pooling": "max"},
    "2 of 4": {"n_of_m": (2, 4)},
    "1 of 3": {"n_of_m": (1, 3)},
}


def columns_of(name, value):
    """The weights of each output channel: an array of (channels, places, input channels)."""
    if name == "transposed":  # height, width, output, input
        return np.moveaxis(value, 2, 0).reshape(value.shape[2], -1, value.shape[3])
    if name == "depthwise":  # height, width, channel, multiplier
        return np.stack([value[:, :, c, m].reshape(-1, 1) for c in range(value.shape[2]) for m in range(value.shape[3])])
    if name == "einsum in":  # input, head, unit
        return np.stack([value[:, h, u][None] for h in range(value.shape[1]) for u in range(value.shape[2])])
    channels = [value[..., c] for c in range(value.shape[-1])]
    return np.stack([channel.reshape(-1, channel.shape[-1]) for channel in channels])


def reference(name, value, sparsity, block=(1, 1), block_pooling="avg", n_of_m=None):
    """Which of `columns_of` stay."""
    magnitudes = np.abs(columns_of(name, value))
    kept = np.zeros(magnitudes.shape, bool)
    if n_of_m is not None:
        for c, place in itertools.product(range(len(kept)), range(kept.shape[1])):
            for start in range(0, kept.shape[2], n_of_m[1]):
                group = range(start, min(start + n_of_m[1], kept.shape[2]))
                kept[c, place, sorted(group, key=lambda i: -magnitudes[c, place, i])[: n_of_m[0]]] = True
        return kept
    flat, flat_kept = magnitudes.reshape(len(kept), -1), kept.reshape(len(kept), -1)
    tiles = [
        [(slice(c, c + block[1]), slice(r, r + block[0])) for r in range(0, flat.shape[1], block[0])] for c in range(0, len(flat), block[1])
    ]
    score = {"avg": np.mean, "max": np.max}[block_pooling]
    ranked = sorted((tile for column in tiles for tile in column), key=lambda tile: -score(flat[tile]))
    must = [] if name == "embedding" else [max(column, key=lambda tile: score(flat[tile])) for column in tiles]
    for tile in must:
        flat_kept[tile] = True
    left = max(round(len(ranked) * (1 - sparsity)), 1) - len(must)
    for tile in [tile for tile in ranked if tile not in must][: max(left, 0)]:
        flat_kept[tile] = True
    return flat_kept.reshape(kept.shape)


def pruned(name, sparsity, settings, seed=0, value=None):
    """A pruned layer after one computation of its mask, with its target and its kernel's value."""
    kind, arguments, shape = LAYERS[name]
    layer = getattr(imports.tf_keras().layers, kind)(*arguments)
    inputs = tf.zeros((2, *shape), "int32" if kind == "Embedding" else "float32")
    layer(inputs)
    (kernel,) = kernels.kernels_of(layer)
    settings = {"block": None, "pooling": "avg", "n_of_m": None} | {key.removeprefix("block_"): v for key, v in settings.items()}
    target = SparsityTarget(kernel, sparsity, pattern(**settings))
    schedule = imports.tfmot().sparsity.keras.ConstantSparsity(sparsity, 1, frequency=1)
    wrapper = pruning.prune_layer(layer, [target.pruned_kernel], target.pattern, schedule)
    wrapper(inputs)
    wrapper.pruning_step.assign(0)
    weight = introspection.weight_named(wrapper, kernel.attribute)
    weight.assign(np.random.default_rng(seed).normal(size=weight.shape) if value is None else np.full(weight.shape, value))
    wrapper.update_masks()
    return wrapper, target, np.array(weight)


def fits(name, settings):
    if name == "depthwise":
        return not settings
    return name != "embedding" or "n_of_m" not in settings


CASES = [(name, which) for name in LAYERS for which in PATTERNS if fits(name, PATTERNS[which])]


@pytest.mark.parametrize(
    ("name", "which", "sparsity"), [(*case, 0.5) for case in CASES] + [(name, "single weights", 0.9) for name in LAYERS]
)
def test_a_mask_is_that_of_the_numpy_computation(name, which, sparsity):
    settings = PATTERNS[which]
    if "n_of_m" in settings:
        sparsity = 1 - settings["n_of_m"][0] / settings["n_of_m"][1]
    wrapper, target, value = pruned(name, sparsity, settings)
    ((_, mask),) = introspection.masks_of(wrapper)
    mask = np.array(mask)
    np.testing.assert_array_equal(columns_of(name, mask) > 0, reference(name, value, sparsity, **settings))
    assert mask.sum() <= target.kept
    if "block" not in settings:
        assert mask.sum() == target.kept
    assert target.impossible() is None
    assert target.violation(value * mask) is None
    assert target.emptied(value * mask) == 0


@pytest.mark.parametrize(("name", "which"), CASES)
def test_a_violation_is_found(name, which):
    sparsity = 0.5 if "n_of_m" not in PATTERNS[which] else 1 - PATTERNS[which]["n_of_m"][0] / PATTERNS[which]["n_of_m"][1]
    wrapper, target, value = pruned(name, sparsity, PATTERNS[which])
    ((_, mask),) = introspection.masks_of(wrapper)
    assert target.violation(value)
    filled = np.array(mask)
    # One weight more: in the first group or block that had none to spare.
    for place in np.argwhere(filled == 0):
        filled[tuple(place)] = 1
        if target.violation(filled):
            break
        if "block" not in PATTERNS[which]:
            filled[tuple(place)] = 0
    assert target.violation(filled)
    if target.guarded:
        emptied = target.kernel.matrix(filled).copy()
        emptied[:, 0] = 0
        assert np.sum(~emptied.any(0)) == 1
        assert target.emptied(filled * 0) == target.kernel.columns


@pytest.mark.parametrize("name", LAYERS)
def test_of_equal_weights_no_more_stay_than_the_target(name):
    wrapper, target, _ = pruned(name, 0.5, {}, value=0.25)
    ((_, mask),) = introspection.masks_of(wrapper)
    assert np.sum(mask) == target.kept == round(target.kernel.size / 2)
    assert target.emptied(np.array(mask)) == 0


@pytest.mark.parametrize("name", ["pointwise", "depthwise", "dense", "conv2d"])
def test_no_channel_is_emptied_where_all_its_weights_are_small(name):
    wrapper, target, value = pruned(name, 0.8, {})
    weight = introspection.weight_named(wrapper, target.kernel.attribute)
    scale = np.ones([size if axis in target.kernel.outputs else 1 for axis, size in enumerate(value.shape)])
    scale.reshape(-1)[:2] = 1e-6
    weight.assign(value * scale)
    wrapper.update_masks()
    ((_, mask),) = introspection.masks_of(wrapper)
    per_channel = target.kernel.matrix(np.array(mask)).sum(0)
    np.testing.assert_array_equal(per_channel[:2], 1)
    assert per_channel.sum() == target.kept


def test_the_weights_outside_the_pattern_go_from_the_smallest_on():
    wrapper, _, value = pruned("dense", 0.25, {"n_of_m": (2, 4)})
    ((_, mask),) = introspection.masks_of(wrapper)
    mask, final = np.array(mask), np.moveaxis(reference("dense", value, 0.5, n_of_m=(2, 4))[:, 0], 0, 1)
    assert np.sum(mask) == round(0.75 * value.size)
    assert mask[final].all()
    candidates = np.abs(value[~final])
    np.testing.assert_array_equal(mask[~final] > 0, candidates >= np.sort(candidates)[-int((mask[~final] > 0).sum())])


@pytest.mark.parametrize(
    ("shape", "settings"),
    [((1, 8), {}), ((2, 8), {"n_of_m": (2, 4)}), ((4, 2), {"block": (4, 1)})],
    ids=["one weight a channel", "no more inputs than stay", "one block a channel"],
)
def test_a_kernel_that_cannot_lose_a_weight_is_impossible(shape, settings):
    target = SparsityTarget(kernels.Kernel("kernel", shape, (0,), (1,)), 0.5, pattern(settings.get("block"), "avg", settings.get("n_of_m")))
    assert "none of its" in target.impossible()
    assert target.kept == target.kernel.size


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_a_kernel_of_another_width_is_masked_in_it(dtype):
    layer = imports.tf_keras().layers.Dense(4, dtype=dtype)
    schedule = imports.tfmot().sparsity.keras.ConstantSparsity(0.5, 1, frequency=1)
    wrapper = pruning.prune_layer(layer, [pruning.PrunedKernel("kernel", (0,), (1,))], pruning.Pattern(), schedule)
    assert wrapper(tf.ones((2, 6), dtype)).dtype == dtype
    wrapper.pruning_step.assign(0)
    wrapper.update_masks()
    ((weight, mask),) = introspection.masks_of(wrapper)
    assert mask.dtype == weight.dtype == dtype
    assert np.sum(np.array(mask, "float32")) == 12
