"""Runs an opened .tflite file on NumPy arrays."""

import numpy as np

from tfdistill.errors import DataError, RuntimeUnavailableError
from tfdistill.runtime.delegated import delegation
from tfdistill.runtime.tensors import named_tensors, pad_batch, tensor_info


class RunsSamples:
    """Runs samples on an opened file, one batch at a time. A base class of what has `path`, `inputs` and `outputs` (dicts of name -> `TensorInfo`), and the methods
    `reset`, `set_inputs`, `invoke` and `read_outputs`.
    """

    @property
    def batch_size(self):
        """Batch size of one `invoke`: first dimension of the first input (1 for a scalar)."""
        shape = next((info.shape for info in self.inputs.values()), ())
        return shape[0] if shape else 1

    def run(self, inputs, advance=None):
        """Runs the file on any number of samples, one batch at a time.

        Args:
            inputs: Dict of input name -> array (samples, ...) of real values, which are quantized with the tensor's scale and zero point,
                or of the tensor's type. A single array for a file with one input.
            advance: Function that is called after each batch with its number of samples.

        Returns:
            Dict of output name -> array (samples, ...), dequantized to float32 if the tensor is quantized. An output whose first axis is
            not the batch has the shape (runs, *its shape).

        Raises:
            DataError: for missing or unknown names, wrong shapes, or NaN and infinity for an integer input.
            RuntimeUnavailableError: if the interpreter fails.
        """
        arrays = self._checked(inputs, self.inputs)
        count, batch = len(next(iter(arrays.values()))), self.batch_size
        collected = {name: [] for name in self.outputs}
        for start in range(0, count, batch):
            part = {name: array[start : start + batch] for name, array in arrays.items()}
            size = len(next(iter(part.values())))
            if size < batch:  # filled up with copies of the last sample, whose outputs are dropped below
                part = pad_batch(part, batch)
            # A fused LSTM keeps its state from one invoke to the next, but these samples are independent.
            self.reset()
            self.set_inputs(part)
            self.invoke()
            for name, values in self.read_outputs().items():
                collected[name].append(values[:size] if values.shape[:1] == (batch,) else values[None])
            if advance:
                advance(size)
        return {name: info.dequantize(self._joined(name, collected[name])) for name, info in self.outputs.items()}

    def run_sequence(self, inputs, states, advance=None):
        """Runs the file on samples that follow each other, one batch after the other, and carries its states on from each call to the next.

        Args:
            inputs: As in `run`, without the inputs of states.
            states: Dict of the name of a state's input -> (name of its output, number that it begins as).
            advance: As in `run`.

        Returns:
            Dict of output name -> array (samples, ...), dequantized, without the outputs of states.

        Raises:
            DataError, RuntimeUnavailableError: as `run`.
        """
        own = {name: info for name, info in self.inputs.items() if name not in states}
        arrays, batch = self._checked(inputs, own), self.batch_size
        carried = {
            name: self.inputs[name].quantize(np.full(self.inputs[name].shape, first, np.float32)) for name, (_, first) in states.items()
        }
        ends = {output for output, _ in states.values()}
        collected = {name: [] for name in self.outputs if name not in ends}
        for start in range(0, len(next(iter(arrays.values()))), batch):
            part = {name: array[start : start + batch] for name, array in arrays.items()}
            size = len(next(iter(part.values())))
            self.set_inputs({**pad_batch(part, batch), **carried})
            self.invoke()
            outputs = self.read_outputs()
            # As a device does it: the bytes of the output are those of the next input.
            carried = {name: outputs[output] for name, (output, _) in states.items()}
            for name, parts in collected.items():
                parts.append(outputs[name][:size])
            if advance:
                advance(size)
        return {name: self.outputs[name].dequantize(np.concatenate(parts)) for name, parts in collected.items()}

    def _joined(self, name, parts):
        shapes = sorted({part.shape[1:] for part in parts})
        if len(shapes) > 1:
            raise DataError(f"Output '{name}' of '{self.path}' has the shapes {shapes} for different samples.", "one shape for all")
        return np.concatenate(parts)

    def _checked(self, inputs, expected):
        if not expected or self.batch_size == 0:
            raise DataError(
                f"'{self.path}' takes the inputs { {n: i.shape for n, i in expected.items()} }.", "at least one, of at least one sample"
            )
        if not isinstance(inputs, dict):
            if len(expected) != 1:
                raise DataError(f"One array was given, but '{self.path}' has the inputs {list(expected)}.", "a dict of name -> array")
            inputs = {next(iter(expected)): inputs}
        if set(inputs) != set(expected):
            raise DataError(f"The inputs {sorted(inputs)} do not fit '{self.path}'.", f"exactly {sorted(expected)}")
        arrays = {}
        for name, info in expected.items():
            array = np.asarray(inputs[name])
            if array.shape[1:] != info.shape[1:] or array.ndim == 0 or len(array) == 0:
                raise DataError(f"Input '{name}' of '{self.path}' was given the shape {array.shape}.", f"(samples, {_axes(info.shape)})")
            arrays[name] = info.quantize(array)
        if len({len(a) for a in arrays.values()}) > 1:
            raise DataError(f"The inputs have different lengths: { {n: len(a) for n, a in arrays.items()} }.", "one length")
        return arrays


