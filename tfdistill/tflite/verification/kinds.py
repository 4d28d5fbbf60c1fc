"""The kind of a .tflite file, found from what it holds: which default tolerances it is verified with."""


def variant_of(contents):
    """Returns the name of the variant that a file is: how its weights and activations are stored.

    Args:
        contents: Its `CensusRecord`.

    Returns:
        A key of `tfdistill.tflite.VARIANTS`. A file with float arithmetic and integer weights is "dynamic_range".
    """
    types = set(contents.dtypes)
    integers = types & {"int8", "uint8", "int4", "int2"}
    four_bits = any(kernel.bits == 4 for kernel in contents.kernels)
    if not contents.stray_floats(float_io=True) and (integers or "int16" in types):
        if four_bits and "int16" not in types:
            return "int8_int4_mixed"
        return "int16x8" if "int16" in types else "int8"
    if four_bits:
        return "int4_weights"
    constants = {tensor.dtype for tensor in contents.float_tensors if tensor.made_by == "constant"}
    if "float16" in constants:
        return "float16"
    return "dynamic_range" if integers else "float32"
