"""The process that runs a file in tflite-micro for `tfdistill.runtime.micro_arena`."""

import importlib
import io
import json
import os
import pathlib
import sys

import numpy as np

_STEP, _LARGEST = 16, 1 << 28


def main(result_fd):
    """Runs the request, a line of JSON on standard input; writes a line of JSON, then the outputs as an .npz file."""
    request, arrays = json.loads(sys.stdin.readline()), []
    try:
        answer, arrays = _run(pathlib.Path(request["folder"]), request["shapes"], request["states"], request["outputs"])
    except Exception as error:  # the exception class depends on the native code
        answer = {"error": f"{type(error).__name__}: {error}"}
    buffer = io.BytesIO()
    np.savez(buffer, *arrays)
    with os.fdopen(result_fd, "wb") as result:
        result.write(json.dumps(answer).encode() + b"\n" + buffer.getvalue())


def _run(folder, shapes, states, outputs):
    make = importlib.import_module("tflite_micro").runtime.Interpreter.from_bytes
    content = (folder / "model.tflite").read_bytes()
    with np.load(folder / "inputs.npz") as loaded:
        flat = iter([loaded[f"arr_{i}"] for i in range(len(loaded.files))])
    sequences = [[[next(flat) for _ in range(count)] for count in sequence] for sequence in shapes]
    arena, found = _smallest_arena(lambda size: _once(make(content, arena_size=size), sequences[0][0], outputs)), []
    for sequence in sequences:
        interpreter, held = make(content, arena_size=arena), {}
        for inputs in sequence:
            made = _once(interpreter, [held.get(index, array) for index, array in enumerate(inputs)], outputs)
            held = {read: made[written] for read, written in states}
            found += made
    interpreter.print_allocations()
    return {"arena_bytes": arena}, found


def _once(interpreter, inputs, outputs):
    for index, array in enumerate(inputs):
        interpreter.set_input(array, index)
    interpreter.invoke()
    return [np.array(interpreter.get_output(index)) for index in range(outputs)]


def _smallest_arena(run):
    """Returns the smallest size with which a run succeeds; what is wrong in the largest is raised."""
    high = 1 << 14
    while not _succeeds(run, high):
        if high >= _LARGEST:
            run(high)
        high *= 2
    low = 0
    while high - low > _STEP:
        middle = (low + high) // 2 // _STEP * _STEP
        low, high = (low, middle) if _succeeds(run, middle) else (middle, high)
    return high


def _succeeds(run, size):
    """Whether a run succeeds, tried in a process of its own: in an arena that is too small tflite-micro can crash."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            run(size)
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0
