"""Low-rank factorization: dense layers, embeddings and convolutions become several thin ones."""

import dataclasses
import math
import typing

import keras

from tfdistill.compress import rebuild
from tfdistill.compress.low_rank.build import Factored, require_equal
from tfdistill.compress.low_rank.decide import decide
from tfdistill.compress.low_rank.forms import AUTO, METHODS
from tfdistill.compress.low_rank.plan import LowRankPlan
from tfdistill.compress.low_rank.ranks import MACS, PARAMETERS
from tfdistill.compress.native_step import NativeStep, require_parameters
from tfdistill.compress.plan import DONE, opened_first
from tfdistill.compress.selection import Selection, settings_by_layer
from tfdistill.compress.step import set_selectors, warn_of_frozen
from tfdistill.errors import ConfigurationError, ModelError
from tfdistill.utils import validate

Method = typing.Literal["auto", "svd", "spatial_svd", "tucker", "cp"]
Rank = int | tuple[int, int]
_SETTINGS = ("rank", "energy", "keep_parameters", "keep_macs")


@dataclasses.dataclass(frozen=True, repr=False)
class LowRank(NativeStep):
    """Low-rank factorization: a layer becomes several thin ones, whose kernels multiply to nearly its own.

    | method | layers | becomes |
    |---|---|---|
    | `"svd"` | Dense, EinsumDense that is a product of a matrix, Embedding | two of its class; of a table a narrower one and a dense layer without bias |
    | `"svd"` | Conv1D, Conv2D | fewer filters of the same size, then a convolution of size 1 (Zhang et al. 2016, https://arxiv.org/abs/1505.06798) |
    | `"spatial_svd"` | Conv2D | k x 1, then 1 x k (Jaderberg et al. 2014, https://arxiv.org/abs/1405.3866) |
    | `"tucker"` | Conv1D, Conv2D | size 1, the layer's size between fewer channels, size 1 (Kim et al. 2016, https://arxiv.org/abs/1511.06530) |
    | `"cp"` | Conv1D, Conv2D | size 1, depthwise along each axis, size 1 (Lebedev et al. 2015, https://arxiv.org/abs/1412.6553); needs the extra `[lowrank]` |

    The last part has the layer's name, bias, activation, strides that are left, and what is read from the layer's output; those before it are called
    `conv_first`, `conv_second`. Penalties on the kernel are on the kernels of all parts. Depthwise and grouped convolutions, kernels inside attention, recurrent and
    wrapped layers and layers of other classes stay as they are, as does every layer that would not get smaller or that would multiply more (looking up a
    narrower table aside); the plan says why.

    `apply` returns a plain Keras 3 model, which is not compiled. It is trained like any other, as the student of a `Distiller` most of all, and later steps
    follow: `Prune`, `Cluster`, `QuantizeAware`. Shared layers stay shared, and Sequential and nested functional models stay what they are; subclassed ones become
    functional models of their layers. Before it returns, each factorized layer is compared with the layer whose kernel is the product of its
    factors, within 1e-4 of the largest value, on what it gets for random input, and so are the outputs.

    With `calibration` data, `svd` and `spatial_svd` keep what loses least of the layer's products on that data in place of the weights alone, and budgets weigh
    layers by it; `tucker` and `cp` go by the weights. The plan says which.

    Args:
        rank: Rank of every layer; or a pair, those of inputs and outputs for `"tucker"`; or a dict of selector (name, path or pattern; the first match counts) to
            one. Or
        energy: smallest share, in (0, 1), of the energy (sum of squares) that each layer keeps; or
        keep_parameters: largest share, in (0, 1), of the model's parameters that stays; or
        keep_macs: largest share of its multiply-accumulates that stays (see `tfdistill.profile`). Exactly one of the four. For a budget, ranks go down step by
            step where the least share of a layer's energy is lost for what is saved.
        method: One method, or a dict of selector to method. `"auto"` takes whichever of `"svd"`, `"spatial_svd"` and `"tucker"` is cheapest for the energy or loses
            least for the budget; for `rank=` it is `"spatial_svd"` where that works and makes the layer smaller, else `"svd"`.
        divisor: Ranks that are chosen are multiples of it. Kernels of int8 files are fast at multiples of 8. 1 is for any number. `rank=` is taken as it is given.
        layers: Which layers: a name or path, a pattern, a predicate of a layer, or a list of these. None is every layer. Not together with a dict, which
            selects by itself.
        exclude: Layers to leave as they are, in the same forms.

    Raises:
        ConfigurationError: if the settings contradict each other or are out of range.

    Example:
        >>> step = tfdistill.compress.LowRank(keep_macs=0.5, divisor=1)
        >>> smaller = step.apply(teacher, calibration=x)
        >>> [layer.name for layer in smaller.layers]
        ['image', 'conv_first', 'conv', 'norm', 'relu', 'pool', 'logits_first', 'logits']
        >>> distiller = tfdistill.Distiller(teacher, smaller, tfdistill.losses.SoftTargets(4.0))
        >>> distiller.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> history = distiller.fit(x, y, verbose=0)
        >>> step.check(step.strip(smaller), step.plan(teacher, calibration=x))
    """

    rank: Rank | dict[str, Rank] | None = None
    energy: float | None = None
    keep_parameters: float | None = None
    keep_macs: float | None = None
    method: Method | dict[str, Method] = "auto"
    divisor: int = 8
    layers: Selection = None
    exclude: Selection = None

    def __post_init__(self):
        given = {name: getattr(self, name) for name in _SETTINGS if getattr(self, name) is not None}
        if len(given) != 1:
            shown = ", ".join(f"{name}={value!r}" for name, value in given.items()) or "no rank"
            raise ConfigurationError(
                f"LowRank got {shown}.",
                "exactly one of " + ", ".join(f"{name}=" for name in _SETTINGS),
                "leave out all but one of them" if given else "for half of the multiply-accumulates give keep_macs=0.5",
            )
        for name in _SETTINGS[1:]:
            if name in given:
                validate.share(name, given[name], zero=False, one=False, owner="LowRank")
        if self.rank is not None:
            rank, values = settings_by_layer("rank", self.rank, "ranks", self.layers)
            if not all(_is_rank(value) for value in values):
                raise ConfigurationError(f"LowRank: rank={self.rank!r}.", "whole numbers of at least 1, or pairs of them")
            # Sizes of layers are Python's own numbers.
            object.__setattr__(self, "rank", keras.tree.map_structure(int, rank))
        method, values = settings_by_layer("method", self.method, "methods", self.layers)
        for value in values:
            validate.one_of("method", value, (AUTO, *METHODS), owner="LowRank")
        object.__setattr__(self, "method", method)
        object.__setattr__(self, "divisor", validate.whole_number("divisor", self.divisor, owner="LowRank"))
        set_selectors(self)

    @property
    def budget(self) -> tuple[str, str, float] | None:
        """Name of the setting that is a budget of the whole model, what it counts, and the share that stays; None where there is none."""
        if self.keep_parameters is not None:
            return "keep_parameters", PARAMETERS, self.keep_parameters
        return None if self.keep_macs is None else ("keep_macs", MACS, self.keep_macs)

    def plan(self, model: keras.Model, calibration: typing.Any = None) -> LowRankPlan:
        """Lists layer by layer what would be factorized, how and at which rank. The model is not changed.

        Args:
            model: A built Keras 3 model.
            calibration: Examples by which to weigh what is kept: an array, or arrays in the structure that the model takes; some hundred are enough. None goes
                by the weights.

        Returns:
            A `LowRankPlan`.

        Raises:
            ModelError: if the model is not built, no Keras 3 model, or has free sizes so that `keep_macs` has no meaning. That the budget cannot be met is one of the plan's findings.
            DataError: if the examples cannot be used.
            MissingPackageError: if `method="cp"` is asked for without the extra `[lowrank]`.
        """
        decision = decide(self, model, calibration)
        plan = decision.plan
        return plan if self._is_met(decision) else dataclasses.replace(plan, findings=(*plan.findings, self._short(decision).happened))

    def apply(self, model: keras.Model, calibration: typing.Any = None) -> keras.Model:
        """Returns a new Keras 3 model with factorized layers, compared with the original; see the class. `model` is not changed.

        Args:
            model: A built Keras 3 model.
            calibration: As `plan` takes it.

        Returns:
            A Keras 3 model.

        Raises:
            ModelError: as `plan`; or if the budget cannot be met, nothing can be factorized, or not a layer that was named.
            DataError: as `plan`.
            MissingPackageError: as `plan`.
            InvariantError: if a factorized layer does not compute what its factors multiply to.
        """
        decision = decide(self, model, calibration)
        decision.plan.require_work(decision.named)
        if not self._is_met(decision):
            raise self._short(decision)
        rebuild.warn_of_own_training(model, "LowRank", stacklevel=3)
        done = {row.name for row in decision.plan.rows if row.action == DONE}
        warn_of_frozen("LowRank approximates kernels", model.name, decision.layers, done, decision.named)
        factored = Factored(model, decision.graph, decision.factors)
        require_equal(model, decision.graph, decision.factors, factored)
        return factored.model

    def check(self, model: keras.Model, plan: LowRankPlan | None = None) -> None:
        """Checks that a model has the thin layers of the plan. Without the plan there is nothing to check: no training changes shapes.

        Args:
            model: The factorized model, or what later steps made of it, as a Keras 3 model.
            plan: The `LowRankPlan` that it was made by, or None.

        Raises:
            InvariantError: naming the layers and their figures.
        """
        if plan is None:
            return
        parts = [row.part_parameters or {row.name: row.parameters} for row in plan.rows]
        require_parameters(model, {path: count for row in parts for path, count in row.items()})

    def _is_met(self, decision):
        return self.budget is None or decision.stays <= self.budget[2]

    def _short(self, decision):
        """Returns the error of a budget that cannot be met."""
        name, what, share = self.budget
        reachable = math.ceil(100 * decision.stays) / 100
        fix = f"take {name}={reachable:g}; or allow smaller ranks by a smaller divisor= (now {self.divisor}), or fewer layers in exclude="
        if reachable >= 1:
            fix = "factorize more layers: plan(model) shows which stay as they are, and why"
        return ModelError(
            f"{name}={share:g} cannot be met in '{decision.plan.model}': at the smallest ranks, {decision.stays:.4g} of its {what} stay.",
            f"a share of at least {decision.stays:.4g}",
            opened_first(decision.plan.custom) + fix,
        )


def _is_rank(value):
    if isinstance(value, tuple):
        return len(value) == 2 and all(validate.is_whole_number(n, 1) for n in value)
    return validate.is_whole_number(value, 1)
