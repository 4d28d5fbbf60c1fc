"""Quantization-aware training of pruned and clustered models: the zeros and the few values stay."""

import keras
import numpy as np
import pytest
from test_compress_steps import STEPS, convolutions, sequential, sparsity, train

from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.wrappers.quantization import is_quantized_layer
from tfdistill.compress import QuantizeAware
from tfdistill.compress.kernels import kernels_of
from tfdistill.compress.quantize import preserved
from tfdistill.errors import InvariantError

layers = keras.layers


PQAT_KERNELS = {"conv3": "kernel", "conv1": "kernel", "separable": "pointwise_kernel", "hidden": "kernel", "logits": "kernel"}


def kernel_values(model):
    return {name: np.array(introspection.weight_named(model.get_layer(name), path)) for name, path in PQAT_KERNELS.items()}


def test_the_zeros_are_kept():
    prune, qat = STEPS["prune"], QuantizeAware(preserve_sparsity=True)
    sparse = prune.strip(train(prune.apply(convolutions()), 12, prune))
    assert "zeros kept" in qat.plan(sparse).row("conv1").reason
    applied = qat.apply(sparse)
    before = kernel_values(applied)
    train(applied, 51, optimizer=keras.optimizers.AdamW(0.01, weight_decay=0.01))
    prune.check(applied)
    qat.check(applied)
    for name, new in kernel_values(applied).items():
        assert sparsity(new) >= 0.59, name
        np.testing.assert_array_equal(new == 0, before[name] == 0)
        assert np.any(new != before[name])


