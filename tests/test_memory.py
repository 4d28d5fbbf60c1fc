"""What a step needs of memory beside the model that it is given."""

import pathlib

import fresh
import pytest

# Step -> how many times the weights it takes at most. Every step makes a new model, which is once its weights, and may compute with no more than that; but the
# decomposition of a single kernel, which is a sixth of this model, is many times that kernel.
STEPS = {"to_tf_keras": 2, "to_keras": 2, "channels": 2, "low_rank": 5}


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_a_step_needs_little_beside_the_weights(step):
    done = fresh.run(pathlib.Path(__file__).with_name("memory_job.py"), step)
    assert done.returncode == 0, done.stderr
    grown, weights = map(int, done.stdout.split()[-2:])
    assert 0 < grown < STEPS[step] * weights
