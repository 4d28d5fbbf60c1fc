"""Keras models as graphs: names, traversal, axes, tracing."""
