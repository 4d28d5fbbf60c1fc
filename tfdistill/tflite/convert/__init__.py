"""Conversion to the bytes of a .tflite file."""
