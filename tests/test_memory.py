"""What a step needs of memory beside the model that it is given."""

import pathlib

import fresh
import pytest


@pytest.mark.slow
@pytest.mark.parametrize("step", ["to_tf_keras", "to_keras", "channels"])
def test_a_step_needs_less_than_twice_the_weights(step):
    """Every step makes a new model, which is once its weights; what it computes with may not be as large again."""
    done = fresh.run(pathlib.Path(__file__).with_name("memory_job.py"), step)
    assert done.returncode == 0, done.stderr
    grown, weights = map(int, done.stdout.split()[-2:])
    assert 0 < grown < 2 * weights
