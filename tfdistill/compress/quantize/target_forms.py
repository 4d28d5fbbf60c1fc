"""Which form a layer takes where there are several: by what the target runs fast, and by what the user allows.

Measured by `benchmarks/forms.py` (ai-edge-litert 2.3.0, one thread of an x86-64 with AVX-512): microseconds of a layer on 24 x 24 x 16, the smallest of 40 rounds.

| layer | float32 | integers | quick-GELU | island of floats |
|---|---:|---:|---:|---:|
| elu | 2.2 | 7.5 | | 1.1 |
| gelu | 2.5 | 3.0 | 0.7 | 0.8 |
| hard_shrink | 6.1 | 69.8 | | 9.3 |
| hard_silu as x * (relu6(x + 3) / 6) | 0.0 | 0.7 | | |
| log_sigmoid | 5.0 | 58.6 | | 0.7 |
| mish | 6.9 | 310.8 | | 9.4 |
| softplus | 4.1 | 58.5 | | 0.8 |
| softsign | 2.1 | 348.2 | | 5.2 |
| squareplus | 3.2 | 336.1 | | 5.8 |
| LayerNormalization | 10.9 | 49.3 | | 9.7 |
| MultiHeadAttention, 576 tokens | 430 | 789 | | 288 |

Of 300 us of the integer vision transformer of that benchmark, SOFTMAX takes 137 and RSQRT 36 in the interpreter's own kernels (`tfdistill.runtime.profile`); float32 takes 271, with
islands 102.

Measured and not built: softmax as the largest score, its difference, an exponential (ELU and one), a sum and its reciprocal, which XNNPACK takes but for the reciprocal. It
rounds the exponentials and the sum of a row to 256 steps each where SOFTMAX rounds once. In NumPy, against the exact softmax of 64 rounded scores, in decibels:

| scores | SOFTMAX | reciprocal of the sum | of the sum, and of the sum up to 4 | logarithm of both |
|---|---:|---:|---:|---:|
| all alike, deviation 0.5 | 17.2 | 17.2 | 16.5 | 17.1 |
| deviation 4 | 42.5 | 38.4 | 38.8 | 37.6 |
| one 10 above the others | 56.2 | 53.7 | 53.7 | 53.7 |
| rows of deviations 0.3, 1 and 4 | 34.0 | 27.0 | 32.7 | 32.5 |

Nor RSQRT in parts (FULLY_CONNECTED, LOGISTIC, FULLY_CONNECTED), a curve that has to be fitted to each range. Islands of selu, soft-shrink, sparse-plus and tanh-shrink are slower than their integers.

XNNPACK makes one table of a chain of operations on a single int8 tensor, also if that is a product of the tensor and a function of it, and also if floats are in
between: an island of one function costs no more than a copy.
"""

import typing

from tfdistill.bridge.adopt.trained_ranges import quantized_layers
from tfdistill.bridge.integer.activations import GELU_OF_PRODUCTS, HARD_SWISH, PRELU, PRELU_OF_PRODUCTS, QUICK_GELU, RELU, RELU_OF_PRODUCT
from tfdistill.bridge.integer.normalizations import ROWWISE
from tfdistill.bridge.integer.pixels import ENLARGING, ENLARGING_OF_PARTS
from tfdistill.bridge.integer.rounding import FLOAT_FORM
from tfdistill.bridge.wrappers.quantization import is_quantized_layer
from tfdistill.compress.quantize.calibration_data import packed_batches
from tfdistill.compress.quantize.consumers import activation_of
from tfdistill.compress.quantize.output_error import output_error
from tfdistill.runtime.operations import operation_table, require_target
from tfdistill.utils import validate

# Targets that run DEQUANTIZE, a function in float, QUANTIZE within one partition, faster than the integer form.
ISLANDS = ("xnnpack",)
# Targets that have no int8 GELU at all, or leave their own hardware for it. XNNPACK leaves it to the interpreter's table, which is faster than four products.
WITHOUT_GELU = ("micro", "edgetpu", "gpu")
# Samples on which an approximated model is compared with the float model.
_COMPARED = 128
_FUNCTIONS_OF_ISLANDS = ("elu", "gelu", "gelu_tanh", "hard_shrink", "log_sigmoid", "mish", "softplus", "softsign", "squareplus")
_GELUS = ("gelu", "gelu_tanh")
_ATTENTIONS = ("attention", "grouped attention", "masked_softmax")


class _Form(typing.NamedTuple):
    """A form in place of another: the name of what it replaces, its own name, and what the plan says."""

    replaced: str
    form: str
    said: str


class _Parts(typing.NamedTuple):
    """An operation of TFLite's, and the form in its place for targets that do not take it."""

    operation: str
    form: _Form


