"""Whether a file has the weights of 4 bits that its variant promises."""

from tfdistill.convert.census import census
from tfdistill.convert.variants import VARIANTS
from tfdistill.errors import ExportError, RuntimeUnavailableError
from tfdistill.runtime.interpreter import open_file

# The variant of float arithmetic of which the converter makes the file that litert-quantizer edits.
FLOATS = VARIANTS["int4_weights"]


def require_four_bits(temporary, path, variant, opens):
    """Checks a file whose variant promises weights of 4 bits: settings that litert-quantizer does not take leave weights in float without a word.

    Args:
        temporary: The file.
        path: The name that it will have, for the errors.
        variant: Its `Variant`.
        opens: Whether another process is to open and run it first: what other packages have edited may end the process that opens it.

    Raises:
        ExportError: if no weights have 4 bits, or the interpreter does not open the file.
    """
    kernels = census(temporary, True).kernels
    if not any(kernel.bits == 4 for kernel in kernels):
        found = ", ".join(f"{kernel.operation} {kernel.dtype}" for kernel in kernels[:5]) or "no weights at all"
        raise ExportError(
            f"'{path}' should hold weights of 4 bits, but has none: {found}.",
            "a model with convolutions or dense layers, not depthwise ones, whose weights can have 4 bits",
            "export it as int8" if variant.integer_only else "export it as dynamic_range, whose weights have 8 bits",
        )
    if opens:
        try:
            open_file(temporary)
        except RuntimeUnavailableError as error:
            raise ExportError(
                f"'{path}', as litert-quantizer wrote it, does not run: {error.happened}",
                "a file that LiteRT runs",
                "export it as int8" if variant.integer_only else "export it as dynamic_range, whose weights have 8 bits",
            ) from error
