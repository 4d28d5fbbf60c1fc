"""Answers the requests of `tfdistill.benchmarking.Ssh` on this board: the record of a measurement, or the outputs of a file for given inputs."""

import base64
import json
import os
import pathlib

import benchmark
import errors
from errors import KitError

# An array is sent in parts of about this many bytes.
_PART_BYTES = 1 << 20


def send_outputs(request, send):
    """Runs a file on the inputs of a request and sends its outputs as `{"array": name, ...}`, some samples at a time.

    Args:
        request: Dict of `file`, `threads`, `kernels`, `shapes`, and `inputs`: input name -> .npy file of (samples, ...).
        send: Function that sends a dict.
    """
    import numpy as np
    import runtime

    model = runtime.Model(request["file"], request["threads"], request["kernels"], request.get("shapes"))
    arrays = {name: np.load(path, allow_pickle=False) for name, path in request["inputs"].items()}
    if list(arrays) == [""] and len(model.inputs) == 1:  # a single array, for the only input
        arrays = dict(zip(model.inputs, arrays.values()))
    if set(arrays) != set(model.inputs):
        raise KitError(f"The inputs {sorted(arrays)} do not fit the file, which has {sorted(model.inputs)}.")
    for name, tensor in model.inputs.items():
        if arrays[name].ndim == 0 or arrays[name].shape[1:] != tensor.shape[1:] or not len(arrays[name]):
            raise KitError(f"Input '{name}' was given the shape {arrays[name].shape}; the file takes (samples, *{tensor.shape[1:]}).")
    counts = {len(array) for array in arrays.values()}
    if len(counts) > 1:
        raise KitError(f"The inputs have different numbers of samples: {sorted(counts)}.")
    count, batch = counts.pop(), next(iter(model.inputs.values())).shape[0]
    waiting, done = {name: [] for name in model.outputs}, 0
    while done < count:
        part = {name: array[done : done + batch] for name, array in arrays.items()}
        size = len(next(iter(part.values())))
        if size < batch:  # filled up with copies of the last sample, whose outputs are dropped
            part = {name: np.concatenate([array, np.repeat(array[-1:], batch - size, axis=0)]) for name, array in part.items()}
        for name, values in model.run(part).items():
            waiting[name].append(values[:size] if values.shape[:1] == (batch,) else values[None])
        done += size
        if done == count or sum(array.nbytes for arrays_of in waiting.values() for array in arrays_of) > _PART_BYTES:
            for name, several in waiting.items():
                _send_array(name, np.concatenate(several), send)
                several.clear()
            send({"done": done, "of": count})


def _send_array(name, values, send, **more):
    data = base64.b64encode(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()).decode()
    send({"array": name, "dtype": values.dtype.name, "shape": list(values.shape), "data": data, **more})


def answer(request, send):
    """Does what a request of `tfdistill.benchmarking.Ssh` asks for.

    Args:
        request: Dict of `task`, `measure` or `outputs`, and its arguments.
        send: Function that sends a dict.
    """
    if request["task"] == "outputs":
        send_outputs(request, send)
        return
    kept = {}
    record = benchmark.measure_file(request["file"], request["threads"], request["kernels"], request["timing"], request.get("shapes"), kept)
    send({"record": record})  # sent now, as what follows may crash
    for part, arrays in kept.items():
        for name, values in arrays.items():
            _send_array(name, values, send, part=part)
    send({"record": {**record, "arena_bytes": benchmark.measure_arena(request["file"], request.get("shapes"))}})


def serve_request(path, descriptor):
    """Answers the request in a file with lines of JSON."""

    def send(message):
        data = memoryview(json.dumps(message).encode() + b"\n")
        while data:
            data = data[os.write(descriptor, data) :]

    try:
        errors.require_numpy()
        answer(json.loads(pathlib.Path(path).read_text(encoding="utf-8")), send)
    except KitError as error:
        send({"error": error.happened, "fix": error.fix})
    except MemoryError as error:
        send({"error": f"The memory of the board does not suffice: {error}", "fix": None})
