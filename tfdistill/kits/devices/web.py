"""Browsers with LiteRT.js."""

from tfdistill.kits.refusals import Obstacle, free_size
from tfdistill.runtime import litert_js

NAME = "web"


def refusals(description, report):
    """Lists inputs and outputs of types that LiteRT.js does not take, and those of any size."""
    found = []
    tensors = (*description["inputs"], *description["outputs"])
    if happened := litert_js.not_taken((t["name"], t["dtype"]) for t in tensors):
        quantized = all(t["scale"] is not None for t in tensors if t["dtype"] not in litert_js.TYPES)
        found.append(
            Obstacle(
                happened,
                fix="export it with io='uint8' or io='float32'; the file computes in the same integers" if quantized else "",
            )
        )
    found += [free_size(t["tensor"], t["free_axes"]) for t in description.layout["inputs"] if t["free_axes"]]
    return found


def made_files(description):
    """Returns the runtime, which the page loads from its own folder."""
    return litert_js.files()
