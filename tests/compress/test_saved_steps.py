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


def fault(found, expected):
    """What is wrong with what the new process found of one model; empty if nothing is."""
    if "error" in found:
        return found["error"]
    if not np.allclose(found["outputs"], expected, rtol=1e-5, atol=1e-6):
        return "other outputs after loading"
    return "" if found["moved"] and found["bytes"] > 0 else f"not trained or not exported: {found['moved']}, {found['bytes']} bytes"


@pytest.mark.slow
def test_a_new_process_goes_on_with_what_every_step_made(tmp_path):
    """One test, as all of it takes one new process."""
    model, expected = net(), {}
    for name in NAMES:
        made = {f"{name}.applied": applied(name, model)}
        if name in WRAPPED:
            made[f"{name}.stripped"] = stripped(name, trained(name, applied(name, model)))
        for saved, each in made.items():
            each.save(tmp_path / f"{saved}.keras")
            expected[saved] = np.asarray(each(images()[0], training=False))
    paths = os.pathsep.join(map(str, (JOB.parent, JOB.parent / "low_rank")))
    done = fresh.run(JOB, tmp_path, env={**os.environ, "PYTHONPATH": paths}, timeout=800)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert sorted(found) == sorted(SAVED)
    wrong = [f"{saved}: {said}" for saved in SAVED if (said := fault(found[saved], expected[saved]))]
    assert not wrong, "\n".join(wrong)


GOOD = {"outputs": [[1.0]], "moved": True, "bytes": 1}


@pytest.mark.parametrize("change", [{"outputs": [[1.1]]}, {"moved": False}, {"bytes": 0}, {"error": "raised"}], ids=str)
def test_a_fault_is_seen(change):
    assert not fault(GOOD, [[1.0]])
    assert fault({**GOOD, **change}, [[1.0]])
