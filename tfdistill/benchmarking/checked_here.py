"""What this machine adds to the record of another device: the work of one run, and how far the device's outputs are from those of the CPU here."""

import numpy as np

from tfdistill.benchmarking.isolation import CrashError, run_child
from tfdistill.utils.files import temporary_folder

_TIMEOUT_SECONDS = 90


def checked_here(request, arrays):
    """Runs a file here, in a process of its own, on the inputs that another device ran it on.

    Args:
        request: Dict of `path`, `target` and `shapes`, as the measuring process takes it.
        arrays: Dict of `given`, `first` and `last`, each a dict of name -> array of the tensor's type: inputs and outputs of the device's runs. None where it does not send
            them; then nothing is compared.

    Returns:
        The fields of the record: `macs`, `moved_bytes`, `compute_type` and those of `truth.compared`. None of them where the file does not run here.

    Raises:
        BenchmarkError: if the device's outputs have other names or shapes than the file's, or are NaN or infinite where those here are finite.
    """
    with temporary_folder() as folder:
        named = {}
        for part, values in (arrays or {}).items():
            named[part] = {name: f"{part}_{number}" for number, name in enumerate(values)}
            np.savez(folder / f"{part}.npz", **{named[part][name]: array for name, array in values.items()})
        asked = {name: request[name] for name in ("path", "target", "shapes")}
        try:
            return run_child(
                {**asked, "folder": str(folder), "names": named},
                _TIMEOUT_SECONDS,
                "tfdistill.benchmarking.checked_here_child",
                "comparing with the CPU here",
            )
        except CrashError:
            return {}  # what runs there need not run here
