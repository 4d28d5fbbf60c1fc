"""Conversion of a Keras model to the bytes of a .tflite file, and what such a file holds."""
