"""`CacheOptions`: what it accepts, and that the functions that take it accept nothing else."""

import dataclasses

import numpy as np
import pytest
from small import mlp

from tfdistill.distill.cache.build import plan_soft_targets, soft_targets
from tfdistill.distill.cache.options import CacheOptions
from tfdistill.distill.cache.ray_workers import label_with_ray
from tfdistill.errors import ConfigurationError

X = np.random.default_rng(0).normal(size=(8, 8)).astype("float32")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (dict(layers=["a", "b"]), dict(layers=("a", "b"))),
        (dict(layers=None), dict(layers=())),
        (dict(top_k=np.int64(3)), dict(top_k=3, temperatures=(1.0, 2.0, 4.0))),
        (dict(temperatures=[2]), dict(temperatures=(2.0,))),
        (dict(temperatures=()), dict(top_k=None, temperatures=())),
        (dict(views=2, augment=abs), dict(views=2, augment=abs)),
        (dict(batch_size=1, shard_elements=1), dict(batch_size=1, shard_elements=1)),
    ],
)
def test_options_are_normalized(given, expected):
    options = CacheOptions(**given)
    assert {name: getattr(options, name) for name in expected} == expected
    assert dataclasses.replace(options) == options
    assert hash(options) == hash(CacheOptions(**given))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (dict(layers="conv"), r"layers is 'conv'.*layers=\['conv'\]"),
        (dict(dtype="int8"), "dtype is 'int8'"),
        (dict(top_k=0), "top_k=0"),
        (dict(top_k=True), "top_k=True"),
        (dict(top_k=2, temperatures=()), "temperatures is"),
        (dict(top_k=2, temperatures=(0,)), "temperatures is"),
        (dict(temperatures=("1",)), "temperatures is"),
        (dict(views=None), "views=None"),
        (dict(views=2), "without augment"),
        (dict(augment=1), "augment is 1"),
        (dict(batch_size=0), "batch_size=0"),
        (dict(shard_elements=1.5), "shard_elements=1.5"),
    ],
)
def test_impossible_options_are_refused(given, words):
    with pytest.raises(ConfigurationError, match=f"(?s){words}"):
        CacheOptions(**given)


CALLS = {
    "soft_targets": lambda folder, **more: soft_targets(mlp(4), X, folder, **more),
    "plan_soft_targets": lambda folder, **more: plan_soft_targets(mlp(4), X, **more),
    "label_with_ray": lambda folder, **more: label_with_ray("teacher.keras", lambda: X, folder, 2, **more),
}


@pytest.mark.parametrize("call", CALLS)
def test_options_are_given_as_one_object(tmp_path, call):
    with pytest.raises(ConfigurationError, match="options is a dict"):
        CALLS[call](tmp_path / "c", options=dict(top_k=2))
    for field in dataclasses.fields(CacheOptions):
        with pytest.raises(TypeError, match=field.name):
            CALLS[call](tmp_path / "c", **{field.name: field.default})
    assert not (tmp_path / "c").exists()


def test_shards_of_labelling_have_no_second_size(tmp_path):
    with pytest.raises(ConfigurationError, match="shard_elements is 4"):
        CALLS["label_with_ray"](tmp_path / "c", options=CacheOptions(shard_elements=4))


def test_temperatures_are_stored_with_top_k_alone(tmp_path):
    settings = [plan_soft_targets(mlp(4, classes=5), X, CacheOptions(top_k=k, temperatures=(3.0,))).settings for k in (None, 2)]
    assert [s.temperatures for s in settings] == [(), (3.0,)]
