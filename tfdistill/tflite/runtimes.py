"""Whether a runtime on devices runs a file."""

from tfdistill.convert.layer_operations import DENSE_OF_FOUR_BITS
from tfdistill.errors import ExportError
from tfdistill.runtime.operations import TYPES, operation_table
from tfdistill.runtime.versions import runtime_versions
from tfdistill.tflite.inspection.contents import read_contents

# Runtimes that compute a dense layer of floats with 8-bit weights, in the variant dynamic_range, with one scale for all of them only.
ONE_SCALE_FOR_DENSE = ("tflite-runtime-2.14",)
# Runtime -> the target whose table says which types its operations have, where versions do not.
TARGETS_OF_RUNTIMES = {"tflite-micro": "micro"}
# Weights of 4 bits that become floats. Measured: both runtimes multiply integers with weights of 4 bits, in dense layers with one scale for all outputs, and neither
# makes floats of them.
WEIGHTS_OF_FLOATS = "int4"


def refused_by(runtime, operations):
    """Lists what a runtime does not have.

    Args:
        runtime: One of `tfdistill.runtime.versions.RUNTIMES`.
        operations: The operations that `read_contents` found.

    Returns:
        Tuple of texts such as `FULLY_CONNECTED version 12 (up to 10 there)`, in the order of the file, each once.
    """
    versions, table = runtime_versions(runtime), TARGETS_OF_RUNTIMES.get(runtime)
    found = {}
    for row in operations:
        reason = versions.refuses(row["name"], row["version"])
        left = table and row["kind"] in TYPES and operation_table(table).leaves(row["form"], row["kind"])
        if reason is None and (left or row["kind"] == WEIGHTS_OF_FLOATS):
            reason = f"{row['name']} of {row['kind']}"
        elif reason is None and row["form"] == DENSE_OF_FOUR_BITS:
            reason = DENSE_OF_FOUR_BITS
        if reason:
            found.setdefault(reason)
    return tuple(found)


def require_runs_in(runtime, content, path):
    """Checks that a runtime has the operations of a file.

    Args:
        runtime: One of `tfdistill.runtime.versions.RUNTIMES`.
        content: The file as bytes.
        path: Its name, for the error.

    Raises:
        ExportError: with the operations that the runtime does not have.
    """
    operations = read_contents(content, None)["operations"]
    refused = refused_by(runtime, operations)
    if not refused:
        return
    if any(row["kind"] == WEIGHTS_OF_FLOATS for row in operations):
        raise ExportError(
            f"{runtime_versions(runtime).runtime} makes no floats of the weights of 4 bits in '{path}'. It lacks {', '.join(refused)}.",
            "operations of that runtime",
            "export as int8_int4_mixed, whose weights of 4 bits it multiplies integers with, or as int8",
        )
    raise ExportError(
        f"{runtime_versions(runtime).runtime} does not run '{path}'. It lacks {', '.join(refused)}.",
        "operations of that runtime",
        "replace the layers that they come from, or leave runtime= out for a device that has LiteRT",
    )
