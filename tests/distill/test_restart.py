"""A distillation that is killed and started again ends as if nothing had happened."""

import json
import pathlib
import signal
import subprocess
import sys

import fresh
import numpy as np
import pytest

JOB = pathlib.Path(__file__).with_name("restart_job.py")
KILLS = pathlib.Path(__file__).parents[2] / "benchmarks" / "kills.py"


def run(folder, *kill_at):
    folder.mkdir(exist_ok=True)
    return fresh.run(JOB, folder, *kill_at)


@pytest.mark.slow
def test_kill_9_and_restart_ends_with_the_weights_of_an_uninterrupted_run(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run(whole).returncode == 0
    assert run(broken, 2, 3).returncode == -signal.SIGKILL
    assert not (broken / "end.npz").exists()
    again = run(broken)
    assert again.returncode == 0, again.stderr
    with np.load(whole / "end.npz") as a, np.load(broken / "end.npz") as b:
        assert int(a["epochs"]) == 4
        assert int(b["epochs"]) == 2, "the second run must go on, not begin anew"
        assert a.files == b.files
        for name in set(a.files) - {"epochs"}:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.release
@pytest.mark.parametrize("kills", [2, 20])
def test_trainings_that_are_killed_again_and_again_end_equal_to_the_bit(kills, tmp_path):
    """Plain, pruned, clustered, quantized, from a cache, from a PyDataset: killed several times each, sometimes while a state is written."""
    done = subprocess.run(
        [sys.executable, str(KILLS), "--kills", str(kills), "--folder", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = {row["kind"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert list(found) == ["plain", "pruned", "clustered", "quantized", "cache", "PyDataset"]
    for kind, row in found.items():
        assert row["kills"] == kills, kind
        assert row["different"] == 0 < row["arrays"], kind
    assert sum(row["within_a_write"] for row in found.values()) > 0
