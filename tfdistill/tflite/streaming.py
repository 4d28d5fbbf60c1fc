"""Models whose states are inputs and outputs of the file: their calibration, their verification call by call, and what a device has to know."""

import contextlib
import dataclasses
import typing

import keras
import numpy as np

from tfdistill.bridge.adopt.adopt import AdoptedModel
from tfdistill.bridge.adopt.layers import input_quantizers
from tfdistill.bridge.adopt.precision import in_float32
from tfdistill.bridge.adopt.states import initial_states, stateful_layers
from tfdistill.bridge.adopt.trained_ranges import quantized_layers
from tfdistill.bridge.convert.to_keras import to_keras
from tfdistill.bridge.integer.rounding import FIXED_RANGES
from tfdistill.bridge.wrappers.input_quantizers import range_of_input
from tfdistill.bridge.wrappers.quantization import is_quantized_layer
from tfdistill.convert.samples import Samples
from tfdistill.convert.signature import ModelSignature, describe
from tfdistill.errors import BridgeError, ConfigurationError, ExportError, ModelError
from tfdistill.graph.explicit_states import ExplicitModel, explicit_states
from tfdistill.records import Record
from tfdistill.runtime.tensors import pad_batch

EXPLICIT: typing.Final = "explicit"
States = typing.Literal["inside", "explicit"]
# Name of a recurrent layer's state -> the name of its range in the quantized graph.
_RANGES = {"h": "state", "c": "carry"}
_MAKE_EXPLICIT = "export with states='explicit', which makes each state an input and an output"
# The two forms of a model are compared on so many calls; an axis of any length has so many elements then.
_CALLS, _FREE, _TOLERANCE = 3, 8, 1e-4


@dataclasses.dataclass(frozen=True)
class FileState(Record):
    """One state of a file that was exported with `states="explicit"`: a device gives the output of one call to the input of the next, byte by byte.

    Attributes:
        layer: Path of the layer that keeps it in the Keras model.
        input: Name of the input.
        output: Name of the output. It has the shape, type, scale and zero point of the input.
        input_index: Position of the input among the file's inputs.
        output_index: Position of the output among the file's outputs.
        shape: Shape, batch first.
        dtype: Type.
        scale: Size of one quantization step; None for floats.
        zero_point: The integer that stands for 0.0; None for floats.
        first: The number, as the input takes it, that all of the state consists of before the first call: for integers that is `zero_point` where the state begins as 0.

    Example:
        >>> frames = keras.Input(batch_shape=(1, 4, 3), name="frames")
        >>> gru = keras.layers.GRU(6, stateful=True, name="gru")(frames)
        >>> record = tfdistill.export_tflite(keras.Model(frames, gru), "gru.tflite", states="explicit")
        >>> state = record.states[0]
        >>> state.input, state.output, state.shape, state.first
        ('gru_h', 'gru_h_next', (1, 6), 0.0)
    """

    layer: str
    input: str
    output: str
    input_index: int
    output_index: int
    shape: tuple[int, ...]
    dtype: str
    scale: float | None
    zero_point: int | None
    first: float