_PARTS = {
    ENLARGING: _Parts("RESIZE_NEAREST_NEIGHBOR", _Form(ENLARGING, ENLARGING_OF_PARTS, "as concatenations")),
    PRELU: _Parts("PRELU", _Form(PRELU, PRELU_OF_PRODUCTS, "PReLU as products")),
    RELU: _Parts("RELU", _Form(RELU, RELU_OF_PRODUCT, "ReLU as a product by one")),
}


def require_forms(step):
    """Refuses settings of a new step about the forms of layers that have a wrong value.

    Raises:
        ConfigurationError: naming the setting and its value.
    """
    require_target(step.target)
    validate.boolean("approximate", step.approximate)
    validate.boolean("integer_only", step.integer_only)


def with_target_forms(place, decision, target, approximate, integer_only):
    """Returns the decision about a layer with the forms that suit a target.

    Args:
        place: The `Place` of the layer.
        decision: Its `LayerQuantization`; one that is not done stays as it is.
        target: Name of the target.
        approximate: Whether functions may change a little where that is faster.
        integer_only: Whether everything is computed in integers.
    """
    if not decision.done or decision.quantization is None:
        return decision
    chosen = tuple(_chosen(place, decision.quantization, target, approximate, not integer_only and target in ISLANDS))
    if not chosen:
        return decision
    return decision._replace(
        reason=", ".join([decision.reason, *(form.said for form in chosen)]),
        quantization=decision.quantization._replace(replaced=tuple((form.replaced, form.form) for form in chosen)),
    )


def _chosen(place, quantization, target, approximate, islands):
    if quantization.form in ROWWISE and islands:
        yield _Form(quantization.form, FLOAT_FORM, "normalized in float")
    if quantization.form in _ATTENTIONS and islands:
        yield _Form("softmax", FLOAT_FORM, "softmax in float")
    if quantization.form in _PARTS and operation_table(target).takes(_PARTS[quantization.form].operation, "int8") is False:
        yield _PARTS[quantization.form].form
    function = activation_of(place.layer) if quantization.activations or quantization.form in ("activation", "operation") else None
    if function in _FUNCTIONS_OF_ISLANDS and islands:
        yield _Form(function, FLOAT_FORM, f"{function} in float")
    elif function in _GELUS:
        if approximate:
            yield _Form(function, QUICK_GELU, "GELU approximated by x * sigmoid(1.702 x)")
        elif target in WITHOUT_GELU:
            yield _Form(function, GELU_OF_PRODUCTS, "GELU as a product with LOGISTIC")
    if function == "hard_silu" and operation_table(target).takes("HARD_SWISH", "int8"):
        yield _Form("hard_silu", HARD_SWISH, "hard-swish as HARD_SWISH")


def faster_in_float(rows, places, decided, target, integer_only):
    """Lists the `LayerPlan`s of the layers with operations that the target leaves, which have a faster form in float.

    Args:
        rows: The `LayerPlan`s of the model.
        places: Dict of path to `Place`.
        decided: Dict of path to `LayerQuantization`.
        target: Name of the target.
        integer_only: Whether everything is computed in integers.
    """
    if not integer_only or target not in ISLANDS:
        return []
    left = [row for row in rows if row.slow and row.name in decided and decided[row.name].quantization]
    return [
        row
        for row in left
        if any(f.form == FLOAT_FORM for f in _chosen(places[row.name], decided[row.name].quantization, target, False, True))
    ]


def told_faster(rows, target):
    """Says, in a list of at most one sentence, which operations that the target leaves have a faster form in float.

    Args:
        rows: What `faster_in_float` returns.
        target: Name of the target.
    """
    if not rows:
        return []
    operations = sorted({operation for row in rows for operation in row.slow})
    return [
        f"{target} leaves {', '.join(operations)} of {len(rows)} layers to the interpreter's own kernels: integer_only=False computes them in float within its "
        "partitions, which is faster"
    ]


def approximation_notes(made, float_model, signature, samples):
    """Returns a sentence, in a list, about how far a quantized model is from the float model, if functions in it were approximated.

    Args:
        made: `AdoptedModel` with measured ranges.
        float_model: The tf_keras model without quantizers.
        signature: `ModelSignature` of the samples.
        samples: Calibration `Samples`.
    """
    changed = [layer.layer.name for layer in quantized_layers(made.legacy) if is_quantized_layer(layer) and _is_approximate(layer)]
    if not changed:
        return []
    inputs = next(packed_batches(signature, samples, _COMPARED))
    error = output_error(float_model(inputs, training=False), made.legacy(inputs, training=False))
    return [
        f"GELU is approximated in {len(changed)} layers of '{made.name}', as approximate=True allows. With that and the rounding, the outputs differ from those of the float "
        f"model by {error:.2%} of their scale in the mean, on the calibration data."
    ]


def _is_approximate(layer):
    return any(form == QUICK_GELU for _, form in layer.quantization.replaced)
