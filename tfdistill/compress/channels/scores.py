"""How much each channel counts, by any criterion."""

import numpy as np

from tfdistill.compress.channels import data_importance, importance
from tfdistill.compress.channels.data_importance import NEEDS_DATA
from tfdistill.errors import ModelError
from tfdistill.utils.finite import is_finite

BY_WEIGHTS = ("l1", "l2", "bn_scale", "random")


def scores_of(criterion, trace, model, groups, left, examples, seed):
    """Returns a dict of the number of each group to an array of how much each of its units counts, on average 1.

    Args:
        criterion: One of `BY_WEIGHTS` or `NEEDS_DATA`.
        trace: `ChannelTrace` of the model.
        model: The model.
        groups: List of its `Group`s.
        left: Dict of the number of a group that is left whole to the reason. Those that the criterion has no score for are added.
        examples: `Examples`, for criteria by data.
        seed: Seed of `"random"`.

    Raises:
        ModelError: if a score is NaN or infinite.
    """
    free = [group for group in groups if group.number not in left]
    if criterion in NEEDS_DATA:
        scores = data_importance.data_scores(trace, model, free, examples, criterion)
    else:
        of = {
            "l1": lambda group: importance.magnitude(trace, group, 1),
            "l2": lambda group: importance.magnitude(trace, group, 2),
            "bn_scale": lambda group: importance.scale(trace, group),
            "random": lambda group: importance.at_random(group, seed),
        }[criterion]
        scores = {group.number: of(group) for group in free}
    for group in groups:
        found = scores.get(group.number, ())
        if found is None:
            left[group.number] = f"criterion={criterion!r} has no score for it"
        elif not is_finite(np.asarray(found)):
            raise ModelError(
                f"criterion={criterion!r} gives NaN or infinity for channels of '{group.paths[0]}' in '{model.name}'.",
                "a model whose weights, and outputs on the data, are finite",
            )
    return scores
