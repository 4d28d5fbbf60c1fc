"""Opens a file on a target in a process that times it: the one way of all processes but the first, which also examines the file."""

from tfdistill.benchmarking import pinning
from tfdistill.benchmarking.targets.base import from_spec
from tfdistill.benchmarking.truth import require_delegated


def open_to_time(spec, path, shapes=None, cores=None):
    """Pins the process and opens a file.

    Args:
        spec: The target, as `targets.to_spec` describes it.
        path: The file.
        shapes: Dict of input name -> full shape, or None.
        cores: Numbers of the cores, or None.

    Returns:
        The opened model.

    Raises:
        ConfigurationError: if the process cannot be pinned to these cores.
        TfdistillError: if the target cannot open the file, or leaves operations to the CPU that it has to run.
    """
    pinning.pin(cores)
    target = from_spec(spec)
    model = target.open(path, shapes)
    require_delegated(target, model)
    return model
