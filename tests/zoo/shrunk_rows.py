"""One row of the table of smaller shapes: a model loses a share of its multiply-accumulates, and every later step takes what is left.

A stage is refused if the plan of `PruneChannels` or `LowRank` says, before any work, that it cannot be done, and why. Everything else that does not pass has failed.
"""

import functools
import pathlib
import tempfile

from stages import ZooRow, applied, planned, run_stages, settle
from taught import teach
from zoo_models import FAMILIES
from zoo_rows import Road, build, data_of_row, is_taught, size

from tfdistill.compress import LowRank, PruneChannels
from tfdistill.compress.channels.data_importance import Examples
from tfdistill.compress.channels.proof import require_equal
from tfdistill.compress.channels.resize import Resized
from tfdistill.compress.plan import DONE
from tfdistill.host import fingerprint

COLUMNS = ("MACs left", "parameters left", "zeroed channels", "calibrated file", "QAT", "QAT's file", "pruning", "low rank")
KEEP_MACS, KEEP_PARAMETERS = 0.7, 0.8


def run_row(name, row=None, columns=COLUMNS, builder=None):
    """Takes one model through the stages; the arguments and what is yielded are those of `zoo_rows.run_row`."""
    model = build(name, builder)
    with tempfile.TemporaryDirectory() as folder:
        road = ShrunkRoad(name, model, pathlib.Path(folder))
        yield from run_stages(
            row or ZooRow(name, model.count_params(), {}, fingerprint()), {column: getattr(road, FUNCTIONS[column]) for column in columns}
        )


FUNCTIONS = dict(
    zip(
        COLUMNS,
        ("macs", "parameters", "zeroed_channels", "calibrated_file", "quantize", "quantized_file", "prune", "low_rank"),
        strict=True,
    )
)


class ShrunkRoad:
    """The stages of one model; each returns the text of its cell, or raises.

    Args:
        name: Name of the row.
        model: The model.
        folder: Where files are written.
    """

    def __init__(self, name, model, folder):
        self.name, self.model, self.folder, self.data = name, model, folder, data_of_row(model)
        # Tiny layers have no eight channels to lose at a time.
        self.divisor = 8 if name in FAMILIES else 1
        self.step = PruneChannels(keep_macs=KEEP_MACS, divisor=self.divisor)

    @functools.cached_property
    def plan(self):
        return planned(self.step, self.model)

    @functools.cached_property
    def later(self):
        """The road of the model with fewer channels, under the whole one."""
        smaller = applied(self.step, self.model, self.plan)
        self.step.check(smaller, self.plan)
        if is_taught(self.model):
            teach(smaller)  # a net that has lost its classes has outputs too near to each other to say anything of integers
        else:
            settle(smaller, self.data[0])
        return Road(self.name, smaller, self.folder, self.data, teacher=self.model)

    def macs(self):
        self.later  # noqa: B018 (is refused where the budget cannot be met)
        return _share(self.plan.expected_macs, self.plan.macs)

    def parameters(self):
        return _share(self.later.model.count_params(), self.model.count_params())

    def zeroed_channels(self):
        """What `apply` found when it compared, as it finds the same again."""
        self.later  # noqa: B018 (as above)
        decision, *_ = self.step._decide(self.model, Examples(None, None, None, None))
        trace = decision.costs.trace
        return f"{require_equal(self.model, trace, decision.removal, Resized(self.model, trace, decision.removal)):.0e}"

    def calibrated_file(self):
        return f"{size(self.later.calibrated)}, {self.later.by_calibration()}"

    def quantize(self):
        return self.later.quantize()

    def quantized_file(self):
        return f"{size(self.later.trained)}, {self.later.parity()}"

    def prune(self):
        return self.later.prune()

    def low_rank(self):
        step = LowRank(keep_parameters=KEEP_PARAMETERS, divisor=self.divisor)
        plan = planned(step, self.model)
        step.check(applied(step, self.model, plan), plan)
        lost = max(row.lost for row in plan.rows if row.action == DONE)
        return f"{len(plan.names(DONE))} layers, {_share(plan.expected_parameters, plan.parameters)}, {100 * lost:.1f} % lost"


def _share(part, whole):
    return f"{100 * part / whole:.1f} %"
