"""Quantization-aware training (QAT): the model trains with the rounding of an int8 file in its forward pass.

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference" (2018), https://arxiv.org/abs/1712.05877,
through tensorflow-model-optimization.
"""

import dataclasses
import typing

import numpy as np

from tfdistill.compress import graph, kernels, quantize_scheme
from tfdistill.compress.selection import select, selectors
from tfdistill.compress.step import DONE, SKIPPED, LayerPlan, Plan, Step
from tfdistill.errors import ConfigurationError, InvariantError, ModelError
from tfdistill.legacy import adopt_quantizers, door
from tfdistill.legacy import adopt_scope as scope
from tfdistill.legacy.adopt import AdoptedModel, adopt

AUTO = "auto"
CALIBRATED = "calibrated, not trained quantized"


@dataclasses.dataclass(frozen=True)
class QuantizeAware(Step):
    """Quantization-aware training to 8 bits: weights per channel for convolutions and per tensor for dense layers, activations per tensor.

    Layers for which there is no quantizer, or that are excluded, are left as they are: the converter calibrates them on a representative dataset, so
    the file is full integer all the same. The plan says which those are.

    Kernels that come in with zeros (pruned models) are trained under a mask, so that the zeros stay; the mask is saved with the model.

    Args:
        layers: Which layers: a name or path, a pattern, a predicate of a layer, or a list of these. None is every layer.
        exclude: Which layers not; wins over `layers`.
        preserve_sparsity: `"auto"` keeps the zeros of every kernel that has any, True does the same and insists that there are some, False lets
            zeros be trained away.

    Raises:
        ConfigurationError: if the settings are of the wrong kind.
    """

    layers: typing.Any = None
    exclude: typing.Any = None
    preserve_sparsity: typing.Any = AUTO

    def __post_init__(self):
        if self.preserve_sparsity not in (AUTO, True, False):
            raise ConfigurationError(f"preserve_sparsity={self.preserve_sparsity!r}.", "'auto', True or False")
        object.__setattr__(self, "layers", selectors(self.layers, "layers"))
        object.__setattr__(self, "exclude", selectors(self.exclude, "exclude"))

    def plan(self, model):
        return self._plan(graph.open_model(model))[0]

    def apply(self, model):
        opened = graph.open_model(model)
        graph.refuse_wrapped(opened, "QuantizeAware")
        plan, chosen, named = self._plan(opened)
        plan.require_work(named)
        for row in plan.rows:
            if row.name in named and row.action == SKIPPED:
                raise ModelError(f"QuantizeAware cannot train '{row.name}' quantized: {row.reason}.", mend="leave it out of layers=")
        if not any(row.action == DONE and not row.reason.startswith(quantize_scheme.PASSES) for row in plan.rows):
            raise ModelError(f"QuantizeAware finds nothing to quantize in '{opened.adopted.name}'.\n{plan}", mend="choose other layers")
        sparse = self._sparse(opened, plan)
        quantize = door.tfmot().quantization.keras
        done = set(plan.names(DONE))

        def replace(path, layer):
            if path not in done:
                return layer
            return quantize.quantize_annotate_layer(layer, quantize_scheme.treatment(opened.layers[path], chosen).config)

        with scope.legacy_scope():
            try:
                made = quantize.quantize_apply(graph.rebuild(opened.legacy, replace), scheme=quantize_scheme.scheme(sparse))
            except (ValueError, RuntimeError, TypeError, AttributeError, KeyError) as error:
                raise ModelError(
                    f"TFMOT cannot make '{opened.adopted.name}' quantization-aware: {error}",
                    mend="exclude the layers that plan(model) is unsure of",
                ) from error
        for layer in quantized_layers(made):
            adopt_quantizers.make_serializable(layer)
            for weight, mask in scope.masks_of(layer):
                mask.assign(np.asarray(weight) != 0)
        return adopt(made, original=opened.original, name=opened.adopted.name)

    def strip(self, model):
        if not isinstance(model, AdoptedModel) or not quantized_layers(model.legacy):
            raise ModelError(f"'{getattr(model, 'name', model)}' is not quantization-aware.", "the model that QuantizeAware.apply returned")
        return model

    def check(self, model):
        layers = quantized_layers(model.legacy) if isinstance(model, AdoptedModel) else []
        if not layers:
            raise InvariantError(
                f"The model '{model.name}' holds no quantizers.", "the model that QuantizeAware.apply returned, or its checkpoint"
            )
        wrong = [text for layer in layers for text in _wrong_ranges(layer)]
        if wrong:
            raise InvariantError(
                f"Ranges of '{model.name}' were never trained: {'; '.join(wrong)}.",
                "ranges that training has seen data for",
                "train the model with fit",
            )
        for layer in layers:
            for weight, mask in scope.masks_of(layer):
                lost = int(np.sum((np.asarray(mask) == 0) & (np.asarray(weight) != 0)))
                if lost:
                    wrong.append(f"'{layer.layer.name}' lost {lost} of {kernels.zeros(np.asarray(mask))} zeros")
        if wrong:
            raise InvariantError(f"Sparsity was not kept: {'; '.join(wrong)}.", "weights that stay zero where they came in zero")

    def _sparse(self, opened, plan):
        if self.preserve_sparsity is False:
            return set()
        sparse = set()
        for path in plan.names(DONE):
            for attribute in kernels.prunable_attributes(opened.layers[path]):
                if kernels.zeros(graph.effective_weight(opened.layers[path], attribute)):
                    sparse.add(path)
        if self.preserve_sparsity is True and not sparse:
            raise ModelError(
                f"preserve_sparsity=True, but no kernel of '{opened.adopted.name}' has a zero.",
                "a pruned model",
                "prune it first, or use 'auto'",
            )
        return sparse

    def _plan(self, opened):
        layers = opened.layers
        chosen, named = select(layers, self.layers, self.exclude)
        rows = tuple(self._row(path, layer, chosen) for path, layer in layers.items())
        return Plan(step=repr(self), model=opened.adopted.name, rows=rows), chosen, named

    def _row(self, path, layer, chosen):
        done = False
        kind = type(scope.unwrap(layer)).__name__
        if path not in chosen:
            reason = f"left out by layers= or exclude=: {CALIBRATED}"
        elif "/" in path:
            reason = f"inside a nested model: {CALIBRATED}"
        else:
            done, reason, _ = quantize_scheme.treatment(scope.unwrap(layer), chosen)
            reason = reason if done else f"{CALIBRATED}: {reason}"
        count = kernels.parameters(layer)
        sparse = sum(kernels.zeros(graph.effective_weight(layer, attribute)) for attribute in kernels.prunable_attributes(layer))
        if done and sparse and self.preserve_sparsity is not False:
            reason += f", {sparse:,} zeros kept"
        return LayerPlan(
            name=path,
            class_name=kind,
            action=DONE if done else SKIPPED,
            reason=reason,
            parameters=count,
            expected_parameters=count,
            expected_nonzero=count - sparse,
            macs=kernels.macs(layer),
        )


def quantized_layers(legacy):
    """Lists TFMOT's quantization wrappers in a tf_keras model."""
    return [layer for layer in legacy._flatten_layers() if scope.is_quantized(layer)]


def _wrong_ranges(layer):
    # Every range starts at -6 to 6; training moves it with the first batch.
    for what, low, high in scope.ranges_of(layer):
        low, high = np.asarray(low), np.asarray(high)
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            yield f"'{layer.layer.name}' {what} is not finite"
        elif np.all(low == -6) and np.all(high == 6):
            yield f"'{layer.layer.name}' {what} is -6 to 6, as it began"
