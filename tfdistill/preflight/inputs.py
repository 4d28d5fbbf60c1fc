"""Inputs of any length, and inputs whose features have scales of their own."""

import numpy as np

from tfdistill.bridge.adopt import introspection
from tfdistill.compress.quantize import consumers
from tfdistill.compress.quantize.build import is_rounded_input
from tfdistill.convert.converter import free_axes
from tfdistill.preflight.findings import Finding, first_of
from tfdistill.tflite.verification.ranges import coarse_features

# A feature with fewer of the 255 steps of int8 is lost: its range is 1/50 of the widest one's.
FEW_STEPS = 255 / 50


def free_inputs(signature, name):
    """Lists the findings about inputs with axes of any length, which a file of fixed batch cannot have.

    Args:
        signature: `ModelSignature`.
        name: Name of the model.
    """
    return [Finding.of_error("fails", "free_axes", (i.key,), free_axes(i, name)) for i in signature.inputs if None in i.shape]


def coarse_inputs(opened, signature, samples):
    """Lists the findings about inputs of floats in which one int8 scale is too coarse for some features.

    Args:
        opened: `rebuild.Opened` of the model.
        signature: `ModelSignature`.
        samples: `Samples`; with None, what normalizations that read an input have seen of it counts.
    """
    findings = []
    known = consumers.input_readers(opened.legacy)
    for i, tensor in zip(signature.inputs, opened.legacy.inputs, strict=True):
        readers = known[id(tensor)]
        if not is_rounded_input(tensor, readers):
            continue
        if samples is None:
            array, source = _seen(readers), "the data that its normalization has seen"
        else:
            array, source = samples.inputs[i.name], "the data"
        if array is None or array.dtype.kind != "f" or array.ndim < 2 or not array.size:
            continue
        step, coarse, steps = coarse_features(array, FEW_STEPS)
        if not len(coarse):
            continue
        named = first_of([f"{j} ({n:.2g} steps)" for j, n in zip(coarse, steps, strict=True)])
        findings.append(
            Finding(
                "inexact",
                "input_scales",
                (i.key,),
                f"One int8 scale holds all features of the input '{i.key}', in steps of {step:.4g} for {source}, too coarse for "
                f"{'feature' if len(coarse) == 1 else 'features'} {named}",
                "normalize each feature before it reaches the model, (x - mean) / deviation, or give the features of one unit an input of their own",
            )
        )
    return findings


def _seen(readers):
    """Returns two samples that span what the normalizations that read an input have seen, three deviations to each side; None where there are none."""
    for layer in readers:
        if introspection.kind_of(layer) != "Normalization" or layer.invert:
            continue
        mean, deviation = (np.asarray(value, "float64").reshape(1, -1) for value in (layer.mean, np.sqrt(layer.variance)))
        if mean.size > 1:
            return np.concatenate([mean - 3 * deviation, mean + 3 * deviation])
    return None
