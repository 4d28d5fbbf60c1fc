"""Magnitude pruning with a schedule: the smallest weights of each kernel become zero while the model trains.

Zhu and Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model compression" (2017), https://arxiv.org/abs/1710.01878, through
tensorflow-model-optimization.
"""

import dataclasses
import typing

import keras
import numpy as np

from tfdistill.compress import graph, kernels
from tfdistill.compress.selection import select, selectors
from tfdistill.compress.step import DONE, IMPOSSIBLE, SKIPPED, LayerPlan, Plan, Step
from tfdistill.errors import ConfigurationError, InvariantError, ModelError
from tfdistill.legacy import adopt_scope as scope
from tfdistill.legacy import door
from tfdistill.legacy.adopt import AdoptedModel, adopt

POLYNOMIAL, CONSTANT = "polynomial", "constant"


@dataclasses.dataclass(frozen=True)
class Prune(Step):
    """Magnitude pruning: in each kernel the weights of smallest magnitude become zero, more and more of them as the schedule says.

    Zeros make a file smaller after compression (gzip), not the inference faster. Steps are training steps (batches), counted from 1; training on
    goes on counting. The mask of a kernel is computed anew every `frequency` steps, counted back from `end_step`, so that the last time falls on
    it; between these, pruned weights stay zero after every step. To be what it promises, training must reach `end_step`, and best goes
    on a while after it with fixed masks. `Prune.for_training` computes it from epochs.

    Args:
        sparsity: Final share of zeros in each pruned kernel, in (0, 1).
        initial_sparsity: Share at `begin_step`, in [0, sparsity); polynomial schedule only.
        begin_step: Step after which pruning begins, at least 0.
        end_step: Step at which the final sparsity is reached. Required by the polynomial schedule; for the constant one, the step after which masks
            stay as they are, None for never.
        frequency: Steps between two computations of the masks. None chooses: a twentieth of the range, between 1 and 100.
        schedule: `"polynomial"`, from the initial to the final sparsity, fast first and slower later; or `"constant"`, all at once.
        power: Exponent of the polynomial schedule, above 0.
        layers: Which layers: a name or path, a pattern, a predicate of a layer, or a list of these. None is every layer with a prunable kernel.
        exclude: Which layers not; wins over `layers`.

    Raises:
        ConfigurationError: if the settings contradict each other or are out of range.
    """

    sparsity: float = 0.5
    initial_sparsity: float = 0.0
    begin_step: int = 0
    end_step: int | None = None
    frequency: int | None = None
    schedule: str = POLYNOMIAL
    power: float = 3
    layers: typing.Any = None
    exclude: typing.Any = None

    def __post_init__(self):
        if not 0 < self.sparsity < 1:
            raise ConfigurationError(f"sparsity={self.sparsity}.", "a share of zeros above 0 and below 1")
        if not 0 <= self.initial_sparsity < self.sparsity:
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
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least):
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
        return self._plan(graph.open_model(model))[0]

    def apply(self, model):
        opened = graph.open_model(model)
        graph.refuse_wrapped(opened, "Prune")
        plan, named = self._plan(opened)
        plan.require_work(named)
        done = set(plan.names(DONE))
        wrap = door.tfmot().sparsity.keras.prune_low_magnitude

        def replace(path, layer):
            return wrap(layer, pruning_schedule=self._tfmot_schedule()) if path in done else layer

        adopted = adopt(graph.rebuild(opened.legacy, replace), original=opened.original, name=opened.adopted.name)
        for layer in pruned_layers(adopted):
            # -1, the initial value, is TFMOT's sign for a missing callback; ours has nothing to count.
            layer.pruning_step.assign(0)
        return adopted

    def callbacks(self):
        return [KeepPruned()]

    def strip(self, model):
        if not isinstance(model, AdoptedModel) or not pruned_layers(model):
            raise ModelError(f"'{getattr(model, 'name', model)}' carries no pruning.", "the model that Prune.apply returned")
        if model.original is None:
            raise ModelError(
                f"The model '{model.name}' does not know the Keras 3 model that it came from.", "one that apply() made from a Keras 3 model"
            )
        return graph.back_to_keras(graph.rebuild(model.legacy, lambda path, layer: layer), model.original)

    def check(self, model):
        wrong = []
        layers = graph.layers_by_name(model)
        for path in sorted(select(layers, self.layers, self.exclude)[0], key=list(layers).index):
            for attribute in kernels.prunable_attributes(layers[path]):
                value = graph.effective_weight(layers[path], attribute)
                if kernels.zeros(value) < value.size - self.kept(value.size):
                    wrong.append(f"'{path}' {attribute}: {100 * kernels.zeros(value) / value.size:.1f} % zeros")
        if wrong:
            raise InvariantError(
                f"Kernels are less sparse than promised: {'; '.join(wrong)}.{self._progress(model)}",
                f"{100 * self.sparsity:.1f} % zeros",
                f"train under the step's callbacks() up to end_step={self.end_step}, and apply no later step that fills zeros in",
            )

    def kept(self, size):
        """Number of weights that stay in a kernel of `size` weights."""
        return max(int(np.round(np.float32(size) * np.float32(1 - self.sparsity))), 1)

    def _progress(self, model):
        steps = [int(layer.pruning_step.numpy()) for layer in pruned_layers(model)] if isinstance(model, AdoptedModel) else []
        if not steps:
            return ""
        if self.end_step is not None and min(steps) < self.end_step:
            return f" Training ended before the schedule did: at step {min(steps)} of {self.end_step}."
        return f" {min(steps)} steps were trained."

    def _tfmot_schedule(self):
        schedules = door.tfmot().sparsity.keras
        begin, frequency = self._begin_and_frequency()
        if self.schedule == CONSTANT:
            end = -1 if self.end_step is None else self.end_step
            return schedules.ConstantSparsity(self.sparsity, begin_step=begin, end_step=end, frequency=frequency)
        return schedules.PolynomialDecay(
            initial_sparsity=self.initial_sparsity,
            final_sparsity=self.sparsity,
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

    def _plan(self, opened):
        layers = opened.layers
        chosen, named = select(layers, self.layers, self.exclude)
        rows = tuple(self._row(path, layer, path in chosen) for path, layer in layers.items())
        return Plan(step=repr(self), model=opened.adopted.name, rows=rows), named

    def _row(self, path, layer, chosen):
        count, nonzero = kernels.parameters(layer), None
        attributes = kernels.prunable_attributes(layer)
        kind = type(scope.unwrap(layer)).__name__
        if not chosen:
            action, reason = SKIPPED, "left out by layers= or exclude="
        elif attributes:
            sizes = [int(np.size(graph.effective_weight(layer, attribute))) for attribute in attributes]
            nonzero = count - sum(sizes) + sum(self.kept(size) for size in sizes)
            action, reason = DONE, f"{100 * self.sparsity:g} % of {sum(sizes):,} weights in {', '.join(attributes)}"
        elif kind in kernels.DEPTHWISE:
            action, reason = IMPOSSIBLE, "TFMOT does not prune depthwise kernels: they are few, and sensitive"
        elif not count or kind in kernels.NORMALIZATIONS:
            action, reason = SKIPPED, "has no kernel"
        else:
            action, reason = IMPOSSIBLE, f"TFMOT cannot prune a {kind}"
        # A layer that nobody named is skipped; only one that was asked for is impossible.
        if action == IMPOSSIBLE and self.layers is None:
            action = SKIPPED
        return LayerPlan(
            name=path,
            class_name=kind,
            action=action,
            reason=reason,
            parameters=count,
            expected_parameters=count,
            expected_nonzero=count if nonzero is None else nonzero,
            macs=kernels.macs(layer),
        )


def pruned_layers(model):
    """Lists TFMOT's pruning wrappers in an `AdoptedModel`, nested ones too."""
    return [layer for layer in model.legacy._flatten_layers() if scope.is_pruned(layer)]


class KeepPruned(keras.callbacks.Callback):
    """Puts pruned weights back to zero after every batch, so that whatever is saved or evaluated meanwhile is as sparse as its masks.

    It finds the pruned models inside the model that is trained, so it serves `adopted.fit` and a Distiller's `fit` alike.
    """

    def on_train_begin(self, logs=None):
        import tensorflow as tf

        adopted = [layer for layer in self.model._flatten_layers() if isinstance(layer, AdoptedModel)]
        pairs = [pair for model in adopted for layer in pruned_layers(model) for pair in scope.masks_of(layer)]
        if not pairs:
            raise ModelError(f"The model '{self.model.name}' holds no pruned model.", "training of what Prune.apply returned")

        @tf.function
        def keep():
            for weight, mask in pairs:
                weight.assign(weight * tf.cast(mask, weight.dtype))

        self._keep = keep

    def on_epoch_begin(self, epoch, logs=None):
        self._keep()

    def on_train_batch_end(self, batch, logs=None):
        self._keep()

    def on_train_end(self, logs=None):
        # An optimizer with moving averages has just put those into the weights.
        self._keep()
