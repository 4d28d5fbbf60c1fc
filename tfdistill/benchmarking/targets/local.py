"""What targets on this machine have in common."""

from collections.abc import Mapping, Sequence
from typing import Any

from tfdistill.utils.types import PathLike


class Local:
    """A target on this machine: files are opened on it in a process of their own."""

    def answers(self, path: PathLike, inputs: Mapping[str, Any], shapes: Mapping[str, Sequence[int]] | None = None) -> dict[str, Any]:
        """Runs a .tflite file on samples, in a process of its own.

        Args:
            path: The file.
            inputs: Dict of input name -> array (samples, ...) of real values, or of the tensor's type.
            shapes: Dict of input name -> full shape, batch included, to resize these inputs to.

        Returns:
            Dict of output name -> array (samples, ...), dequantized to float32 if the tensor is quantized.

        Raises:
            DelegationError: if an accelerator leaves operations to the CPU.
            BenchmarkError: if the file does not run on the target, or ends the process.
        """
        from tfdistill.benchmarking.answers import answers  # it knows the targets

        return answers(path, self, inputs, shapes)
