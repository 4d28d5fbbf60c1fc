"""Phones and tablets with Android: an app that runs the file with LiteRT's Kotlin API."""

import xml.sax.saxutils

NAME = "android"
# What LiteRT's Kotlin API writes into inputs and reads from outputs: arrays of these types alone.
_TYPES = ("float32", "int8", "uint8", "int32", "int64", "bool")


def refusals(description, report):
    """Lists inputs and outputs of types that LiteRT's Kotlin API does not take, and those of any size: pairs of what is wrong and what would do."""
    tensors = [*description["inputs"], *description["outputs"]]
    found, strange = [], [tensor for tensor in tensors if tensor["dtype"] not in _TYPES]
    if strange:
        named = ", ".join(f"'{tensor['name']}' {tensor['dtype']}" for tensor in strange)
        quantized = all(tensor["scale"] is not None for tensor in strange)
        fix = "export it with io='float32'; the file computes in the same integers" if quantized else ""
        found.append((f"LiteRT's Kotlin API takes inputs and outputs of {', '.join(_TYPES)}, and it has {named}", fix))
    # A compiled model has buffers of one size. Other axes than the batch are refused for every device.
    free = [tensor["tensor"] for tensor in description.layout["inputs"] if 0 in tensor["free_axes"]]
    if free:
        found.append((f"LiteRT's compiled models take one batch size, and that of '{free[0]}' is not fixed", "export it with batch_size=1"))
    return found


def made_files(description):
    """Returns the app's name, which is that of the model: dict of path -> bytes."""
    name = _resource_text(description["metadata"].get("name") or "tfdistill kit")
    text = f'<?xml version="1.0" encoding="utf-8"?>\n<resources>\n    <string name="app_name">{name}</string>\n</resources>\n'
    return {"app/src/main/res/values/app_name.xml": text.encode()}


def _resource_text(text):
    """Returns a text as a string resource of Android: quotes and backslashes are escaped, and so is what would refer to another resource."""
    plain = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split()) or "tfdistill kit"
    escaped = "".join(
        "\\" + letter if letter in "\\'\"" or (place == 0 and letter in "@?") else letter for place, letter in enumerate(plain)
    )
    return xml.sax.saxutils.escape(escaped)
