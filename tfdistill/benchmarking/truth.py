"""Checks of a benchmark: that the accelerator did the work, and that what was timed computes what the CPU computes."""

import numpy as np

from tfdistill.errors import BenchmarkError, DelegationError, TfdistillError
from tfdistill.runtime.interpreter import open_file

# What the outputs are compared with: the first of these that runs the file. An int8 file may differ by one step between two sets of kernels on the CPU alone.
_REFERENCES = ("builtin", "xnnpack")
# So many kinds of operations are named in an error.
_MOST_NAMED = 12


def require_delegated(target, model):
    """Refuses a run in which an accelerator does not do the work, before it is timed.

    Args:
        target: The target.
        model: What it opened.

    Returns:
        The `Delegation`; None in an old interpreter, which cannot list its operations.

    Raises:
        DelegationError: if operations stay on the CPU that the target has to run; the message names them.
    """
    found = model.delegation()
    if not target.accelerator or found.delegated == found.operations or (target.allow_partial and found.delegated):
        return found
    left = list(found.named_left().items())
    named = ", ".join(f"{count} {name}" for name, count in left[:_MOST_NAMED]) + (", and others" if len(left) > _MOST_NAMED else "")
    reasons = getattr(model, "said", None)
    said = reasons.reasons() if reasons else ""
    raise DelegationError(
        f"{target.describe()} does not run {found.operations - found.delegated} of the {found.operations} operations of '{model.path}': {named}. "
        "They would run on the CPU." + (f"\nThe runtime said:\n{said}" if said else ""),
        "a file that the target runs whole",
        f"measure both together with {type(target).__name__}(..., allow_partial=True), which reports the share"
        if found.delegated
        else None,
    )


def delegation_fields(target, found):
    """Returns the fields of the record that say where the operations ran.

    Args:
        target: The target.
        found: The `Delegation`, or None.
    """
    if found is None:
        return {}
    return {
        "operations": found.operations,
        "delegated_operations": found.delegated,
        "partitions": found.partitions,
        "left_operations": found.named_left(),
        "accelerator_proven": found.delegated > 0 if target.accelerator else None,
    }


class Watched:
    """An opened model that keeps the inputs and outputs of its runs: what is compared are the outputs of the runs that were timed.

    Everything but `runner` is that model's own.

    Attributes:
        given: The inputs of the runs, dict of name -> array; None before there is a `runner`.
    """

    def __init__(self, model):
        self._model, self.given, self._first, self._last = model, None, None, None

    def __getattr__(self, name):
        return getattr(self._model, name)

    def runner(self, arrays):
        """Returns a function of no arguments that copies one batch in, runs the file and copies every output out, which is when the work is certainly done.

        Args:
            arrays: Dict of name -> array of the tensor's type and shape.

        Returns:
            The function. It returns the outputs as a list, in the order of `outputs`. All that it adds to the time of a run is that it keeps them.
        """
        self.given = arrays
        run_once = self._model.runner(arrays) if hasattr(self._model, "runner") else self._plain_runner(arrays)

        def run():
            self._last = found = run_once()
            if self._first is None:
                self._first = found
            return found

        return run

    def _plain_runner(self, arrays):
        model = self._model

        def run():
            model.set_inputs(arrays)
            model.invoke()
            return list(model.read_outputs().values())

        return run

    @property
    def first(self):
        """The outputs of the first run, dict of name -> array."""
        return dict(zip(self.outputs, self._first, strict=True))

    @property
    def last(self):
        """The outputs of the last run."""
        return dict(zip(self.outputs, self._last, strict=True))


def compared(request, target, watched):
    """Runs the same file on the CPU, on the inputs of the timed runs, and compares.

    A target's own kernels are not compared with themselves, but those of another device with the same ones here.

    Args:
        request: The request of the measuring process.
        target: The target.
        watched: The `Watched` model, which ran all its runs on the same inputs; or anything that has `given`, `first` and `last`.

    Returns:
        The fields of the record; empty if no kernels of the CPU run the file.

    Raises:
        BenchmarkError: if the outputs have other shapes than the reference's, or are NaN or infinite where that is finite.
    """
    own = getattr(target, "kernels", None) if not target.accelerator else None
    if target.remote:
        references = dict.fromkeys((own or _REFERENCES[0], *_REFERENCES))
    else:
        references = dict.fromkeys(kernels for kernels in _REFERENCES if kernels != own)
    for kernels in references:
        try:
            model = open_file(request["path"], kernels=kernels, shapes=request.get("shapes"), trusted=True)
            one, two = _run(model, watched.given), _run(model, watched.given)
        except TfdistillError:
            continue
        # A file with a state computes something else in each run: then the first is compared with the first.
        keeps_state = any(not np.array_equal(one[name], two[name], equal_nan=one[name].dtype.kind == "f") for name in one)
        return {"reference_kernels": kernels, **differences(watched.first if keeps_state else watched.last, one, model.outputs)}
    return {}


def differences(outputs, reference, infos):
    """Returns the largest differences between outputs and those of the reference.

    Args:
        outputs: Dict of name -> array.
        reference: The same of the reference.
        infos: Dict of name -> `TensorInfo` of the reference.

    Returns:
        Dict of `reference_max_abs_error`, in real values, and `reference_max_steps`, of integers, each None if there is no such output.

    Raises:
        BenchmarkError: if the names or shapes differ, or outputs are NaN or infinite where the reference is finite.
    """
    if set(outputs) != set(reference):
        raise BenchmarkError(f"The timed run has the outputs {sorted(outputs)}, the same file on the CPU {sorted(reference)}.")
    errors, steps = [], []
    for name, expected in reference.items():
        found = outputs[name]
        if found.shape != expected.shape or found.dtype != expected.dtype:
            raise BenchmarkError(
                f"Output '{name}' of the timed run is {found.dtype} of shape {found.shape}, that of the same file on the CPU {expected.dtype} of shape "
                f"{expected.shape}."
            )
        if expected.dtype.kind not in "fiub" or not expected.size:
            continue
        if expected.dtype.kind in "iu":
            steps.append(int(np.abs(found.astype(np.int64) - expected.astype(np.int64)).max()))
        errors.append(_largest(name, infos[name].dequantize(found), infos[name].dequantize(expected)))
    return {"reference_max_abs_error": max(errors, default=None), "reference_max_steps": max(steps, default=None)}


def _largest(name, found, expected):
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    wrong = np.isfinite(expected) & ~np.isfinite(found)
    if wrong.any():
        raise BenchmarkError(
            f"Output '{name}' of the timed run is NaN or infinite in {int(wrong.sum())} of {wrong.size} values that are finite on the CPU: the target computes "
            "something else."
        )
    both = np.isfinite(expected) & np.isfinite(found)
    return float(np.abs(found[both] - expected[both]).max(initial=0.0))


def _run(model, inputs):
    model.set_inputs(inputs)
    model.invoke()
    return model.read_outputs()
