"""Magnitude pruning with a schedule: the smallest weights of each kernel become zero while the model trains.

Zhu and Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model compression" (2017),
https://arxiv.org/abs/1710.01878, with the schedules of tensorflow-model-optimization.
"""

import dataclasses
import typing

from tfdistill.bridge import imports
from tfdistill.bridge.adopt.adopt import AdoptedModel
from tfdistill.bridge.wrappers.pruning import prune_layer
from tfdistill.compress import kernels, rebuild
from tfdistill.compress.plan import DONE, IMPOSSIBLE, SKIPPED, LayerPlan, Plan
from tfdistill.compress.prune import patterns
from tfdistill.compress.prune.callbacks import KeepPruned, PrunedModel, pruned_layers
from tfdistill.compress.selection import select_values, selectors
from tfdistill.compress.step import NO_KERNEL, Step, frozen_note, is_whole, warn_of_frozen, why_no_kernel
from tfdistill.errors import ConfigurationError, InvariantError, ModelError

POLYNOMIAL, CONSTANT = "polynomial", "constant"


@dataclasses.dataclass(frozen=True)
class Prune(Step):
    """Magnitude pruning: in each kernel the weights of smallest magnitude become zero, more and more of them as the schedule says.

    Every layer that has kernels is pruned: also those inside attention, recurrent, bidirectional and time-distributed layers, in nested
    models, and in layers that are called several times. Depthwise kernels are spared unless `layers` or a dict of `sparsity` selects their
    layer: they are a few percent of a model's weights, and a filter of nine weights has none to spare.

    A kernel is seen as a matrix with one column per output channel, and one row per weight that such a channel sums (space, then input
    channels). No mask empties a column: each keeps at least its largest weight, or block. Embeddings alone have no such columns.

    Zeros make a file smaller after compression (gzip), not the inference faster. Steps are training steps (batches), counted from 1;
    training on goes on counting. The mask of a kernel is computed anew every `frequency` steps, counted back from `end_step`, so that the
    last time falls on it; between these, pruned weights stay zero after every step. To be what it promises, training must reach `end_step`,
    and best goes on a while after it with fixed masks. `Prune.for_training` computes it from epochs.

    Args:
        sparsity: Final share of zeros in each pruned kernel, in (0, 1); None is 0.5, or what `n_of_m` leaves. Or a dict of selector
            (name, path or pattern; the first match wins, `"*"` is all the rest) to such a share: `{"conv_1": 0.5, "encoder/*": 0.8}`.
            Layers that no selector matches are left as they are.
        initial_sparsity: Share at `begin_step`, in [0, sparsity); polynomial schedule only.
        begin_step: Step after which pruning begins, at least 0.
        end_step: Step at which the final sparsity is reached. Required by the polynomial schedule; for the constant one, the step after
            which masks stay as they are, None for never.
        frequency: Steps between two computations of the masks. None chooses: a twentieth of the range, between 1 and 100.
        schedule: `"polynomial"`, from the initial to the final sparsity, fast first and slower later; or `"constant"`, all at once.
        power: Exponent of the polynomial schedule, above 0.
        layers: Which layers: a name or path, a pattern, a predicate of a layer, or a list of these. None is every layer with a kernel that
            is not depthwise. Not together with a dict of `sparsity`, which selects by itself.
        exclude: Which layers not; wins over `layers` and over a dict.
        block: (rows, columns) of blocks of the matrix that are kept or zeroed as a whole, such as (4, 1): four inputs of one output
            channel. Blocks at the edge may be smaller. The sparsity is the share of zero blocks.
        block_pooling: What of its magnitudes a block is measured by: `"avg"` or `"max"`.
        n_of_m: (n, m): of every m consecutive input channels of an output channel, at every place of the kernel, at most n weights are not
            zero. That is the N:M sparsity of Zhou et al., "Learning N:M fine-grained structured sparse neural networks from scratch"
            (2021), https://arxiv.org/abs/2102.04010; (2, 4) is the one that hardware knows. Input channels are consecutive in a .tflite
            file too. On the way, those weights that the pattern does not keep become zero from the smallest on.

    Raises:
        ConfigurationError: if the settings contradict each other or are out of range.
    """

    sparsity: typing.Any = None
    initial_sparsity: float = 0.0
    begin_step: int = 0
    end_step: int | None = None
    frequency: int | None = None
    schedule: str = POLYNOMIAL
    power: float = 3
    layers: typing.Any = None
    exclude: typing.Any = None
    block: tuple[int, int] | None = None
    block_pooling: str = patterns.AVG
    n_of_m: tuple[int, int] | None = None

    def __post_init__(self):
        object.__setattr__(self, "sparsity", patterns.shares(self.sparsity, self._pattern(), self.layers))
        least = min(self.sparsity.values()) if isinstance(self.sparsity, dict) else self.sparsity
        if not 0 <= self.initial_sparsity < least:
            raise ConfigurationError(
                f"initial_sparsity={self.initial_sparsity} with sparsity={self.sparsity}.", "at least 0 and below the final sparsity"
            )
        if self.schedule not in (POLYNOMIAL, CONSTANT):
            raise ConfigurationError(f"schedule={self.schedule!r}.", "'polynomial' or 'constant'")
        if self.schedule == CONSTANT and self.initial_sparsity:
            raise ConfigurationError(
                f"initial_sparsity={self.initial_sparsity} with schedule='constant'.",
                "a constant schedule has one sparsity",
                "use 'polynomial'",
            )
        if not self.power > 0:
            raise ConfigurationError(f"power={self.power}.", "a number above 0")
        for name, least in (("begin_step", 0), ("end_step", 1), ("frequency", 1)):
            value = getattr(self, name)
            if value is not None and not is_whole(value, least):
                raise ConfigurationError(f"{name}={value!r}.", f"a whole number of training steps, at least {least}")
        if self.end_step is None and self.schedule == POLYNOMIAL:
            raise ConfigurationError(
                "The polynomial schedule got no end_step.",
                "the training step at which the final sparsity is reached",
                "give about 60 % of all training steps, or use Prune.for_training(steps_per_epoch, epochs, ...)",
            )
        if self.end_step is not None and self.end_step <= self.begin_step:
            raise ConfigurationError(f"end_step={self.end_step} with begin_step={self.begin_step}.", "an end after the beginning")
        if self.end_step is not None and self.frequency is not None and self.frequency > self.end_step - self.begin_step:
            raise ConfigurationError(
                f"frequency={self.frequency} with steps {self.begin_step} to {self.end_step}: no mask would ever be computed.",
                f"at most {self.end_step - self.begin_step}",
            )
        object.__setattr__(self, "layers", selectors(self.layers, "layers"))
        object.__setattr__(self, "exclude", selectors(self.exclude, "exclude"))

    @classmethod
    def for_training(cls, steps_per_epoch, epochs, ramp=0.6, **settings):
        """Makes a `Prune` whose schedule fits a training.

        Args:
            steps_per_epoch: Batches per epoch.
            epochs: Number of epochs.
            ramp: Share of all steps at which the final sparsity is reached, in (0, 1]; the rest trains with fixed masks.
            **settings: The other settings of `Prune`.

        Returns:
            A `Prune`.

        Raises:
            ConfigurationError: if there are no steps, or `ramp` is out of range.
        """
        if not 0 < ramp <= 1:
            raise ConfigurationError(f"ramp={ramp}.", "a share of the training above 0 and at most 1")
        if steps_per_epoch < 1 or epochs < 1:
            raise ConfigurationError(f"steps_per_epoch={steps_per_epoch}, epochs={epochs}.", "at least one step")
        return cls(end_step=max(1, round(steps_per_epoch * epochs * ramp)), **settings)

    def plan(self, model):
        return self._plan(rebuild.open_model(model))[0]

    def apply(self, model):
        opened = rebuild.open_model(model)
        rebuild.refuse_wrapped(opened, "Prune")
        rebuild.warn_of_own_training(model, "Prune")
        rebuild.require_way_back(opened)
        plan, named = self._plan(opened)
        plan.require_work(named)
        done, shares = set(plan.names(DONE)), self._shares(opened.layers)[0]
        warn_of_frozen("Prune makes zeros", opened.adopted.name, opened.layers, done, named)

        def replace(path, layer):
            if path not in done:
                return layer
            promises, _ = self._promises(opened.layers[path], shares[path])
            schedule = self._tfmot_schedule(shares[path])
            return prune_layer(layer, [promise.pruned_kernel for promise in promises], self._pattern(), schedule)

        adopted = PrunedModel(rebuild.rebuild(opened.legacy, replace), original=opened.original, name=opened.adopted.name)
        for layer in pruned_layers(adopted):
            # -1, the initial value, is TFMOT's sign for a missing callback; ours has nothing to count.
            layer.pruning_step.assign(0)
        return adopted

    def callbacks(self):
        return [KeepPruned()]

    def strip(self, model):
        if not isinstance(model, AdoptedModel) or not pruned_layers(model):
            raise ModelError(f"'{getattr(model, 'name', model)}' carries no pruning.", "the model that Prune.apply returned")
        return rebuild.without_wrappers(model)

    def check(self, model):
        layers = rebuild.layers_by_name(model)
        shares, _ = self._shares(layers)
        wrong, emptied = [], []
        for path, layer in layers.items():
            for promise in self._promises(layer, shares[path])[0] if path in shares else ():
                attribute = promise.kernel.attribute
                value = rebuild.effective_weight(layer, attribute)
                if broken := promise.broken(value):
                    wrong.append(f"'{path}' {attribute}: {broken}")
                elif channels := promise.emptied(value):
                    emptied.append(f"'{path}' {attribute}: {channels} of {promise.kernel.columns}")
        if wrong:
            raise InvariantError(
                f"Kernels are less sparse than promised: {'; '.join(wrong)}.{self._progress(model)}",
                self._promised(),
                f"train under the step's callbacks() up to end_step={self.end_step}, and apply no later step that fills zeros in",
            )
        if emptied:
            raise InvariantError(
                f"Output channels have no weight left: {'; '.join(emptied)}.",
                "at least one weight in each, which pruning keeps",
                "look at what came after pruning, or whether these weights were zero before it",
            )

    def _progress(self, model):
        steps = [int(layer.pruning_step.numpy()) for layer in pruned_layers(model)] if isinstance(model, AdoptedModel) else []
        if not steps:
            return ""
        if self.end_step is not None and min(steps) < self.end_step:
            return f" Training ended before the schedule did: at step {min(steps)} of {self.end_step}."
        return f" {min(steps)} steps were trained."

    def _promised(self):
        if self.n_of_m is not None:
            return "at most {} of {} consecutive weights that are not zero".format(*self.n_of_m)
        what = "zeros" if self.block is None else "zero blocks"
        return f"{what} by layer {self.sparsity}" if isinstance(self.sparsity, dict) else f"{100 * self.sparsity:.1f} % {what}"

    def _tfmot_schedule(self, sparsity):
        schedules = imports.tfmot().sparsity.keras
        begin, frequency = self._begin_and_frequency()
        if self.schedule == CONSTANT:
            end = -1 if self.end_step is None else self.end_step
            return schedules.ConstantSparsity(sparsity, begin_step=begin, end_step=end, frequency=frequency)
        return schedules.PolynomialDecay(
            initial_sparsity=self.initial_sparsity,
            final_sparsity=sparsity,
            begin_step=begin,
            end_step=self.end_step,
            power=self.power,
            frequency=frequency,
        )

    def _begin_and_frequency(self):
        if self.end_step is None:
            # TFMOT counts from 1: a beginning at 0 would first act a whole frequency later.
            return max(self.begin_step, 1), self.frequency or 100
        length = self.end_step - self.begin_step
        frequency = self.frequency or min(max(length // 20, 1), 100)
        # TFMOT acts at begin, begin + frequency, ...: shifted by the remainder, the last time is end_step, not shortly before it.
        return self.begin_step + length % frequency, frequency

    def _pattern(self):
        return patterns.pattern(self.block, self.block_pooling, self.n_of_m)

    def _shares(self, layers):
        """Returns a dict of path to sparsity for the layers that are selected, and the paths that were named outright."""
        return select_values(layers, self.sparsity, self.layers, self.exclude)

    @property
    def _selects(self):
        return self.layers is not None or isinstance(self.sparsity, dict)

    def _promises(self, layer, share):
        """Returns what is promised of the kernels of a layer, and why others of them cannot be pruned."""
        found = [k for k in kernels.kernels_of(layer) if self._selects or k.kind != kernels.DEPTHWISE_FILTERS]
        promises = [patterns.SparsityTarget(kernel, share, self._pattern()) for kernel in found]
        impossible = [promise.impossible() for promise in promises]
        return [p for p, why in zip(promises, impossible, strict=True) if not why], [why for why in impossible if why]

    def _plan(self, opened):
        shares, named = self._shares(opened.layers)
        rows = tuple(self._row(path, layer, shares.get(path)) for path, layer in opened.layers.items())
        return Plan(step=repr(self), model=opened.adopted.name, rows=rows), named

    def _row(self, path, layer, share):
        promises, impossible = ([], []) if share is None else self._promises(layer, share)
        if share is None:
            action, reason = SKIPPED, f"left out by {'sparsity=' if isinstance(self.sparsity, dict) else 'layers='} or exclude="
        elif promises:
            size = sum(promise.kernel.size for promise in promises)
            reason = f"{100 * share:g} % of {size:,} weights in {', '.join(promise.kernel.attribute for promise in promises)}"
            notes = [
                *frozen_note(layer, "so that no training makes up for them"),
                *(note for promise in promises for note in promise.notes()),
            ]
            action, reason = DONE, "; ".join([reason, *notes, *impossible])
        elif impossible:
            action, reason = IMPOSSIBLE, "; ".join(impossible)
        elif kernels.kernels_of(layer):
            action, reason = SKIPPED, "depthwise kernels are few, and sensitive: spared unless layers= or sparsity= selects them"
        else:
            reason = why_no_kernel(layer)
            action = SKIPPED if reason == NO_KERNEL else IMPOSSIBLE
        # A layer that nobody asked for is skipped; only one that was selected is impossible.
        if action == IMPOSSIBLE and not self._selects:
            action = SKIPPED
        return LayerPlan.of(path, layer, action, reason, zeros=sum(promise.kernel.size - promise.kept for promise in promises))
