"""Inputs and outputs of a .tflite file: names, shapes, types, and the conversion between real values and integers."""

import dataclasses

import numpy as np

from tfdistill.errors import DataError, RuntimeUnavailableError
from tfdistill.utils.finite import non_finite


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """One input or output of a file.

    Attributes:
        name: Name in the file's signature, or the tensor's name if the file has no signature.
        index: Index in the interpreter.
        shape: Current shape, batch first.
        dtype: NumPy name of the type, for example `"int8"`.
        scale: Size of one quantization step; None for a tensor that is not quantized.
        zero_point: The integer that represents 0.0.
        signature: Shape that the file declares, with None for an axis of any size; None if the interpreter does not report it.
    """

    name: str
    index: int
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int = 0
    signature: tuple[int | None, ...] | None = None

    def quantize(self, values):
        """Converts real values to the tensor's type: round(value / scale) + zero point, clipped to the type's range.

        Args:
            values: Array (samples, ...) of real numbers. An array of the tensor's type is returned unchanged.

        Returns:
            Array of type `dtype`.

        Raises:
            DataError: for NaN or infinity if the tensor has an integer type.
        """
        values = np.asarray(values)
        if values.dtype == self.dtype:
            return np.ascontiguousarray(values)
        if np.dtype(self.dtype).kind in "iu" and values.dtype.kind == "f":
            self._require_finite(values)
        if self.scale is None:
            return np.ascontiguousarray(values, dtype=self.dtype)
        limits = np.iinfo(self.dtype)
        with np.errstate(over="ignore"):  # what overflows float64 is clipped as well
            steps = np.round(values.astype(np.float64) / self.scale) + self.zero_point
        return np.clip(steps, limits.min, limits.max).astype(self.dtype)

    def dequantize(self, values):
        """Converts the tensor's integers to real values, (q - zero point) * scale in float32; other types are returned unchanged."""
        if self.scale is None:
            return np.asarray(values)
        with np.errstate(over="ignore"):  # what overflows float32 becomes infinity
            return ((np.asarray(values).astype(np.float64) - self.zero_point) * self.scale).astype(np.float32)

    def _require_finite(self, values):
        if (found := non_finite(values)) is None:
            return
        where = f"sample {found.first[0]} (index {list(found.first)})" if found.first else "its only value"
        raise DataError(
            f"Input '{self.name}' holds {found.kind}: {found.number} of {values.size} values; the first at {where}.",
            f"finite numbers, as {self.dtype} has no integer for it",
        )


def pad_batch(arrays, size):
    """Repeats the last sample of each array of a dict until it has `size` samples."""
    return {name: np.concatenate([array, np.repeat(array[-1:], size - len(array), axis=0)]) for name, array in arrays.items()}


def named_tensors(interpreter, side):
    """Lists the inputs or outputs of an allocated interpreter by the names of its signature.

    Args:
        interpreter: The interpreter.
        side: `"input"` or `"output"`.

    Returns:
        Dict of name -> `TensorInfo`.
    """
    details = {int(d["index"]): d for d in getattr(interpreter, f"get_{side}_details")()}
    return {name: tensor_info(name, details[index]) for name, index in tensor_names(interpreter, side, details).items()}


def tensor_names(interpreter, side, indices):
    """Returns a dict of name -> index: the names of the signature of exactly these tensors, else those of the tensors.

    Args:
        interpreter: The interpreter.
        side: `"input"` or `"output"`.
        indices: Dict of index -> what the interpreter says of the tensor. Signatures of several graphs may have the same indices, but no names in common.
    """
    for key in interpreter.get_signature_list():
        runner = interpreter.get_signature_runner(key)
        details = getattr(runner, f"get_{side}_details")()
        del runner  # while it refers to the interpreter, that refuses to allocate tensors
        named = {name: int(d["index"]) for name, d in details.items()}
        if set(named.values()) == set(indices) and all(d["name"] == indices[int(d["index"])]["name"] for d in details.values()):
            return named
    # No signature, or none of the main graph: the names of the tensors.
    return {d["name"]: int(d["index"]) for d in getattr(interpreter, f"get_{side}_details")()}


def tensor_info(name, detail):
    """Makes a `TensorInfo` of what an interpreter says of a tensor.

    Args:
        name: Its name.
        detail: Dict, as the interpreter's `get_tensor_details` lists it.

    Raises:
        RuntimeUnavailableError: if it has a quantization step that is no number above 0.
    """
    scales, zeros = detail["quantization_parameters"]["scales"], detail["quantization_parameters"]["zero_points"]
    quantized = len(scales) == 1 and np.issubdtype(detail["dtype"], np.integer)
    if quantized and not (np.isfinite(scales[0]) and scales[0] > 0):
        raise RuntimeUnavailableError(f"The tensor '{name}' has a quantization step of {scales[0]}.", "a finite number above 0")
    declared = detail.get("shape_signature")
    return TensorInfo(
        name=name,
        index=int(detail["index"]),
        shape=tuple(int(s) for s in detail["shape"]),
        dtype=np.dtype(detail["dtype"]).name,
        scale=float(scales[0]) if quantized else None,
        zero_point=int(zeros[0]) if quantized and len(zeros) else 0,
        signature=None if declared is None else tuple(None if s < 0 else int(s) for s in declared),
    )


def sample_inputs(tensors, seed=None):
    """Makes one batch for every input.

    Args:
        tensors: Dict of name -> `TensorInfo`.
        seed: None for zeros. With a number: floats in [0, 1), quantized integers over their whole range, and zeros for other integers,
            which may be indices.

    Returns:
        Dict of name -> array.
    """
    generator = np.random.default_rng(seed)
    made = {}
    for name, info in tensors.items():
        dtype = np.dtype(info.dtype)
        if seed is not None and dtype.kind == "f":
            made[name] = generator.random(info.shape).astype(dtype)
        elif seed is not None and info.scale is not None:
            limits = np.iinfo(dtype)
            made[name] = generator.integers(limits.min, limits.max, info.shape, dtype=dtype, endpoint=True)
        else:
            made[name] = np.zeros(info.shape, dtype)
    return made
