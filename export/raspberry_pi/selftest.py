"""Runs the test vectors of the kit on this board and compares its outputs with those that the desk computed.

python3 selftest.py
"""

import argparse
import pathlib

import errors
from errors import KitError

# Where model.json names no tolerance: integers to the bit, and floats as far as other processors round otherwise.
_FLOAT_TOLERANCE = 2e-6
# This runtime computes integers with its built-in kernels, which may differ by a step from XNNPACK's, that newer ones use. They are equal to the bit to the built-in
# kernels of newer runtimes: outputs of those may stand in model.json as well, as `outputs_builtin`.
_OLD = "tflite_runtime"


def main():
    """Runs the test."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None, help="the .tflite file (default: model.tflite beside this program)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    given = parser.parse_args()
    errors.require_numpy()
    results = run(given.model, given.threads)
    for result in results:
        print(f"vector {result['vector']}, output '{result['output']}': {result['said']}")
    failed = [result for result in results if not result["passed"]]
    print(f"self-test {'FAILED' if failed else 'passed'}: {len(results) - len(failed)} of {len(results)} outputs as on the desk")
    return int(bool(failed))


def run(path=None, threads=1):
    """Runs all test vectors.

    Args:
        path: The .tflite file; None is the one beside this program.
        threads: CPU threads.

    Returns:
        List of dicts with `vector`, `output`, `passed`, `said`, and the largest difference as `steps` (integers) or `abs`.

    Raises:
        KitError: if there are no vectors, or they are those of another model.
    """
    import runtime
    from classifier import HERE
    from description import Description

    description = Description(path or HERE / "model.tflite")
    description.require_same_model()
    vectors = description.known.get("vectors") or []
    if not vectors:
        raise KitError(f"There are no test vectors beside '{description.path}'.", "make the kit with tfdistill kit, which makes them")
    kernels = (description.known.get("made_with") or {}).get("kernels", "xnnpack")
    model = runtime.Model(description.path, threads, kernels if kernels in runtime.KERNELS else "xnnpack")
    tolerance = description.known.get("tolerance") or {}
    results = []
    for number, vector in enumerate(vectors):
        side = "outputs_builtin" if model.engine == _OLD and "outputs_builtin" in vector else "outputs"
        expected, found = _computed(model, description, vector, side)
        for name in expected:
            allowed = dict(tolerance.get(name) or {})
            if model.engine == _OLD and side == "outputs" and kernels == "xnnpack":
                allowed["steps"] = max(1, allowed.get("steps", 0))
            results.append({"vector": number, "output": name, **_compared(found[name], expected[name], allowed)})
    return results


def _computed(model, description, vector, side):
    """Runs one vector, whose outputs stand under `side`; returns (expected, found), dicts of output name -> array (steps, ...)."""
    import numpy as np
    from classifier import States

    folder, steps, states = description.path.parent, int(vector.get("steps", 1)), States(model, description)
    inputs = {name: _read(folder, file, model.inputs.get(name), steps, name) for name, file in vector["inputs"].items()}
    expected = {name: _read(folder, file, model.outputs.get(name), steps, name) for name, file in vector[side].items()}
    found = {name: [] for name in expected}
    model.reset()
    for step in range(steps):
        given = states.with_states({name: array[step] for name, array in inputs.items()})
        missing = set(model.inputs) - set(given)
        if missing:
            raise KitError(f"The test vector has no value for the inputs {sorted(missing)}.", "make the kit again with tfdistill kit")
        model.set_inputs(given)
        model.invoke()
        outputs = model.read_outputs()
        states.keep(outputs)
        for name in found:
            found[name].append(outputs[name])
    return expected, {name: np.stack(arrays) for name, arrays in found.items()}


def _read(folder, file, tensor, steps, name):
    import numpy as np

    if tensor is None:
        raise KitError(f"The test vector names '{name}', which is no tensor of the model.", "make the kit again with tfdistill kit")
    path = pathlib.Path(folder, file)
    try:
        values = np.frombuffer(path.read_bytes(), np.dtype(tensor.dtype).newbyteorder("<")).astype(tensor.dtype)
        return values.reshape(steps, *tensor.shape)
    except (OSError, ValueError) as error:
        raise KitError(f"The test vector '{path}' cannot be read: {error}.", "copy the whole kit, with its folder vectors") from error


def _compared(found, expected, tolerance):
    import numpy as np

    if expected.dtype.kind in "iub":
        worst = int(np.abs(found.astype(np.int64) - expected.astype(np.int64)).max(initial=0))
        allowed = tolerance.get("steps", 0)
        said = "equal to the bit" if worst == 0 else f"{worst} steps apart, {allowed} are allowed"
        return {"steps": worst, "passed": worst <= allowed, "said": said}
    same = (np.isnan(found) & np.isnan(expected)) | (found == expected)
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(found.astype(np.float64) - expected.astype(np.float64)))
    worst = float("inf") if np.isnan(apart).any() else float(apart.max(initial=0))
    allowed = tolerance.get("abs", _FLOAT_TOLERANCE)
    said = "equal to the bit" if worst == 0 else f"{worst:.3g} apart, {allowed:.3g} are allowed"
    return {"abs": worst, "passed": worst <= allowed, "said": said}


if __name__ == "__main__":
    errors.run(main)
