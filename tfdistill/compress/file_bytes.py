"""How many bytes the int8 file of a model takes, by making it."""

import warnings

import numpy as np

from tfdistill.bridge.adopt.states import initial_states
from tfdistill.compress.quantize.calibrate import Quantize, quantized_on
from tfdistill.compress.replay import random_inputs
from tfdistill.convert.converter import convert
from tfdistill.convert.finish import finish
from tfdistill.convert.samples import collect
from tfdistill.convert.signature import describe
from tfdistill.convert.variants import variant_named
from tfdistill.errors import DataError, ModelError
from tfdistill.graph.flat import first_free, flat_graph
from tfdistill.graph.tracing import open_model

# Any ranges do: they take the same number of bytes.
_EXAMPLES = 2


def int8_bytes(model):
    """Returns the number of bytes of the int8 file that `export_tflite` makes of a model, whatever it is calibrated with.

    Args:
        model: A built Keras 3 model of fixed sizes.

    Raises:
        ModelError: if a size is free.
        TfdistillError: as `export_tflite`, if the file cannot be made.
    """
    signature, graph = describe(model), flat_graph(model)
    if first_free(graph) is not None:
        raise ModelError(
            f"The bytes of the int8 file of '{model.name}' are not known: a size is free at '{first_free(graph)}'.",
            "inputs of fixed sizes, the batch apart",
            "build the model on keras.Inputs of fixed sizes, or give a budget of parameters",
        )
    view = open_model(model)
    # Several batches of a model with a batch of its own, which may be of one example.
    drawn = [random_inputs(graph, view, seed, examples=1) for seed in range(_EXAMPLES)]
    arrays = [np.concatenate(batches) for batches in zip(*drawn, strict=True)]
    samples = collect({i.key: array for i, array in zip(signature.inputs, arrays, strict=True)}, signature, minimum=_EXAMPLES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is to be said of a model that is trained or saved; this one is neither
        try:
            made, _ = quantized_on(Quantize(), model, signature, samples)
        except DataError:
            raise
        except Exception:  # of the user's layers too: as for export, the converter may take them all the same
            made = model
        with initial_states(made):
            return len(finish(convert(made, signature, variant_named("int8"), "int8", samples, signature.batch_size)))
