"""Inputs and outputs of a .tflite file: names, shapes, types, and the translation between real values and integers."""

import dataclasses

import numpy as np

from tfdistill.errors import DataError, RuntimeUnavailableError


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """One input or output of a file.

    Attributes:
        name: Its name in the file's signature, or the tensor's own name where the file has none.
        index: Its index in the interpreter.
        shape: Shape it has now, batch first.
        dtype: NumPy name of its type, for example `"int8"`.
        scale: Size of one quantization step, or None for a tensor that is not quantized.
        zero_point: The integer that stands for 0.0.
        signature: Shape that the file declares, None in it for an axis of any size; None where the interpreter does not say.
    """

    name: str
    index: int
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int = 0
    signature: tuple[int | None, ...] | None = None

    def quantize(self, values):
        """Turns real values into the tensor's type: round(value / scale) + zero point, clipped to the type's range.

        Args:
            values: Array (samples, ...) of real numbers, or of the tensor's own type already, which is passed through.

        Returns:
            Array of type `dtype`.

        Raises:
            DataError: for NaN or infinity where the tensor holds integers, which have no value for it.
        """
        values = np.asarray(values)
        if values.dtype == self.dtype:
            return np.ascontiguousarray(values)
        if np.dtype(self.dtype).kind in "iu" and values.dtype.kind == "f":
            self._require_finite(values)
        if self.scale is None:
            return np.ascontiguousarray(values, dtype=self.dtype)
        limits = np.iinfo(self.dtype)
        with np.errstate(over="ignore"):  # beyond float64 it is clipped like everything beyond the type
            steps = np.round(values.astype(np.float64) / self.scale) + self.zero_point
        return np.clip(steps, limits.min, limits.max).astype(self.dtype)

    def dequantize(self, values):
        """Turns the tensor's integers into real values, (q - zero point) * scale in float32; other types are passed through."""
        if self.scale is None:
            return np.asarray(values)
        with np.errstate(over="ignore"):  # beyond float32 it is infinity
            return ((np.asarray(values).astype(np.float64) - self.zero_point) * self.scale).astype(np.float32)

    def _require_finite(self, values):
        # A sum is finite only if all its terms are; it costs no second array. One that overflows is looked at again.
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(values.sum(dtype=np.float64)):
                return
        wrong = ~np.isfinite(values)
        if not wrong.any():
            return
        first = tuple(int(i) for i in np.argwhere(wrong)[0])
        what = "NaN" if np.isnan(values[first]) else "infinity"
        where = f"sample {first[0]} (index {list(first)})" if first else "its only value"
        raise DataError(
            f"Input '{self.name}' holds {what}: {int(wrong.sum())} of {values.size} values; the first at {where}.",
            f"finite numbers, as {self.dtype} has no integer for it",
        )


def named_tensors(interpreter, side):
    """Lists the inputs or outputs of an allocated interpreter under the names of its signature.

    Args:
        interpreter: The interpreter.
        side: `"input"` or `"output"`.

    Returns:
        Dict of name -> `TensorInfo`.
    """
    details = {int(d["index"]): d for d in getattr(interpreter, f"get_{side}_details")()}
    return {name: _info(name, details[index]) for name, index in tensor_names(interpreter, side, details).items()}


def tensor_names(interpreter, side, indices):
    """Returns a dict of name -> index: the names of the signature that covers `indices`, else the tensors' own."""
    for key in interpreter.get_signature_list():
        runner = interpreter.get_signature_runner(key)
        named = {name: int(d["index"]) for name, d in getattr(runner, f"get_{side}_details")().items()}
        del runner  # it holds the interpreter, which refuses to allocate meanwhile
        if set(named.values()) == set(indices):
            return named
    # No signature, or none of the main graph: the tensors' own names.
    return {d["name"]: int(d["index"]) for d in getattr(interpreter, f"get_{side}_details")()}


def _info(name, detail):
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
        seed: None for zeros. A number for floats in [0, 1), quantized integers of their whole range, and zeros for other types, which are valid indices.

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
