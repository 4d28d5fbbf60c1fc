"""Export to .tflite, look inside the file, and compare it with its Keras model."""

from tfdistill.lazy import lazily

# Public name -> module: each is imported at its first use, so that looking at a file does not wait for Keras.
_WHERE = {
    "VARIANTS": "variants",
    "CensusRecord": "contents",
    "ExportRecord": "export",
    "IndexComparison": "comparison",
    "OutputComparison": "comparison",
    "Tolerances": "variants",
    "Variant": "variants",
    "VerificationRecord": "verification",
    "census": "contents",
    "check_file": "trained",
    "export_tflite": "export",
    "verify": "verification",
}
__getattr__, __dir__, __all__ = lazily(__name__, _WHERE)
