"""Finds how much is removed for a budget: by bisection, or with few measurements where each of them is dear."""

# Measurements that are made at most, and the share of a budget that is near enough.
_MOST_MEASURED, _NEAR = 6, 0.97


def first_that_fits(count, cost, budget):
    """Returns the first number from 0 to `count` whose cost is within a budget; `count` where none is.

    Args:
        count: The largest number.
        cost: Function of a number that returns what does not get larger with it.
        budget: Largest cost.
    """
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if cost(middle) <= budget else (middle + 1, high)
    return low


def first_by_measuring(count, estimate, measure, budget):
    """Returns a small number from 0 to `count` whose measured cost is within a budget, and that cost; `count` where none is.

    Each measurement is made where the estimate, scaled to what is known by then, meets the budget. The search ends when 97 % of the budget are used, when two neighbours
    are measured, or after six measurements.

    Args:
        count: The largest number.
        estimate: Function of a number that returns what does not get larger with it, at once.
        measure: Function of a number that returns the cost.
        budget: Largest cost.
    """
    low, high, above, below = 0, count, measure(0), None
    if above <= budget or count == 0:
        return 0, above
    below = measure(count)
    if below > budget:
        return count, below
    measured = 2
    while high - low > 1 and below < _NEAR * budget and measured < _MOST_MEASURED:
        share = (budget - below) / max(above - below, 1e-12)
        wanted = estimate(high) + share * (estimate(low) - estimate(high))
        place = min(max(first_that_fits(count, estimate, wanted), low + 1), high - 1)
        found, measured = measure(place), measured + 1
        if found <= budget:
            high, below = place, found
        else:
            low, above = place, found
    return high, below