@dataclasses.dataclass(frozen=True)
class Streaming:
    """A stateful model and its form with explicit states.

    Attributes:
        original: The stateful Keras model.
        given: Its `ModelSignature`: of the data that users give.
        explicit: `ExplicitModel`.
        signature: `ModelSignature` of that.
        batch_size: Batch size of the file.
    """

    original: keras.Model
    given: ModelSignature
    explicit: ExplicitModel
    signature: ModelSignature
    batch_size: int

    @property
    def names(self):
        """List of the names of each state's input and output in the file."""
        inputs = {i.key: i.name for i in self.signature.inputs}
        return [(inputs[state.name], state.output) for state in self.explicit.states]

    @property
    def firsts(self):
        """Dict of the name of a state's input in the file -> its output, and the number that it begins as."""
        return {name: (output, state.initial) for (name, output), state in zip(self.names, self.explicit.states, strict=True)}

    def with_states(self, samples):
        """Returns calibration samples with the states that the model has before each of them, if they are one sequence of calls from its beginning.

        Args:
            samples: `Samples` of the original.
        """
        seen, _ = self._explicit_calls(samples.inputs)
        inputs = {**samples.inputs, **seen}
        return Samples({i.name: inputs[i.name] for i in self.signature.inputs}, samples.labels, samples.count, samples.positions)

    def _explicit_calls(self, inputs):
        """Runs the model with explicit states; returns dicts of the states before each sample, and of the outputs."""
        count = len(next(iter(inputs.values())))
        states = {name: self._first(name) for name, _ in self.names}
        seen, found = {name: [] for name in states}, {}
        with in_float32(self.explicit.model):
            for start in range(0, count, self.batch_size):
                batch = {name: array[start : start + self.batch_size] for name, array in inputs.items()}
                size = len(next(iter(batch.values())))
                for name, value in states.items():
                    seen[name].append(value[:size])
                arrays = {**pad_batch(batch, self.batch_size), **states}
                arrays = {name: keras.ops.convert_to_tensor(array) for name, array in arrays.items()}
                outputs = self.signature.name_outputs(self.explicit.model(self.signature.pack(arrays), training=False))
                outputs = {name: keras.ops.convert_to_numpy(tensor) for name, tensor in outputs.items()}
                states = {name: outputs[output] for name, output in self.names}
                for name, array in outputs.items():
                    found.setdefault(name, []).append(array[:size])
        return ({name: np.concatenate(parts) for name, parts in several.items()} for several in (seen, found))

    def require_equal_calls(self):
        """Compares some calls of both models on random numbers.

        Raises:
            BridgeError: if they differ.
        """
        rng, shapes = (
            np.random.default_rng(0),
            {i.name: (_CALLS * self.batch_size, *(n or _FREE for n in i.shape)) for i in self.given.inputs},
        )
        inputs = {
            i.name: rng.normal(size=shapes[i.name]) if "float" in i.dtype else rng.integers(0, 2, shapes[i.name]) for i in self.given.inputs
        }
        inputs = {i.name: inputs[i.name].astype(i.dtype) for i in self.given.inputs}
        expected, (_, found) = self.reference(inputs), self._explicit_calls(inputs)
        for name, array in expected.items():
            far = float(np.abs(array.astype(np.float64) - found[name]).max())
            if not far <= _TOLERANCE * max(1.0, float(np.abs(array).max())):
                raise BridgeError(
                    f"With its states as inputs the model '{self.original.name}' computes something else: its output '{name}' differs by {far:.3g}.",
                    f"a difference of at most {_TOLERANCE:g}",
                )

    def reference(self, inputs):
        """Runs the stateful model call by call from its first state, as the file is run.

        Args:
            inputs: Dict of input name -> array (samples, ...): sample after sample one sequence, or several side by side where the file has a larger batch.

        Returns:
            Dict of output name -> array (samples, ...).
        """
        count, own = len(next(iter(inputs.values()))), self.given.batch_size
        parts = {}
        with initial_states(self.original), in_float32(self.original):
            for start in range(0, count, self.batch_size):
                batch = {name: array[start : start + self.batch_size] for name, array in inputs.items()}
                size = len(next(iter(batch.values())))
                outputs = self.original(self.given.pack(pad_batch(batch, own)), training=False)
                for name, tensor in self.given.name_outputs(outputs).items():
                    parts.setdefault(name, []).append(keras.ops.convert_to_numpy(tensor)[:size])
        return {name: np.concatenate(arrays) for name, arrays in parts.items()}

    def share_ranges(self, quantized):
        """Gives the input of each state of a recurrent layer the range of its output in a quantized model, so that the file has one scale for both.

        Args:
            quantized: `AdoptedModel`.
        """
        quantizers = {layer.name.removeprefix("quantize_"): layer for layer in input_quantizers(quantized.legacy)}
        layers = quantized.named_layers()
        for state in self.explicit.states:
            layer, quantizer = layers.get(state.layer.replace("/", "_")), quantizers.get(state.name)
            if quantizer is None or layer is None or not is_quantized_layer(layer):
                continue
            low, high = range_of_input(quantizer)
            own = layer.ranges.get(_RANGES.get(state.name.rpartition("_")[2], ""))
            if own is not None:
                ends = min(float(low), float(own[0])), max(float(high), float(own[1]))
                for variable, end in zip((low, high, own[0], own[1]), (*ends, *ends), strict=True):
                    variable.assign(end)
            elif getattr(getattr(layer.layer, "cell", None), "activation", None) is not None:
                fixed = FIXED_RANGES.get(layer.layer.cell.activation.__name__)
                for variable, end in zip((low, high), fixed or (), strict=fixed is not None):
                    variable.assign(end)

    def record(self, contents):
        """Lists the states of a file, as a tuple of `FileState`.

        Args:
            contents: Its `CensusRecord`.
        """
        inputs, outputs = ({tensor.name: tensor for tensor in side} for side in (contents.inputs, contents.outputs))
        found = []
        for (name, output), state in zip(self.names, self.explicit.states, strict=True):
            tensor = inputs[name]
            quantized = tensor.scale is not None and tensor.zero_point is not None
            first = float(round(state.initial / tensor.scale) + tensor.zero_point) if quantized else state.initial
            places = tensor.index, outputs[output].index, tensor.shape, tensor.dtype, tensor.scale, tensor.zero_point
            found.append(FileState(state.layer, name, output, *places, first))
        return tuple(found)

    def _first(self, name):
        shape = next(i.shape for i in self.signature.inputs if i.name == name)
        return np.full((self.batch_size, *shape), self.firsts[name][1], np.float32)


