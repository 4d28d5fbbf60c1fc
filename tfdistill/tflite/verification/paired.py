"""95 % intervals of what a file loses against its Keras model on the same labelled samples."""

import math

import numpy as np

CONFIDENCE = 0.95
# Two-sided quantile of the normal distribution for `CONFIDENCE`.
_NORMAL_QUANTILE = 1.959963984540054


def accuracy_drop_interval(keras_right, file_right):
    """Computes the interval of the drop in accuracy from the Keras model to the file, paired on the same samples.

    With one decision per sample, only the discordant samples, for which exactly one of the two is right, tell which is better. If there is
    no difference, each falls to either side with probability 1/2 (McNemar 1947). The interval is the exact one of Clopper and Pearson
    (1934) for that probability, times the share of discordant samples; it excludes 0 exactly if McNemar's exact test rejects at 5 %.
    Several decisions per sample (labels, pixels, steps) are not independent. Then the sample is the unit, and the interval is
    `mean_interval` of the drop per sample.

    Args:
        keras_right: Booleans (samples, ...), whether the Keras model is right.
        file_right: The same for the file.

    Returns:
        Lower and upper end (-1 to 1); positive if the file is worse.
    """
    keras_right, file_right = (np.asarray(a, bool).reshape(len(a), -1) for a in (keras_right, file_right))
    if keras_right.shape[1] > 1:
        return mean_interval(keras_right.mean(1) - file_right.mean(1))
    lost, won = int((keras_right & ~file_right).sum()), int((file_right & ~keras_right).sum())
    discordant, count = lost + won, len(keras_right)
    if not discordant:
        return 0.0, 0.0
    low, high = proportion_interval(lost, discordant)
    return (2 * low - 1) * discordant / count, (2 * high - 1) * discordant / count


def proportion_interval(successes, trials):
    """Computes the exact two-sided interval of a proportion at `CONFIDENCE` (Clopper and Pearson 1934)."""
    tail = (1 - CONFIDENCE) / 2
    low = 0.0 if successes == 0 else _bisect(lambda p: _tail(successes, trials, p) < tail)
    high = 1.0 if successes == trials else 1.0 - _bisect(lambda p: _tail(trials - successes, trials, p) < tail)
    return low, high


def mean_interval(values):
    """Computes the interval of the mean at `CONFIDENCE` by the normal approximation; for a single value both ends are that value."""
    values = np.asarray(values, np.float64)
    mean = float(values.mean())
    half = _NORMAL_QUANTILE * float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return mean - half, mean + half


def _tail(least, trials, p):
    """P(X >= least) of a binomial variable."""
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, trials + 1)))])
    k = np.arange(least, trials + 1)
    terms = logs[trials] - logs[k] - logs[trials - k] + k * math.log(p) + (trials - k) * math.log1p(-p)
    return float(np.exp(terms).sum())


def _bisect(below):
    low, high = 1e-12, 1 - 1e-12
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return low
