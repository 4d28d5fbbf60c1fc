"""Times functions by turns, so that all meet the same states of the machine."""

import time

import numpy as np

# A function runs this long before the next one has its turn; a slow one once.
_TURN_NANOSECONDS = 1_000_000
# Of a run as long as this the caches' filling is no part that counts.
_LONG_NANOSECONDS = 200_000_000


def time_by_turns(runs, seconds, least_rounds, random_order, clock=time.perf_counter_ns):
    """Times functions by turns. What is counted begins with their second run in each turn, unless they are very slow.

    Args:
        runs: The functions, each run before.
        seconds: Least duration.
        least_rounds: Least number of rounds.
        random_order: `random.Random` that draws the order of each round.
        clock: Returns nanoseconds.

    Returns:
        Array (rounds, functions) of the median times of each turn, in nanoseconds.
    """
    counts, cold = [], []
    for run in runs:
        before = clock()
        run()
        took = max(clock() - before, 1)
        counts.append(max(1, min(1000, round(_TURN_NANOSECONDS / took))))
        cold.append(took < _LONG_NANOSECONDS)
    rounds, order, end = [], list(range(len(runs))), clock() + seconds * 1e9
    while clock() < end or len(rounds) < least_rounds:
        random_order.shuffle(order)
        medians = [0.0] * len(runs)
        for i in order:
            run, times = runs[i], []
            if cold[i]:
                run()  # it finds the caches as another function has left them
            for _ in range(counts[i]):
                before = clock()
                run()
                times.append(clock() - before)
            medians[i] = float(np.median(times))
        rounds.append(medians)
    return np.array(rounds)
