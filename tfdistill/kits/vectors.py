"""Test vectors of a kit: inputs, and the outputs that the file gave for them here. Every kit runs them on the device and compares."""

import math

import numpy as np

from tfdistill.errors import ConfigurationError, DataError
from tfdistill.kits.description import real_range
from tfdistill.runtime.interpreter import open_file
from tfdistill.runtime.tensors import TensorInfo

COUNT = 3
# Runs of a file with states in one vector: the states begin at zero, and each run gets those of the one before.
STEPS_WITH_STATES = 4
_LIKE_IMAGES = 4  # the sides of the coarse grid of which made-up images are made, so that they have edges and areas
# Operations of integers whose results LiteRT's kernels for x86 and Arm give equal to the bit (measured: Cortex-A53, A72 and A76).
_EXACT = frozenset(
    {
        *("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "AVERAGE_POOL_2D", "MAX_POOL_2D", "MEAN", "ADD"),
        *(
            "RESHAPE",
            "SQUEEZE",
            "EXPAND_DIMS",
            "PAD",
            "PADV2",
            "CONCATENATION",
            "SLICE",
            "STRIDED_SLICE",
            "TRANSPOSE",
            "PACK",
            "UNPACK",
            "SPLIT",
        ),
        *("RELU", "RELU6", "QUANTIZE", "DEQUANTIZE"),
    }
)
_ACTIVATIONS = frozenset({"SOFTMAX", "LOGISTIC", "TANH"})
# Largest differences of floats between processors that were measured are 2e-6 and 2e-3; both with some room, and as a share of outputs above 1.
_FLOAT, _DYNAMIC = 1e-5, 5e-3


class LiteRT:
    """Runs vectors in LiteRT.

    Attributes:
        kernels: Name of the kernels, as model.json has it.
        least_steps: How many steps integers may be off at least, whatever the operations.
    """

    kernels, least_steps = "xnnpack", 0

    def __init__(self, file, description, kernels=kernels):
        self._opened, self._description = open_file(file, kernels=kernels), description

    def run(self, sequences):
        """Runs sequences, each from states of zero.

        Args:
            sequences: List of dicts of input name -> array (runs, *shape), states left out.

        Returns:
            List of dicts of output name -> array (runs, *shape), states left out.
        """
        return [self._run(inputs) for inputs in sequences]

    def _run(self, inputs):
        opened, states = self._opened, {pair["input"]: pair["output"] for pair in self._description["states"]}
        opened.reset()
        held = {name: zero_state(tensor) for name, tensor in _by_name(self._description["inputs"]).items() if name in states}
        made = {name: [] for name in opened.outputs if name not in states.values()}
        for step in range(len(next(iter(inputs.values())))):
            opened.set_inputs({**{name: array[step] for name, array in inputs.items()}, **held})
            opened.invoke()
            outputs = opened.read_outputs()
            held = {name: np.array(outputs[output]) for name, output in states.items()}
            for name in made:
                made[name].append(np.array(outputs[name]))
        return {name: np.stack(values) for name, values in made.items()}


def zero_state(tensor):
    """Returns the array that a state begins with: the real value 0."""
    return np.full(tensor["shape"], tensor["zero_point"] or 0, tensor["dtype"])


def made_vectors(description, samples, run, run_builtin=None):
    """Makes the vectors of a kit.

    Args:
        description: The `Description`, in which the vectors are written down.
        samples: Array (samples, ...) of real values, or dict of input name -> array, whose first samples the vectors are made of; None for made-up ones.
        run: As `LiteRT.run`.
        run_builtin: The same with LiteRT's own kernels, whose outputs older runtimes give; None leaves these out.

    Returns:
        Dict of output name -> largest absolute value.

    Raises:
        DataError: if samples do not fit, or the file makes NaN or infinity.
    """
    stateful, largest = bool(description["states"]), {}
    steps = STEPS_WITH_STATES if stateful else 1
    sources = {tensor["name"]: tensor for tensor in description["inputs"] if tensor["kind"] != "state"}
    given = _made_up(sources, steps, description["sha256"]) if samples is None else _of_samples(sources, samples, steps)
    sequences = [{name: array[number * steps : (number + 1) * steps] for name, array in given.items()} for number in range(COUNT)]
    ran = zip(sequences, run(sequences), run_builtin(sequences) if run_builtin else [None] * COUNT, strict=True)
    for number, (inputs, outputs, builtin) in enumerate(ran):
        vector = {"inputs": {}, "outputs": {}, "steps": steps}
        sides = {"inputs": inputs, "outputs": outputs, **({"outputs_builtin": builtin} if builtin else {})}
        for side, arrays in sides.items():
            for index, (name, array) in enumerate(arrays.items()):
                path = f"vectors/{number}_{_file_name(name, side, index)}{'_builtin' if side == 'outputs_builtin' else ''}.bin"
                vector.setdefault(side, {})[name] = path
                little = array.astype(array.dtype.newbyteorder("<"))
                description.vectors[path] = little.tobytes()
        for name, array in outputs.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise DataError(
                    f"Output '{name}' of the file is not finite for vector {number}.", "finite outputs", "give samples= of real data"
                )
            largest[name] = max(largest.get(name, 0.0), float(np.abs(array.astype("float64")).max(initial=0.0)))
        description["vectors"].append(vector)
    return largest


def tolerances(description, report, largest, least_steps=0):
    """Returns how far a device may be from the vectors: dict of output name -> {"steps": ...} for integers, {"abs": ...} for floats.

    Args:
        description: The `Description`.
        report: The `FileInspection`.
        largest: Dict of output name -> largest absolute value in the vectors.
        least_steps: As in `LiteRT`.
    """
    found, names = {}, {operation.name for operation in report.operations}
    kinds = {operation.kind for operation in report.operations}
    floats = kinds - {"int8", "uint8", "int16", "int32", "int64", "bool"}
    floats = {operation.kind for operation in report.operations if operation.name not in ("QUANTIZE", "DEQUANTIZE")} & floats
    for tensor, place in zip(description["outputs"], description.layout["outputs"], strict=True):
        if tensor["kind"] == "state":
            continue
        steps = least_steps if names <= _EXACT else max(1, least_steps)
        # Where what a softmax reads may be off by a step, it may be off by more.
        if (least_steps or names - _EXACT - _ACTIVATIONS) and place["logit_step"] and tensor["scale"]:
            steps = logit_steps(place["logit_step"], tensor["scale"])
        if tensor["dtype"] in ("float32", "float16"):
            share = _DYNAMIC if "dynamic" in floats else _FLOAT
            rounding = share * max(1.0, largest[tensor["name"]])
            exact = not floats and place["step"]
            found[tensor["name"]] = {"abs": steps * place["step"] + 1e-6 * max(1.0, largest[tensor["name"]]) if exact else rounding}
        else:
            found[tensor["name"]] = {"steps": steps}
    return found


def logit_steps(logit_step, scale):
    """Returns by how many steps a softmax's output moves at most when each of its logits moves by one step; the slope of a softmax is 1/4 at most for each of two."""
    return max(1, math.ceil(0.5 * logit_step / scale))


def _by_name(tensors):
    return {tensor["name"]: tensor for tensor in tensors}


def _file_name(name, side, index):
    """Returns a name for a file: names of tensors may have slashes, and two may differ in what is left out."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in name)[:40]
    return plain if plain == name else f"{side[:-1]}{index}_{plain}"


def _info(tensor):
    return TensorInfo(tensor["name"], 0, tuple(tensor["shape"]), tensor["dtype"], tensor["scale"], tensor["zero_point"] or 0)


def _made_up(sources, steps, seed):
    generator = np.random.default_rng(int(seed[:8], 16))
    return {name: _info(tensor).quantize(_values(tensor, COUNT * steps, generator)) for name, tensor in sources.items()}


def _values(tensor, count, generator):
    """Makes real values for an input: images of smooth areas and noise, numbers over the range of integers, else from -1 to 1. Integers without a scale may be
    indices, of which only 0 is sure to be there."""
    shape = (count, *tensor["shape"])
    if tensor["kind"] == "image":
        pixels = _images(shape, generator)
        how = tensor["normalization"]
        return pixels if how is None else (pixels - np.array(how["mean"])) / np.array(how["std"])
    if tensor["dtype"] in ("float32", "float16"):
        return generator.uniform(-1.0, 1.0, shape).astype(tensor["dtype"])
    if tensor["scale"] is None:
        return np.zeros(shape, tensor["dtype"])
    low, high = real_range(tensor)
    return generator.uniform(low, high, shape)


def _images(shape, generator):
    """Returns pixels from 0 to 255: (count, batch, height, width, channels)."""
    height, width = shape[2:4]
    coarse = generator.uniform(0, 255, (*shape[:2], _LIKE_IMAGES, _LIKE_IMAGES, shape[-1]))
    rows, columns = (np.minimum(np.arange(n) * _LIKE_IMAGES // n, _LIKE_IMAGES - 1) for n in (height, width))
    areas = coarse[:, :, rows][:, :, :, columns]
    return np.clip(np.round(areas + generator.normal(0, 12, shape)), 0, 255)


def _of_samples(sources, samples, steps):
    if not isinstance(samples, dict):
        if len(sources) != 1:
            raise ConfigurationError(
                f"samples is one array, but the file has the inputs {list(sources)}.",
                "a dict of input name -> array",
                "write samples={name: array, ...}",
            )
        samples = {next(iter(sources)): samples}
    if set(samples) != set(sources):
        raise DataError(f"samples has {sorted(samples)}.", f"exactly {sorted(sources)}")
    found = {}
    for name, tensor in sources.items():
        array, shape = np.asarray(samples[name]), tuple(tensor["shape"])
        if array.shape[1:] != shape[1:] or len(array) < COUNT * steps * shape[0]:
            raise DataError(f"samples of '{name}' have the shape {array.shape}.", f"({COUNT * steps * shape[0]} or more, *{shape[1:]})")
        array = array[: COUNT * steps * shape[0]].reshape(COUNT * steps, *shape)
        found[name] = _info(tensor).quantize(array)
    return found
