"""A distillation that is killed and started again ends as if nothing had happened."""

import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest

JOB = pathlib.Path(__file__).with_name("restart_job.py")


def run(folder, *kill_at):
    folder.mkdir(exist_ok=True)
    return subprocess.run([sys.executable, str(JOB), str(folder), *map(str, kill_at)], capture_output=True, text=True, check=False)


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
