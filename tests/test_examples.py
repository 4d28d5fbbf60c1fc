"""Every script in examples/ that needs one machine alone goes from nothing to a verified file, in a folder of its own."""

import os
import pathlib
import re

import fresh
import pytest

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"
# Scripts for several processes or machines; tests/distill trains in the same ways.
ELSEWHERE = {"ray_train", "two_workers"}
# Script -> lowest accuracy of its file; None where it is a regression.
ACCURACY = {
    "distil": 0.85,
    "image_folder": 0.9,
    "trained_model": 0.9,
    "tokens": 0.65,
    "from_keras_distillation": 0.9,
    "sensor_windows": None,
}


def test_every_example_is_run():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == ELSEWHERE | set(ACCURACY)


@pytest.mark.slow
@pytest.mark.parametrize("name", ACCURACY)
def test_an_example_ends_with_a_verified_file(name, tmp_path):
    settings = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "COLUMNS": "120", "PYTHONPATH": str(EXAMPLES.parent)}
    ended = fresh.run(EXAMPLES / f"{name}.py", cwd=tmp_path, env=settings, timeout=600)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "Traceback" not in ended.stderr
    files = list(tmp_path.rglob("*.tflite"))
    assert len(files) == 1
    assert files[0].stat().st_size < 100_000
    if ACCURACY[name] is not None:
        found = re.search(r"^accuracy\s+([\d.]+)", ended.stdout, flags=re.MULTILINE)
        assert float(found[1]) >= ACCURACY[name], ended.stdout[-2000:]
