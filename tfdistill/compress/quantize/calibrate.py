"""Post-training quantization: the integers of quantization-aware training, with ranges that are measured instead of trained.

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
from tfdistill.compress.dry_run import NOT_TRIED
from tfdistill.compress.plan import DONE, IMPOSSIBLE, Plan
from tfdistill.compress.quantize import consumers
from tfdistill.compress.quantize.biases import correct_biases, corrected_by, make_biases_unequal
from tfdistill.compress.quantize.build import build
from tfdistill.compress.quantize.calibration_data import check_calibration
from tfdistill.compress.quantize.check import check_quantized
from tfdistill.compress.quantize.dense import fold_normalizations, one_scale
from tfdistill.compress.quantize.measure import MINMAX, MSE, measure_ranges
from tfdistill.compress.quantize.quantize_aware import QuantizeAware
from tfdistill.compress.quantize.quiet_rows import normalized_twice
from tfdistill.compress.quantize.scheme import CALIBRATED
from tfdistill.compress.quantize.smoothing import require_smoothable, smooth_channels, smoothable
from tfdistill.compress.quantize.target_forms import approximation_notes, require_forms
from tfdistill.compress.rounding import settings as rounding_settings
from tfdistill.compress.rounding.apply import rounded_as_learned, rounding_told
from tfdistill.compress.rounding.settings import NEAREST, Way
from tfdistill.compress.selection import Selection, select_values, settings_by_layer
from tfdistill.compress.step import AUTO, AutoOrBool, Step, require_applied, require_auto_or_bool, set_selectors
from tfdistill.convert.samples import MAX_CALIBRATION_SAMPLES, MIN_CALIBRATION_SAMPLES, collect
from tfdistill.convert.signature import describe
from tfdistill.errors import ConfigurationError, DataError, ModelError
from tfdistill.runtime.operations import Target
from tfdistill.utils import validate
from tfdistill.utils.types import Data

Method = typing.Literal["auto", "minmax", "mse"]
# Activations after which few values are far larger than the others.
_LONG_TAILS = {"silu", "swish", "hard_silu", "hard_swish", "mish", "gelu", "Silu", "HardSilu", "Mish", "Gelu"}
# The reasons of a plan are those of quantization-aware training, in words that do not speak of training.
_WORDS = (
    (CALIBRATED, "calibrated by the converter"),
    ("trained quantized", "quantized"),
    ("that training sees", "that calibration measures"),
)


@dataclasses.dataclass(frozen=True, repr=False)
class Quantize(Step):
    """Post-training quantization: an int8 model by calibration alone, without training and without labels.

    The quantized model is the one that `QuantizeAware` trains: the same layers are fused, folded and written out, the same tensors are rounded. Weights have a scale for
    each output channel, in dense layers too. The ranges of the activations are measured on calibration data: some hundred samples of what the model will meet.
    `tfdistill.export_tflite` writes the result as an int8 file, as it does for a trained one; training it further is quantization-aware training.

    How a range follows from the values that a tensor has on the calibration data is a setting:

    - `"minmax"`: from the smallest to the largest value.
    - `"mse"`: clipped where the mean squared error of rounding and clipping is least, searched over a histogram of the values (Nagel et al., 2021, section 3.1,
      https://arxiv.org/abs/2106.08295). Better for tensors of long tails, as swish and GELU make them; worse where rare large values decide.
    - `"auto"`: `"mse"` in a model that has one of the activations of long tails (silu, hard-silu, mish, GELU), else `"minmax"`.

    Inputs always have the range of their values. A layer that is called several times has ranges for each call. A normalization that has rows far smaller than the
    others in every sample, such as a class token among patches, normalizes twice.

    Args:
        layers: Which layers: a name or path, a pattern such as `"encoder/*"`, a predicate of a layer, or a list of these. None is every layer.
        exclude: Layers to leave in float wherever Keras runs them, in the same forms; overrides `layers`. Their ranges are measured all the same, and the file, which is
            full integer, rounds them over these.
        weight_bits: 8 or 4; or a dict of names and patterns to these, where the first that matches a layer counts and `"*"` matches the rest. As in `QuantizeAware`.
        activation_bits: 8; or a dict of names and patterns to 8 or 16, where the rest has 8. As in `QuantizeAware`.
        unroll: Whether recurrent layers are written out step by step: `"auto"` writes out those of up to 128 steps, True all of fixed length, False only those
            built with `unroll=True`. As in `QuantizeAware`.
        rounding: How weights are rounded. `"nearest"`, to the nearest step; `"adaround"`, up or down as learned on the calibration data (`AdaRound`, also for its
            settings), in layers whose weights have 4 bits; or a dict of names and patterns to these, which also takes layers of 8 bits: `{"*": "adaround"}`.
            Where weights of 4 bits lose accuracy, most of it comes back. The plan says which layers, `rounding_of` what it did to each.
        ranges: `"auto"`, `"minmax"` or `"mse"`; or a dict of names and patterns to these. Layers that no pattern matches have `"auto"`.

        bias_correction: Whether the biases of convolutions and dense layers are shifted so that the mean of each channel, over the calibration data, is that of
            the float model (Nagel et al., 2019, https://arxiv.org/abs/1906.04721). Without a bias of its own, a layer is corrected by the mean of the
            BatchNormalization that is folded into it. It matters most for weights of 4 bits and for MobileNets; False leaves it out. Where a few samples far from
            the others decide the means, so that the outputs on the calibration data would be further from the float model than before, nothing is shifted, and a warning says so.
        smooth: Share of the differences between the channels of an activation that is moved into the weights behind it, from 0 to 1 (SmoothQuant: Xiao et al., 2023,
            https://arxiv.org/abs/2211.10438); 0.5 suits most transformers. Normalizations, and dense layers without activation or with relu, are scaled where only dense layers
            and attention read them; in float, nothing changes. None leaves it out. For models in which a few channels are far larger than the others.
        per_channel_dense: Whether the weights of dense layers have a scale for each output. False gives them one, in smaller files that
            older kernels of microcontrollers run too, at the price of coarser rounding.
        target: What is to run the file: `"xnnpack"`, `"builtin"`, `"micro"`, `"edgetpu"` or `"gpu"`; as in `QuantizeAware`.
        approximate: Whether functions may change a little where that is faster, as in `QuantizeAware`. What that and the rounding change is measured on the calibration
            data, and a warning tells it where a function was changed.
        integer_only: Whether the file holds integers only, as in `QuantizeAware`.

    Raises:
        ConfigurationError: if a setting has a wrong value.

    Example:
        >>> quantize = tfdistill.compress.Quantize(ranges={"logits": "minmax", "*": "mse"})
        >>> quantized = quantize.apply(student, calibration=x)
        >>> quantize.check(quantized)
        >>> tfdistill.export_tflite(quantized, "calibrated.tflite", "int8", verify_on=(x, y)).io
        'int8'
        >>> quantize.plan(student).row("relu").reason
        'output quantized, range by mse'
    """

    layers: Selection = None
    exclude: Selection = None
    weight_bits: typing.Literal[8, 4] | dict[str, typing.Literal[8, 4]] = 8
    activation_bits: typing.Literal[8] | dict[str, typing.Literal[8, 16]] = 8
    unroll: AutoOrBool = AUTO
    rounding: Way | dict[str, Way] = NEAREST
    ranges: Method | dict[str, Method] = AUTO
    bias_correction: bool = True
    smooth: float | None = None
    per_channel_dense: bool = True
    target: Target = "xnnpack"
    approximate: bool = False
    integer_only: bool = True

    def __post_init__(self):
        require_forms(self)
        require_auto_or_bool(self, "unroll")
        if self.activation_bits == 16:
            raise ConfigurationError(
                "activation_bits=16: Quantize makes int8 files, in which single layers have activations of 16 bits.",
                "8, or a dict of layer names and patterns to 8 or 16",
                "for 16 bits everywhere give the float model to export_tflite(model, path, 'int16x8', calibration=samples)",
            )
        object.__setattr__(self, "weight_bits", self._aware.weight_bits)
        object.__setattr__(self, "activation_bits", self._aware.activation_bits)
        object.__setattr__(self, "rounding", rounding_settings.checked(self.rounding))
        ranges, given = settings_by_layer("ranges", self.ranges, "'auto', 'minmax' or 'mse'")
        for method in given:
            validate.one_of("ranges", method, (AUTO, MINMAX, MSE))
        object.__setattr__(self, "ranges", ranges)
        validate.boolean("bias_correction", self.bias_correction)
        if self.smooth is not None:
            object.__setattr__(self, "smooth", validate.number("smooth", self.smooth, at_least=0.0, at_most=1.0))
        validate.boolean("per_channel_dense", self.per_channel_dense)
        set_selectors(self)

    @property
    def needs_data(self) -> bool:
        """True: `apply` calibrates."""
        return True

    def plan(self, model: keras.Model, dry_run: bool = True) -> Plan:
        """Lists layer by layer what the step would do to `model`. The model is not changed.

        Args:
            model: A built Keras 3 model, or an `AdoptedModel`.
            dry_run: Whether the conversion to the integer file is tried, without calibration, which takes a second or so for small models. Layers that export would
                refuse are "impossible" then, and each row has the operations that the layer becomes.

        Returns:
            A `Plan`.

        Example:
            >>> tfdistill.compress.Quantize().plan(student).row("logits").operations
            ('FULLY_CONNECTED',)
        """
        opened = rebuild.open_model(model)
        decided, methods, _ = self._decide(opened)
        return self._plan(opened, decided, methods, self._aware._tried(opened, decided, dry_run))

    def apply(self, model: keras.Model, calibration: Data | None = None) -> AdoptedModel:
        """Returns a new model that computes with the rounding of an int8 file. `model` is not changed.

        Args:
            model: A built Keras 3 model, or an `AdoptedModel`.
            calibration: Samples that show the ranges of the activations; at least 16, of which 512 are used. An array (samples, ...), a list or dict of arrays for
                several inputs, a tuple (inputs, labels), a `tf.data.Dataset`, a `keras.utils.PyDataset` or an iterator of batches. Labels are not used.

        Returns:
            An `AdoptedModel` with the same weights, but for learned rounding and corrected biases, and measured ranges.

        Raises:
            DataError: if there is no calibration data, or it is too small, constant, not finite or of the wrong shape.
            ModelError: if there is nothing to do or to smooth, the step does not work on a layer that was named, or `per_channel_dense=False` meets a clustered
                kernel that a normalization is folded into.
            BridgeError: if the model cannot be converted exactly.
            InvariantError: if a layer computes NaN or infinite numbers on the data; the first one is named.

        Warns:
            UserWarning: if the data is on another scale than the model's normalizations were trained on, functions are approximated, or correcting the biases would have
                made the outputs worse.
        """
        if calibration is None:
            raise DataError(
                "Quantize.apply got no calibration data.", "a few hundred samples of real data", "apply(model, calibration=samples)"
            )
        rebuild.refuse_distiller(model)
        signature = describe(model)
        samples = collect(calibration, signature, "calibration", MIN_CALIBRATION_SAMPLES, MAX_CALIBRATION_SAMPLES)
        made, notes = quantized_on(self, model, signature, samples)
        for note in notes:
            warnings.warn(note, UserWarning, stacklevel=2)
        return made

    def strip(self, model: AdoptedModel) -> keras.Model:
        require_applied(model, lambda adopted: quantized_layers(adopted.legacy), "is not quantized", "Quantize")
        return model

    def check(self, model: keras.Model) -> None:
        check_quantized(model, "Quantize")

    @property
    def _aware(self):
        """The `QuantizeAware` whose model this is."""
        shared = ("layers", "exclude", "weight_bits", "activation_bits", "unroll", "target", "approximate", "integer_only")
        return QuantizeAware(**{name: getattr(self, name) for name in shared})

    def _decide(self, opened):
        """Returns a dict of path to `LayerQuantization`, a dict of path to the method of its ranges, and the set of the paths that were named outright."""
        decided, named = self._aware._decide(opened)
        methods, _ = select_values(opened.layers, self.ranges)
        auto = (
            MSE if any(consumers.activation_of(introspection.unwrap(layer)) in _LONG_TAILS for layer in opened.layers.values()) else MINMAX
        )
        decided = {path: _per_channel(opened.layers[path], decision) for path, decision in decided.items()}
        if not self.per_channel_dense:
            decided = {path: one_scale(opened.layers[path], decision) for path, decision in decided.items()}
        return decided, {path: auto if methods.get(path, AUTO) == AUTO else methods[path] for path in decided}, named

    def _plan(self, opened, decided, methods, tried=NOT_TRIED):
        plan = self._aware._plan(opened, decided, tried)
        places = consumers.places(opened.legacy)
        corrected = corrected_by(places, decided) if self.bias_correction else {}
        smoothed = smoothable(places, decided) if self.smooth is not None else {}
        told = rounding_told(self.rounding, opened.layers, places, decided)
        rows = tuple(
            row if row.action == IMPOSSIBLE else _told(row, decided[row.name], methods[row.name], told.get(row.name), corrected, smoothed)
            for row in plan.rows
        )
        return dataclasses.replace(plan, step=repr(self), rows=rows)


def quantized_on(step, model, signature, samples):
    """Does the work of `Quantize.apply`.

    Args:
        step: `Quantize`, or a function that makes one for the `Opened` model.
        model: A built Keras 3 model, or an `AdoptedModel`.
        signature: Its `ModelSignature`.
        samples: Calibration `Samples`.

    Returns:
        The `AdoptedModel`, and a list of sentences to warn the user by.
    """
    opened = rebuild.open_to_apply(model, "Quantize", trains=False)
    step = step if isinstance(step, Quantize) else step(opened)
    decided, methods, named = step._decide(opened)
    plan = step._plan(opened, decided, methods)
    plan.require_work(named)
    for row in plan.rows:
        if row.name in named and row.action != DONE:
            raise ModelError(f"Quantize cannot quantize '{row.name}': {row.reason}.", fix="leave it out of layers=")
    if not any(decision.done and decision.quantization for decision in decided.values()):
        raise ModelError(f"Quantize finds nothing to quantize in '{opened.adopted.name}'.\n{plan}", fix="choose other layers")
    notes = check_calibration(opened, signature, samples)
    places = consumers.places(opened.legacy)
    made, multiplied = _measured(step, opened, decided, methods, places, signature, samples, plan)
    twice = normalized_twice(decided, made, signature, samples)
    if twice is not decided:
        made, multiplied = _measured(step, opened, twice, methods, places, signature, samples, plan)
    if rounding_settings.is_learned(step.rounding):
        rounded_as_learned(made, step.rounding, opened.layers, places, decided, signature, samples)
        measure_ranges(made, signature, samples, methods)
    if step.bias_correction and (corrected := corrected_by(places, decided)):
        notes += correct_biases(made, opened.legacy, signature, samples, corrected, multiplied)
    return made, [*notes, *approximation_notes(made, opened.legacy, signature, samples)]


def _measured(step, opened, decided, methods, places, signature, samples, plan):
    """Returns the `AdoptedModel` of the decisions with measured ranges, and a dict of path to the numbers by which the channels of a layer were multiplied."""
    made, multiplied = adopt(build(opened, decided), original=opened.original, name=opened.adopted.name), {}
    if step.smooth is not None:
        smoothed = smoothable(places, decided)
        require_smoothable(smoothed, step.smooth, plan)
        divided = smooth_channels(made, opened.legacy, signature, samples, smoothed, step.smooth)
        multiplied = {path: 1.0 / numbers for path, numbers in divided.items()}
    if not step.per_channel_dense:
        multiplied |= fold_normalizations(made, places, decided)
    make_biases_unequal(made)
    measure_ranges(made, signature, samples, methods)
    return made, multiplied


def _per_channel(layer, decision):
    """Gives the 8-bit kernels of a layer a scale for each output channel. Training leaves dense layers at one, in smaller files."""
    if decision.quantization is None or decision.quantization.form == "operation":  # in which each product rounds its weights
        return decision
    outputs = {kernel.attribute: kernel.outputs for kernel in kernels.kernels_of(layer) if kernel.kind != kernels.LOOKUP}
    weights = tuple(w._replace(axes=outputs.get(w.path, w.axes)) if w.bits == 8 else w for w in decision.quantization.weights)
    return decision._replace(quantization=decision.quantization._replace(weights=weights))


def _told(row, decision, method, rounding, corrected, smoothed):
    """Returns the row of a plan in the words of this step: how its weights are rounded, its ranges found, its bias corrected, and its channels scaled."""
    reason = row.reason
    for old, new in _WORDS:
        reason = reason.replace(old, new)
    reason += f", {rounding}" if rounding else ""
    measured = decision.quantization
    if measured is not None and (measured.output or measured.activations or measured.form):
        reason += f", range by {method}"
    if row.name in corrected:
        holder, _ = corrected[row.name]
        reason += ", bias corrected" if holder == row.name else f", bias corrected by the mean of '{holder}'"
    if row.name in smoothed:
        reason += f", smoothed into {', '.join(repr(reader) for reader in smoothed[row.name])}"
    return dataclasses.replace(row, reason=reason)
