"""Layers computed as an integer .tflite file computes them."""
