"""Pruning: weights that are zero."""
