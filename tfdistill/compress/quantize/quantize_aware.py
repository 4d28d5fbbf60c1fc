"""Quantization-aware training (QAT): the model trains with the rounding of an integer file in its forward pass.

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference" (2018), https://arxiv.org/abs/1712.05877.
"""

import dataclasses
import typing

from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.adopt.adopt import AdoptedModel, adopt
from tfdistill.bridge.adopt.trained_ranges import quantized_layers, require_trained_ranges
from tfdistill.compress import kernels, rebuild
from tfdistill.compress.plan import DONE, IMPOSSIBLE, SKIPPED, LayerPlan, Plan
from tfdistill.compress.quantize import consumers
from tfdistill.compress.quantize.build import build
from tfdistill.compress.quantize.callbacks import StopAtNaN
from tfdistill.compress.quantize.check import wrong_structure
from tfdistill.compress.quantize.preserved import structure
from tfdistill.compress.quantize.scheme import takes_bits, treatments
from tfdistill.compress.selection import select, select_values, selectors, settings_by_layer
from tfdistill.compress.step import AUTO, Step, frozen_note, require_auto_or_bool
from tfdistill.errors import ConfigurationError, InvariantError, ModelError


@dataclasses.dataclass(frozen=True)
class QuantizeAware(Step):
    """Quantization-aware training: weights symmetric, per channel in convolutions and per tensor in dense layers; activations affine, per tensor.

    Layers that are left out compute in float while they train and wherever Keras runs them. Their ranges are measured in training all the same, and the file,
    which is full integer, rounds them over these. Of the few layers whose ranges cannot be trained, the converter calibrates the inside on a representative dataset.
    The plan says which those are, and which ones TFLite computes in float only.

    Kernels that come in with zeros (pruned models) keep them; kernels that come in with few values (clustered models) keep their clusters: each is the mean
    of its members, which move together. Masks and clusters are saved with the model. So a pruned, a clustered, and a pruned and clustered model
    become PQAT, CQAT and PCQAT ones.

    Args:
        layers: Which layers: a name or path, a pattern such as `"encoder/*"`, a predicate of a layer, or a list of these. None is every layer.
        exclude: Which layers not; wins over `layers`.
        preserve_sparsity: `"auto"` keeps the zeros of every kernel that has any, True does the same and insists that there are some, False lets
            zeros be trained away.
        preserve_clusters: The same for clusters. A kernel counts as clustered if it has at most 256 values, and a quarter of its weights or more repeat
            another one; in the whole kernel, or in every output channel.
        weight_bits: 8 or 4; or a dict of names and patterns to these, where the first that fits a layer counts and `"*"` is the rest. 4 bits are for Conv2D,
            DepthwiseConv2D, SeparableConv2D, Dense, EinsumDense and MultiHeadAttention; a layer of another kind stays at 8, and the plan says so.
        activation_bits: 8; or 16, for export as int16x8: weights are trained in 8 bits, and the activations, whose rounding to 65,536 steps no training
            notices, are calibrated.
        unroll: Whether recurrent layers are written out step by step, in training and in the file, each step adding some 5 KiB to it: `"auto"` writes out those of
            up to 128 steps, True all whose length is fixed, False none but those built with `unroll=True`. What is not written out is not trained quantized: an LSTM
            becomes TFLite's own operation, calibrated by the converter; any other loop cannot be integer.

    Raises:
        ConfigurationError: if the settings are of the wrong kind, or TFLite has no such integers.
    """

    layers: typing.Any = None
    exclude: typing.Any = None
    preserve_sparsity: typing.Any = AUTO
    preserve_clusters: typing.Any = AUTO
    weight_bits: typing.Any = 8
    activation_bits: int = 8
    unroll: typing.Any = AUTO

    def __post_init__(self):
        require_auto_or_bool(self, "preserve_sparsity", "preserve_clusters", "unroll")
        if self.activation_bits not in (8, 16):
            raise ConfigurationError(f"activation_bits={self.activation_bits!r}.", "8, or 16 for export as int16x8")
        weight_bits, given = settings_by_layer("weight_bits", self.weight_bits, "8 or 4")
        for bits in given:
            if isinstance(bits, bool) or bits not in (4, 8):
                raise ConfigurationError(
                    f"weight_bits={self.weight_bits!r}: TFLite has integer weights of 8 and of 4 bits.",
                    "8 or 4, or a dict of layer names and patterns to these",
                    "for more precision give activation_bits=16; for weights of 16 bits export the float model as float16"
                    if bits == 16
                    else None,
                )
        if self.activation_bits == 16 and 4 in given:
            raise ConfigurationError("weight_bits=4 with activation_bits=16.", "8-bit weights: TFLite's int16x8 has no others")
        object.__setattr__(self, "weight_bits", weight_bits)
        object.__setattr__(self, "layers", selectors(self.layers, "layers"))
        object.__setattr__(self, "exclude", selectors(self.exclude, "exclude"))

    def plan(self, model):
        opened = rebuild.open_model(model)
        return self._plan(opened, self._decide(opened)[0])

    def apply(self, model):
        opened = rebuild.open_model(model)
        rebuild.refuse_wrapped(opened, "QuantizeAware")
        rebuild.warn_of_own_training(model, "QuantizeAware")
        decided, named = self._decide(opened)
        plan = self._plan(opened, decided)
        plan.require_work(named)
        for row in plan.rows:
            if row.name in named and row.action == SKIPPED:
                raise ModelError(f"QuantizeAware cannot train '{row.name}' quantized: {row.reason}.", fix="leave it out of layers=")
        if not any(treatment.done and treatment.quantization for treatment in decided.values()):
            raise ModelError(f"QuantizeAware finds nothing to quantize in '{opened.adopted.name}'.\n{plan}", fix="choose other layers")
        self._require_structure(opened, decided)
        made = build(opened, decided, quantize_inputs=self.activation_bits == 8)
        return adopt(made, original=opened.original, name=opened.adopted.name)

    def callbacks(self):
        return [StopAtNaN()]

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
        require_trained_ranges(model)
        wrong = [text for layer in layers for text in wrong_structure(layer)]
        if wrong:
            raise InvariantError(
                f"Sparsity or clusters were not kept: {'; '.join(wrong)}.",
                "zeros that stay zero, and values that stay one for each cluster",
            )

    def _decide(self, opened):
        """Returns a dict of path to `LayerQuantization`, and the set of the paths that were named outright."""
        chosen, named = select(opened.layers, self.layers, self.exclude)
        bits = self._bits(opened.layers, chosen)
        decided = treatments(consumers.places(opened.legacy), chosen, bits, self.activation_bits, self.unroll)
        return {path: self._with_structure(layer, decided[path]) for path, layer in opened.layers.items()}, named

    def _with_structure(self, layer, treatment):
        zeros, clusters = self.preserve_sparsity is not False, self.preserve_clusters is not False
        found = {
            kernel.attribute: structure(kernel, rebuild.effective_weight(layer, kernel.attribute)) for kernel in kernels.kernels_of(layer)
        }
        return treatment.keeping(
            {path: kept.zeros if zeros else 0 for path, kept in found.items()},
            {path: kept.clustering if clusters else None for path, kept in found.items()},
        )

    def _require_structure(self, opened, decided):
        weights = [w for treatment in decided.values() if treatment.quantization for w in treatment.quantization.weights]
        for setting, kept, lacking, fix in (
            ("preserve_sparsity", any(w.sparse for w in weights), "has a zero", "prune it first, or use 'auto'"),
            ("preserve_clusters", any(w.clusters for w in weights), "is clustered", "cluster it first, or use 'auto'"),
        ):
            if getattr(self, setting) is True and not kept:
                raise ModelError(f"{setting}=True, but no kernel that is quantized {lacking} in '{opened.adopted.name}'.", fix=fix)

    def _bits(self, layers, chosen):
        bits, named = select_values(layers, self.weight_bits)
        for path in sorted(named):
            if not takes_bits(layers[path], bits[path]):
                kind = introspection.kind_of(layers[path])
                raise ModelError(f"'{path}' cannot have weights of {bits[path]} bits: TFLite has none for a {kind}.", fix="give it 8")
        return {path: bits.get(path, 8) for path in chosen}

    def _plan(self, opened, decided):
        rows = tuple(self._row(path, opened.layers[path], treatment) for path, treatment in decided.items())
        return Plan(step=repr(self), model=opened.adopted.name, rows=rows)

    def _row(self, path, layer, treatment):
        zeros = sum(kernels.zeros(rebuild.effective_weight(layer, attribute)) for attribute in kernels.prunable_attributes(layer))
        action = DONE if treatment.done else SKIPPED if treatment.possible else IMPOSSIBLE
        rounded = treatment.done and treatment.quantization is not None and treatment.quantization.weights
        notes = frozen_note(layer, "its weights are rounded but do not move") if rounded else []
        return LayerPlan.of(path, layer, action, "; ".join([treatment.reason, *notes]), zeros)
