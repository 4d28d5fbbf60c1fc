"""The schedule of a pruning as tensorflow-model-optimization counts it."""

import typing

from tfdistill.bridge import imports

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
    if prune.end_step is None:
        # TFMOT counts from 1: a beginning at 0 would first act a whole frequency later.
        return max(prune.begin_step, 1), prune.frequency or 100
    length = prune.end_step - prune.begin_step
    frequency = prune.frequency or min(max(length // 20, 1), 100)
    # TFMOT acts at begin, begin + frequency, ...: shifted by the remainder, the last time is end_step, not shortly before it.
    return prune.begin_step + length % frequency, frequency
