"""How long files run on a target of the user's choice, for budgets of measured latency."""

import keras
import numpy as np
import pytest
from small_files import int8_file

from tfdistill.benchmarking import Cpu, Micro
from tfdistill.compress import PruneChannels
from tfdistill.errors import ConfigurationError
from tfdistill.pipeline import FileLatency, LatencyRatio

BUILTIN = Cpu(kernels="builtin")


def test_a_file_is_timed_on_the_target():
    assert FileLatency(seconds=0.1, target=BUILTIN)(int8_file()) > 0


def test_a_budget_is_measured_on_the_target():
    wide = keras.Sequential([keras.Input((16, 16, 3))] + [keras.layers.Conv2D(32, 3, activation="relu", name=f"conv{n}") for n in range(2)])
    ratio = LatencyRatio(np.random.default_rng(0).random((16, 16, 16, 3), "float32"), seconds=0.6, target=BUILTIN)
    narrow = PruneChannels(keep_latency=0.7, latency=ratio).apply(wide)
    assert narrow.get_layer("conv0").filters < 32
    # The machine's noise is in both measurements.
    assert 0.1 < ratio(wide, narrow) < 1.0


def test_threads_and_a_target_are_refused():
    with pytest.raises(ConfigurationError, match=r"threads=2 and target=Cpu[^\n]*\n[^\n]*one of them"):
        FileLatency(threads=2, target=BUILTIN)


@pytest.mark.parametrize("measure", [lambda target: FileLatency(target=target), lambda target: LatencyRatio(None, target=target)])
@pytest.mark.parametrize(("target", "words"), [(Micro(), "mean nothing"), ("pi@board", "pi@board")])
def test_what_times_nothing_is_refused(measure, target, words):
    with pytest.raises(ConfigurationError, match=words):
        measure(target)
