"""What layers are called on and what they return, seen while a model runs; and the outputs of the float model, which learned rounding has as its targets."""

import contextlib
import typing

import numpy as np

from tfdistill.bridge.adopt.layers import input_quantizers, named_layers
from tfdistill.bridge.wrappers.all_in_float import left_in_float
from tfdistill.bridge.wrappers.input_quantizers import unrounded_inputs
from tfdistill.errors import ModelError

# So much memory is used for outputs of the float model that wait to be compared, and for the largest output of a single layer on all samples.
_WAITING_BYTES = 2**30
_LARGEST_BYTES = 2**29
# Samples that are taken whatever their size.
_LEAST_SAMPLES = 32


class Call(typing.NamedTuple):
    """One call of a layer.

    Attributes:
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        sums: Tensors that are added to what comes of it.
    """

    args: tuple
    kwargs: dict
    sums: tuple = ()


@contextlib.contextmanager
def seen_calls(layer, look):
    """While open, `look(call, args, kwargs)` takes the place of a tf_keras layer's own `call`, which it is given.

    Args:
        layer: Live tf_keras layer.
        look: The function; what it returns is what the layer returns.
    """
    before, own = vars(layer).get("call"), layer.call
    # Past tf_keras's attribute setter, as the layer's own call comes back at once.
    vars(layer)["call"] = lambda *args, **kwargs: look(own, args, kwargs)
    try:
        yield
    finally:
        if before is None:
            del vars(layer)["call"]
        else:
            vars(layer)["call"] = before


def first_of(outputs):
    """Returns the first tensor of what a layer returns: attention may return its scores beside its output."""
    import tensorflow as tf

    return tf.nest.flatten(outputs)[0]


def kept_samples(samples, places):
    """Chooses samples evenly, so many that the largest output of a layer fits into half a gibibyte.

    Args:
        samples: `Samples`.
        places: Dict of path to `Place`.

    Returns:
        int array of their indices.
    """
    largest = max((_size(place.layer) for place in places.values()), default=1)
    count = min(samples.count, max(_LEAST_SAMPLES, _LARGEST_BYTES // (4 * largest)))
    return np.linspace(0, samples.count - 1, count).round().astype(int)


def _size(layer):
    shape = getattr(layer, "output_shape", None)
    if not isinstance(shape, tuple) or any(isinstance(axis, tuple) for axis in shape):
        return 1  # several outputs, or several calls with different shapes
    return int(np.prod([axis or 1 for axis in shape[1:]]))


def run_with_all(model, inputs, fixed):
    """Runs a model on all samples at once.

    Args:
        model: `AdoptedModel`.
        inputs: Its inputs, as it takes them.
        fixed: Batch size of the model; None if it is free.

    Raises:
        ModelError: if it has a fixed one, and needs it.
    """
    import tensorflow as tf

    try:
        model.legacy(inputs, training=False)
    except tf.errors.InvalidArgumentError as error:
        if fixed is None:
            raise
        raise ModelError(
            f"The rounding of '{model.name}' cannot be learned: its inputs have a batch of {fixed}, and it does not run with more samples at once.",
            "a model of free batch size",
            "build it with keras.Input(shape) in place of keras.Input(batch_shape=...)",
        ) from error


class _EnoughError(Exception):
    """Ends a run of the float model."""


class Targets:
    """The outputs of the float model, which runs again where all that is asked for would not fit into memory.

    It is the quantized model itself, left in float, with its weights as they were: what is learned is given to it from outside until all is done.

    Args:
        model: `AdoptedModel` with quantizers.
        inputs: Its inputs, as it takes them.
        units: Dict of path to `Unit`.
        fixed: Batch size of the model; None if it is free.
    """

    def __init__(self, model, inputs, units, fixed=None):
        self._model, self._inputs, self._left, self._fixed = model, inputs, dict(units), fixed
        self._layers = named_layers(model.legacy)
        self._outputs, self._calls = {}, {}

    def of(self, unit):
        """Returns the outputs of the float model at the end of a unit, and the `Call`s of its layer there: lists with an entry for each time that it runs.

        The calls are only kept of a layer that runs several times. Each unit is asked for once.
        """
        if unit.path not in self._outputs:
            self._run({unit.path: unit, **self._left})
        return self._outputs.pop(unit.path), self._calls.pop(unit.path, [])

    def _run(self, units):
        """Runs the float model and keeps what fits into memory, the first unit in any case."""
        first, held, awaited = next(iter(units)), 0, sum(unit.runs for unit in units.values())

        def keep(other, own, args, kwargs):
            nonlocal held, awaited
            outputs = own(*args, **kwargs)
            found, awaited = first_of(outputs), awaited - 1
            if held <= _WAITING_BYTES or other.path == first or other.path in self._outputs:
                self._outputs.setdefault(other.path, []).append(found)
                self._left.pop(other.path, None)
                held += found.dtype.size * int(np.prod(found.shape))
            if not awaited:
                raise _EnoughError
            return outputs

        def keep_call(other, own, args, kwargs):
            self._calls.setdefault(other.path, []).append(Call(args, kwargs))
            return own(*args, **kwargs)

        with contextlib.ExitStack() as stack:
            for other in units.values():
                stack.enter_context(seen_calls(self._layers[other.end], _bound(keep, other)))
                if other.runs > 1:
                    stack.enter_context(seen_calls(self._layers[other.path], _bound(keep_call, other)))
            stack.enter_context(left_in_float())
            stack.enter_context(unrounded_inputs(input_quantizers(self._model.legacy)))
            with contextlib.suppress(_EnoughError):
                run_with_all(self._model, self._inputs, self._fixed)
        self._calls = {path: calls for path, calls in self._calls.items() if path in self._outputs}


def _bound(look, unit):
    return lambda own, args, kwargs: look(unit, own, args, kwargs)
