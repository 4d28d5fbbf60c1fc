"""Distil, compress, export, verify and benchmark Keras models for phones and small boards."""
