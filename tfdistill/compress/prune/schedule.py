"""The schedule of a pruning as tensorflow-model-optimization counts it."""

import typing

from tfdistill.bridge import imports
from tfdistill.bridge.wrappers.pruning import MAGNITUDE

POLYNOMIAL: typing.Final = "polynomial"
CONSTANT: typing.Final = "constant"


def tfmot_schedule(prune, sparsity):
    """Returns the schedule of a kernel.

    Args:
        prune: The `Prune`, whose settings say when.
        sparsity: Final share of zeros of the kernel.
    """
    schedules = imports.tfmot().sparsity.keras
    begin, frequency = _begin_and_frequency(prune)
    if prune.schedule == CONSTANT:
        end = -1 if prune.end_step is None else prune.end_step
        return schedules.ConstantSparsity(sparsity, begin_step=begin, end_step=end, frequency=frequency)
    return schedules.PolynomialDecay(
        initial_sparsity=prune.initial_sparsity,
        final_sparsity=sparsity,
        begin_step=begin,
        end_step=prune.end_step,
        power=prune.power,
        frequency=frequency,
    )


def _begin_and_frequency(prune):
    # TFMOT counts from 1. The first gradient is known at step 2.
    first = 1 if prune.criterion == MAGNITUDE else 2
    if prune.end_step is None:
        # A beginning at 0 would first act a whole frequency later.
        return max(prune.begin_step, first), prune.frequency or 100
    length = prune.end_step - prune.begin_step
    frequency = prune.frequency or min(max(length // 20, 1), 100)
    # TFMOT acts at begin, begin + frequency, ...: shifted by the remainder, the last time is end_step, not shortly before it.
    begin = prune.begin_step + length % frequency
    if prune.criterion == MAGNITUDE:
        return begin, frequency
    while begin < first and begin + frequency < prune.end_step:
        begin += frequency
    # Step 0 is none; at step 1 masks of an initial sparsity would know no gradient.
    return (first, prune.end_step - first) if 0 < begin < first else (begin, frequency)
