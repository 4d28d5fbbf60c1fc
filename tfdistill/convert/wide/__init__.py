"""Activations of 16 bits for some operations of an int8 file."""
