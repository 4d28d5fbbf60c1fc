"""Export to .tflite, look inside the file, and compare it with its Keras model."""

from tfdistill.utils.lazy import lazily

# Public name -> module: each is imported at its first use, so that looking at a file does not wait for Keras.
_WHERE = {
    "VARIANTS": "convert.variants",
    "CensusRecord": "inspection.census",
    "ExportRecord": "export",
    "IndexComparison": "verification.comparison",
    "OutputComparison": "verification.comparison",
    "Tolerances": "convert.variants",
    "Variant": "convert.variants",
    "VerificationRecord": "verification.verify",
    "census": "inspection.census",
    "check_preserved_structure": "inspection.preserved",
    "export_tflite": "export",
    "verify": "verification.verify",
}
__getattr__, __dir__, __all__ = lazily(__name__, _WHERE)
