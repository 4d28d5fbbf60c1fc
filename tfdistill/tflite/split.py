"""Heads of several units in one output: found before an int8 export, and taken apart so that each branch has a scale of its own."""

import contextlib
import dataclasses
import typing

import numpy as np

from tfdistill.bridge.adopt.adopt import AdoptedModel
from tfdistill.bridge.adopt.split_outputs import split_adopted_outputs
from tfdistill.bridge.adopt.trained_ranges import quantized_layers
from tfdistill.convert.signature import describe, output_shapes
from tfdistill.errors import ModelError, TfdistillError, VerificationError
from tfdistill.graph.split_outputs import split_keras_outputs
from tfdistill.tflite.verification.reference import Reference

SPLIT: typing.Final = "split"
Outputs = typing.Literal["joined", "split"]
# Branches are of other units if the range of one is so many times as wide as that of another, which has 31 of the 255 steps then.
OTHER_UNIT = 8.0
_SAMPLES = 128


def split_outputs(model):
    """Returns the `SplitModel` of a model to export.

    Args:
        model: A Keras model.

    Raises:
        ModelError: if no output is a concatenation, or the model is quantized.
    """
    if isinstance(model, AdoptedModel) and quantized_layers(model.legacy):
        raise ModelError(
            f"'{model.name}' is quantized with one scale for each of its outputs.",
            "a float model, or one that was quantized with several outputs",
            "quantize a model whose branches are outputs: keras.Model(inputs, {'boxes': boxes, 'scores': scores})",
        )
    found = _split(model)
    if not found.branches:
        raise ModelError(
            f"No output of '{model.name}' ends in a Concatenate.",
            "an output that joins several branches",
            "leave outputs= out, as there is nothing to split",
        )
    return found


def _split(model):
    signature = describe(model)
    apart = split_adopted_outputs if isinstance(model, AdoptedModel) else split_keras_outputs
    return apart(model, lambda outputs: list(signature.name_outputs(outputs)))


def as_in_file(model, signature, names):
    """Returns the model and the signature whose outputs a file has: those of the split model for a file that was exported so, else the given ones.

    Args:
        model: A Keras model.
        signature: Its `ModelSignature`.
        names: Names of the file's outputs.
    """
    own = output_shapes(model, signature)
    if own is None or set(own) == set(names) or (isinstance(model, AdoptedModel) and quantized_layers(model.legacy)):
        return model, signature
    found = _split(model)
    if set(found.names) != set(names):
        return model, signature
    return found.model, dataclasses.replace(signature, output_keys=found.names)


def mixed_heads(model, signature, samples):
    """Returns a sentence for each output of a float model that joins branches whose ranges differ, with the ranges on calibration samples.

    Args:
        model: A Keras model, not quantized.
        signature: Its `ModelSignature`.
        samples: Calibration `Samples`.
    """
    if isinstance(model, AdoptedModel) and quantized_layers(model.legacy):
        return []
    try:
        found = _split(model)
    except TfdistillError:  # a model that shows no graph shows no branches
        return []
    if not found.branches:
        return []
    kept = np.linspace(0, samples.count - 1, min(samples.count, _SAMPLES)).round().astype(int)
    inputs = {name: array[kept] for name, array in samples.inputs.items()}
    outputs = Reference(found.model, dataclasses.replace(signature, output_keys=found.names), signature.batch_size)(inputs)
    told = []
    for output, branches in found.branches.items():
        arrays = {name: outputs[name] for name in branches if outputs[name].dtype.kind == "f"}
        widths = {name: max(float(a.max()), 0.0) - min(float(a.min()), 0.0) for name, a in arrays.items()}
        wide = {name: width for name, width in widths.items() if width > 0}
        if len(wide) < 2:
            continue
        widest, narrowest = max(wide, key=wide.get), min(wide, key=wide.get)
        if wide[widest] < OTHER_UNIT * wide[narrowest]:
            continue
        shown = [f"'{name}' from {arrays[name].min():.4g} to {arrays[name].max():.4g}" for name in (widest, narrowest)]
        told.append(
            f"Output '{output}' joins branches of several units, for which int8 has one scale: {shown[0]}, and {shown[1]}, which gets "
            f"{255 * wide[narrowest] / wide[widest]:.2g} of 255 steps. Export with outputs='split', which gives each branch an output, a scale and a name of its own."
        )
    return told


@contextlib.contextmanager
def names_mixed_heads(told):
    """While open, an error of the verification names the outputs whose branches have one scale.

    Args:
        told: What `mixed_heads` returned.
    """
    try:
        yield
    except VerificationError as error:
        if not told:
            raise
        raise VerificationError("\n".join([error.happened, *told]), error.expected, error.fix) from error
