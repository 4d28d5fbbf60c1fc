"""Tells in a plan which operations of the integer file each layer becomes, and which of them its target does not run fast."""

import dataclasses

from tfdistill.runtime.operations import operation_table


def with_operations(plan, operations, target):
    """Returns a plan with the operations of its layers.

    Args:
        plan: `Plan`.
        operations: Those of a `Conversion`: dict of path to `LayerOperation`s; None returns the plan as it is.
        target: Name of the target.
    """
    if operations is None:
        return plan
    table = operation_table(target)

    def slow(found):
        return [operation.name for operation in found if operation.kind is not None and table.leaves(operation.name, operation.kind)]

    rows = tuple(
        dataclasses.replace(
            row,
            operations=tuple(operation.name for operation in operations.get(row.name, ())),
            slow=tuple(dict.fromkeys(slow(operations.get(row.name, ())))),
        )
        for row in plan.rows
    )
    everything = [operation for found in operations.values() for operation in found]
    return dataclasses.replace(
        plan, rows=rows, target=target, operations=len(everything), fast_operations=len(everything) - len(slow(everything))
    )
