"""Compares what a file computes with its Keras model."""
