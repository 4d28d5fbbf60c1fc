"""Compares a model with its translation."""