def clustered(values=4, share=0.0, per_channel=False):
    """A net whose kernels have few values, and a share of zeros among them."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = inputs = keras.Input((6, 6, 4))
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.5)(layers.Conv2D(8, 3, use_bias=False, name="conv3")(x)))
    x = layers.Conv2D(8, 1, activation="relu", name="conv1")(x)
    x = layers.SeparableConv2D(8, 3, name="separable")(x)
    x = layers.Dense(16, activation="relu", name="hidden")(layers.Flatten()(x))
    model = keras.Model(inputs, layers.Dense(3, name="logits")(x), name="clustered")
    for name, path in PQAT_KERNELS.items():
        kernel = getattr(model.get_layer(name), path)
        channels = kernel.shape[-1] if per_channel else 1
        centroids = rng.normal(size=(values, channels)) * np.std(kernel)
        value = np.take_along_axis(
            centroids, rng.integers(0, values, (int(np.prod(kernel.shape[:-1])), kernel.shape[-1] if per_channel else 1)), 0
        )
        if not per_channel:
            value = centroids[rng.integers(0, values, kernel.shape), 0]
        value = value.reshape(kernel.shape)
        kernel.assign(np.where(rng.random(kernel.shape) < share, 0.0, value))
    return model


def fit(model, steps=10, optimizer=None):
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 64)
    x = rng.normal(size=(3, 6, 6, 4))[labels] + 0.3 * rng.normal(size=(64, 6, 6, 4))
    model.compile(
        optimizer or keras.optimizers.AdamW(0.01, weight_decay=0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    model.fit(x.astype("float32"), labels, batch_size=16, epochs=-(-steps // 4), verbose=0)
    return x.astype("float32")


@pytest.mark.parametrize(("share", "per_channel"), [(0.0, False), (0.5, False), (0.5, True)], ids=["CQAT", "PCQAT", "PCQAT per channel"])
def test_the_clusters_are_kept(share, per_channel):
    qat = QuantizeAware(preserve_clusters=True)
    model = clustered(share=share, per_channel=per_channel)
    applied = qat.apply(model)
    before = kernel_values(applied)
    fit(applied)
    qat.check(applied)
    for name, path in PQAT_KERNELS.items():
        wrapper = applied.get_layer(name)
        weight = next(w for w in wrapper.quantization.weights if w.path == path)
        if not weight.clusters:  # too few weights per value in a channel
            assert per_channel
            continue
        value, members = np.asarray(wrapper.effective(weight)), np.asarray(wrapper.members[path])
        assert all(len(np.unique(value[members == cluster])) <= 1 for cluster in range(weight.clusters))
        np.testing.assert_array_equal(value == 0, before[name] == 0)
        assert np.any(value != 0)
        assert np.any(value != before[name])
    wrappers = [layer for layer in applied.named_layers().values() if is_quantized_layer(layer)]
    assert any(weight.clusters for layer in wrappers for weight in layer.quantization.weights)


def test_clusters_are_not_kept_with_false():
    applied = QuantizeAware(preserve_clusters=False).apply(clustered())
    fit(applied, 4)
    assert len(np.unique(kernel_values(applied)["hidden"])) > 50


@pytest.mark.parametrize("settings", [{"exclude": "hidden"}, {"layers": "logits"}], ids=str)
def test_zeros_and_clusters_of_what_is_left_out_stay(settings):
    applied = QuantizeAware(**settings).apply(clustered(share=0.5))
    before = kernel_values(applied)["hidden"]
    fit(applied, 8)
    QuantizeAware().check(applied)
    wrapper = applied.get_layer("hidden")
    after = np.asarray(wrapper.effective(wrapper.quantization.weights[0]))
    assert wrapper.quantization.observed
    np.testing.assert_array_equal(after == 0, before == 0)
    assert len(np.unique(after)) == len(np.unique(before)) == 5
    assert np.any(after != before)


def test_zeros_of_what_cannot_be_rounded_stay():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6, 8)), layers.LSTM(8, name="fused"), layers.Dense(3, name="logits")])
    kernel = model.get_layer("fused").cell.kernel
    kernel.assign(np.where(np.random.default_rng(0).random(kernel.shape) < 0.5, 0.0, kernel))
    step = QuantizeAware(unroll=False)
    row = step.plan(model).row("fused")
    assert row.action == "skipped"
    assert "zeros kept" in row.reason
    applied = step.apply(model)
    applied.compile(keras.optimizers.AdamW(0.01), "mse")
    applied.fit(np.random.default_rng(1).normal(size=(64, 6, 8)), np.ones((64, 3)), batch_size=16, verbose=0)
    QuantizeAware().check(applied)
    after = np.array(introspection.weight_named(applied.get_layer("fused"), "cell.kernel"))
    np.testing.assert_array_equal(after == 0, np.array(kernel) == 0)
    assert np.any(after != np.array(kernel))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (lambda rng: rng.normal(size=(32, 8)), None),
        (lambda rng: np.zeros((32, 8)), None),
        (lambda rng: np.ones((32, 8)), None),
        (lambda rng: rng.integers(0, 3, (32, 8)).astype(float), (3, False, 3)),
        (lambda rng: rng.integers(0, 4, (32, 80)) + rng.random(80), (4, True, 320)),
        (lambda rng: rng.integers(1, 2000, (32, 8)).astype(float), None),
        (lambda rng: np.where(rng.random((9, 8)) < 0.5, rng.integers(1, 16, (9, 8)), 0.0), (14, False, 14)),
    ],
    ids=["free", "zeros", "ones", "whole", "per channel", "few repeat", "few and sparse"],
)
def test_what_counts_as_clustered(rng, value, expected):
    value = value(rng).astype("float32")
    dense = layers.Dense(value.shape[1])
    dense.build((None, value.shape[0]))
    found = preserved.clustering(kernels_of(dense)[0], value)
    if expected is None:
        assert found is None
    else:
        assert (found.values, found.per_channel, found.clusters) == expected
        for cluster in range(found.clusters):
            assert len(np.unique(value[found.members == cluster])) == 1


def test_check_fails_on_purpose():
    prune, qat = STEPS["prune constant"], QuantizeAware()
    quantized = train(qat.apply(prune.strip(train(prune.apply(sequential()), 3, prune))), 3)
    weight, _ = introspection.masks_of(quantized.get_layer("conv1"))[0]
    weight.assign(weight + 1)
    with pytest.raises(InvariantError, match="'conv1' lost"):
        qat.check(quantized)
    few = qat.apply(clustered())
    with pytest.raises(InvariantError, match="-6 to 6"):
        qat.check(few)
    fit(few, 4)
    kernel = introspection.weight_named(few.get_layer("hidden"), "kernel")
    kernel.assign(kernel + np.random.default_rng(0).normal(size=kernel.shape))
    with pytest.raises(InvariantError, match="'hidden' kernel has 4 clusters whose members moved apart"):
        qat.check(few)
    with pytest.raises(InvariantError, match="no quantizers"):
        qat.check(sequential())
