"""Quantization-aware training (QAT): the model trains with the rounding of an integer file in its forward pass.

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference" (2018), https://arxiv.org/abs/1712.05877.
"""

import dataclasses
import typing
import warnings

import keras

from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.adopt.adopt import AdoptedModel, adopt
from tfdistill.bridge.adopt.trained_ranges import quantized_layers
from tfdistill.compress import kernels, rebuild
from tfdistill.compress.dry_run import NOT_TRIED, WHOLE
from tfdistill.compress.plan import DONE, IMPOSSIBLE, SKIPPED, LayerPlan, Plan
from tfdistill.compress.quantize import consumers
from tfdistill.compress.quantize.build import build
from tfdistill.compress.quantize.calibration_data import check_calibration
from tfdistill.compress.quantize.callbacks import ShowFirstStep, StopAtNaN
from tfdistill.compress.quantize.check import check_quantized
from tfdistill.compress.quantize.dry_run import require_exportable, try_conversion
from tfdistill.compress.quantize.file_operations import with_operations
from tfdistill.compress.quantize.preserved import structure
from tfdistill.compress.quantize.scheme import layer_quantizations, takes_bits
from tfdistill.compress.quantize.start import measured_start
from tfdistill.compress.quantize.target_forms import faster_in_float, require_forms, told_faster, with_target_forms
from tfdistill.compress.quantize.wide import is_mixed, with_wide_layers
from tfdistill.compress.selection import Selection, select, select_values, settings_by_layer
from tfdistill.compress.step import AUTO, AutoOrBool, Step, frozen_note, require_applied, require_auto_or_bool, set_selectors
from tfdistill.convert.samples import MAX_CALIBRATION_SAMPLES, MIN_CALIBRATION_SAMPLES, collect
from tfdistill.convert.signature import describe
from tfdistill.errors import ConfigurationError, ModelError
from tfdistill.runtime.operations import Target
from tfdistill.utils.types import Data


