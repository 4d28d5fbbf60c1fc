"""What every step makes is saved; a new process that imports Keras and tfdistill alone loads it, trains on and exports it."""

import json
import os
import pathlib

import fresh
import numpy as np
import pytest
from saved_steps import NAMES, SHRUNK, STEPS, applied, images, net, stripped, trained

from tfdistill.compress.native_step import NativeStep

JOB = pathlib.Path(__file__).with_name("train_saved_job.py")
# Steps without wrappers: what `apply` returns is what `strip` returns.
WRAPPED = [name for name in NAMES if name != SHRUNK and not isinstance(STEPS[name], NativeStep)]
SAVED = [*(f"{name}.applied" for name in NAMES), *(f"{name}.stripped" for name in WRAPPED)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The saved models with their outputs, and beside them what a new process found."""
    folder, model, expected = tmp_path_factory.mktemp("steps"), net(), {}
    for name in NAMES:
        made = {f"{name}.applied": applied(name, model)}
        if name in WRAPPED:
            made[f"{name}.stripped"] = stripped(name, trained(name, applied(name, model)))
        for saved, each in made.items():
            each.save(folder / f"{saved}.keras")
            expected[saved] = np.asarray(each(images()[0], training=False))
    np.savez(folder / "expected.npz", **expected)
    paths = os.pathsep.join(map(str, (JOB.parent, JOB.parent / "low_rank")))
    done = fresh.run(JOB, folder, env={**os.environ, "PYTHONPATH": paths}, timeout=800)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("saved", SAVED)
def test_a_new_process_goes_on_with_it(saved, folder):
    found = json.loads((folder / "found.json").read_text(encoding="utf-8"))[saved]
    assert "error" not in found, found["error"]
    np.testing.assert_allclose(found["outputs"], np.load(folder / "expected.npz")[saved], rtol=1e-5, atol=1e-6)
    assert found["moved"]
    assert found["bytes"] > 0
