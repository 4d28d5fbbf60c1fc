"""Channel pruning: filters, units, attention heads and widths are removed, so that every tensor they touch gets smaller."""

import collections.abc
import dataclasses
import math
import typing

import keras

from tfdistill.compress import rebuild
from tfdistill.compress.channels.costs import CHANNELS, MACS, PARAMETERS, Costs, chunks_of, removal_for
from tfdistill.compress.channels.data_importance import NEEDS_DATA, Examples
from tfdistill.compress.channels.groups import groups_of, why_left
from tfdistill.compress.channels.measured import measure_of
from tfdistill.compress.channels.plan import ChannelPlan, Decision, plan_of
from tfdistill.compress.channels.proof import require_equal
from tfdistill.compress.channels.resize import Resized
from tfdistill.compress.channels.scores import BY_WEIGHTS, scores_of
from tfdistill.compress.channels.trace import ChannelTrace
from tfdistill.compress.native_step import NativeStep, require_parameters
from tfdistill.compress.plan import opened_first
from tfdistill.compress.selection import Selection, layers_of_graph, select
from tfdistill.compress.step import set_selectors, warn_of_frozen
from tfdistill.errors import ConfigurationError, ModelError
from tfdistill.graph.opening import is_foreign
from tfdistill.utils import validate

# Setting -> what is said of it, and what is counted for it; of a measured one, what it is estimated by.
_BUDGETS = {
    "keep_channels": (CHANNELS, CHANNELS),
    "keep_parameters": (PARAMETERS, PARAMETERS),
    "keep_macs": ("MACs", MACS),
    "keep_bytes": ("bytes as an int8 file", PARAMETERS),
    "keep_latency": ("measured latency", MACS),
}
_MEASURED = ("keep_bytes", "keep_latency")


