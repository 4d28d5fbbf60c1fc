"""A plan of quantization-aware training with all that the conversion tried for it has shown: for who judges a model, and does not train it."""

import typing

from tfdistill.compress.dry_run import Conversion
from tfdistill.compress.plan import Plan


class TriedPlan(typing.NamedTuple):
    """A plan, and what it is made of.

    Attributes:
        plan: The `Plan` of a `QuantizeAware`.
        conversion: The `Conversion` that was tried for it.
        faster_in_float: Set of the paths of the layers that the target runs faster with `integer_only=False`.
    """

    plan: Plan
    conversion: Conversion
    faster_in_float: frozenset


def tried_plan(step, opened):
    """Plans a step, and tries the conversion for it.

    Args:
        step: A `QuantizeAware`.
        opened: `rebuild.Opened` of the model.

    Returns:
        A `TriedPlan`.
    """
    decided = step._decide(opened)[0]
    tried = step._tried(opened, decided, True)
    plan = step._plan(opened, decided, tried)
    return TriedPlan(plan, tried, frozenset(row.name for row in step._faster(opened, decided, plan)))
