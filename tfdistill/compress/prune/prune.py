"""Magnitude pruning with a schedule: the smallest weights of each kernel become zero while the model trains.

Zhu and Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model compression" (2017),
https://arxiv.org/abs/1710.01878, with the schedules of tensorflow-model-optimization.
"""

import dataclasses
import typing

import keras

from tfdistill.bridge.adopt.adopt import AdoptedModel
from tfdistill.bridge.wrappers.pruning import FISHER, MAGNITUDE, MOVEMENT, TAYLOR, prune_layer
from tfdistill.compress import kernels, rebuild
from tfdistill.compress.dry_run import DryRunStep, unexportable, warn_of_findings
from tfdistill.compress.plan import DONE, IMPOSSIBLE, SKIPPED, LayerPlan, Plan
from tfdistill.compress.prune import patterns
from tfdistill.compress.prune.callbacks import KeepPruned, PrunedModel, pruned_layers, require_one_device
from tfdistill.compress.prune.schedule import CONSTANT, POLYNOMIAL, tfmot_schedule
from tfdistill.compress.selection import Selection, select_values
from tfdistill.compress.step import (
    NO_KERNEL,
    frozen_note,
    require_applied,
    set_selectors,
    warn_of_frozen,
    why_left_out,
    why_no_kernel,
)
from tfdistill.errors import ConfigurationError, InvariantError
from tfdistill.utils import validate


