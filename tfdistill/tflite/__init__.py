"""Export to .tflite, look inside the file, and compare it with its Keras model."""

import importlib

# Public name -> module: each is imported at its first use, so that looking at a file does not wait for Keras.
_WHERE = {
    "VARIANTS": "variants",
    "CensusRecord": "contents",
    "ExportRecord": "export",
    "OutputComparison": "verification",
    "Tolerances": "variants",
    "Variant": "variants",
    "VerificationRecord": "verification",
    "census": "contents",
    "export_tflite": "export",
    "verify": "verification",
}
__all__ = sorted(_WHERE)


def __getattr__(name):
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # No module of this package may be called like a public function: importing it would put the module in the function's place.
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__():
    return sorted({*globals(), *__all__})
