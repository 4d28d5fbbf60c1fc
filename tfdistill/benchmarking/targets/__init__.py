"""Targets that a file can be benchmarked on."""
