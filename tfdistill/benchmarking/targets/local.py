"""What targets on this machine have in common."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tfdistill.utils.types import PathLike


class Local:
    """A target on this machine: files are opened on it in a process of their own."""

    remote: ClassVar[bool] = False

    def outputs(
        self, path: PathLike, inputs: Any, *, shapes: Mapping[str, Sequence[int]] | None = None, timeout_seconds: float = 600.0
    ) -> dict[str, Any]:
        """Runs a .tflite file on given inputs, in a process of its own, and returns its outputs.

        Args:
            path: The file.
            inputs: Dict of input name -> array (samples, ...) of real values, or of the tensor's type. A single array for a file with one input.
            shapes: Dict of input name -> full shape, batch included, to resize these inputs to.
            timeout_seconds: The process is ended after this time, above 0.

        Returns:
            Dict of output name -> array (samples, ...), dequantized to float32 if the tensor is quantized.

        Raises:
            ConfigurationError: if there is no such file.
            DelegationError: if an accelerator leaves operations to the CPU.
            BenchmarkError: if the file does not run on the target, or ends the process.
        """
        from tfdistill.benchmarking.outputs import run_samples  # it knows the targets

        return run_samples(path, self, inputs, shapes, timeout_seconds)