@dataclasses.dataclass(frozen=True, repr=False)
class QuantizeAware(Step):
    """Quantization-aware training (QAT): training with the rounding of an int8 file in the forward pass.

    Weights are symmetric, per channel in convolutions and per tensor in dense layers; activations are affine, per tensor.

    Excluded layers compute in float in training and wherever Keras runs them. Training still measures their ranges, and the file, which is full integer,
    rounds them over these. The ranges of a few layers cannot be trained: the converter calibrates them on a representative dataset. The plan says which
    layers those are, and which ones TFLite computes in float only.

    Kernels with zeros (pruned models) keep them; kernels with few values (clustered models) keep their clusters: the value of each is the mean
    of its members, which move together. Masks and clusters are saved with the model. Applied to a pruned model this is PQAT, to a clustered one CQAT, and to
    a pruned and clustered one PCQAT.

    Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference" (2018), https://arxiv.org/abs/1712.05877.

    Args:
        layers: Which layers: a name or path, a pattern such as `"encoder/*"`, a predicate of a layer, or a list of these. None is every layer.
        exclude: Layers to leave in float, in the same forms; overrides `layers`.
        preserve_sparsity: `"auto"` keeps the zeros of every kernel that has any. True does the same, and requires that there are some. False lets
            training change zeros.
        preserve_clusters: The same for clusters. A kernel counts as clustered if it has at most 256 values, and a quarter of its weights or more repeat
            another one; in the whole kernel, or in every output channel.
        weight_bits: 8 or 4; or a dict of names and patterns to these, where the first that matches a layer counts and `"*"` matches the rest. 4 bits are for
            Conv2D, DepthwiseConv2D, SeparableConv2D, Dense, EinsumDense and MultiHeadAttention; a layer of another class stays at 8, and the plan says so.
        activation_bits: 8; or 16, for export as int16x8: weights are trained in 8 bits, and activations are calibrated, as rounding to 65,536 steps does not
            affect training. Or a dict of names and patterns to these, where the rest has 8: the int8 file then computes these layers, and what reads them, with int16
            activations. Those have no kernels in XNNPACK, so they run slower, in the interpreter's own.
        unroll: Whether recurrent layers are written out step by step in the file, where each step takes up to 1.3 KiB: `"auto"` writes out those
            of up to 128 steps, True all of fixed length, False only those built with `unroll=True`. A layer that is not written out is not trained quantized:
            an LSTM becomes TFLite's own operation, calibrated by the converter; TFLite has no integer operation for any other loop.
        target: What is to run the file: `"xnnpack"`, the delegate that phones and a Raspberry Pi use by default; `"builtin"`, the interpreter's own kernels; `"micro"`,
            tflite-micro; `"edgetpu"`, Coral's Edge TPU; `"gpu"`, the GPU delegate. Layers are written in the operations that it runs fast, where there is a choice, and
            the plan says which ones it does not.
        approximate: Whether functions may change a little where that is faster: GELU becomes x * sigmoid(1.702 x), which differs by 0.021 at most. Training computes
            the approximate function, and so do the model that `strip` returns and the file; the layers inside keep the user's own.
        integer_only: Whether the file holds integers only. With False, the target may compute single functions in float between integers where that is faster for it: with
            `"xnnpack"` normalizations, GELU and the softmax of attention. The plan and the record of the export say which layers have such islands of floats.

    Raises:
        ConfigurationError: if a setting has a wrong value, or TFLite has no such integers.

    Example:
        >>> quantize = tfdistill.compress.QuantizeAware(exclude="logits")
        >>> quantized = quantize.apply(student)
        >>> quantized.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> history = quantized.fit(x, y, epochs=1, verbose=0, callbacks=quantize.callbacks())
        >>> quantize.check(quantized)
        >>> quantize.plan(student).row("norm").reason
        'folded into the layer before it, which is trained quantized'
    """

    layers: Selection = None
    exclude: Selection = None
    preserve_sparsity: AutoOrBool = AUTO
    preserve_clusters: AutoOrBool = AUTO
    weight_bits: typing.Literal[8, 4] | dict[str, typing.Literal[8, 4]] = 8
    activation_bits: typing.Literal[8, 16] | dict[str, typing.Literal[8, 16]] = 8
    unroll: AutoOrBool = AUTO
    target: Target = "xnnpack"
    approximate: bool = False
    integer_only: bool = True

    def __post_init__(self):
        require_forms(self)
        require_auto_or_bool(self, "preserve_sparsity", "preserve_clusters", "unroll")
        activation_bits, given = settings_by_layer("activation_bits", self.activation_bits, "8 or 16")
        if any(isinstance(bits, bool) or bits not in (8, 16) for bits in given):
            raise ConfigurationError(
                f"activation_bits={self.activation_bits!r}.",
                "8, or 16 for export as int16x8, or a dict of layer names and patterns to these",
            )
        object.__setattr__(self, "activation_bits", activation_bits)
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
        if self.activation_bits == 16 and (self.approximate or not self.integer_only):
            raise ConfigurationError(
                f"approximate={self.approximate}, integer_only={self.integer_only} with activation_bits=16.",
                "approximate=False and integer_only=True: layers of 16-bit activations are computed as the converter does",
            )
        object.__setattr__(self, "weight_bits", weight_bits)
        set_selectors(self)

    @property
    def takes_calibration(self) -> bool:
        """Whether activations have ranges that `apply` can measure: not with 16 bits."""
        return self.activation_bits != 16

    def plan(self, model: keras.Model, dry_run: bool = True) -> Plan:
        """Lists layer by layer what the step would do to `model`. The model is not changed.

        Args:
            model: A built Keras 3 model, or an `AdoptedModel`.
            dry_run: Whether the conversion to the integer file is tried, untrained, which takes a second or so for small models. Layers that export would
                refuse are "impossible" then.

        Returns:
            A `Plan`.

        Example:
            >>> tfdistill.compress.QuantizeAware().plan(student).names("impossible")
            []
        """
        opened = rebuild.open_model(model)
        decided = self._decide(opened)[0]
        return self._plan(opened, decided, self._tried(opened, decided, dry_run))

    def apply(self, model: keras.Model, calibration: Data | None = None, dry_run: bool = True) -> AdoptedModel:
        """Returns a new model, ready to be trained quantized. `model` is not changed.

        A model class's own `train_step`, `compute_loss` and the like are not carried over; a `UserWarning` names them.

        Args:
            model: A built Keras 3 model, or an `AdoptedModel`.
            calibration: Samples of the training data, on which the ranges are measured that training begins with, as in `Quantize.apply`. Without them the ranges
                begin with the first batch, and a normalization that has rows far smaller than the others in every sample, such as patches of a plain
                background among the patches of an image, is not known and rounds these coarsely. With `activation_bits=16` nothing is measured.
            dry_run: Whether the conversion to the integer file is tried first, as in `plan`, so that a model that export would refuse is refused before it is
                trained. Not needed for a model that will not become an integer file.

        Returns:
            An `AdoptedModel` with the same weights.

        Raises:
            ConfigurationError: if there is calibration data and no range to measure on it.
            DataError: if the calibration data is too small, constant, not finite or of the wrong shape.
            ModelError: if there is nothing to do, or the step does not work on a layer that was named, or the model could not be exported.
            BridgeError: if the model cannot be converted exactly.
            InvariantError: if a layer computes NaN or infinite numbers on the calibration data.

        Warns:
            UserWarning: if the calibration data is on another scale than the model's normalizations were trained on.

        Example:
            >>> tfdistill.compress.QuantizeAware().apply(student, calibration=x, dry_run=False).name
            'student'
        """
        samples = None
        if calibration is not None:
            if self.activation_bits == 16:
                raise ConfigurationError(
                    "QuantizeAware.apply got calibration data, and activation_bits=16.",
                    "data for export_tflite alone, which calibrates these",
                )
            rebuild.refuse_distiller(model)
            signature = describe(model)
            samples = collect(calibration, signature, "calibration", MIN_CALIBRATION_SAMPLES, MAX_CALIBRATION_SAMPLES)
        opened = rebuild.open_to_apply(model, "QuantizeAware")
        decided, named = self._decide(opened)
        tried = self._tried(opened, decided, dry_run)
        plan = self._plan(opened, decided, tried)
        plan.require_work(named)
        for row in plan.rows:
            if row.name in named and row.action == SKIPPED:
                raise ModelError(f"QuantizeAware cannot train '{row.name}' quantized: {row.reason}.", fix="leave it out of layers=")
        if not any(decision.done and decision.quantization for decision in decided.values()):
            raise ModelError(f"QuantizeAware finds nothing to quantize in '{opened.adopted.name}'.\n{plan}", fix="choose other layers")
        self._require_structure(opened, decided)
        require_exportable(tried.reasons, plan, self._variant())
        if samples is not None:
            for note in check_calibration(opened, signature, samples):
                warnings.warn(note, UserWarning, stacklevel=2)
            return measured_start(opened, decided, signature, samples)
        made = build(opened, decided, quantize_inputs=self.activation_bits != 16)
        return adopt(made, original=opened.original, name=opened.adopted.name)

    def callbacks(self) -> list[keras.callbacks.Callback]:
        return [ShowFirstStep(), StopAtNaN()]

    def strip(self, model: AdoptedModel) -> keras.Model:
        require_applied(model, lambda adopted: quantized_layers(adopted.legacy), "is not quantization-aware", "QuantizeAware")
        return model

    def check(self, model: keras.Model) -> None:
        check_quantized(model, "QuantizeAware")

    def _decide(self, opened):
        """Returns a dict of path to `LayerQuantization`, and the set of the paths that were named outright."""
        chosen, named = select(opened.layers, self.layers, self.exclude)
        bits = self._bits(opened.layers, chosen)
        places = consumers.places(opened.legacy)
        decided = layer_quantizations(places, chosen, bits, 16 if self.activation_bits == 16 else 8, self.unroll)
        if self.activation_bits != 16:
            forms = (self.target, self.approximate, self.integer_only)
            decided = {path: with_target_forms(places[path], decision, *forms) for path, decision in decided.items()}
        if is_mixed(self.activation_bits):
            decided = with_wide_layers(places, decided, opened.layers, self.activation_bits, bits)
        return {path: self._with_structure(layer, decided[path]) for path, layer in opened.layers.items()}, named

    def _with_structure(self, layer, decision):
        zeros, clusters = self.preserve_sparsity is not False, self.preserve_clusters is not False
        found = {
            kernel.attribute: structure(kernel, rebuild.effective_weight(layer, kernel.attribute)) for kernel in kernels.kernels_of(layer)
        }
        return decision.keeping(
            {path: kept.zeros if zeros else 0 for path, kept in found.items()},
            {path: kept.clustering if clusters else None for path, kept in found.items()},
        )

    def _require_structure(self, opened, decided):
        weights = [w for decision in decided.values() if decision.quantization for w in decision.quantization.weights]
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

    def _variant(self):
        return "int16x8" if self.activation_bits == 16 else "int8"

    def _tried(self, opened, decided, dry_run):
        return try_conversion(opened, decided, self._variant()) if dry_run else NOT_TRIED

    def _plan(self, opened, decided, tried):
        reasons = tried.reasons
        rows = tuple(self._row(path, opened.layers[path], decision, reasons.get(path)) for path, decision in decided.items())
        if WHOLE in reasons:
            rows += (LayerPlan.of_model(opened.adopted.name, IMPOSSIBLE, f"no {self._variant()} file can be made of it: {reasons[WHOLE]}"),)
        plan = Plan(step=repr(self), model=opened.adopted.name, rows=rows, custom=opened.custom)
        plan = with_operations(plan, tried.operations, self.target)
        return dataclasses.replace(plan, findings=(*plan.findings, *told_faster(self._faster(opened, decided, plan), self.target)))

    def _faster(self, opened, decided, plan):
        if not plan.operations or self.activation_bits == 16:
            return []
        return faster_in_float(plan.rows, consumers.places(opened.legacy), decided, self.target, self.integer_only)

    def _row(self, path, layer, decision, refusal):
        zeros = sum(kernels.zeros(rebuild.effective_weight(layer, attribute)) for attribute in kernels.prunable_attributes(layer))
        if refusal and decision.possible:
            return LayerPlan.of(path, layer, IMPOSSIBLE, refusal, zeros)
        action = DONE if decision.done else SKIPPED if decision.possible else IMPOSSIBLE
        rounded = decision.done and decision.quantization is not None and decision.quantization.weights
        notes = frozen_note(layer, "its weights are rounded but do not move") if rounded else []
        return LayerPlan.of(path, layer, action, "; ".join([decision.reason, *notes]), zeros)
