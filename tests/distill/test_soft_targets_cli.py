"""The commands about stored teacher outputs."""

import sys

import numpy as np
import pytest
from small import mlp

from tfdistill.cli import app
from tfdistill.distill.cache.build import soft_targets
from tfdistill.distill.cache.options import CacheOptions


@pytest.fixture
def folder(tmp_path):
    x = np.random.default_rng(0).normal(size=(100, 8)).astype("float32")
    options = CacheOptions(batch_size=16, shard_elements=32, top_k=2, layers=["hidden_0"])
    soft_targets(mlp(8, name="teacher"), x, tmp_path / "c", options, log_fn=lambda text: None)
    return tmp_path / "c"


def run(monkeypatch, capsys, *words):
    """Runs a command; returns its exit code and what it printed."""
    monkeypatch.setattr(sys, "argv", ["tfdistill", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        app.main()
    printed = capsys.readouterr()
    return end.value.code, printed.out + printed.err


def test_info_shows_what_is_stored(monkeypatch, capsys, folder):
    code, printed = run(monkeypatch, capsys, "cache", "info", folder)
    assert code == 0
    for words in ("100", "in 4 shards", "values 0: float16 (2,)", "layer hidden_0: float16 (8,)", "Functional", "2 of (5,)"):
        assert words in printed


def test_verify_finds_a_flipped_byte(monkeypatch, capsys, folder):
    code, printed = run(monkeypatch, capsys, "cache", "verify", folder)
    assert (code, printed) == (0, "4 shards, 100 elements: all whole.\n")
    shard = folder / "shard-00003.tfrecord"
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    code, printed = run(monkeypatch, capsys, "cache", "verify", folder)
    assert code == 1
    assert "shard-00003.tfrecord' is damaged" in printed


def test_a_missing_cache_is_an_error(monkeypatch, capsys, tmp_path):
    code, printed = run(monkeypatch, capsys, "cache", "info", tmp_path)
    assert code == 1
    assert "manifest.json' cannot be read" in printed


@pytest.mark.parametrize("words", [("cache", "--help"), ("label", "--help")])
def test_help_is_there(monkeypatch, capsys, words):
    code, printed = run(monkeypatch, capsys, *words)
    assert code == 0
    assert "Usage" in printed