@dataclasses.dataclass(frozen=True, repr=False)
class PruneChannels(NativeStep):
    """Structured pruning: filters, units, attention heads and widths that count least are removed, and the model gets smaller and faster.

    Channels that are coupled are removed together: through sums, products and concatenations of tensors, flattening and reshaping, depthwise and grouped
    convolutions (whole groups), normalizations, recurrent units, attention (whole heads, key and value widths), shared layers and nested models. That is the
    dependency graph of Fang et al., "DepGraph: towards any structural pruning" (2023), https://arxiv.org/abs/2301.12900. What cannot be followed is left whole,
    and the plan says why. Inputs and outputs of the model stay as they are.

    `apply` returns a plain Keras 3 model of the same structure and names with smaller layers, which is not compiled. It is trained like any other, as the student
    of a `Distiller` most of all, and later steps follow: `Prune`, `Cluster`, `QuantizeAware`. Sequential and nested functional models stay what they are;
    subclassed ones become functional models of their layers. Before it returns, `apply` runs both models on random input: the outputs equal, within 1e-4 of
    their largest value, those of the original in which the removed channels are zero behind every layer. Normalizations over channels (LayerNormalization)
    are over those that are left, in both.

    Args:
        keep_channels: Largest share, in (0, 1), of all channels that stays; or
        keep_parameters: largest share of the parameters that stays; or
        keep_macs: largest share of the multiply-accumulates that stays (see `tfdistill.profile`); or
        keep_bytes: largest share of the bytes of the int8 file that stays, which `plan` and `apply` make up to six times; or
        keep_latency: largest share of the measured time of a run that stays, by `latency`, which `plan` and `apply` call up to five times, each anew. Exactly one of
            the five.
        criterion: Which channels count least. By the weights alone: `"l1"` and `"l2"`, norms of the kernels that make, filter and read a channel and of gamma of its
            BatchNormalization (Li et al. 2017, https://arxiv.org/abs/1608.08710, for all that is coupled); `"bn_scale"`, gamma of BatchNormalization (Liu et al. 2017,
            https://arxiv.org/abs/1708.06519); `"random"`, the baseline. By data, which `plan` and `apply` are given: `"taylor"`, size of the
            first-order change of an example's loss (Molchanov et al. 2017, https://arxiv.org/abs/1611.06440); `"fisher"`, the second-order one with the diagonal Fisher
            information (Theis et al. 2018, https://arxiv.org/abs/1801.05787); `"hrank"`, rank of
            feature maps (Lin et al. 2020, https://arxiv.org/abs/2002.10179); `"output_distance"`, what the outputs lose, a run of the model for each channel.
        scope: `"global"` removes what counts least in the whole model, after the scores of each group of channels are divided by their mean; `"layer"` the same
            share of each group.
        divisor: Numbers of channels become a multiple of it; those of attention heads do not. Kernels of int8 files are fast at multiples of 8, those of processors with
            AVX-512 at multiples of 16. 1 is for any number.
        keep_at_least: Smallest share of a group's channels that stays, in [0, 1).
        layers: Whose channels may be removed: names, paths, patterns or predicates; None is every layer that makes channels.
        exclude: Layers whose channels stay, in the same forms, with all that is coupled to them. Of layers that make none (sums, normalizations, activations) those
            that pass through them: `lambda layer: isinstance(layer, keras.layers.Add)` leaves whole what blocks add to, and the insides of the blocks get narrower.
        seed: Seed of `"random"`.
        latency: Function of the model and a smaller one that returns the time of the smaller one as a share of the other's, for `keep_latency`:
            `tfdistill.pipeline.LatencyRatio`, or one of your own that measures on a device.

    Raises:
        ConfigurationError: if the settings contradict each other or are out of range.

    Example:
        >>> step = tfdistill.compress.PruneChannels(keep_macs=0.5)
        >>> smaller = step.apply(teacher)
        >>> smaller.get_layer("conv").filters, teacher.get_layer("conv").filters
        (8, 16)
        >>> distiller = tfdistill.Distiller(teacher, smaller, tfdistill.losses.SoftTargets(4.0))
        >>> distiller.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> history = distiller.fit(x, y, verbose=0)
        >>> step.check(step.strip(smaller), step.plan(teacher))
    """

    keep_channels: float | None = None
    keep_parameters: float | None = None
    keep_macs: float | None = None
    keep_bytes: float | None = None
    keep_latency: float | None = None
    criterion: typing.Literal["l1", "l2", "bn_scale", "random", "taylor", "fisher", "hrank", "output_distance"] = "l2"
    scope: typing.Literal["global", "layer"] = "global"
    divisor: int = 8
    keep_at_least: float = 0.1
    layers: Selection = None
    exclude: Selection = None
    seed: int = 0
    latency: collections.abc.Callable[[keras.Model, keras.Model], float] | None = None

    def __post_init__(self):
        given = {name: getattr(self, name) for name in _BUDGETS if getattr(self, name) is not None}
        if len(given) != 1:
            shown = ", ".join(f"{name}={value!r}" for name, value in given.items()) or "no budget"
            raise ConfigurationError(
                f"PruneChannels got {shown}.",
                "exactly one of " + ", ".join(f"{name}=" for name in _BUDGETS),
                "leave out all but one of them" if given else "for half of the multiply-accumulates give keep_macs=0.5",
            )
        for name, value in given.items():
            validate.share(name, value, zero=False, one=False, owner="PruneChannels")
        if (self.keep_latency is None) == callable(self.latency) or not (self.latency is None or callable(self.latency)):
            raise ConfigurationError(
                f"PruneChannels got keep_latency={self.keep_latency}, latency={self.latency!r}.",
                "both of them, latency= being a function",
                "give latency=tfdistill.pipeline.LatencyRatio(samples); or keep_macs=, which is counted",
            )
        validate.one_of("criterion", self.criterion, (*BY_WEIGHTS, *NEEDS_DATA), owner="PruneChannels")
        validate.one_of("scope", self.scope, ("global", "layer"), owner="PruneChannels")
        validate.whole_number("divisor", self.divisor, owner="PruneChannels")
        validate.share("keep_at_least", self.keep_at_least, one=False, owner="PruneChannels")
        validate.whole_number("seed", self.seed, at_least=0, owner="PruneChannels")
        set_selectors(self)

    @property
    def needs_data(self) -> bool:
        """Whether the criterion is one by data, which `plan` and `apply` are given."""
        return self.criterion in NEEDS_DATA

    def plan(
        self, model: keras.Model, x: typing.Any = None, y: typing.Any = None, loss: typing.Any = None, teacher: keras.Model | None = None
    ) -> ChannelPlan:
        """Lists layer by layer what would be removed. The model is not changed.

        Args:
            model: A built Keras 3 model.
            x: Examples for criteria by data: an array, or arrays in the structure that the model takes; some hundred are enough.
            y: Their labels, for `"taylor"` and `"fisher"`.
            loss: Loss of the labels: a Keras loss, its name, or a function of (labels, outputs).
            teacher: Model whose outputs are to be kept, in place of labels.

        Returns:
            A `ChannelPlan`.

        Raises:
            ModelError: if the model is not built, no Keras 3 model, or has free sizes so that `keep_macs` has no meaning. That the budget cannot be met is one of the plan's findings.
            ConfigurationError: if the criterion needs data that is not given.
            DataError: if the data cannot be used.
        """
        decision, _, stays = self._decide(model, Examples(x, y, loss, teacher))
        plan, (name, said, share) = plan_of(self, decision), self._budget
        found = [f"{100 * stays:.1f} % of its {said} stay"] if name in _MEASURED else []
        found += [self._short(model, decision, stays).happened] if stays > share else []
        return dataclasses.replace(plan, findings=(*plan.findings, *found))

    def apply(
        self, model: keras.Model, x: typing.Any = None, y: typing.Any = None, loss: typing.Any = None, teacher: keras.Model | None = None
    ) -> keras.Model:
        """Returns a new, smaller Keras 3 model, compared with the original; see the class. `model` is not changed.

        Args:
            model: A built Keras 3 model.
            x: As `plan` takes it.
            y: As `plan` takes it.
            loss: As `plan` takes it.
            teacher: As `plan` takes it.

        Returns:
            A Keras 3 model.

        Raises:
            ModelError: as `plan`; or if the budget cannot be met, nothing can be removed of a layer that was named, or a layer cannot be made again.
            ConfigurationError: as `plan`.
            DataError: as `plan`.
            InvariantError: if the outputs are not those of the original with the removed channels zero.
        """
        decision, named, stays = self._decide(model, Examples(x, y, loss, teacher))
        plan = plan_of(self, decision)
        plan.require_work(named)
        if stays > self._budget[-1]:
            raise self._short(model, decision, stays)
        rebuild.warn_of_own_training(model, "PruneChannels", stacklevel=3)
        narrower = {row.name for row in plan.rows if row.removed}
        warn_of_frozen("PruneChannels removes channels", model.name, decision.layers, narrower, named)
        trace = decision.costs.trace
        resized = Resized(model, trace, decision.removal)
        require_equal(model, trace, decision.removal, resized)
        return resized.model

    def check(self, model: keras.Model, plan: ChannelPlan | None = None) -> None:
        """Checks that a model has as many channels as the plan says. Without the plan there is nothing to check: no training changes shapes.

        Args:
            model: The pruned model, or what later steps made of it, as a Keras 3 model.
            plan: The `ChannelPlan` that it was made by, or None.

        Raises:
            InvariantError: naming the layers and their figures.
        """
        if plan is None:
            return
        require_parameters(model, {row.name: row.expected_parameters for row in plan.rows})

    def rounds(self, count: int) -> tuple["PruneChannels", ...]:
        """Returns steps that remove the channels in several rounds, with training between them (Molchanov et al. 2017, https://arxiv.org/abs/1611.06440).

        Each keeps the same share of what the one before it has left, so that the last one meets the budget. Scores are computed anew in each round. They are steps of
        `tfdistill.under_teacher`, or `apply` of one is followed by a training and `apply` of the next.

        Args:
            count: Number of rounds, at least 1.

        Returns:
            So many `PruneChannels`.

        Raises:
            ConfigurationError: if it is no whole number of at least 1.

        Example:
            >>> [step.keep_macs for step in tfdistill.compress.PruneChannels(keep_macs=0.25).rounds(2)]
            [0.5, 0.5]
        """
        name, _, share = self._budget
        return (dataclasses.replace(self, **{name: share ** (1 / validate.whole_number("rounds", count))}),) * count

    @property
    def _budget(self):
        return next((name, said, getattr(self, name)) for name, (said, _) in _BUDGETS.items() if getattr(self, name) is not None)

    def _decide(self, model, examples):
        """Returns the `Decision`, the names of the layers that the user named outright, and the share of the budget's cost that stays."""
        rebuild.require_native(model, "PruneChannels")
        examples.require(self.criterion)
        trace = ChannelTrace(model)
        layers = layers_of_graph(model, trace.graph)
        names = {id(layer): name for name, layer in layers.items()}
        chosen, named = select(layers, self.layers, self.exclude)
        groups = groups_of(trace, self.divisor)
        left = why_left(trace, groups, names, chosen, set(layers) - select(layers, None, self.exclude)[0])
        costs = Costs(model, trace)
        scores = scores_of(self.criterion, trace, model, groups, left, examples, self.seed)
        free = [group for group in groups if group.number not in left]
        name, _, share = self._budget
        measure = measure_of(self.latency, model, trace) if name in _MEASURED else None
        chunks = chunks_of(free, scores, self.keep_at_least, self.scope == "global")
        removal, stays = removal_for(costs, _BUDGETS[name][1], share, chunks, measure)
        decision = Decision(costs, layers, groups, left, chosen, named, self.layers is not None, removal)
        return decision, named, stays

    def _short(self, model, decision, stays):
        """Returns the error of a budget that cannot be met: so large a share stays."""
        name, what, share = self._budget
        reachable = math.ceil(100 * stays) / 100
        fix = (
            f"give {name}={reachable:g}; or allow more by a smaller keep_at_least= (now {self.keep_at_least:g}), a smaller divisor= (now {self.divisor}) or "
            "fewer layers in exclude=. plan(model) shows what is left whole, and why"
        )
        if reachable >= 1:
            fix = "choose more layers: plan(model) shows which are left whole, and why"
        fix = opened_first([call for call in decision.costs.trace.graph.calls if is_foreign(call.operation)]) + fix
        return ModelError(
            f"{name}={share:g} cannot be met in '{model.name}': when all is removed that may be, {stays:.3g} of its {what} stay.",
            f"a share of at least {stays:.3g}",
            fix,
        )