def streaming(model, batch_size, unroll=False):
    """Returns the `Streaming` of a stateful model.

    Args:
        model: A built Keras model, or an adopted tf_keras model that is not quantized.
        batch_size: Batch size of the file.
        unroll: Whether recurrent layers are written out, for integers.

    Raises:
        ConfigurationError: if the batch is free, or larger than the model's.
        ModelError: if the model is quantized, or keeps no state that can be made explicit.
        BridgeError: if the model with explicit states computes something else.
    """
    if batch_size is None:
        raise ConfigurationError(
            "states='explicit' with batch_size=None.", "a fixed batch, as states have a row for each sample", "leave batch_size= out"
        )
    if isinstance(model, AdoptedModel) and quantized_layers(model.legacy):
        raise ModelError(
            f"'{model.name}' is quantized, and its ranges do not know its states as inputs.",
            "the float model",
            "give export_tflite the model that was quantized, with calibration= and states='explicit'",
        )
    given = describe(model)
    if stateful_layers(model) and batch_size > given.batch_size:
        raise ConfigurationError(
            f"batch_size={batch_size}, but the model '{model.name}' keeps the states of {given.batch_size} sequences.",
            f"at most {given.batch_size}",
        )
    # Its check would run stateful layers twice; all is compared below.
    source = to_keras(model.legacy, check=False) if isinstance(model, AdoptedModel) else model
    explicit = explicit_states(source, batch_size, lambda outputs: list(given.name_outputs(outputs)), unroll)
    made = Streaming(model, given, explicit, describe(explicit.model), batch_size)
    made.require_equal_calls()
    return made


def streaming_of_file(model, opened):
    """Returns the `Streaming` of a stateful model whose file has the states as inputs; None for a file that keeps them inside, and a model that keeps none.

    Args:
        model: A built Keras model.
        opened: `TFLiteModel` of the file.
    """
    if not stateful_layers(model) or set(opened.inputs) <= {i.name for i in describe(model).inputs}:
        return None
    return streaming(model, opened.batch_size)


@contextlib.contextmanager
def names_explicit_states(model, stream):
    """While open, the error of a conversion of a model whose states stay inside says how they need not.

    Args:
        model: The Keras model.
        stream: Its `Streaming`; None where the states stay inside.
    """
    try:
        yield
    except (ExportError, ModelError) as error:
        if stream is not None or not (layers := stateful_layers(model)):
            raise
        names = ", ".join(f"'{layer.name}'" for layer in layers)
        raise type(error)(
            f"{error.happened}\nThe state of {names} is kept inside of the file, in variables of floats.",
            error.expected,
            _MAKE_EXPLICIT if error.fix is None else f"{_MAKE_EXPLICIT}; or {error.fix}",
        ) from error