@dataclasses.dataclass(frozen=True, repr=False)
class Prune(DryRunStep):
    """Pruning: in each kernel the weights of smallest magnitude, or of the least score by gradients, become zero, more and more of them on a schedule.

    Every layer that has kernels is pruned: also those inside attention, recurrent, bidirectional and time-distributed layers, in nested
    models, and in layers that are called several times. Depthwise kernels are not pruned unless `layers` or a dict of `sparsity` selects their
    layer: they are a few percent of a model's weights, and a filter of nine weights needs all of them.

    A kernel is seen as a matrix with one column per output channel, and one row per weight that such a channel sums (space, then input
    channels). No mask empties a column: each keeps at least its largest weight, or block. The columns of an embedding are not guarded so.

    Zeros make a file smaller after compression (gzip); they do not make inference faster. Steps are training steps (batches), counted from 1; a
    second `fit` continues the count. The mask of a kernel is computed anew every `frequency` steps, counted back from `end_step`, so that the
    last computation falls on it. Between these, pruned weights stay zero after every step. Training must reach `end_step` for the final
    sparsity; some more training with fixed masks after it is best. `Prune.for_training` computes `end_step` from epochs.

    Zhu and Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model compression" (2017), https://arxiv.org/abs/1710.01878.

    Args:
        sparsity: Final share of zeros in each pruned kernel, in (0, 1); None is 0.5, or what `n_of_m` leaves. Or a dict of selector
            (name, path or pattern; the first match counts, `"*"` matches all the rest) to such a share: `{"conv_1": 0.5, "encoder/*": 0.8}`.
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
        exclude: Layers to leave as they are, in the same forms; overrides `layers` and a dict.
        block: (rows, columns) of blocks of the matrix that are kept or zeroed as a whole, such as (4, 1): four inputs of one output
            channel. Blocks at the edge may be smaller. The sparsity is the share of zero blocks.
        block_pooling: By which of its magnitudes a block is ranked: their average, `"avg"`, or the largest, `"max"`.
        n_of_m: (n, m): of every m consecutive input channels of an output channel, at every place of the kernel, at most n weights are not
            zero. That is the N:M sparsity of Zhou et al., "Learning N:M fine-grained structured sparse neural networks from scratch"
            (2021), https://arxiv.org/abs/2102.04010; (2, 4) is the one that hardware supports. Input channels are consecutive in a .tflite
            file too. During the schedule, the weights that the pattern does not keep become zero, the smallest first.
        criterion: Which weights stay, w being a weight and g its gradient in one step. `"magnitude"`: the largest of abs(w). `"taylor"`: of the moving average of abs(w g), the
            first-order change of the loss without it (Molchanov et al. 2019, https://arxiv.org/abs/1906.10771). `"fisher"`: of that of (w g)**2 / 2, the second-order change with
            the diagonal Fisher information of the batches (Theis et al. 2018, https://arxiv.org/abs/1801.05787). `"movement"`: of the sum of -w g over all steps, the weights that
            move away from zero, for fine-tuning (Sanh et al. 2020, https://arxiv.org/abs/2005.07683). Averages have a decay of 0.9. All but the first take the memory of two
            more copies of the kernels, begin at the second step at the earliest, as the first gradient is known then, leave frozen layers, and train on one device.

    Raises:
        ConfigurationError: if the settings contradict each other or are out of range.

    Example:
        >>> prune = tfdistill.compress.Prune.for_training(steps_per_epoch=2, epochs=2, sparsity=0.75)
        >>> pruned = prune.apply(student)
        >>> pruned.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> history = pruned.fit(x, y, batch_size=32, epochs=2, verbose=0, callbacks=prune.callbacks())
        >>> sparse = prune.strip(pruned)
        >>> prune.check(sparse)
        >>> float(np.mean(sparse.get_layer("conv").kernel == 0))
        0.75
    """

    sparsity: float | dict[str, float] | None = None
    initial_sparsity: float = 0.0
    begin_step: int = 0
    end_step: int | None = None
    frequency: int | None = None
    schedule: typing.Literal["polynomial", "constant"] = POLYNOMIAL
    power: float = 3
    layers: Selection = None
    exclude: Selection = None
    block: tuple[int, int] | None = None
    block_pooling: typing.Literal["avg", "max"] = patterns.AVG
    n_of_m: tuple[int, int] | None = None
    criterion: typing.Literal["magnitude", "taylor", "fisher", "movement"] = MAGNITUDE

    def __post_init__(self):
        object.__setattr__(self, "sparsity", patterns.shares(self.sparsity, self._pattern(), self.layers))
        least = min(self.sparsity.values()) if isinstance(self.sparsity, dict) else self.sparsity
        if not (validate.is_number(self.initial_sparsity) and 0 <= self.initial_sparsity < least):
            raise ConfigurationError(
                f"initial_sparsity={self.initial_sparsity} with sparsity={self.sparsity}.",
                "at least 0 and below the final sparsity",
                validate.as_share(self.initial_sparsity, lambda share: share < least),
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
            if value is not None and not validate.is_whole_number(value, least):
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
        validate.one_of("criterion", self.criterion, (MAGNITUDE, TAYLOR, FISHER, MOVEMENT), owner="Prune")
        if self.criterion != MAGNITUDE and self.end_step is not None and self.end_step < 3:
            raise ConfigurationError(
                f"end_step={self.end_step} with criterion={self.criterion!r}, whose first gradient is known at step 2.",
                "an end_step of at least 3",
            )
        set_selectors(self)

    @classmethod
    def for_training(cls, steps_per_epoch: int, epochs: int, ramp: float = 0.6, **settings: typing.Any) -> "Prune":
        """Makes a `Prune` whose schedule fits the length of a training.

        Args:
            steps_per_epoch: Batches per epoch.
            epochs: Number of epochs.
            ramp: Share of all steps after which the final sparsity is reached, in (0, 1]; the rest trains with fixed masks.
            **settings: The other settings of `Prune`.

        Returns:
            A `Prune`.

        Raises:
            ConfigurationError: if there are no steps, or `ramp` is out of range.
        """
        validate.share("ramp", ramp, zero=False, owner="Prune.for_training")
        if steps_per_epoch < 1 or epochs < 1:
            raise ConfigurationError(f"steps_per_epoch={steps_per_epoch}, epochs={epochs}.", "at least one step")
        return cls(end_step=max(1, round(steps_per_epoch * epochs * ramp)), **settings)

    def apply(self, model: keras.Model, dry_run: bool = True) -> AdoptedModel:
        if self.criterion != MAGNITUDE:
            require_one_device(self.criterion)
        opened = rebuild.open_to_apply(model, "Prune")
        rebuild.require_strippable(opened)
        plan, named = self._plan(opened, dry_run)
        plan.require_work(named)
        warn_of_findings(plan)
        done, shares = set(plan.names(DONE)), self._shares(opened.layers)[0]
        warn_of_frozen("Prune makes zeros", opened.adopted.name, opened.layers, done, named)

        def replace(path, layer):
            if path not in done:
                return layer
            targets, _ = self._targets(opened.layers[path], shares[path])
            pruned = [target.pruned_kernel for target in targets]
            return prune_layer(layer, pruned, self._pattern(), tfmot_schedule(self, shares[path]), self.criterion)

        adopted = PrunedModel(rebuild.rebuild(opened.legacy, replace), original=opened.original, name=opened.adopted.name)
        for layer in pruned_layers(adopted):
            # The initial value, -1, is how TFMOT notices that its callback is missing; this library's wrapper counts by itself.
            layer.pruning_step.assign(0)
        return adopted

    def callbacks(self) -> list[keras.callbacks.Callback]:
        return [KeepPruned()]

    def strip(self, model: AdoptedModel) -> keras.Model:
        require_applied(model, pruned_layers, "carries no pruning", "Prune")
        return rebuild.without_wrappers(model)

    def check(self, model: keras.Model) -> None:
        layers = rebuild.layers_by_name(model)
        shares, _ = self._shares(layers)
        wrong, emptied = [], []
        for path, layer in layers.items():
            for target in self._targets(layer, shares[path])[0] if path in shares else ():
                attribute = target.kernel.attribute
                value = rebuild.effective_weight(layer, attribute)
                if violation := target.violation(value):
                    wrong.append(f"'{path}' {attribute}: {violation}")
                elif channels := target.emptied(value):
                    emptied.append(f"'{path}' {attribute}: {channels} of {target.kernel.columns}")
        if wrong:
            raise InvariantError(
                f"Kernels are less sparse than they should be: {'; '.join(wrong)}.{self._progress(model)}",
                self._target_text(),
                f"train under the step's callbacks() up to end_step={self.end_step}, and apply no later step that fills zeros in",
            )
        if emptied:
            raise InvariantError(
                f"Output channels have no weight left: {'; '.join(emptied)}.",
                "at least one weight in each, which pruning keeps",
                "look at the steps after pruning, or whether these weights were zero before it",
            )

    def _progress(self, model):
        steps = [int(layer.pruning_step.numpy()) for layer in pruned_layers(model)] if isinstance(model, AdoptedModel) else []
        if not steps:
            return ""
        if self.end_step is not None and min(steps) < self.end_step:
            return f" Training ended before the schedule did: at step {min(steps)} of {self.end_step}."
        return f" {min(steps)} steps were trained."

    def _target_text(self):
        if self.n_of_m is not None:
            return "at most {} of {} consecutive weights that are not zero".format(*self.n_of_m)
        what = "zeros" if self.block is None else "zero blocks"
        return f"{what} by layer {self.sparsity}" if isinstance(self.sparsity, dict) else f"{100 * self.sparsity:.1f} % {what}"

    def _pattern(self):
        return patterns.pattern(self.block, self.block_pooling, self.n_of_m)

    def _shares(self, layers):
        """Returns a dict of path to sparsity for the layers that are selected, and the paths that were named outright."""
        return select_values(layers, self.sparsity, self.layers, self.exclude)

    @property
    def _selects(self):
        return self.layers is not None or isinstance(self.sparsity, dict)

    def _targets(self, layer, share):
        """Returns the `SparsityTarget`s of the kernels of a layer that can be pruned, and for each of the others the reason why it cannot."""
        found = [k for k in kernels.kernels_of(layer) if self._selects or k.kind != kernels.DEPTHWISE_FILTERS]
        targets = [patterns.SparsityTarget(kernel, share, self._pattern()) for kernel in found]
        impossible = [target.impossible() for target in targets]
        return [target for target, why in zip(targets, impossible, strict=True) if not why], [why for why in impossible if why]

    def _plan(self, opened, dry_run):
        shares, named = self._shares(opened.layers)
        rows = tuple(self._row(path, layer, shares.get(path)) for path, layer in opened.layers.items())
        return Plan(repr(self), opened.adopted.name, rows, unexportable(opened) if dry_run else (), opened.custom), named

    def _row(self, path, layer, share):
        targets, impossible = ([], []) if share is None else self._targets(layer, share)
        if share is None:
            action, reason = SKIPPED, why_left_out("sparsity", self.sparsity)
        elif targets and self.criterion != MAGNITUDE and not layer.trainable:
            action, reason = IMPOSSIBLE, f"it is frozen, so that criterion={self.criterion!r} has no gradients"
        elif targets:
            size = sum(target.kernel.size for target in targets)
            reason = f"{100 * share:g} % of {size:,} weights in {', '.join(target.kernel.attribute for target in targets)}"
            notes = [*frozen_note(layer, "so that no training makes up for them"), *(note for target in targets for note in target.notes())]
            action, reason = DONE, "; ".join([reason, *notes, *impossible])
        elif impossible:
            action, reason = IMPOSSIBLE, "; ".join(impossible)
        elif kernels.kernels_of(layer):
            action, reason = SKIPPED, "depthwise kernels are few, and sensitive: spared unless layers= or sparsity= selects them"
        else:
            reason = why_no_kernel(layer)
            action = SKIPPED if reason == NO_KERNEL else IMPOSSIBLE
        # Without a selection, a layer that cannot be pruned is merely skipped.
        if action == IMPOSSIBLE and not self._selects:
            action = SKIPPED
        return LayerPlan.of(path, layer, action, reason, zeros=sum(target.kernel.size - target.kept for target in targets))
