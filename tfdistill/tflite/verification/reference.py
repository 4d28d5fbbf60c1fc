"""Runs the Keras model batch by batch, in the way that the file is run."""

import keras
import numpy as np

from tfdistill.bridge.adopt.adopt import AdoptedModel
from tfdistill.bridge.adopt.precision import in_float32
from tfdistill.bridge.adopt.states import reset_states, stateful_layers
from tfdistill.errors import DataError
from tfdistill.graph.functional import last_activations
from tfdistill.runtime.tensors import pad_batch

_BATCH = 128


class Reference:
    """Runs a Keras model on named NumPy arrays, as a newly opened file runs: from its initial state, which is carried from batch to batch.

    Args:
        model: A built Keras model.
        signature: Its `ModelSignature`.
        file_batch: Batch size of the file. States, and outputs without a batch axis, depend on the batches, so such a model runs on batches
            of this size.
    """

    def __init__(self, model, signature, file_batch):
        self.model, self.signature, self.file_batch = model, signature, file_batch
        self.stateful = stateful_layers(model)
        self.batched = None

    def __call__(self, inputs):
        """Runs the model.

        Args:
            inputs: Dict of input name -> array (samples, ...).

        Returns:
            Dict of output name -> array (samples, ...), or (runs, *its shape) for an output whose first axis is not the batch.

        Raises:
            DataError: if the shape of an output changes from run to run.
        """
        fixed = self.signature.inputs[0].batch
        count = len(next(iter(inputs.values())))
        if self.batched is None:
            self.batched = fixed is not None or (not self.stateful and self._is_batched(inputs, min(count, _BATCH)))
        batch = fixed or (min(count, _BATCH) if self.batched else self.file_batch)
        reset_states(self.stateful)
        return self._run(inputs, count, batch)

    def _is_batched(self, inputs, size):
        """Whether every output has one row per sample. Tries two batch sizes, as a constant may have the rows of one of them."""
        sizes = {size, 2 if size != 2 else 3}
        for size in sizes:
            outputs = self._predict({name: np.resize(array, (size, *array.shape[1:])) for name, array in inputs.items()})
            if any(array.shape[:1] != (size,) for array in outputs.values()):
                return False
        return True

    def _run(self, inputs, count, batch):
        parts = {}
        for start in range(0, count, batch):
            part = {name: array[start : start + batch] for name, array in inputs.items()}
            size = len(next(iter(part.values())))
            # A short last batch is padded, unless the model takes any batch.
            short = batch - size if not self.batched or self.signature.inputs[0].batch else 0
            if short:
                part = pad_batch(part, batch)
            for name, array in self._predict(part).items():
                parts.setdefault(name, []).append(array[:size] if array.shape[:1] == (size + short,) else array[None])
        for name, arrays in parts.items():
            shapes = sorted({array.shape[1:] for array in arrays})
            if len(shapes) > 1:
                raise DataError(
                    f"Output '{name}' of the model '{self.model.name}' has the shapes {shapes} for different samples.", "one shape"
                )
        return {name: np.concatenate(arrays) for name, arrays in parts.items()}

    def _predict(self, batch):
        with in_float32(self.model):  # as the file computes
            outputs = self.model(self.signature.pack(batch), training=False)
        return {name: keras.ops.convert_to_numpy(tensor) for name, tensor in self.signature.name_outputs(outputs).items()}


def training_hints(model, names):
    """Returns how each output was trained, as far as the model shows it.

    Args:
        model: A Keras model.
        names: Names of its outputs, in flattened order.

    Returns:
        Dict of output name -> dict with `loss`, the compiled loss, and `last_activation`, each None if unknown.
    """
    activations = last_activations(model.legacy if isinstance(model, AdoptedModel) else model)
    activations = activations if len(activations) == len(names) else [None] * len(names)
    losses = _losses(
        getattr(model, "loss", None) if getattr(model, "compiled", False) else None, names, getattr(model, "output_names", None)
    )
    return {name: {"loss": loss, "last_activation": activation} for name, loss, activation in zip(names, losses, activations, strict=True)}


def _losses(loss, names, keras_names):
    if isinstance(loss, dict):
        own = keras_names if keras_names is not None and len(keras_names) == len(names) else names
        return [loss.get(name, loss.get(key)) for name, key in zip(names, own, strict=True)]
    if isinstance(loss, (list, tuple)):
        return list(loss) if len(loss) == len(names) else [None] * len(names)
    return [loss] * len(names)


def by_output(what, given, names):
    """Assigns labels or tasks to outputs.

    Args:
        what: Name of the values in errors, such as `"labels"`.
        given: The values: a dict by output name, a list with one for each output, a single one for a single output, or None.
        names: Names of the outputs.

    Returns:
        Dict of output name -> value, empty for None.

    Raises:
        DataError: if their number differs from that of the outputs, or if the model lacks a named output.
    """
    if given is None:
        return {}
    if isinstance(given, dict):
        unknown = sorted(set(given) - set(names))
        if unknown:
            raise DataError(f"There are {what} for the outputs {unknown}, which the model does not have.", f"some of {names}")
        return given
    if isinstance(given, (list, tuple)):
        if len(given) != len(names):
            raise DataError(f"There are {len(given)} arrays of {what}.", f"one for each of the outputs {names}")
        return dict(zip(names, given, strict=True))
    if len(names) > 1:
        raise DataError(f"One array of {what} was given for several outputs.", f"a dict or a list for the outputs {names}")
    return {names[0]: given}
