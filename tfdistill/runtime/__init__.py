"""The only door to TFLite interpreters."""
