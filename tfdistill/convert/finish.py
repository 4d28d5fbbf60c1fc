"""The last edit of a .tflite file: what its result does not need goes, its tensors get short names, and equal parts stand once."""

from tfdistill.convert.packing import pack
from tfdistill.convert.short_names import shorten_names
from tfdistill.convert.waste import is_whole, remove_waste
from tfdistill.runtime.schema import schema


def finish(content):
    """Returns a smaller file that computes the same, to the bit.

    Args:
        content: The file as bytes, as the converter wrote it.

    Returns:
        The new file as bytes; the same bytes where the weights are too large to stand inside the format's tables.
    """
    classes = schema()
    model = classes.ModelT.InitFromObj(classes.Model.GetRootAs(content, 0))
    if not is_whole(model):
        return content
    remove_waste(model, classes)
    shorten_names(model)
    for code in model.operatorCodes:
        # Newer programs read the one field, OpenVINO and older runtimes the other, and not every program that writes files fills both.
        code.builtinCode = max(code.builtinCode or 0, code.deprecatedBuiltinCode or 0)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    return pack(model, classes)