class TFLiteModel(RunsSamples):
    """An opened .tflite file with named inputs and outputs. Made by `open_file`.

    Attributes:
        path: The file.
        engine: Import name of the interpreter.
        inputs: Dict of name -> `TensorInfo`, in the order of the file's signature.
        outputs: The same for outputs.
        interpreter: The interpreter object.
        init_seconds: Time to open the file and allocate its tensors.
        delegated_first: The `Delegation` before XNNPACK took its part, if the file was opened with an external delegate; else None.
    """

    def __init__(self, path, interpreter, engine, init_seconds, delegated_first=None):
        self.path, self.interpreter, self.engine, self.init_seconds = path, interpreter, engine, init_seconds
        self.delegated_first = delegated_first
        self.inputs = named_tensors(interpreter, "input")
        self.outputs = named_tensors(interpreter, "output")
        self._infos = None

    def delegation(self):
        """Returns the `Delegation`: what XNNPACK takes; None in an old runtime, which cannot list its operations."""
        return delegation(self.interpreter)

    def reset(self):
        """Resets the states that operations keep between runs, such as those of a fused LSTM."""
        self.interpreter.reset_all_variables()

    def set_inputs(self, arrays):
        """Copies one batch in; `arrays` is a dict of name -> array of the tensor's type and shape.

        Raises:
            RuntimeUnavailableError: if the interpreter refuses an array.
        """
        for name, info in self.inputs.items():
            self._native(self.interpreter.set_tensor, info.index, arrays[name])

    def invoke(self):
        """Runs the file on the inputs that were set.

        Raises:
            RuntimeUnavailableError: if the interpreter fails, with its message.
        """
        self._native(self.interpreter.invoke)

    def read_outputs(self):
        """Returns a dict of name -> array in host memory, of the tensor's type.

        Raises:
            RuntimeUnavailableError: if an output has no value.
        """
        return {name: self._native(self.interpreter.get_tensor, info.index) for name, info in self.outputs.items()}

    def run_signature(self, key, arrays):
        """Runs one signature of the file once.

        Args:
            key: Name of the signature.
            arrays: Dict of input name -> array of the tensor's type and shape.

        Returns:
            Dict of output name -> array of the tensor's type.

        Raises:
            RuntimeUnavailableError: if there is no such signature, or it fails.
        """
        return self._native(lambda: self.interpreter.get_signature_runner(key)(**arrays))

    def read_tensors(self, indices):
        """Returns what the last `invoke` computed in any tensors; the file has to be opened with `keep_tensors=True`.

        Args:
            indices: Indices of tensors.

        Returns:
            Dict of index -> array of real values, as `TensorInfo.dequantize` gives them.

        Raises:
            RuntimeUnavailableError: if a tensor has no value.
        """
        if self._infos is None:
            self._infos = {int(d["index"]): tensor_info(d["name"], d) for d in self.interpreter.get_tensor_details()}
        return {index: self._infos[index].dequantize(self._native(self.interpreter.get_tensor, index)) for index in indices}

    def runner(self, arrays):
        """Returns a function of no arguments that copies one batch in, runs the file and copies every output out, with as few steps as can be.

        Args:
            arrays: Dict of name -> array of the tensor's type and shape.

        Returns:
            The function. It returns the outputs as a list, in the order of `outputs`, and raises a `RuntimeUnavailableError` as `invoke` does.
        """
        interpreter = self.interpreter
        set_tensor, invoke, get_tensor = interpreter.set_tensor, interpreter.invoke, interpreter.get_tensor
        inputs = [(info.index, arrays[name]) for name, info in self.inputs.items()]
        outputs = [info.index for info in self.outputs.values()]

        def run():
            try:
                for index, array in inputs:
                    set_tensor(index, array)
                invoke()
                return [get_tensor(index) for index in outputs]
            except Exception as error:  # the exception class depends on the native code
                raise self._failed(error) from error

        return run

    def _native(self, function, *arguments):
        try:
            return function(*arguments)
        except Exception as error:  # the exception class depends on the native code
            raise self._failed(error) from error

    def _failed(self, error):
        return RuntimeUnavailableError(f"{self.engine} failed while it ran '{self.path}': {error}")


def _axes(shape):
    return ", ".join(str(s) for s in shape[1:]) or "no further axes"
